package cli

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/task/lm"
	"github.com/elastic-attention/workbench/pkg/task/lm/experiment"
)

type generateCmd struct {
	Model  string `arg:"" help:"Run of \"elastic train lm\": its folder, a part of its name, or latest; or the folder of a model." predictor:"path"`
	Prompt string `arg:"" optional:"" help:"Text to write on from."`

	Bytes       int     `help:"Bytes to write." default:"256"`
	Temperature float64 `help:"0 takes the most probable byte always; below 1 is careful, above 1 bold." default:"0.8"`
	TopK        int     `help:"Choose among so many bytes only; 0 for all." default:"0"`
	TopP        float64 `help:"Choose among the fewest bytes that have this probability together; 0 for all." default:"0"`
	Seed        uint64  `help:"Seed of the draws." default:"42"`
}

// Help is shown below the usage.
func (generateCmd) Help() string {
	return `Examples:
  elastic generate runs/lm-quick-... "ROMEO:"
  elastic generate runs/lm-quick-... "ROMEO:" --temperature 0     always the same
  elastic generate runs/lm-quick-... --bytes 2000 --top-p 0.9 > play.txt`
}

// Run writes text.
func (c generateCmd) Run(a *app) error {
	if c.Bytes < 1 { // to the sampling, 0 is its default
		return usageError{fmt.Errorf("--bytes is %d, want 1 or more", c.Bytes)}
	}
	sampling := lm.Sampling{Bytes: c.Bytes, Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, Seed: c.Seed}
	if err := sampling.Validate(); err != nil {
		return usageError{err}
	}
	var err error
	if c.Model, err = a.named(c.Model, noModel); err != nil {
		return err
	}
	if task := taskOf(c.Model); task != hub.TaskLM {
		return usageError{fmt.Errorf("%s holds no language model but one for %q: %s predict %s TEXT", c.Model, task, program(), quoted(c.Model))}
	}
	model, err := load(a, c.Model, lm.Load)
	if err != nil {
		return err
	}
	defer model.Finalize()
	show := func(piece string) string { return piece } // a file gets what was written
	if isTerminal(a.stdout) {
		show = data.Printable
	}
	fmt.Fprint(a.stdout, show(c.Prompt))
	_, err = model.Generate(a.ctx, c.Prompt, sampling, func(piece string) { fmt.Fprint(a.stdout, show(piece)) })
	fmt.Fprintln(a.stdout)
	return err
}

// language scores a language model.
func (c evalCmd) language(a *app) error {
	if c.Strict || c.Types != "" || c.Threshold != nil || c.TextColumn != "" || c.LabelColumn != "" || c.Adapt != "" {
		return usageError{fmt.Errorf("--strict, --types, --threshold, --text-column, --label-column and --adapt are not for language models, and %s is one", c.Model)}
	}
	config, err := corpusOf[experiment.Config](c.corpusFlags, c.Model)
	if err != nil {
		return err
	}
	corpus := config.Data
	switch {
	case c.File != "":
		corpus = experiment.Data{TestFile: c.File}
	case c.Data != "":
		corpus = experiment.Data{Name: c.Data}
	}
	text, err := part(a, c.corpusFlags, corpus.Load)
	if err != nil {
		return err
	}
	model, err := load(a, c.Model, lm.Load)
	if err != nil {
		return err
	}
	defer model.Finalize()
	score, err := model.Evaluate(a.ctx, text, evaluation(a.stderr))
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(struct {
			lm.Score
			BitsPerByte float64 `json:"bits_per_byte"`
			Perplexity  float64 `json:"perplexity"`
		}{score, score.BitsPerByte(), score.Perplexity()})
	}
	fmt.Fprintf(a.stdout, "%d bytes: loss %.*f nats, %.*f bits per byte, perplexity %.*f, accuracy %.*f\n",
		score.Bytes, c.Digits, score.Loss, c.Digits, score.BitsPerByte(), c.Digits, score.Perplexity(), c.Digits, score.Accuracy)
	return nil
}

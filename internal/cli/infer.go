package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

// exitFlags are those of commands that predict.
type exitFlags struct {
	Threshold *float64 `help:"Where a model with early exits leaves, in place of its own threshold: entropy below, confidence above, or patience. 0 takes all layers." placeholder:"N"`
}

// apply sets the threshold.
func (f exitFlags) apply(tagger *ner.Tagger) error {
	if f.Threshold == nil {
		return nil
	}
	if err := tagger.ExitAt(*f.Threshold); err != nil {
		return usageError{fmt.Errorf("--threshold: %w", err)}
	}
	return nil
}

// tellLayers says how many layers the predictions took.
func (a *app) tellLayers(tagger *ner.Tagger) {
	if layers := tagger.MeanLayers(); layers > 0 {
		fmt.Fprintf(a.stderr, "layers executed: %.2f of %d in the mean over batches\n", layers, tagger.Model.Config.Layers)
	}
}

// taskOf says what the model of a run or model folder is for: what the run's record says, else
// what the model's head is made for. A folder that tells neither is taken for a tagger's.
func taskOf(path string) string {
	if record, err := run.ReadRecord[json.RawMessage](path); err == nil {
		return record.Task
	}
	if dir, err := run.ModelFolder(path); err == nil {
		switch head, _ := pretrained.ReadHead(dir); head.Kind {
		case transformer.Sequence:
			return hub.TaskClassify
		case transformer.LM:
			return hub.TaskLM
		}
	}
	return hub.TaskNER
}

// load loads the model of a run or model folder.
func load[M any](a *app, path string, load func(compute.Backend, string) (M, error)) (m M, err error) {
	engine, _, err := a.open()
	if err != nil {
		return m, err
	}
	return load(engine, path)
}

type evalCmd struct {
	Model string `arg:"" help:"Run: its folder, a part of its name, or latest; or a model folder in Hugging Face layout." predictor:"path"`

	corpusFlags
	Adapt  string `help:"Let the model adapt to the data while it is scored, without labels: tent, eata, sar, pseudo_label, masked; or by the labels of what was scored before: labels. Or a JSON config, or a file that holds one." placeholder:"METHOD"`
	Digits int    `help:"Decimals of the report." default:"4"`
	JSON   bool   `help:"Print the report as JSON."`

	exitFlags `group:"Taggers"`
	Strict    bool `group:"Taggers" help:"Count only entities that are well-formed IOB2."`
}

// Help is shown below the usage.
func (evalCmd) Help() string {
	return `Examples:
  elastic eval runs/first                     the run's own test data
  elastic eval runs/first --split dev --strict
  elastic eval runs/first --file mine.iob2 --json
  elastic eval runs/first --file shifted.iob2 --adapt tent
  elastic eval runs/first --adapt '{"method": "sar", "rate": 0.01, "variables": ["*/norm/*"]}'
  elastic eval runs/first --adapt '{"method": "labels", "variables": ["/head/*"], "rate": 0.1}'
  elastic eval runs/intents --file mine.csv   a model of "elastic train classify"
  elastic eval runs/plays --file mine.txt     a model of "elastic train lm"

With --adapt each batch is predicted before the model learns from it (with "episodic": true after
it, and what was learned is forgotten), and no label is read but for the score. The method labels
learns the labels of each batch after the batch was predicted, so that no score knows its labels.`
}

// Run scores.
func (c evalCmd) Run(a *app) error {
	if c.Digits < 0 || c.Digits > 10 {
		return usageError{fmt.Errorf("--digits is %d, want 0 to 10", c.Digits)}
	}
	var err error
	if c.Model, err = a.named(c.Model, noModel); err != nil {
		return err
	}
	switch taskOf(c.Model) {
	case hub.TaskClassify:
		return c.classify(a)
	case hub.TaskLM:
		return c.language(a)
	}
	return c.ner(a)
}

// ner scores a tagger.
func (c evalCmd) ner(a *app) error {
	sentences, corpus, err := c.sentences(a, c.Model)
	if err != nil {
		return err
	}
	tagger, err := load(a, c.Model, ner.Load)
	if err != nil {
		return err
	}
	for _, typ := range corpus.Types {
		if known := tagger.Labels().Types(); c.Types != "" && !slices.Contains(known, typ) {
			return usageError{fmt.Errorf("--types: the model has no type %q, only %s", typ, strings.Join(known, ", "))}
		}
	}
	if err := c.exitFlags.apply(tagger); err != nil {
		return err
	}
	evaluate := tagger.Evaluate
	var adaptive *ner.Adaptive
	if c.Adapt != "" {
		config, err := adaptation(c.Adapt)
		if err == nil {
			adaptive, err = tagger.Adapt(config)
		}
		if err != nil {
			return usageError{err}
		}
		if c.Threshold != nil {
			return usageError{errors.New("--threshold and --adapt exclude each other: a model adapts with all its layers")}
		}
		evaluate = adaptive.Evaluate
	}
	report, err := evaluate(a.ctx, sentences, ner.Options{Strict: c.Strict}, evaluation(a.stderr))
	if err != nil {
		return err
	}
	var events []testtime.Event
	if adaptive != nil {
		events = adaptive.Events()
		a.tellEvents(events)
	}
	a.tellLayers(tagger)
	if report.Micro.Support == 0 {
		fmt.Fprintf(a.stderr, "the data has no entity of the types that count (%s), letter by letter; with --types all, others are an error that names them\n",
			strings.Join(typesThatCount(corpus, tagger), ", "))
	}
	if c.JSON {
		return a.printJSON(struct {
			ner.Report
			Adaptation []testtime.Event `json:"adaptation,omitempty"`
			MeanLayers float64          `json:"mean_layers,omitempty"`
		}{report, events, tagger.MeanLayers()})
	}
	fmt.Fprint(a.stdout, report.Text(c.Digits))
	return nil
}

// typesThatCount are the types that a corpus is read with, else those of the model.
func typesThatCount(corpus experiment.Data, tagger *ner.Tagger) []string {
	if corpus.Types != nil {
		return corpus.Types
	}
	return tagger.Labels().Types()
}

// adaptation reads a method's name, or a config in JSON or in a file.
func adaptation(text string) (testtime.Config, error) {
	if trimmed := strings.TrimSpace(text); slices.Contains(testtime.Methods(), trimmed) || !strings.ContainsAny(trimmed, "{./") {
		return testtime.Config{Method: trimmed}, nil
	}
	var config testtime.Config
	return config, jsonFlag("--adapt", text, &config)
}

// tellEvents says what an adaptation did.
func (a *app) tellEvents(events []testtime.Event) {
	if len(events) == 0 {
		return
	}
	moved, last := 0.0, events[0]
	for _, e := range events {
		last = e
		moved += e.Moved
		if e.Reset != "" {
			fmt.Fprintf(a.stderr, "batch %d: put back to the start: %s\n", e.Batch, e.Reset)
		}
		if e.Stopped { // nothing is measured in those that follow
			fmt.Fprintf(a.stderr, "batch %d: adaptation stopped, the rest is predicted by the model as it began\n", e.Batch)
			break
		}
	}
	fmt.Fprintf(a.stderr, "adapted to %d batches: entropy %.4f in the first, %.4f in the last; steps of length %.3g in all\n", last.Batch, events[0].Entropy, last.Entropy, moved)
}

type predictCmd struct {
	Model     string   `arg:"" help:"Run: its folder, a part of its name, or latest; or a model folder in Hugging Face layout." predictor:"path"`
	Text      []string `arg:"" optional:"" help:"Texts. Without any, each line of standard input is one."`
	JSON      bool     `help:"Print one JSON object a text: type, text, characters (code points) and score of each entity; or the class, its score and the next ones."`
	exitFlags `group:"Taggers"`
	Logits    bool `help:"Print logits in place of predictions, one JSON value a text, for comparison with other programs. Taggers print token ids too; words are what white space parts."`
}

// Help is shown below the usage.
func (predictCmd) Help() string {
	return `Examples:
  elastic predict runs/first "Angela Merkel met Tim Cook of Apple in Berlin."
  elastic predict runs/first --json < articles.txt > entities.jsonl
  elastic predict runs/intents "How do I get my money back?"

Texts are UTF-8; a byte-order mark before the first is dropped. Each line gives one result, also
an empty one.`
}

const (
	// predictBatch is how many lines of standard input are predicted at a time.
	predictBatch = 256
	// maxLine is the longest line of standard input.
	maxLine = 16 << 20
)

// emitter returns a function that predicts texts and prints what was found, and one to be called at
// the end.
func (c predictCmd) emitter(a *app) (emit func(texts []string) error, end func(), err error) {
	encoder := json.NewEncoder(a.stdout)
	task := taskOf(c.Model)
	if task == hub.TaskLM {
		return nil, nil, usageError{fmt.Errorf("%s is a language model: %s generate %s TEXT lets it write", c.Model, program(), quoted(c.Model))}
	}
	if task == hub.TaskClassify {
		if c.Threshold != nil {
			return nil, nil, usageError{fmt.Errorf("--threshold is for taggers, and %s is a classifier", c.Model)}
		}
		classifier, err := load(a, c.Model, classify.Load)
		return func(texts []string) error { return c.classify(a, encoder, classifier, texts) }, func() {}, err
	}
	tagger, err := load(a, c.Model, ner.Load)
	if err != nil {
		return nil, nil, err
	}
	emit = func(texts []string) error { return c.tag(a, encoder, tagger, texts) }
	return emit, func() { a.tellLayers(tagger) }, c.exitFlags.apply(tagger)
}

// tag finds entities.
func (c predictCmd) tag(a *app, encoder *json.Encoder, tagger *ner.Tagger, texts []string) error {
	if c.Logits {
		for _, text := range texts {
			logits, err := tagger.Logits(a.ctx, strings.Fields(text))
			if err != nil {
				return err
			}
			if err := encoder.Encode(logits); err != nil {
				return err
			}
		}
		return nil
	}
	documents, err := tagger.Predict(a.ctx, texts...)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if c.JSON {
			if err := encoder.Encode(d); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(a.stdout, ner.Mark(d.Text, d.Entities, isTerminal(a.stdout)))
	}
	return nil
}

// Run predicts.
func (c predictCmd) Run(a *app) error {
	var err error
	if c.Model, err = a.named(c.Model, noModel); err != nil {
		return err
	}
	emit, end, err := c.emitter(a)
	if err != nil {
		return err
	}
	defer end()
	if len(c.Text) > 0 {
		for _, text := range c.Text {
			if info, err := os.Stat(text); err == nil && info.Mode().IsRegular() {
				fmt.Fprintf(a.stderr, "%s is taken as a text; for what the file says: %s predict %s < %s\n", text, program(), quoted(c.Model), quoted(text))
			}
		}
		return emit(c.Text)
	}
	if isTerminalInput(a.stdin) {
		fmt.Fprintln(a.stderr, "Type a text and Enter; Ctrl-D ends.")
	}
	scanner := bufio.NewScanner(a.stdin)
	scanner.Buffer(nil, maxLine)
	var lines []string
	number := 0
	var bad error // comes after the results of the lines before it
	for bad == nil && scanner.Scan() {
		line := scanner.Text()
		if number++; number == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if !utf8.ValidString(line) {
			bad = fmt.Errorf("standard input, line %d: not UTF-8: convert the text first", number)
			break
		}
		lines = append(lines, line)
		if len(lines) == predictBatch || isTerminalInput(a.stdin) {
			if err := emit(lines); err != nil {
				return err
			}
			lines = lines[:0]
		}
	}
	switch err := scanner.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		bad = fmt.Errorf("standard input, line %d: longer than %d MiB: break it into lines", number+1, maxLine>>20)
	case err != nil:
		bad = fmt.Errorf("reading standard input: %w", err)
	}
	if len(lines) > 0 {
		if err := emit(lines); err != nil {
			return err
		}
	}
	return bad
}

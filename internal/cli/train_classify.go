package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

type trainClassifyCmd struct {
	Preset string `help:"Recipe: quick (2 epochs) or full (5 epochs)." enum:"${classifyPresets}" default:"${defaultClassifyPreset}"`

	Model       string `help:"Pretrained model of the BERT family: ${models}, owner/name on the Hugging Face hub, a folder, or scratch." placeholder:"NAME" predictor:"resource"`
	Data        string `help:"Corpus: ${classifyCorpora}, or synthetic." placeholder:"NAME" predictor:"resource"`
	Train       string `help:"Training file (.csv, or .tsv with tabs, with a header; plain or gzip), in place of --data." placeholder:"FILE" predictor:"path"`
	Dev         string `help:"Development file; the best epoch on it is kept." placeholder:"FILE" predictor:"path"`
	Test        string `help:"Test file." placeholder:"FILE" predictor:"path"`
	TextColumn  string `help:"Column of files that has the text. Default: text." placeholder:"NAME"`
	LabelColumn string `help:"Column of files that has the class. Default: label." placeholder:"NAME"`
	Limit       *int   `help:"Take only so many texts of each part, evenly spread over it." placeholder:"N"`
	TrainLimit  *int   `help:"The same for the training part only." placeholder:"N"`
	Pooling     string `help:"How a text's tokens become one vector: cls (the first), mean, or attention (a learned vector scores them). Default: the preset's, mean." placeholder:"KIND"`

	recipeFlags
}

// Help is shown below the usage.
func (trainClassifyCmd) Help() string {
	return `Examples:
  elastic train classify                                    MiniLM on questions to a bank, 77 intents
  elastic train classify --data clinc150 --epochs 1
  elastic train classify --train my.csv --dev my.dev.csv --test my.test.csv --text-column query --label-column intent
  elastic train classify --pooling cls                      as BERT does; transformers loads the result
  elastic train classify --pooling attention --attention '{"normalizer": "entmax"}'
  elastic train classify --loss '{"balanced": true, "mixup": 0.2}'   also: label_smoothing, focal_gamma, r_drop, penalties
  elastic train classify --model scratch --data synthetic   no download at all
  elastic train classify --range-test --plot rates.svg      which learning rates? --explain: what learns how?
  elastic train classify --resume                           after Ctrl-C, a crash or kill -9; with the flags of before

Without a network and without a mirror, a run with the preset's model and data falls back to a
small transformer from scratch on a synthetic corpus, and says so.`
}

func (c trainClassifyCmd) config() (experiment.Config, error) {
	config, err := experiment.Preset(c.Preset)
	if err != nil {
		return config, usageError{err}
	}
	if c.Model == experiment.Scratch && c.Data == "" && c.Train == "" || c.Data == experiment.Synthetic && c.Model == "" {
		c.Model, c.Data = experiment.Scratch, experiment.Synthetic
	}
	if c.Model == experiment.Scratch {
		config = config.Offline()
	}
	if c.Model != "" {
		config.Model = c.Model
	}
	switch {
	case c.Train != "":
		if c.Data != "" {
			return config, usageError{errors.New("--data and --train exclude each other")}
		}
		config.Data = experiment.Data{TrainFile: c.Train, DevFile: c.Dev, TestFile: c.Test, TextColumn: c.TextColumn, LabelColumn: c.LabelColumn}
	case c.Dev != "" || c.Test != "" || c.TextColumn != "" || c.LabelColumn != "":
		return config, usageError{errors.New("--dev, --test, --text-column and --label-column need --train")}
	case c.Data != "":
		config.Data.Name = c.Data
	}
	set(&config.Data.Limit, c.Limit)
	set(&config.Data.TrainLimit, c.TrainLimit)
	if c.Pooling != "" {
		config.Classifier.Pooling = c.Pooling
	}
	if config.RateFrom, err = c.takeRates(hub.TaskClassify, config.Model, &config.Train.Config); err != nil {
		return config, usageError{err}
	}
	if err := c.apply(&config.Train.Config, &config.Train.BatchSize, &config.Classifier.MaxLength, &config.Train.Noise, &config.Classifier.Attention); err != nil {
		return config, usageError{err}
	}
	if err := config.Validate(); err != nil {
		return config, usageError{err}
	}
	return config, nil
}

// preset reports whether model and data are left to the preset.
func (c trainClassifyCmd) preset() bool { return c.Model == "" && c.Data == "" && c.Train == "" }

// Run trains.
func (c trainClassifyCmd) Run(a *app) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	if c.previews() {
		options := experiment.Options{Client: &hub.Client{Progress: fetching(a.stderr)}}
		return preview(a, c.recipeFlags, config, options, experiment.Explain, experiment.RangeTest)
	}
	dir, err := c.dir(hub.TaskClassify, c.Preset)
	if err != nil {
		return err
	}
	if c.Resume, err = begin(c.recipeFlags, dir, hub.TaskClassify, config); err != nil {
		return err
	}
	record, recordErr := run.ReadRecord[experiment.Config](dir) // an error is experiment.Run's to explain
	resumes := c.Resume && recordErr == nil
	if resumes && c.preset() && record.Config.Model == experiment.Scratch {
		config = config.Offline() // the run fell back to it when it began
	}
	a.tellRateFrom(config.RateFrom)
	progress := &trainProgress{w: a.stderr, started: time.Now()}
	engine, choice, err := a.open()
	if err != nil {
		return err
	}
	if resumes {
		a.tellBackend(record.Backend, choice)
	}
	options := experiment.Options{
		Dir: dir, Resume: c.Resume, Client: &hub.Client{Progress: fetching(a.stderr)}, Backend: choice,
		Loaded: func(l experiment.Loaded) {
			a.tellLoaded(l, config.Model, dataName(config.Data.Name, config.Data.TrainFile), "texts", dir, c.Resume)
		},
		Step: progress.step, Event: progress.event,
		Epoch: func(epoch int, dev eval.Classification) {
			progress.pause()
			fmt.Fprintf(a.stderr, "epoch %d: dev accuracy %.4f  macro F1 %.4f  ECE %.4f\n", epoch, dev.Accuracy, dev.Macro.F1, dev.ECE)
		},
		Progress: evaluation(a.stderr),
	}
	result, err := experiment.Run(a.ctx, engine, config, options)
	if errors.Is(err, hub.ErrUnavailable) && c.preset() {
		fmt.Fprintf(a.stderr, "\n%v\n\nFALLING BACK: neither network nor mirror has what the preset needs. Training a small transformer\nfrom scratch on a synthetic corpus instead; its scores say nothing about real text.\n\n", err)
		config = config.Offline()
		result, err = experiment.Run(a.ctx, engine, config, options)
	}
	progress.pause()
	progress.bar.finish()
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(result)
	}
	fmt.Fprintf(a.stdout, "\n%s\n", result.Text())
	example := "How do I get my money back?"
	if len(result.Samples) > 0 {
		fmt.Fprintln(a.stdout, "From the test data:")
		for _, s := range result.Samples {
			fmt.Fprintf(a.stdout, "  %s (gold: %s)\n", predictionLine(s.Prediction), s.Gold)
		}
		fmt.Fprintln(a.stdout)
		example = result.Samples[0].Text
	}
	fmt.Fprintf(a.stdout, "%d updates, compilations: %d, %s in all. ", result.Updates, result.Compilations, (time.Duration(result.Seconds) * time.Second))
	if result.BestEpoch > 0 {
		fmt.Fprintf(a.stdout, "The weights are those of epoch %d, the best on dev.", result.BestEpoch)
	}
	fmt.Fprintf(a.stdout, `
Run folder: %[1]s
  model/         the classifier; with attention and pooling as BERT's, transformers loads it too
  run.json       config, seed, checksums, versions
  journal.jsonl  what happened, for "elastic runs" and "elastic ui"
Try next:
  %[2]s predict %[1]s %[3]q
  %[2]s explain %[1]s %[3]q
  %[2]s eval %[1]s --split dev
`, dir, program(), example)
	return nil
}

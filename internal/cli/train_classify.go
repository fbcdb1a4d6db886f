package cli

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

type trainClassifyCmd struct {
	Preset string `help:"Recipe: quick (2 epochs) or full (5 epochs)." enum:"${classifyPresets}" default:"${defaultClassifyPreset}"`

	baseFlags   `kong:"set='family= of the BERT family',set='data=Corpus: ${classifyCorpora}',set='train=Training file (.csv, or .tsv with tabs, with a header; plain or gzip), in place of --data.',set='kind=file',set='limit=so many texts of each part, evenly spread over it'"`
	TrainLimit  *int   `help:"The same for the training part only." placeholder:"N"`
	TextColumn  string `help:"Column of files that has the text. Default: text." placeholder:"NAME"`
	LabelColumn string `help:"Column of files that has the class. Default: label." placeholder:"NAME"`
	Pooling     string `help:"How a text's tokens become one vector: cls (the first), mean, or attention (a learned vector scores them). Default: the preset's, mean." placeholder:"KIND"`

	teacherFlags
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
  elastic train classify --teacher runs/large --alpha 0.7    learn from another run's model too
  elastic train classify --model scratch --data synthetic   no download at all
  elastic train classify --range-test --plot rates.svg      which learning rates? --explain: what learns how?
  elastic train classify --resume                           after Ctrl-C, a crash or kill -9; with the flags of before

Without a network and without a mirror, a run with the preset's model and data falls back to a
small transformer from scratch on a synthetic corpus, and says so.`
}

func (c trainClassifyCmd) config() (experiment.Config, error) {
	config, err := experiment.Preset(c.Preset)
	if err != nil {
		return config, err
	}
	if c.settle() {
		config = config.Offline()
	}
	set(&config.Model, c.Model)
	files, err := c.files()
	switch {
	case err != nil:
		return config, err
	case files:
		config.Data = experiment.Data{TrainFile: c.Train, DevFile: c.Dev, TestFile: c.Test, TextColumn: c.TextColumn, LabelColumn: c.LabelColumn}
	case c.TextColumn != "" || c.LabelColumn != "":
		return config, errors.New("--text-column and --label-column need --train")
	}
	set(&config.Data.Name, c.Data)
	given(&config.Data.Limit, c.Limit)
	given(&config.Data.TrainLimit, c.TrainLimit)
	set(&config.Classifier.Pooling, c.Pooling)
	training := &config.Train
	if training.Distill, err = c.distill(); err != nil {
		return config, err
	}
	config.RateFrom, err = c.apply(hub.TaskClassify, config.Model, recipe{&training.Config, &training.BatchSize, &config.Classifier.MaxLength, &training.Noise, &config.Classifier.Attention})
	if err != nil {
		return config, err
	}
	return config, config.Validate()
}

// Run trains.
func (c trainClassifyCmd) Run(a *app) error {
	if err := cmp.Or(c.baseFlags.find(a), c.teacherFlags.find(a, hub.TaskClassify), c.recipeFlags.find(a, hub.TaskClassify)); err != nil {
		return err
	}
	config, err := c.config()
	if err != nil {
		return usageError{err}
	}
	var result experiment.Result
	t := training[experiment.Config, eval.Classification]{
		task: hub.TaskClassify, preset: c.Preset, data: dataName(config.Data.Name, config.Data.TrainFile), items: "texts", rateFrom: config.RateFrom,
		run: keep(experiment.Run, &result), explain: experiment.Explain, rangeTest: experiment.RangeTest,
		epoch: func(dev eval.Classification) string {
			return fmt.Sprintf("accuracy %.4f  macro F1 %.4f  ECE %.4f", dev.Accuracy, dev.Macro.F1, dev.ECE)
		},
		samples: func() string {
			var lines []string
			for _, s := range result.Samples {
				lines = append(lines, fmt.Sprintf("%s (gold: %s)", predictionLine(s.Prediction), s.Gold))
			}
			return fromTestData(lines)
		},
		draw: func(dir string) error {
			var texts []string
			for _, s := range result.Samples {
				texts = append(texts, s.Text)
			}
			return a.keepAttention(dir, result.Classifier, texts)
		},
		model: func() string {
			return "the classifier; with attention and pooling as BERT's, transformers loads it too"
		},
		next: func() []string {
			example := "How do I get my money back?"
			if len(result.Samples) > 0 {
				example = result.Samples[0].Text
			}
			next := []string{"predict %s " + quoted(example), "explain %s " + quoted(example)}
			if result.Dev != nil {
				next = append(next, "eval %s --split dev")
			}
			return next
		},
	}
	if c.preset() {
		t.offline = func() (experiment.Config, error) {
			c.Model, c.Data = run.Scratch, task.Synthetic
			return c.config()
		}
	}
	return runTask(a, c.recipeFlags, config, t)
}

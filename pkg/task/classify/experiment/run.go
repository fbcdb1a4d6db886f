package experiment

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

// Options is what a run needs beside its config.
type Options = task.Options[eval.Classification]

// Loaded says what a run is about to work on.
type Loaded = run.Loaded

// Record is the content of run.json.
type Record = run.Record[Config]

// Result is what a run found.
type Result struct {
	task.Result[eval.Classification]
	// Classifier is the trained classifier.
	Classifier *classify.Classifier `json:"-"`
	// Samples are some of the test data with what was predicted for them.
	Samples []Sample `json:"samples,omitempty"`
}

// Sample is a text of the test data with what was predicted for it.
type Sample struct {
	classify.Prediction
	Gold string `json:"gold"`
}

// Run makes an experiment from start to end; see [task.Experiment.Run].
func Run(ctx context.Context, backend compute.Backend, config Config, options Options) (result Result, err error) {
	err = config.experiment(backend, &result).Run(ctx, options, &result)
	return result, err
}

// RangeTest tries learning rates before an experiment; see [task.Experiment.RangeTest].
func RangeTest(ctx context.Context, backend compute.Backend, config Config, options Options, r train.RateRange) (train.RateCurve, error) {
	return config.experiment(backend, new(Result)).RangeTest(ctx, options, r)
}

// Explain returns a table of what holds for which parameters; see [task.Experiment.Explain].
func Explain(ctx context.Context, backend compute.Backend, config Config, options Options) (string, error) {
	return config.experiment(backend, new(Result)).Explain(ctx, options)
}

type (
	experiment = task.Experiment[Config, data.Text, eval.Classification]
	trained    = task.Model[data.Text, eval.Classification]
)

// experiment is what only this task has.
func (c Config) experiment(backend compute.Backend, result *Result) experiment {
	as := func(classifier *classify.Classifier) trained {
		result.Classifier = classifier
		return model{classifier, c, result}
	}
	return experiment{
		Task: hub.TaskClassify, Config: c, Corpus: c.corpus,
		New: func(ctx context.Context, client *hub.Client, corpus Corpus) (trained, map[string]string, error) {
			classifier, sums, err := task.Start(ctx, client, c.Model,
				func(dir string) (*classify.Classifier, error) {
					return classify.New(backend, dir, corpus.Labels, c.Classifier, c.Train.Seed)
				},
				func(dir string) (*classify.Classifier, error) {
					return classify.NewFromScratch(backend, dir, task.Scratch(64), corpus.Labels, c.Classifier, c.Train.Seed)
				})
			return as(classifier), sums, err
		},
		Load: func(dir string) (trained, error) {
			classifier, err := classify.Load(backend, dir)
			return as(classifier), err
		},
	}
}

// corpus loads the data and its classes.
func (c Config) corpus(ctx context.Context, client *hub.Client) (Corpus, error) {
	corpus, err := c.Data.Load(ctx, client)
	if err == nil {
		err = c.Train.Distill.Note(corpus.Checksums)
	}
	if err != nil {
		return corpus, err
	}
	if corpus.Labels, err = classify.Labels(slices.Concat(corpus.Train, corpus.Dev, corpus.Test)); err != nil {
		return corpus, err
	}
	if len(corpus.Labels) < 2 {
		return corpus, fmt.Errorf("the data has one class only, %q: there is nothing to learn", corpus.Labels)
	}
	learned, err := classify.Labels(corpus.Train)
	unseen := slices.DeleteFunc(slices.Clone(corpus.Labels), func(label string) bool { return slices.Contains(learned, label) })
	if len(unseen) > 0 { // a misspelt label, often
		corpus.Say(fmt.Sprintf("no training text has the class %q, which dev or test has: it cannot be learned", unseen))
	}
	return corpus, err
}

// model is a classifier as experiments see it.
type model struct {
	*classify.Classifier
	config Config
	result *Result
}

func (m model) Size() (parameters, trained int) { return m.Model.Parameters(), 0 }

func (m model) Train(ctx context.Context, train, dev []data.Text, options classify.TrainOptions) (train.Result, error) {
	return m.Classifier.Train(ctx, train, dev, m.config.Train, options)
}

func (m model) RangeTest(ctx context.Context, train []data.Text, r train.RateRange) (train.RateCurve, error) {
	return m.Classifier.RangeTest(ctx, train, m.config.Train, r)
}

func (m model) Explain() (string, error) { return m.ExplainTraining(m.config.Train) }

func (m model) Finish(ctx context.Context, corpus Corpus) (err error) {
	m.result.Samples, err = samples(ctx, m.Classifier, corpus.Test)
	return err
}

// Text writes the scores: for each part a table of its classes and a summary.
func (r Result) Text() string {
	return r.Describe(func(name string, report eval.Classification) string {
		return fmt.Sprintf("%s (%d texts)\n\n%s\n%s\n", name, report.Items, report.Text(4), report.Summary())
	})
}

// samples predicts some texts of the test data, evenly spread over it.
func samples(ctx context.Context, classifier *classify.Classifier, test []data.Text) ([]Sample, error) {
	const most = 3
	chosen := data.Spread(test, most)
	texts := make([]string, len(chosen))
	for i, t := range chosen {
		texts[i] = t.Text
	}
	predictions, err := classifier.Predict(ctx, texts...) // together: a shape that evaluation has compiled
	if err != nil {
		return nil, fmt.Errorf("predicting samples: %w", err)
	}
	list := make([]Sample, len(chosen))
	for i, p := range predictions {
		list[i] = Sample{Prediction: p, Gold: chosen[i].Label}
	}
	return list, nil
}

package experiment

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
	"github.com/elastic-attention/workbench/pkg/task/lm"
)

// Options is what a run needs beside its config.
type Options = task.Options[lm.Score]

// Loaded says what a run is about to work on; sizes are in bytes.
type Loaded = run.Loaded

// Record is the content of run.json.
type Record = run.Record[Config]

// Result is what a run found.
type Result struct {
	task.Result[lm.Score]
	// Sample is what the model writes on its own.
	Sample string `json:"sample"`
	// Model is the trained model.
	Model *lm.Model `json:"-"`
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
	experiment = task.Experiment[Config, byte, lm.Score]
	trained    = task.Model[byte, lm.Score]
)

// experiment is what only this task has.
func (c Config) experiment(backend compute.Backend, result *Result) experiment {
	as := func(m *lm.Model) trained {
		result.Model = m
		return model{m, c, result}
	}
	return experiment{
		Task: hub.TaskLM, Config: c, Corpus: c.Data.Load,
		New: func(_ context.Context, _ *hub.Client, corpus Corpus) (trained, map[string]string, error) {
			if text := len(corpus.Train); c.Model.MaxPositions > text { // before there is memory for it
				return nil, nil, fmt.Errorf("model.max_positions is %d bytes, want at most the %d of the text to train on", c.Model.MaxPositions, text)
			}
			m, err := lm.New(backend, c.Model, c.Train.Seed)
			return as(m), map[string]string{"model": "fresh weights"}, err
		},
		Load: func(dir string) (trained, error) {
			m, err := lm.Load(backend, dir)
			return as(m), err
		},
	}
}

// model is a language model as experiments see it.
type model struct {
	*lm.Model
	config Config
	result *Result
}

func (m model) Size() (parameters, trained int) { return m.Transformer.Parameters(), 0 }

func (m model) Train(ctx context.Context, train, dev []byte, options lm.TrainOptions) (train.Result, error) {
	return m.Model.Train(ctx, train, dev, m.config.Train, options)
}

func (m model) RangeTest(ctx context.Context, train []byte, r train.RateRange) (train.RateCurve, error) {
	return m.Model.RangeTest(ctx, train, m.config.Train, r)
}

func (m model) Explain() (string, error) { return m.ExplainTraining(m.config.Train) }

func (m model) Finish(ctx context.Context, _ Corpus) (err error) {
	m.result.Sample, err = m.Generate(ctx, "\n", lm.Sampling{Temperature: 0.8, Seed: m.config.Train.Seed}, nil)
	return err
}

// Text writes the scores.
func (r Result) Text() string {
	return fmt.Sprintf("%-6s %9s %8s %13s %11s %9s\n", "", "bytes", "loss", "bits per byte", "perplexity", "accuracy") +
		r.Describe(func(name string, s lm.Score) string {
			return fmt.Sprintf("%-6s %9d %8.4f %13.4f %11.4f %9.4f\n", name, s.Bytes, s.Loss, s.BitsPerByte(), s.Perplexity(), s.Accuracy)
		})
}

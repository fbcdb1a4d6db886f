package lm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
)

// TrainConfig is a recipe for training a language model.
type TrainConfig struct {
	train.Config
	// BatchSize is the number of windows in a micro-batch; 0 means 16.
	BatchSize int `json:"batch_size,omitempty"`
	// Length is the length of a window in bytes; 0 means the model's context.
	Length int `json:"length,omitempty"`
	// Noise drops parts of the model while training.
	Noise run.Noise `json:"noise,omitzero"`
}

// Validate reports all that is wrong with c.
func (c TrainConfig) Validate() error {
	problems := []error{c.Config.Validate(), c.Noise.Validate()}
	refuse := func(wrong bool, field, why string) {
		if wrong {
			problems = append(problems, fmt.Errorf("%s has no use in a language model: %s", field, why))
		}
	}
	refuse(len(c.Loss.ClassWeights) > 0 || c.Loss.Balanced, "loss.class_weights or loss.balanced", "its classes are bytes")
	refuse(c.Loss.Mixup != 0, "loss.mixup", "two texts have no bytes in common that could be mixed")
	refuse(c.Noise.WordDropout != 0, "noise.word_dropout", "its vocabulary has no token that stands for none")
	return errors.Join(problems...)
}

func (c TrainConfig) withDefaults(context int) TrainConfig {
	if c.BatchSize == 0 {
		c.BatchSize = 16
	}
	if c.Length == 0 {
		c.Length = context
	}
	return c
}

// TrainOptions is what a training run needs beside its recipe and data. Earlier and Custom are of no use
// to a language model, which has no objectives of adaptation.
type TrainOptions = run.TrainOptions[Score]

// Train fits the model to a text. An epoch goes through the text once, in windows of Length bytes
// that begin at another place each time, in an order of its own. After each epoch the model is
// scored on dev, which may be empty; the least loss decides which epoch is best. Cancelling ctx
// saves a checkpoint that a later call resumes, if there is a run folder, and returns an error
// that wraps [train.ErrInterrupted].
func (m *Model) Train(ctx context.Context, text, dev []byte, config TrainConfig, options TrainOptions) (train.Result, error) {
	task, data, err := m.prepare(text, config)
	if err != nil {
		return train.Result{}, err
	}
	if options.Plan != nil {
		options.Plan(batch.Stats{Batches: data.Steps(), Shapes: 1})
	}
	return run.Fit(ctx, m.backend, task, data, config.Config, run.Fitting[byte, Score]{
		TrainOptions: options, Files: m.Files, Load: func(dir string) error { return run.Take(m.Transformer, dir) },
		Dev: dev, Evaluate: m.Evaluate, Rank: func(s Score) float64 { return -s.Loss },
	})
}

// RangeTest tries learning rates on a text; see [train.RangeTest]. The model is afterwards what it was.
func (m *Model) RangeTest(ctx context.Context, text []byte, config TrainConfig, r train.RateRange) (train.RateCurve, error) {
	task, data, err := m.prepare(text, config)
	if err != nil {
		return train.RateCurve{}, err
	}
	return train.RangeTest(ctx, m.backend, task, data, config.Config, r)
}

// ExplainTraining returns a table of what holds for which parameters under a recipe; see
// [train.Trainer.Explain].
func (m *Model) ExplainTraining(config TrainConfig) (string, error) {
	return run.Explain(m.backend, task{m: m.Transformer, config: m.Transformer.Config, loss: config.Loss}, config.Config)
}

// Repeat prepares as many runs of a recipe on a text, each with fresh weights by its own seed. After
// each the model has its weights.
func (m *Model) Repeat(text []byte, config TrainConfig) (*run.Repeated, error) {
	task, data, err := m.prepare(text, config)
	if err != nil {
		return nil, err
	}
	fresh := func(seed uint64) (*transformer.Model, error) { return transformer.New(m.Transformer.Config, seed) }
	return run.NewRepeated(m.backend, task, m.Transformer, fresh, data, config.Config)
}

// task is a language model as the training loop sees it.
type task struct {
	m         *transformer.Model
	config    transformer.Config // of m, with noise
	loss      loss.Config
	criterion loss.Criterion
}

// prepare returns what trains the model on a text, and the text as batches.
func (m *Model) prepare(text []byte, config TrainConfig) (task, windows, error) {
	if err := config.Validate(); err != nil {
		return task{}, windows{}, fmt.Errorf("training config: %w", err)
	}
	noisy, err := config.Noise.Config(m.Transformer.Config, nil)
	if err != nil {
		return task{}, windows{}, fmt.Errorf("training config: %w", err)
	}
	criterion, err := config.Loss.Criterion(nil, nil)
	if err != nil {
		return task{}, windows{}, fmt.Errorf("training config: %w", err)
	}
	data, err := m.windows(text, config)
	return task{m: m.Transformer, config: noisy, loss: config.Loss, criterion: criterion}, data, err
}

func (t task) Store() *model.Store { return t.m.Store }

func (t task) Variables() []elastic.Variable { return t.m.Config.Variables() }

// Watched implements [train.Watcher].
func (t task) Watched() []string { return t.m.Config.HeadScalars(t.Variables()) }

func (t task) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	passes := make([]transformer.Output, t.criterion.Passes())
	for i := range passes {
		passes[i] = t.config.Encode(w, transformer.Inputs{IDs: inputs[0]}, drop)
	}
	sum, count = t.config.Loss(w, t.criterion, labels[0], drop, passes...)
	if penalty := t.loss.Penalty(w, t.Variables()); penalty != nil { // the loop divides by the count
		sum = graph.Add(sum, graph.Mul(penalty, count))
	}
	return sum, count
}

// LossConfig implements [train.Measured].
func (t task) LossConfig() loss.Config { return t.loss }

// windows is a text as training data.
type windows struct {
	text         []byte
	size, length int
	seed         uint64
}

func (m *Model) windows(text []byte, config TrainConfig) (windows, error) {
	config = config.withDefaults(m.Context())
	if config.Length < 1 || config.Length > m.Context() {
		return windows{}, fmt.Errorf("length is %d bytes, want 1 to %d, the context of the model", config.Length, m.Context())
	}
	if config.BatchSize < 1 {
		return windows{}, fmt.Errorf("batch_size is %d, want at least 1", config.BatchSize)
	}
	w := windows{text: text, size: config.BatchSize, length: config.Length, seed: config.Seed}
	if w.Steps() < 1 {
		return windows{}, fmt.Errorf("the text has %d bytes, want at least %d: a batch of %d windows of %d bytes, and what follows them",
			len(text), (w.size+1)*w.length+1, w.size, w.length)
	}
	return w, nil
}

// Steps leaves one window out, so that windows may begin at any of its bytes, and what does not
// fill a batch.
func (w windows) Steps() int { return ((len(w.text)-1)/w.length - 1) / w.size }

func (w windows) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		random := rand.New(rand.NewPCG(w.seed, uint64(epoch)))
		first := random.IntN(w.length)
		order := random.Perm((len(w.text)-1)/w.length - 1)
		for step := skip; step < w.Steps(); step++ {
			inputs, labels := make([]int32, 0, w.size*w.length), make([]int32, 0, w.size*w.length)
			for _, at := range order[step*w.size : (step+1)*w.size] {
				inputs = appendBytes(inputs, w.text[first+at*w.length:][:w.length])
				labels = appendBytes(labels, w.text[first+at*w.length+1:][:w.length])
			}
			tensor := func(ids []int32) []*tensors.Tensor {
				return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(ids, w.size, w.length)}
			}
			if !yield(mltrain.Batch{Inputs: tensor(inputs), Labels: tensor(labels)}, nil) {
				return
			}
		}
	}
}

func appendBytes(ids []int32, text []byte) []int32 {
	for _, b := range text {
		ids = append(ids, int32(b))
	}
	return ids
}

package run

import (
	"context"
	"fmt"
	"iter"

	"github.com/gomlx/compute"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Repeated trains one model again and again, each time from the start of its own seed. The
// training step is compiled once for all runs, which is most of the time of a short one.
type Repeated struct {
	model   *transformer.Model
	start   func(seed uint64) (*transformer.Model, error)
	data    train.Data
	epochs  int
	trainer *train.Trainer
}

// NewRepeated prepares runs of a recipe. Start makes the model that each begins with: see
// [Pretrained]. Data has as many epochs as all runs together, so that their batches have the
// same few shapes: run i, counted from 0, takes those from i·Epochs on.
func NewRepeated(backend compute.Backend, task train.Task, m *transformer.Model, start func(seed uint64) (*transformer.Model, error), data train.Data, config train.Config) (*Repeated, error) {
	trainer, err := train.New(backend, task, config)
	if err != nil {
		return nil, err
	}
	return &Repeated{model: m, start: start, data: data, epochs: max(config.Epochs, 1), trainer: trainer}, nil
}

// Train makes run i. The seed decides about fresh weights and dropout, and i about the order of
// the data. It ends with the last weights. The journal, which may be nil, records each update.
func (r *Repeated) Train(ctx context.Context, i int, seed uint64, journal *Journal) (train.Result, error) {
	start, err := r.start(seed)
	if err == nil {
		err = Copy(r.model, start)
	}
	if err != nil {
		return train.Result{}, fmt.Errorf("beginning anew: %w", err)
	}
	if err := r.trainer.Restart(seed); err != nil {
		return train.Result{}, err
	}
	return r.trainer.Run(ctx, later{r.data, i * r.epochs}, train.Hooks{Step: journal.Step})
}

// Pretrained returns a function that makes a model like m of the pretrained one in a folder. What
// that lacks, the head first of all, is fresh, by the seed.
func Pretrained(m *transformer.Model, dir string) func(seed uint64) (*transformer.Model, error) {
	return func(seed uint64) (*transformer.Model, error) {
		head, attention := m.Config.Head, m.Config.Attention
		start, _, err := pretrained.Load(dir, pretrained.Options{Head: &head, Attention: &attention, Seed: seed})
		return start, err
	}
}

// Finalize frees what was compiled. The model stays.
func (r *Repeated) Finalize() error { return r.trainer.Finalize() }

// later is data from an epoch on.
type later struct {
	train.Data
	first int
}

func (l later) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return l.Data.Batches(l.first+epoch, skip)
}

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
	dir     string
	data    train.Data
	epochs  int
	trainer *train.Trainer
}

// NewRepeated prepares runs of a recipe. Dir is the folder of the pretrained model that each
// begins with. Data has as many epochs as all runs together, so that their batches have the
// same few shapes: run i, counted from 0, takes those from i·Epochs on.
func NewRepeated(backend compute.Backend, task train.Task, m *transformer.Model, dir string, data train.Data, config train.Config) (*Repeated, error) {
	trainer, err := train.New(backend, task, config)
	if err != nil {
		return nil, err
	}
	return &Repeated{model: m, dir: dir, data: data, epochs: max(config.Epochs, 1), trainer: trainer}, nil
}

// Train makes run i. The seed decides about fresh weights and dropout, and i about the order of
// the data. It ends with the last weights. The journal, which may be nil, records each update.
func (r *Repeated) Train(ctx context.Context, i int, seed uint64, journal *Journal) (train.Result, error) {
	head, attention := r.model.Config.Head, r.model.Config.Attention
	start, _, err := pretrained.Load(r.dir, pretrained.Options{Head: &head, Attention: &attention, Seed: seed})
	if err != nil {
		return train.Result{}, fmt.Errorf("loading pretrained model: %w", err)
	}
	if err := Copy(r.model, start); err != nil {
		return train.Result{}, fmt.Errorf("pretrained model: %w", err)
	}
	if err := r.trainer.Restart(seed); err != nil {
		return train.Result{}, err
	}
	return r.trainer.Run(ctx, later{r.data, i * r.epochs}, train.Hooks{Step: journal.Step})
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

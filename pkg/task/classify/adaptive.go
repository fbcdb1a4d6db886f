package classify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Adaptive is a classifier that adapts to the texts that it reads, without labels: each batch
// is predicted, and then learned from; see package testtime. Its methods are those of
// [Classifier], one call at a time.
type Adaptive struct{ *Classifier }

// adaptation is what a classifier that adapts has more than others.
type adaptation struct {
	adapter *testtime.Adapter
	events  []testtime.Event
}

// Adapt returns a classifier that begins as c and adapts to what it reads. It has variables of
// its own: c stays as it is. The method "memo" is refused: it wants a batch to be augmentations
// of one text, and would give all texts of a batch one class.
func (c *Classifier) Adapt(config testtime.Config) (*Adaptive, error) {
	if config.Method == "memo" {
		return nil, errors.New("adapting a classifier: memo wants augmentations of one input, which a classifier does not make; want tent, eata or sar")
	}
	store := model.NewStore()
	for _, v := range c.Model.Config.Variables() {
		value, err := c.Model.Store.GetVariable(v.Path).Value()
		if err == nil {
			value, err = value.LocalClone()
		}
		if err == nil {
			_, err = store.CreateVariable(v.Path, value)
		}
		if err != nil {
			return nil, fmt.Errorf("copying %s: %w", v.Path, err)
		}
	}
	m := &transformer.Model{Config: c.Model.Config, Store: store}
	adapter, err := testtime.New(c.backend, stream{m}, config)
	if err != nil {
		return nil, err
	}
	copied := &Classifier{Model: m, Tokenizer: c.Tokenizer, backend: c.backend, config: c.config, assets: c.assets, adaptation: adaptation{adapter: adapter}}
	return &Adaptive{copied}, copied.prepare()
}

// Reset puts the classifier back to where it began, to the last bit, and forgets the events.
func (a *Adaptive) Reset() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = nil
	return a.adapter.Reset()
}

// Events lists what was done since the last reset, a batch each.
func (a *Adaptive) Events() []testtime.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

// adapt predicts a batch and then adapts to it.
func (c *Classifier) adapt(ctx context.Context, b batch.Batch) ([]float32, error) {
	counts := make([]bool, b.Size)
	for row := range b.Rows {
		counts[row] = true
	}
	inputs := b.GoMLX().Inputs
	logits, event, err := c.adapter.Step(ctx, inputs[0], inputs[1], inputs[2], tensors.FromFlatDataAndDimensions(counts, len(counts)))
	for _, input := range inputs {
		input.MustFinalizeAll()
	}
	if err == nil {
		c.events = append(c.events, event)
	}
	return logits, err
}

// stream is a classifier's model as test-time adaptation sees it.
type stream struct{ m *transformer.Model }

func (s stream) Store() *model.Store { return s.m.Store }

func (s stream) Variables() []elastic.Variable { return s.m.Config.Variables() }

func (s stream) Classes() int { return len(s.m.Config.Head.Labels) }

func (s stream) Logits(w elastic.Weights, in []*graph.Node) (logits, counts *graph.Node) {
	return s.m.Config.Logits(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]}, nil), in[3]
}

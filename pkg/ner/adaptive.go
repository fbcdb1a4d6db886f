package ner

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
	"github.com/elastic-attention/workbench/pkg/run"
)

// Adaptive is a tagger that adapts to the texts that it tags, without labels: each batch
// is predicted, and then learned from; see package testtime. Its methods are those of
// [Tagger], one call at a time.
type Adaptive struct{ *Tagger }

// Adapt returns a tagger that begins as t and adapts to what it reads. It has variables of
// its own: t stays as it is. What counts for the objective are the first pieces of words.
// A model with early exits adapts, and predicts, with all its layers.
// The method "memo" is refused: it wants a batch to be augmentations of one input, and would
// take the words of different sentences for such and give them all one tag.
func (t *Tagger) Adapt(config testtime.Config) (*Adaptive, error) {
	if config.Method == "memo" {
		return nil, errors.New("adapting a tagger: memo wants augmentations of one input, which a tagger does not make; want tent, eata or sar")
	}
	m, err := t.net.copied()
	if err != nil {
		return nil, err
	}
	copied := &Tagger{Model: m.Model, net: m, Tokenizer: t.Tokenizer, backend: t.backend, labels: t.labels, config: t.config, assets: t.assets, compiled: map[graph.GraphId]bool{}}
	adapter, err := testtime.New(t.backend, stream{m}, config)
	if err != nil {
		return nil, err
	}
	copied.adapter = adapter
	return &Adaptive{copied}, nil
}

// Reset puts the tagger back to where it began, to the last bit, and forgets the events.
func (a *Adaptive) Reset() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = nil
	return a.adapter.Reset()
}

// Restart begins anew with the present weights of a tagger of the same model, as [Tagger.Adapt]
// would, without compiling anything again.
func (a *Adaptive) Restart(from *Tagger) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := run.Copy(a.Model, from.Model); err != nil {
		return fmt.Errorf("adapting anew: %w", err)
	}
	a.events = nil
	return a.adapter.Restart()
}

// Events lists what was done since the last reset, a batch each.
func (a *Adaptive) Events() []testtime.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

// adapt predicts a batch of parts and then adapts to it.
func (t *Tagger) adapt(ctx context.Context, b batch.Batch, parts []part) ([]float32, error) {
	counts := firstPieces(b, parts)
	inputs := b.GoMLX().Inputs
	logits, event, err := t.adapter.Step(ctx, inputs[0], inputs[1], inputs[2], tensors.FromFlatDataAndDimensions(counts, len(counts)))
	for _, input := range inputs {
		input.MustFinalizeAll()
	}
	if err == nil {
		t.events = append(t.events, event)
	}
	return logits, err
}

// stream is a tagger's model as test-time adaptation sees it.
type stream struct{ m net }

func (s stream) Store() *model.Store { return s.m.Store }

func (s stream) Variables() []elastic.Variable { return s.m.variables() }

func (s stream) Classes() int { return len(s.m.Config.Head.Labels) }

func (s stream) Logits(w elastic.Weights, in []*graph.Node) (logits, counts *graph.Node) {
	logits = s.m.logits(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]})
	return graph.Reshape(logits, -1, s.Classes()), in[3]
}

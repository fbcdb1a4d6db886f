package ner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
)

// Adaptive is a tagger that adapts to the texts that it tags: each batch is predicted, and then
// learned from; see package testtime. It needs no labels, but for the method "labels", which
// learns from them in [Adaptive.TagThenLearn] and [Adaptive.Evaluate] and elsewhere only predicts. Its
// methods are those of [Tagger], one call at a time.
type Adaptive struct{ *Tagger }

// Adapt returns a tagger that begins as t and adapts to what it reads. It has variables of
// its own: t stays as it is. What counts for the objective are the first pieces of words.
// A model with early exits adapts, and predicts, with all its layers.
// "masked" hides word pieces behind the tokenizer's [MASK]; special pieces stay. The method "memo" is
// refused: it wants a batch to be augmentations of one input, and would take the words of
// different sentences for such and give them all one tag.
func (t *Tagger) Adapt(config testtime.Config) (*Adaptive, error) {
	if config.Method == "memo" {
		return nil, errors.New("adapting a tagger: memo wants augmentations of one input, which a tagger does not make; want eata, labels, masked, pseudo_label, sar or tent")
	}
	task := stream{mask: -1, special: t.Tokenizer.SpecialIDs()}
	if id, ok := t.Tokenizer.TokenID("[MASK]"); ok {
		task.mask = id
	} else if id, ok := t.Tokenizer.TokenID("<mask>"); ok {
		task.mask = id
	} else if config.Method == "masked" {
		return nil, errors.New("adapting a tagger: masked needs a tokenizer with a token [MASK] or <mask>")
	}
	m, err := t.net.copied()
	if err != nil {
		return nil, err
	}
	task.m = m
	copied := &Tagger{Model: m.Model, net: m, Tokenizer: t.Tokenizer, backend: t.backend, labels: t.labels, config: t.config, assets: t.assets}
	copied.explainer = copied.explaining()
	adapter, err := testtime.New(t.backend, task, config)
	if err != nil {
		return nil, err
	}
	copied.adapter, copied.labelled = adapter, config.Method == "labels"
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

// TagThenLearn tags labelled sentences, batch by batch, and learns the true tags of each batch after it was
// tagged. What is returned was predicted before the tags were seen; of a sentence in several windows, each
// window teaches the tags of the words that it decided on. It needs the method "labels".
func (a *Adaptive) TagThenLearn(ctx context.Context, sentences []data.Sentence, progress func(done, total int)) ([]Tagged, error) {
	if !a.labelled {
		return nil, errors.New("learning from true tags needs the method labels")
	}
	if err := a.labels.coverAll(sentences); err != nil {
		return nil, err
	}
	truth := make([][]int32, len(sentences))
	for i, s := range sentences {
		var err error
		if truth[i], err = a.labels.Encode(s); err != nil {
			return nil, err
		}
	}
	return a.tag(ctx, wordsOf(sentences), truth, progress)
}

// Evaluate scores the tagger on labelled sentences as [Tagger.Evaluate] does. With the method "labels" it
// learns the tags of each batch after it was tagged.
func (a *Adaptive) Evaluate(ctx context.Context, sentences []data.Sentence, options Options, progress func(done, total int)) (Report, error) {
	if !a.labelled {
		return a.Tagger.Evaluate(ctx, sentences, options, progress)
	}
	tagged, err := a.TagThenLearn(ctx, sentences, progress)
	if err != nil {
		return Report{}, err
	}
	return report(sentences, tagged, options)
}

// adapt predicts a batch of parts and then adapts to it, by the true tags where they are known.
func (t *Tagger) adapt(ctx context.Context, b batch.Batch, parts []part) ([]float32, error) {
	counts := firstPieces(b, parts)
	inputs := b.GoMLX().Inputs
	logits, event, err := t.adapter.PredictThenLearn(ctx, truths(b, parts), inputs[0], inputs[1], inputs[2], tensors.FromFlatDataAndDimensions(counts, len(counts)))
	for _, input := range inputs {
		input.MustFinalizeAll()
	}
	if err == nil {
		t.events = append(t.events, event)
	}
	return logits, err
}

// truths returns the true tags of a batch at the first pieces of words, flat [size, length]; nil if none is known.
func truths(b batch.Batch, parts []part) []int32 {
	var labels []int32
	for row, index := range b.Index {
		p := parts[index]
		if p.truth == nil {
			continue
		}
		if labels == nil {
			labels = slices.Repeat([]int32{testtime.NoLabel}, b.Size*b.Length)
		}
		for word, at := range p.alignment.First {
			if at >= 0 {
				labels[row*b.Length+at] = p.truth[word]
			}
		}
	}
	return labels
}

// stream is a tagger's model as test-time adaptation sees it.
type stream struct {
	m       net
	mask    int32 // id of the mask token; -1 for none
	special []int32
}

func (s stream) Store() *model.Store { return s.m.Store }

func (s stream) Variables() []elastic.Variable { return s.m.variables() }

func (s stream) Classes() int { return len(s.m.Config.Head.Labels) }

func (s stream) Logits(w elastic.Weights, in []*graph.Node) (logits, counts *graph.Node) {
	logits = s.m.logits(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]})
	return graph.Reshape(logits, -1, s.Classes()), in[3]
}

// Masked puts the mask token in place of word pieces.
func (s stream) Masked(in []*graph.Node, share float64, noise *dropout.Source) []*graph.Node {
	ids, g := in[0], in[0].Graph()
	hidden := graph.LessThan(noise.Uniform(shapes.Make(dtypes.Float32, ids.Shape().Dimensions...)), graph.Const(g, float32(share)))
	for _, id := range s.special {
		hidden = graph.LogicalAnd(hidden, graph.NotEqual(ids, graph.Const(g, id)))
	}
	return append([]*graph.Node{graph.Where(hidden, graph.FillScalar(g, ids.Shape(), float64(s.mask)), ids)}, in[1:]...)
}

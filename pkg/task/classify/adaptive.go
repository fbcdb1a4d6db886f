package classify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/eval"
)

// Adaptive is a classifier that adapts to the texts that it reads: each batch is predicted, and then
// learned from; see package testtime. It needs no labels, but for the method "labels", which learns from
// them in [Adaptive.PredictThenLearn] and [Adaptive.Evaluate] and elsewhere only predicts. Its methods are
// those of [Classifier], one call at a time.
type Adaptive struct{ *Classifier }

// adaptation is what a classifier that adapts has more than others.
type adaptation struct {
	adapter  *testtime.Adapter
	events   []testtime.Event
	labelled bool // adapter learns from labels
}

// Adapt returns a classifier that begins as c and adapts to what it reads. It has variables of
// its own: c stays as it is. The method "memo" is refused: it wants a batch to be augmentations
// of one text, and would give all texts of a batch one class.
func (c *Classifier) Adapt(config testtime.Config) (*Adaptive, error) {
	if config.Method == "memo" {
		return nil, errors.New("adapting a classifier: memo wants augmentations of one input, which a classifier does not make; want eata, labels, pseudo_label, sar or tent")
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
	copied := &Classifier{Model: m, Tokenizer: c.Tokenizer, backend: c.backend, config: c.config, assets: c.assets, adaptation: adaptation{adapter: adapter, labelled: config.Method == "labels"}}
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

// PredictThenLearn classifies labelled texts, batch by batch, and learns the labels of each batch after it was
// classified. What is returned was predicted before the labels were seen. It needs the method "labels".
// Progress, if not nil, is told how many batches of how many are done.
func (a *Adaptive) PredictThenLearn(ctx context.Context, texts []data.Text, progress func(done, total int)) ([]Prediction, error) {
	plain, logits, _, err := a.learned(ctx, texts, progress)
	if err != nil {
		return nil, err
	}
	return a.predictions(plain, logits), nil
}

// Evaluate scores the classifier on labelled texts as [Classifier.Evaluate] does. With the method "labels"
// it learns the labels of each batch after it was classified.
func (a *Adaptive) Evaluate(ctx context.Context, texts []data.Text, progress func(done, total int)) (eval.Classification, error) {
	if !a.labelled {
		return a.Classifier.Evaluate(ctx, texts, progress)
	}
	_, logits, gold, err := a.learned(ctx, texts, progress)
	if err != nil {
		return eval.Classification{}, err
	}
	return a.report(gold, logits)
}

func (a *Adaptive) learned(ctx context.Context, texts []data.Text, progress func(done, total int)) (plain []string, logits [][]float32, gold []int, err error) {
	if !a.labelled {
		return nil, nil, nil, errors.New("learning from true labels needs the method labels")
	}
	if gold, err = a.encodeLabels(texts); err != nil {
		return nil, nil, nil, err
	}
	plain = textsOf(texts)
	logits, err = a.logits(ctx, plain, gold, progress)
	return plain, logits, gold, err
}

// adapt predicts a batch and then adapts to it, by the numbers of its texts' classes where they are known.
func (c *Classifier) adapt(ctx context.Context, b batch.Batch, gold []int) ([]float32, error) {
	counts := make([]bool, b.Size)
	for row := range b.Rows {
		counts[row] = true
	}
	var labels []int32
	if gold != nil {
		labels = slices.Repeat([]int32{testtime.NoLabel}, b.Size)
		for row, index := range b.Index {
			labels[row] = int32(gold[index])
		}
	}
	inputs := b.GoMLX().Inputs
	logits, event, err := c.adapter.PredictThenLearn(ctx, labels, inputs[0], inputs[1], inputs[2], tensors.FromFlatDataAndDimensions(counts, len(counts)))
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

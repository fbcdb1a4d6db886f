package explain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// randomOrders is how many random orders an explanation is held against.
const randomOrders = 10

// Faithfulness explains examples, each of two and more words, and tests the explanations by
// [interpret.Faithful]. Seed draws the random orders. Progress, if not nil, is told how many examples
// of how many are done.
func (x *Explainer) Faithfulness(ctx context.Context, examples []Example, config Config, seed uint64, progress func(done, total int)) (interpret.Faithfulness, error) {
	if len(examples) == 0 {
		return interpret.Faithfulness{}, errors.New("testing explanations: there is nothing to explain")
	}
	config = config.WithDefaults()
	order := make([]int, len(examples)) // by length, so that few shapes are compiled
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(n, m int) int { return cmp.Compare(x.Length(len(examples[n].IDs)), x.Length(len(examples[m].IDs))) })
	curves, open, done := make([]interpret.Curves, len(examples)), make([]float64, len(examples)), 0
	for numbers := range slices.Chunk(order, 4*rowsAtATime) {
		chunk := make([]Example, len(numbers))
		for i, n := range numbers {
			chunk[i] = examples[n]
		}
		list, err := x.Explain(ctx, chunk, config)
		if err != nil {
			return interpret.Faithfulness{}, fmt.Errorf("testing explanations: %w", err)
		}
		for i, a := range list {
			n := numbers[i]
			open[n] = interpret.CompletenessError(a.Error, a.Evidence-a.Without, a.Words)
			curves[n], err = interpret.Faithful(ctx, a.Words, randomOrders, seed+uint64(n), func(ctx context.Context, keep [][]bool) ([]float64, error) {
				return x.kept(ctx, chunk[i], keep)
			})
			if err != nil {
				return interpret.Faithfulness{}, err
			}
			if done++; progress != nil {
				progress(done, len(examples))
			}
		}
	}
	sum := interpret.SumUp(curves)
	if config.additive() {
		spread := interpret.SpreadOf(open)
		sum.Completeness = &spread
	}
	return sum, nil
}

// variants is how many variants of a text are computed at a time.
const variants = 32

// kept returns the evidence in variants of an example's text, of each of which only the words are
// kept that keep names.
func (x *Explainer) kept(ctx context.Context, e Example, keep [][]bool) ([]float64, error) {
	config := x.Model.Config
	length := x.Length(len(e.IDs))
	r := x.rows([]Example{e}, length)
	counts := x.counts(r)
	var found []float64
	for chunk := range slices.Chunk(keep, variants) {
		flags := make([]int32, variants*length) // variants that are missing keep nothing
		for i, words := range chunk {
			for token, word := range e.Words {
				if word < 0 || words[word] {
					flags[i*length+token] = 1
				}
			}
		}
		out, err := x.look(ctx, "variants of a text", func(w elastic.Weights, in []*graph.Node) []*graph.Node {
			spread := func(x *graph.Node) *graph.Node {
				dims := x.Shape().Clone().Dimensions
				dims[0] = variants
				return graph.BroadcastToDims(x, dims...)
			}
			ids := spread(in[0])
			pad := graph.FillScalar(ids.Graph(), ids.Shape(), float64(config.PadID))
			shown := graph.Where(graph.NotEqual(in[4], graph.ZerosLike(in[4])), ids, pad)
			vectors := graph.Gather(w.In("embeddings").At("word"), graph.InsertAxes(shown, -1))
			_, logits := x.encode(w, transformer.Inputs{Words: vectors, IDs: ids, Types: spread(in[1]), Mask: spread(in[2])})
			return []*graph.Node{evidence(logits, spread(in[3]))}
		}, r.ids, r.types, r.mask, counts, tensor(flags, variants, length))
		if err != nil {
			return nil, err
		}
		for _, v := range out[0][:len(chunk)] {
			found = append(found, float64(v))
		}
	}
	return found, nil
}

// Sanity explains examples again and again while the model forgets what it has learned, from its
// head down, each layer with what an adapter has learned there, and says how like the first explanation each is; see [interpret.Randomise]. What is
// explained stays the same evidence. The fresh weights are drawn under seed. In the end the model is
// as it was; nothing else may use it until then.
func (x *Explainer) Sanity(ctx context.Context, examples []Example, config Config, seed uint64) ([]interpret.Similarity, error) {
	stages := interpret.Cascade(x.Model.Config.Variables())
	for i, stage := range stages {
		for _, v := range x.Adapter {
			if strings.HasPrefix(v.Path, peft.Scope+"/"+stage.Name+"/") {
				stages[i].Variables = append(stages[i].Variables, v)
			}
		}
	}
	return interpret.Randomise(x.Model.Store, stages, seed, func() ([]float64, error) {
		list, err := x.Explain(ctx, examples, config)
		if err != nil {
			return nil, fmt.Errorf("sanity check: %w", err)
		}
		var values []float64
		for _, a := range list {
			values = append(values, a.Words...)
		}
		return values, nil
	})
}

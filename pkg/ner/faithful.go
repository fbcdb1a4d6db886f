package ner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Faithfulness says how far the explanations of a method can be trusted, over the entities
// that were found in sentences of two and more words. A word is removed by padding in place
// of its tokens. Evidence is in logits; areas are those of [interpret.Area].
type Faithfulness struct {
	Method    string `json:"method"`
	Sentences int    `json:"sentences"` // that have such entities
	Entities  int    `json:"entities"`
	// Completeness is |Error| / |Evidence − Without|; nil if contributions need not add up.
	Completeness *Spread `json:"completeness_error,omitempty"`
	// Deletion and Insertion are mean areas in the order of the explanations; Random is that
	// of random orders, the same for both.
	Deletion  float64 `json:"deletion_area"`
	Insertion float64 `json:"insertion_area"`
	Random    float64 `json:"random_area"`
	// DeletionBetter and InsertionBetter are the shares of entities whose area is strictly
	// better than their own random one: less when words are removed, more when they are put back.
	DeletionBetter  float64 `json:"deletion_better"`
	InsertionBetter float64 `json:"insertion_better"`
	// Shares are those of words removed (or put back), in tenths; Curves are means of the
	// evidence there.
	Shares []float64        `json:"shares"`
	Curves interpret.Curves `json:"curves"`
}

// Spread sums numbers up.
type Spread struct {
	Mean     float64 `json:"mean"`
	Median   float64 `json:"median"`
	P95      float64 `json:"p95"`
	Greatest float64 `json:"greatest"`
}

// randomOrders is how many random orders an explanation is held against.
const randomOrders = 10

// Faithfulness explains the entities found in sentences (their tags are not read) and tests
// the explanations by [interpret.Faithful]. Seed draws the random orders. Progress, if not
// nil, is told how many entities of how many are done.
func (t *Tagger) Faithfulness(ctx context.Context, sentences []data.Sentence, config ExplainConfig, seed uint64, progress func(done, total int)) (Faithfulness, error) {
	if err := config.Validate(); err != nil {
		return Faithfulness{}, fmt.Errorf("testing explanations: %w", err)
	}
	config = config.withDefaults()
	var words [][]string
	var texts []string
	var places [][][2]int
	for _, s := range sentences {
		if len(s.Words) < 2 { // there is no order to be tested
			continue
		}
		text, at := Join(s.Words)
		words, texts, places = append(words, s.Words), append(texts, text), append(places, at)
	}
	found, err := t.findings(ctx, words, texts, places)
	if err != nil {
		return Faithfulness{}, err
	}
	if len(found) == 0 {
		return Faithfulness{}, errors.New("testing explanations: the tagger finds no entity in sentences of two and more words")
	}
	sum := Faithfulness{Method: config.Method, Entities: len(found)}
	const points = 11
	sum.Shares = make([]float64, points)
	for i := range sum.Shares {
		sum.Shares[i] = float64(i) / (points - 1)
	}
	sum.Curves = interpret.Curves{Deletion: make([]float64, points), Insertion: make([]float64, points), Random: make([]float64, points)}
	var open []float64
	n, done := float64(len(found)), 0
	deleted, inserted := 0, 0
	seen := map[*int32]bool{} // sentences, by their first token
	for chunk := range slices.Chunk(found, 4*rowsAtATime) {
		if err := t.attribute(ctx, chunk, config); err != nil {
			return Faithfulness{}, fmt.Errorf("testing explanations: %w", err)
		}
		for i := range chunk {
			f := &chunk[i]
			seen[&f.part.encoding.IDs[0]] = true
			e := f.explanation
			open = append(open, math.Abs(e.Error)/math.Abs(e.Evidence-e.Without))
			values := make([]float64, len(e.Words))
			for j, w := range e.Words {
				values[j] = w.Value
			}
			curves, err := interpret.Faithful(ctx, values, randomOrders, seed+uint64(done), func(ctx context.Context, keep [][]bool) ([]float64, error) {
				return t.kept(ctx, f, keep)
			})
			if err != nil {
				return Faithfulness{}, err
			}
			deletion, insertion, random := interpret.Area(curves.Deletion), interpret.Area(curves.Insertion), interpret.Area(curves.Random)
			sum.Deletion, sum.Insertion, sum.Random = sum.Deletion+deletion/n, sum.Insertion+insertion/n, sum.Random+random/n
			if deletion < random {
				deleted++
			}
			if insertion > random {
				inserted++
			}
			for j, share := range sum.Shares {
				sum.Curves.Deletion[j] += at(curves.Deletion, share) / n
				sum.Curves.Insertion[j] += at(curves.Insertion, share) / n
				sum.Curves.Random[j] += at(curves.Random, share) / n
			}
			if done++; progress != nil {
				progress(done, len(found))
			}
		}
	}
	sum.Sentences, sum.DeletionBetter, sum.InsertionBetter = len(seen), float64(deleted)/n, float64(inserted)/n
	if config.additive() {
		spread := spreadOf(open)
		sum.Completeness = &spread
	}
	return sum, nil
}

// at reads a curve at a share of its units, in a straight line between its points.
func at(curve []float64, share float64) float64 {
	place := share * float64(len(curve)-1)
	i := min(int(place), len(curve)-2)
	return curve[i] + (place-float64(i))*(curve[i+1]-curve[i])
}

func spreadOf(values []float64) Spread {
	slices.Sort(values)
	s := Spread{Median: values[len(values)/2], P95: values[min(len(values)*95/100, len(values)-1)], Greatest: values[len(values)-1]}
	for _, v := range values {
		s.Mean += v / float64(len(values))
	}
	return s
}

// variants is how many variants of a text are computed at a time.
const variants = 32

// kept returns the evidence for an entity in variants of its text, of each of which only
// the words are kept that keep names.
func (t *Tagger) kept(ctx context.Context, f *finding, keep [][]bool) ([]float64, error) {
	config := t.Model.Config
	length := t.padded(len(f.part.encoding.IDs))
	r := t.rows([]*finding{f}, length)
	var evidence []float64
	for chunk := range slices.Chunk(keep, variants) {
		flags := make([]int32, variants*length) // variants that are missing keep nothing
		for i, words := range chunk {
			for token, word := range f.part.encoding.Words {
				if word < 0 || words[word] {
					flags[i*length+token] = 1
				}
			}
		}
		out, err := t.look(ctx, "variants of a text", func(w elastic.Weights, in []*graph.Node) []*graph.Node {
			spread := func(x *graph.Node) *graph.Node {
				dims := x.Shape().Clone().Dimensions
				dims[0] = variants
				return graph.BroadcastToDims(x, dims...)
			}
			ids := spread(in[0])
			pad := graph.FillScalar(ids.Graph(), ids.Shape(), float64(config.PadID))
			shown := graph.Where(graph.NotEqual(in[4], graph.ZerosLike(in[4])), ids, pad)
			vectors := graph.Gather(w.In("embeddings").At("word"), graph.InsertAxes(shown, -1))
			encoded := config.Encode(w, transformer.Inputs{Words: vectors, IDs: ids, Types: spread(in[1]), Mask: spread(in[2])}, nil)
			return []*graph.Node{evidenceOf(config.HeadLogits(w, encoded.Hidden, nil), spread(in[3]))}
		}, r.ids, r.types, r.mask, r.counts, tensors.FromFlatDataAndDimensions(flags, variants, length))
		if err != nil {
			return nil, err
		}
		for _, v := range out[0][:len(chunk)] {
			evidence = append(evidence, float64(v))
		}
	}
	return evidence, nil
}

package classify

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Explanation says how much each word of a text speaks for the class that is predicted.
type Explanation struct {
	Choice
	// Words are those of the text, in order; punctuation marks are words too.
	Words []Contribution `json:"words"`
	// Evidence is the class's logit less the mean of all classes' logits, and Without the same
	// for a text of nothing but padding. The contributions add up to their difference, but for
	// Error.
	Evidence float64 `json:"evidence"`
	Without  float64 `json:"without"`
	Error    float64 `json:"error"`
}

// Contribution is what a word adds to the evidence for a class; negative values speak against
// it.
type Contribution struct {
	Text  string  `json:"text"`
	Start int     `json:"start"` // first character, in Unicode code points
	End   int     `json:"end"`   // behind the last
	Value float64 `json:"value"`
}

// Explain predicts the class of a text and says what every word contributes, by
// [interpret.IntegratedGradients] over word embeddings with the given number of steps (64
// leaves less than a hundredth open as a rule). The baseline is the text with padding in place
// of its words. Of a text that is too long only what the model reads is explained. Each of the
// config's Lengths is compiled once.
func (c *Classifier) Explain(ctx context.Context, text string, steps int) (Explanation, error) {
	encoding, err := c.encode(text, c.config.Lengths[len(c.config.Lengths)-1])
	if err != nil {
		return Explanation{}, err
	}
	predictions, err := c.Predict(ctx, text)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Choice: predictions[0].Choice}
	table, err := c.Model.Store.GetVariable("/embeddings/word").Value()
	if err != nil {
		return Explanation{}, fmt.Errorf("reading the word embeddings: %w", err)
	}
	config, tokens := c.Model.Config, len(encoding.IDs)
	length := c.padded(tokens)
	ids, types, mask := make([]int32, length), make([]int32, length), make([]int32, length)
	var real, padding []float32
	err = tensors.ConstFlatData(table, func(flat []float32) {
		row := func(id int32) []float32 { return flat[int(id)*config.Hidden : (int(id)+1)*config.Hidden] }
		for i := range length {
			ids[i] = int32(config.PadID)
			shown := ids[i]
			if i < tokens {
				ids[i], types[i], mask[i] = encoding.IDs[i], encoding.TypeIDs[i], 1
				if encoding.Special[i] {
					shown = ids[i]
				}
			}
			real, padding = append(real, row(ids[i])...), append(padding, row(shown)...)
		}
	})
	if err != nil {
		return Explanation{}, fmt.Errorf("reading the word embeddings: %w", err)
	}
	class := make([]float32, len(c.Labels()))
	class[c.numbers[e.Label]] = 1
	tensor := func(row []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(row, 1, length) }
	vectors := func(flat []float32) *tensors.Tensor {
		return tensors.FromFlatDataAndDimensions(flat, 1, length, config.Hidden)
	}
	a, err := c.attribute(ctx, vectors(real), vectors(padding), steps, tensor(ids), tensor(types), tensor(mask), tensors.FromFlatDataAndDimensions(class, 1, len(class)))
	if err != nil {
		return Explanation{}, fmt.Errorf("explaining the class: %w", err)
	}
	values, err := tensors.CopyFlatData[float32](a.Values)
	if err != nil {
		return Explanation{}, fmt.Errorf("explaining the class: %w", err)
	}
	e.Evidence, e.Without, e.Error = a.Output[0], a.Baseline[0], a.Error[0]
	characters := []rune(text)
	word := int32(-1)
	for token, offsets := range encoding.Offsets {
		if encoding.Special[token] {
			continue
		}
		if encoding.Words[token] != word {
			word = encoding.Words[token]
			e.Words = append(e.Words, Contribution{Start: offsets[0]})
		}
		w := &e.Words[len(e.Words)-1]
		w.End = offsets[1]
		w.Text = string(characters[w.Start:w.End])
		for _, v := range values[token*config.Hidden : (token+1)*config.Hidden] {
			w.Value += float64(v)
		}
	}
	return e, nil
}

// padded is the least of the config's lengths that holds so many tokens.
func (c *Classifier) padded(tokens int) int {
	i, _ := slices.BinarySearch(c.config.Lengths, tokens)
	return c.config.Lengths[i]
}

// attribute integrates gradients of the evidence for a class. Inputs are token ids, types and mask, int32 [1, length],
// and the class, 1 in its place, float32 [1, labels].
func (c *Classifier) attribute(ctx context.Context, x, baseline *tensors.Tensor, steps int, inputs ...any) (a interpret.Attribution, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attributor == nil {
		config := c.Model.Config
		c.attributor, err = interpret.NewAttributor(c.backend, c.Model.Store, func(w elastic.Weights, x *graph.Node, in []*graph.Node) *graph.Node {
			mask := graph.NotEqual(in[2], graph.ZerosLike(in[2]))
			encoded := config.Encode(w, transformer.Inputs{Words: x, IDs: in[0], Types: in[1], Mask: in[2]}, nil)
			logits := graph.ConvertDType(config.MaskedHeadLogits(w, encoded.Hidden, mask, nil), dtypes.Float32) // [1, labels]
			return graph.Sub(graph.ReduceSum(graph.Mul(logits, in[3]), -1), graph.ReduceMean(logits, -1))
		})
		if err != nil {
			return a, err
		}
	}
	return c.attributor.IntegratedGradients(ctx, x, baseline, steps, inputs...)
}

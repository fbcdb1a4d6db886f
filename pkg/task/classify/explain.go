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
// of its words. Of a text that is too long only what the model reads is explained.
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
	config, length := c.Model.Config, len(encoding.IDs)
	var real, padding []float32
	err = tensors.ConstFlatData(table, func(flat []float32) {
		row := func(id int) []float32 { return flat[id*config.Hidden : (id+1)*config.Hidden] }
		for token, id := range encoding.IDs {
			real = append(real, row(int(id))...)
			if !encoding.Special[token] {
				id = int32(config.PadID)
			}
			padding = append(padding, row(int(id))...)
		}
	})
	if err != nil {
		return Explanation{}, fmt.Errorf("reading the word embeddings: %w", err)
	}
	class := c.numbers[e.Label]
	explained := func(w elastic.Weights, x *graph.Node, in []*graph.Node) *graph.Node {
		encoded := config.Encode(w, transformer.Inputs{Words: x, IDs: in[0], Types: in[1]}, nil)
		logits := graph.ConvertDType(config.HeadLogits(w, encoded.Hidden, nil), dtypes.Float32) // [1, labels]
		own := graph.Squeeze(graph.Slice(logits, graph.AxisRange(), graph.AxisElem(class)), -1)
		return graph.Sub(own, graph.ReduceMean(logits, -1))
	}
	tensor := func(row []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(row, 1, length) }
	vectors := func(flat []float32) *tensors.Tensor {
		return tensors.FromFlatDataAndDimensions(flat, 1, length, config.Hidden)
	}
	attributor, err := interpret.NewAttributor(c.backend, c.Model.Store, explained)
	if err != nil {
		return Explanation{}, fmt.Errorf("explaining the class: %w", err)
	}
	defer attributor.Finalize()
	a, err := attributor.IntegratedGradients(ctx, vectors(real), vectors(padding), steps,
		tensor(slices.Clone(encoding.IDs)), tensor(slices.Clone(encoding.TypeIDs)))
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

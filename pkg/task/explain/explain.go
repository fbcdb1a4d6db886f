// Package explain says which words of a text speak for what a transformer with a head found in
// it, what its attention heads are for, and how far such explanations can be trusted. It is what
// tasks share: a task tells what counts as evidence, and package interpret has the methods.
//
//	a task ─ [Example]: tokens, their words, evidence ─ [Explainer] ─┬─ Explain       what each word contributes
//	                                                                 ├─ Faithfulness  do curves of deletion beat random orders?
//	                                                                 └─ Sanity        does it go away with what was learned?
//	labelled examples ────────────────────────────────────────────────── Heads         what each attention head is for
//
// Words are removed by padding in place of their tokens; special tokens stay.
package explain

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// The methods that [Config].Method may name; see package interpret. The first two look at word
// embeddings and count against a baseline; the others follow attention.
const (
	IntegratedGradients = "integrated_gradients"
	GradientTimesInput  = "gradient_input"
	Relevance           = "relevance"
	Rollout             = "rollout"
	Flow                = "flow"
)

// Methods lists the methods, the default first.
func Methods() []string {
	return []string{IntegratedGradients, GradientTimesInput, Relevance, Rollout, Flow}
}

// Config says how texts are explained. Its zero value is the documented default.
type Config struct {
	// Method is one of [Methods]; empty means the first.
	Method string `json:"method,omitempty"`
	// Steps of integrated gradients; 0 means 64, which leaves less than a hundredth open as a rule.
	Steps int `json:"steps,omitempty"`
}

// WithDefaults fills in the defaults.
func (c Config) WithDefaults() Config {
	if c.Method == "" {
		c.Method = IntegratedGradients
	}
	if c.Steps == 0 {
		c.Steps = 64
	}
	return c
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var problems []error
	if !slices.Contains(Methods(), c.Method) {
		problems = append(problems, fmt.Errorf("method %q is unknown; known: %s", c.Method, strings.Join(Methods(), ", ")))
	}
	if c.Steps < 1 {
		problems = append(problems, fmt.Errorf("steps is %d, want at least 1, or 0 for the default", c.Steps))
	}
	return errors.Join(problems...)
}

// additive tells whether a method's contributions add up to a difference of evidence.
func (c Config) additive() bool {
	return c.Method == IntegratedGradients || c.Method == GradientTimesInput
}

// Contribution is what a word adds to the evidence; negative values speak against it. Methods
// that follow attention give no negative ones.
type Contribution struct {
	Text  string  `json:"text"`
	Start int     `json:"start"` // first character, in Unicode code points
	End   int     `json:"end"`   // behind the last
	Value float64 `json:"value"`
}

// Example is a text and something that was found in it.
type Example struct {
	IDs, TypeIDs []int32 // of the tokens
	// Words has the number of each token's word, from 0 to Size−1; -1 for special tokens.
	Words []int32
	Size  int
	// Counts say how the model's logits count as evidence, which is the sum of their products:
	// [labels] for a head that pools, else [tokens, labels].
	Counts []float32
	// Outputs are the tokens whose logits count. A head that pools has none: it reads as its
	// pooling does.
	Outputs []int
}

// Attribution says what the words of an [Example] contribute to its evidence.
type Attribution struct {
	Words    []float64
	Evidence float64
	// Without is the evidence in a text of nothing but padding. The contributions add up to
	// Evidence − Without but for Error. Both are 0 for methods that follow attention.
	Without, Error float64
}

// Explainer explains what a transformer with a head computes. What it compiles is kept. Its methods
// may be called concurrently, but for Sanity.
type Explainer struct {
	Backend compute.Backend
	// Model has a head of kind Tokens or Sequence.
	Model *transformer.Model
	// Weights are the model's as they are seen through an adapter; nil for none.
	Weights func(w elastic.Weights) elastic.Weights
	// Adapter lists the adapter's own variables, which Sanity forgets with the layers that they belong to.
	Adapter []elastic.Variable
	// Virtual says that an adapter has virtual tokens: what looks into attention is an error then.
	Virtual bool
	// Length returns to how many tokens a text of so many is padded. Each is compiled once.
	Length func(tokens int) int
	// Lock is held while the model computes.
	Lock sync.Locker

	attributor *interpret.Attributor
	looks      map[string]*model.Exec
}

// rowsAtATime is how many examples are explained in one batch at the most.
const rowsAtATime = 8

// Explain returns what the words of each example contribute. The baseline of methods that have one
// is the text with padding in place of its words.
func (x *Explainer) Explain(ctx context.Context, examples []Example, config Config) ([]Attribution, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.WithDefaults()
	explain := x.follow
	if config.additive() {
		explain = x.attributeInputs
	}
	list := make([]Attribution, len(examples))
	byLength := map[int][]int{} // numbers of the examples of one padded length
	for i, e := range examples {
		length := x.Length(len(e.IDs))
		byLength[length] = append(byLength[length], i)
	}
	for length, group := range byLength {
		for numbers := range slices.Chunk(group, rowsAtATime) {
			chunk := make([]Example, len(numbers))
			for i, n := range numbers {
				chunk[i] = examples[n]
			}
			made, tokens, err := explain(ctx, x.rows(chunk, length), config)
			if err != nil {
				return nil, err
			}
			for i, n := range numbers {
				list[n] = made[i]
				list[n].Words = make([]float64, chunk[i].Size)
				for token, word := range chunk[i].Words {
					if word >= 0 {
						list[n].Words[word] += tokens[i][token]
					}
				}
			}
		}
	}
	return list, nil
}

// weights are the model's as the explainer sees them.
func (x *Explainer) weights(w elastic.Weights) elastic.Weights {
	if x.Weights == nil {
		return w
	}
	return x.Weights(w)
}

// encode builds the encoder and the logits of its head, [rows, labels] or [rows, length, labels].
func (x *Explainer) encode(w elastic.Weights, in transformer.Inputs) (transformer.Output, *graph.Node) {
	config := x.Model.Config
	encoded := config.Encode(w, in, nil)
	return encoded, config.MaskedHeadLogits(w, encoded.Hidden, graph.NotEqual(in.Mask, graph.ZerosLike(in.Mask)), nil)
}

// evidence builds one number a row of logits [rows, ..., labels].
func evidence(logits, counts *graph.Node) *graph.Node {
	product := graph.Mul(logits, counts)
	axes := make([]int, 0, 2)
	for axis := 1; axis < product.Rank(); axis++ {
		axes = append(axes, axis)
	}
	return graph.ReduceSum(product, axes...)
}

// attributeInputs explains by word embeddings. It returns a value for each token of each row.
func (x *Explainer) attributeInputs(ctx context.Context, r rows, config Config) ([]Attribution, [][]float64, error) {
	x.Lock.Lock()
	defer x.Lock.Unlock()
	if x.attributor == nil {
		attributor, err := interpret.NewAttributor(x.Backend, x.Model.Store, func(w elastic.Weights, words *graph.Node, in []*graph.Node) *graph.Node {
			_, logits := x.encode(x.weights(w), transformer.Inputs{Words: words, IDs: in[0], Types: in[1], Mask: in[2]})
			return evidence(logits, in[3])
		})
		if err != nil {
			return nil, nil, err
		}
		x.attributor = attributor
	}
	real, padding, err := x.embeddings(r)
	if err != nil {
		return nil, nil, err
	}
	var a interpret.Attribution
	if config.Method == GradientTimesInput {
		a, err = x.attributor.GradientTimesInput(ctx, real, padding, r.ids, r.types, r.mask, x.counts(r))
	} else {
		a, err = x.attributor.IntegratedGradients(ctx, real, padding, config.Steps, r.ids, r.types, r.mask, x.counts(r))
	}
	if err != nil {
		return nil, nil, err
	}
	values, err := tensors.CopyFlatData[float32](a.Values)
	if err != nil {
		return nil, nil, err
	}
	hidden := x.Model.Config.Hidden
	list, tokens := make([]Attribution, len(r.examples)), make([][]float64, len(r.examples))
	for i := range r.examples {
		list[i] = Attribution{Evidence: a.Output[i], Without: a.Baseline[i], Error: a.Error[i]}
		tokens[i] = make([]float64, r.length)
		for j, v := range values[i*r.length*hidden : (i+1)*r.length*hidden] {
			tokens[i][j/hidden] += float64(v)
		}
	}
	return list, tokens, nil
}

// embeddings returns the word embeddings of rows, [rows, length, hidden], and the same with
// padding in place of all but special tokens.
func (x *Explainer) embeddings(r rows) (real, padding *tensors.Tensor, err error) {
	config := x.Model.Config
	table, err := x.Model.Store.GetVariable("/embeddings/word").Value()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the word embeddings: %w", err)
	}
	var one, none []float32
	err = tensors.ConstFlatData(table, func(flat []float32) {
		row := func(id int) []float32 { return flat[id*config.Hidden : (id+1)*config.Hidden] }
		for i := range r.size {
			e := r.example(i)
			for token := range r.length {
				id, base := config.PadID, config.PadID
				if token < len(e.IDs) {
					id = int(e.IDs[token])
					if e.Words[token] < 0 {
						base = id
					}
				}
				one, none = append(one, row(id)...), append(none, row(base)...)
			}
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading the word embeddings: %w", err)
	}
	return tensors.FromFlatDataAndDimensions(one, r.size, r.length, config.Hidden), tensors.FromFlatDataAndDimensions(none, r.size, r.length, config.Hidden), nil
}

// follow explains by attention. It returns a value for each token of each row: the mean over the
// tokens that the evidence is read from, where a head that pools weighs them as it does.
func (x *Explainer) follow(ctx context.Context, r rows, config Config) ([]Attribution, [][]float64, error) {
	out, err := x.look(ctx, config.Method, func(w elastic.Weights, in []*graph.Node) []*graph.Node {
		encoded, logits := x.encode(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]})
		outputs := []*graph.Node{evidence(logits, in[3]), nil}
		switch config.Method {
		case Relevance:
			outputs[1] = interpret.Relevance(encoded.Attentions, outputs[0])
		case Rollout:
			outputs[1] = interpret.Rollout(encoded.Attentions)
		default:
			var layers []*graph.Node
			for _, weights := range encoded.Attentions {
				layers = append(layers, interpret.WithResidual(weights))
			}
			outputs[1] = graph.Stack(layers, 1) // [rows, layers, length, length]
		}
		if x.pools() {
			outputs = append(outputs, x.Model.Config.PoolingWeights(w, encoded.Hidden, graph.NotEqual(in[2], graph.ZerosLike(in[2]))))
		}
		return outputs
	}, r.ids, r.types, r.mask, x.counts(r))
	if err != nil {
		return nil, nil, err
	}
	matrices := out[1]
	size := len(matrices) / r.size
	list, values := make([]Attribution, len(r.examples)), make([][]float64, len(r.examples))
	for i, e := range r.examples {
		list[i].Evidence = float64(out[0][i])
		n := len(e.IDs)
		outputs, share := e.Outputs, func(v float64, _ int) float64 { return v / float64(len(e.Outputs)) }
		if x.pools() {
			pooling := out[2][i*r.length : (i+1)*r.length]
			share = func(v float64, token int) float64 { return v * float64(pooling[token]) }
			outputs = nil
			for token, p := range pooling[:n] {
				if p != 0 {
					outputs = append(outputs, token)
				}
			}
		}
		var layers [][][]float64 // of this row, without padding
		for flat := range slices.Chunk(matrices[i*size:(i+1)*size], r.length*r.length) {
			layers = append(layers, square(flat, r.length, n))
		}
		values[i] = make([]float64, n)
		for _, output := range outputs {
			row := layers[0][output]
			if config.Method == Flow {
				if row, err = interpret.Flow(layers, output); err != nil {
					return nil, nil, err
				}
			}
			for j, v := range row {
				values[i][j] += share(v, output)
			}
		}
		for _, v := range append(values[i], list[i].Evidence) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, nil, errors.New("the model's values are not finite")
			}
		}
	}
	return list, values, nil
}

// square cuts the first n rows and columns out of a flat matrix [length, length].
func square(flat []float32, length, n int) [][]float64 {
	out := make([][]float64, n)
	for i := range out {
		out[i] = make([]float64, n)
		for j := range out[i] {
			out[i][j] = float64(flat[i*length+j])
		}
	}
	return out
}

package ner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// The methods that [ExplainConfig].Method may name; see package interpret. The first two
// look at word embeddings and count against a baseline; the others follow attention.
const (
	IntegratedGradients = "integrated_gradients"
	GradientTimesInput  = "gradient_input"
	Relevance           = "relevance"
	Rollout             = "rollout"
	Flow                = "flow"
)

// ExplainMethods lists the methods, the default first.
func ExplainMethods() []string {
	return []string{IntegratedGradients, GradientTimesInput, Relevance, Rollout, Flow}
}

// ExplainConfig says how entities are explained. Its zero value is the documented default.
type ExplainConfig struct {
	// Method is one of [ExplainMethods]; empty means the first.
	Method string `json:"method,omitempty"`
	// Steps of integrated gradients; 0 means 64, which leaves less than a hundredth open as a rule.
	Steps int `json:"steps,omitempty"`
}

func (c ExplainConfig) withDefaults() ExplainConfig {
	if c.Method == "" {
		c.Method = IntegratedGradients
	}
	if c.Steps == 0 {
		c.Steps = 64
	}
	return c
}

// Validate reports all that is wrong with c.
func (c ExplainConfig) Validate() error {
	c = c.withDefaults()
	var problems []error
	if !slices.Contains(ExplainMethods(), c.Method) {
		problems = append(problems, fmt.Errorf("method %q is unknown; known: %q", c.Method, ExplainMethods()))
	}
	if c.Steps < 1 {
		problems = append(problems, fmt.Errorf("steps is %d, want at least 1, or 0 for the default", c.Steps))
	}
	return errors.Join(problems...)
}

// additive tells whether a method's contributions add up to a difference of evidence.
func (c ExplainConfig) additive() bool {
	return c.Method == IntegratedGradients || c.Method == GradientTimesInput
}

// Explanation says how much each word of a text speaks for one of its entities.
type Explanation struct {
	Entity Entity `json:"entity"`
	// Words are those of the text, in order.
	Words []Contribution `json:"words"`
	// Evidence is the sum over the entity's words of logit(tag) − logit(O).
	Evidence float64 `json:"evidence"`
	// Without is the evidence in a text of nothing but padding. The contributions add up to
	// Evidence − Without but for Error. Both are 0 for methods that follow attention.
	Without float64 `json:"without,omitempty"`
	Error   float64 `json:"error,omitempty"`
}

// Contribution is what a word adds to the evidence for an entity; negative values speak
// against it. Methods that follow attention give no negative ones.
type Contribution struct {
	Text  string  `json:"text"`
	Start int     `json:"start"` // first character, in Unicode code points
	End   int     `json:"end"`   // behind the last
	Value float64 `json:"value"`
}

// Explain finds the entities of a text and, for each, what every word contributes. The
// baseline of methods that have one is the text with padding in place of its words. A text
// with more tokens than the model has positions is an error.
func (t *Tagger) Explain(ctx context.Context, text string, config ExplainConfig) ([]Explanation, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("explaining entities: %w", err)
	}
	words, places := Words(text)
	found, err := t.findings(ctx, [][]string{words}, []string{text}, [][][2]int{places})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	if err := t.attribute(ctx, found, config.withDefaults()); err != nil {
		return nil, fmt.Errorf("explaining entities: %w", err)
	}
	list := make([]Explanation, len(found))
	for i, f := range found {
		list[i] = f.explanation
	}
	return list, nil
}

// finding is an entity that was found, and what its explanation needs.
type finding struct {
	explanation Explanation
	part        part
	counts      []float32 // which logits are the evidence, and how they count, [tokens, labels]
	outputs     []int     // the tokens whose logits they are
}

// findings tags the sentences and returns their entities.
func (t *Tagger) findings(ctx context.Context, sentences [][]string, texts []string, places [][][2]int) ([]finding, error) {
	tagged, err := t.Tag(ctx, sentences, nil)
	if err != nil {
		return nil, err
	}
	var list []finding
	for i, words := range sentences {
		entities, err := Entities(texts[i], places[i], FromTags(tagged[i].Tags), tagged[i].Scores)
		if err != nil {
			return nil, err
		}
		if len(entities) == 0 {
			continue
		}
		_, parts, err := t.cut(words, t.net.maxLength())
		if err != nil {
			return nil, err
		}
		if len(parts) != 1 {
			return nil, fmt.Errorf("a text has more tokens than the model has positions for, %d: explain a part of it", t.net.maxLength())
		}
		at := codePoints(texts[i])
		for _, e := range entities {
			f := finding{explanation: Explanation{Entity: e}, part: parts[0]}
			for _, place := range places[i] {
				f.explanation.Words = append(f.explanation.Words, Contribution{Text: texts[i][at[place[0]]:at[place[1]]], Start: place[0], End: place[1]})
			}
			if err := t.evidence(&f, tagged[i].Tags); err != nil {
				return nil, err
			}
			list = append(list, f)
		}
	}
	return list, nil
}

// evidence fills in which logits count for an entity, and how.
func (t *Tagger) evidence(f *finding, tags []string) error {
	classes := t.labels.Len()
	f.counts = make([]float32, len(f.part.encoding.IDs)*classes)
	outside, _ := t.labels.ID(Outside)
	for word := f.explanation.Entity.Words[0]; word < f.explanation.Entity.Words[1]; word++ {
		token := f.part.alignment.First[word]
		if token < 0 {
			continue
		}
		label, ok := t.labels.ID(tags[word])
		if !ok {
			return fmt.Errorf("tag %q is none of the tagger's", tags[word])
		}
		f.counts[int(token)*classes+int(label)]++
		f.counts[int(token)*classes+int(outside)]--
		f.outputs = append(f.outputs, int(token))
	}
	return nil
}

// rowsAtATime is how many entities are explained in one batch at the most.
const rowsAtATime = 8

// attribute fills in the contributions of all words, entities of one padded length together.
func (t *Tagger) attribute(ctx context.Context, found []finding, config ExplainConfig) error {
	explain := t.follow
	if config.additive() {
		explain = t.attributeInputs
	}
	byLength := map[int][]*finding{}
	for i := range found {
		length := t.padded(len(found[i].part.encoding.IDs))
		byLength[length] = append(byLength[length], &found[i])
	}
	for length, group := range byLength {
		for chunk := range slices.Chunk(group, rowsAtATime) {
			tokens, err := explain(ctx, t.rows(chunk, length), chunk, config)
			if err != nil {
				return err
			}
			for i, f := range chunk {
				for token, word := range f.part.encoding.Words {
					if word >= 0 {
						f.explanation.Words[word].Value += tokens[i][token]
					}
				}
			}
		}
	}
	return nil
}

// padded returns the length that a text of so many tokens is padded to, so that there are
// few different ones.
func (t *Tagger) padded(length int) int {
	const step = 16
	return min((length+step-1)/step*step, t.net.maxLength())
}

// rows are findings as tensors: token ids, types and mask, int32 [rows, length], and counts
// of logits [rows, length, labels]. They are filled up to a power of two with copies of the
// last, so that there are few numbers of rows.
type rows struct {
	size, length             int
	ids, types, mask, counts *tensors.Tensor
}

func (t *Tagger) rows(chunk []*finding, length int) rows {
	r := rows{size: 1, length: length}
	for r.size < len(chunk) {
		r.size *= 2
	}
	classes := t.labels.Len()
	var ids, types, mask []int32
	var counts []float32
	for i := range r.size {
		f := chunk[min(i, len(chunk)-1)]
		n := len(f.part.encoding.IDs)
		ids = append(append(ids, f.part.encoding.IDs...), slices.Repeat([]int32{int32(t.Model.Config.PadID)}, length-n)...)
		types = append(append(types, f.part.encoding.TypeIDs...), make([]int32, length-n)...)
		mask = append(append(mask, slices.Repeat([]int32{1}, n)...), make([]int32, length-n)...)
		counts = append(append(counts, f.counts...), make([]float32, (length-n)*classes)...)
	}
	whole := func(flat []int32) *tensors.Tensor {
		return tensors.FromFlatDataAndDimensions(flat, r.size, length)
	}
	r.ids, r.types, r.mask = whole(ids), whole(types), whole(mask)
	r.counts = tensors.FromFlatDataAndDimensions(counts, r.size, length, classes)
	return r
}

// evidenceOf builds the evidence, one number a row, of logits [rows, length, labels].
func evidenceOf(logits, counts *graph.Node) *graph.Node {
	return graph.ReduceSum(graph.Mul(logits, counts), 1, 2)
}

// attributeInputs explains by word embeddings. It returns a value for each token of each row.
func (t *Tagger) attributeInputs(ctx context.Context, r rows, chunk []*finding, config ExplainConfig) ([][]float64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.attributor == nil {
		model := t.Model.Config
		attributor, err := interpret.NewAttributor(t.backend, t.Model.Store, func(w elastic.Weights, x *graph.Node, in []*graph.Node) *graph.Node {
			w = t.net.weights(w, nil)
			encoded := model.Encode(w, transformer.Inputs{Words: x, IDs: in[0], Types: in[1], Mask: in[2]}, nil)
			return evidenceOf(model.HeadLogits(w, encoded.Hidden, nil), in[3])
		})
		if err != nil {
			return nil, err
		}
		t.attributor = attributor
	}
	real, padding, err := t.embeddings(r, chunk)
	if err != nil {
		return nil, err
	}
	var a interpret.Attribution
	if config.Method == GradientTimesInput {
		a, err = t.attributor.GradientTimesInput(ctx, real, padding, r.ids, r.types, r.mask, r.counts)
	} else {
		a, err = t.attributor.IntegratedGradients(ctx, real, padding, config.Steps, r.ids, r.types, r.mask, r.counts)
	}
	if err != nil {
		return nil, err
	}
	values, err := tensors.CopyFlatData[float32](a.Values)
	if err != nil {
		return nil, err
	}
	hidden := t.Model.Config.Hidden
	out := make([][]float64, len(chunk))
	for i, f := range chunk {
		f.explanation.Evidence, f.explanation.Without, f.explanation.Error = a.Output[i], a.Baseline[i], a.Error[i]
		out[i] = make([]float64, r.length)
		for j, v := range values[i*r.length*hidden : (i+1)*r.length*hidden] {
			out[i][j/hidden] += float64(v)
		}
	}
	return out, nil
}

// embeddings returns the word embeddings of rows, [rows, length, hidden], and the same with
// padding in place of all but special tokens.
func (t *Tagger) embeddings(r rows, chunk []*finding) (real, padding *tensors.Tensor, err error) {
	config := t.Model.Config
	table, err := t.Model.Store.GetVariable("/embeddings/word").Value()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the word embeddings: %w", err)
	}
	var one, none []float32
	err = tensors.ConstFlatData(table, func(flat []float32) {
		row := func(id int) []float32 { return flat[id*config.Hidden : (id+1)*config.Hidden] }
		for i := range r.size {
			encoding := chunk[min(i, len(chunk)-1)].part.encoding
			for token := range r.length {
				id, base := config.PadID, config.PadID
				if token < len(encoding.IDs) {
					id = int(encoding.IDs[token])
					if encoding.Words[token] < 0 {
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

// follow explains by attention. It returns a value for each token of each row: the mean
// over the tokens that the evidence is read from.
func (t *Tagger) follow(ctx context.Context, r rows, chunk []*finding, config ExplainConfig) ([][]float64, error) {
	model := t.Model.Config
	out, err := t.look(ctx, config.Method, func(w elastic.Weights, in []*graph.Node) []*graph.Node {
		encoded := model.Encode(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]}, nil)
		evidence := evidenceOf(model.HeadLogits(w, encoded.Hidden, nil), in[3])
		switch config.Method {
		case Relevance:
			return []*graph.Node{evidence, interpret.Relevance(encoded.Attentions, evidence)}
		case Rollout:
			return []*graph.Node{evidence, interpret.Rollout(encoded.Attentions)}
		}
		var layers []*graph.Node
		for _, weights := range encoded.Attentions {
			layers = append(layers, interpret.WithResidual(weights))
		}
		return []*graph.Node{evidence, graph.Stack(layers, 1)} // [rows, layers, length, length]
	}, r.ids, r.types, r.mask, r.counts)
	if err != nil {
		return nil, err
	}
	evidence, matrices := out[0], out[1]
	size := len(matrices) / r.size
	values := make([][]float64, len(chunk))
	for i, f := range chunk {
		f.explanation.Evidence = float64(evidence[i])
		n := len(f.part.encoding.IDs)
		var layers [][][]float64 // of this row, without padding
		for flat := range slices.Chunk(matrices[i*size:(i+1)*size], r.length*r.length) {
			layers = append(layers, square(flat, r.length, n))
		}
		values[i] = make([]float64, n)
		for _, output := range f.outputs {
			row := layers[0][output]
			if config.Method == Flow {
				if row, err = interpret.Flow(layers, output); err != nil {
					return nil, err
				}
			}
			for j, v := range row {
				values[i][j] += v / float64(len(f.outputs))
			}
		}
		for _, v := range append(values[i], f.explanation.Evidence) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, errors.New("the model's values are not finite")
			}
		}
	}
	return values, nil
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

package ner

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Explanation says how much each word of a text speaks for one of its entities.
type Explanation struct {
	Entity Entity `json:"entity"`
	// Words are those of the text, in order.
	Words []Contribution `json:"words"`
	// Evidence is the sum over the entity's words of logit(tag) − logit(O), and Without the
	// same for a text of nothing but padding. The contributions add up to their difference, but
	// for Error.
	Evidence float64 `json:"evidence"`
	Without  float64 `json:"without"`
	Error    float64 `json:"error"`
}

// Contribution is what a word adds to the evidence for an entity; negative values speak
// against it.
type Contribution struct {
	Text  string  `json:"text"`
	Start int     `json:"start"` // first character, in Unicode code points
	End   int     `json:"end"`   // behind the last
	Value float64 `json:"value"`
}

// Explain finds the entities of a text and, for each, what every word contributes, by
// [interpret.IntegratedGradients] over word embeddings with the given number of steps (64
// leaves less than a hundredth open as a rule). The baseline is the text with padding in
// place of its words. A text with more tokens than the model has positions is an error.
func (t *Tagger) Explain(ctx context.Context, text string, steps int) ([]Explanation, error) {
	words, places := Words(text)
	tagged, err := t.Tag(ctx, [][]string{words}, nil)
	if err != nil {
		return nil, err
	}
	spans := FromTags(tagged[0].Tags)
	entities, err := Entities(text, places, spans, tagged[0].Scores)
	if err != nil || len(entities) == 0 {
		return nil, err
	}
	_, parts, err := t.cut(words, t.net.maxLength())
	if err != nil {
		return nil, err
	}
	if len(parts) != 1 {
		return nil, fmt.Errorf("the text has more tokens than the model has positions for, %d: explain a part of it", t.net.maxLength())
	}
	p := parts[0]
	evidence, err := t.evidence(p, entities, tagged[0].Tags)
	if err != nil {
		return nil, err
	}
	real, padding, err := t.embeddings(p, len(entities))
	if err != nil {
		return nil, err
	}
	repeat := func(row []int32) *tensors.Tensor {
		return tensors.FromFlatDataAndDimensions(slices.Repeat(row, len(entities)), len(entities), len(row))
	}
	config := t.Model.Config
	explained := func(w elastic.Weights, x *graph.Node, in []*graph.Node) *graph.Node {
		w = t.net.weights(w, nil)
		encoded := config.Encode(w, transformer.Inputs{Words: x, IDs: in[0], Types: in[1]}, nil)
		return graph.ReduceSum(graph.Mul(config.HeadLogits(w, encoded.Hidden, nil), in[2]), 1, 2)
	}
	a, err := interpret.IntegratedGradients(ctx, t.backend, t.Model.Store, explained, real, padding, steps,
		repeat(p.encoding.IDs), repeat(p.encoding.TypeIDs), evidence)
	if err != nil {
		return nil, fmt.Errorf("explaining the entities: %w", err)
	}
	values, err := tensors.CopyFlatData[float32](a.Values)
	if err != nil {
		return nil, fmt.Errorf("explaining the entities: %w", err)
	}
	list := make([]Explanation, len(entities))
	at, hidden, length := codePoints(text), config.Hidden, len(p.encoding.IDs)
	for i, e := range entities {
		list[i] = Explanation{Entity: e, Evidence: a.Output[i], Without: a.Baseline[i], Error: a.Error[i]}
		for _, place := range places {
			list[i].Words = append(list[i].Words, Contribution{Text: text[at[place[0]]:at[place[1]]], Start: place[0], End: place[1]})
		}
		for token, word := range p.encoding.Words {
			if word < 0 {
				continue
			}
			for _, v := range values[(i*length+token)*hidden : (i*length+token+1)*hidden] {
				list[i].Words[word].Value += float64(v)
			}
		}
	}
	return list, nil
}

// evidence returns which logits count for each entity, and how, [entities, tokens, labels].
func (t *Tagger) evidence(p part, entities []Entity, tags []string) (*tensors.Tensor, error) {
	length, classes := len(p.encoding.IDs), t.labels.Len()
	counts := make([]float32, len(entities)*length*classes)
	outside, _ := t.labels.ID(Outside)
	for i, e := range entities {
		for word := e.Words[0]; word < e.Words[1]; word++ {
			token := p.alignment.First[word]
			if token < 0 {
				continue
			}
			label, ok := t.labels.ID(tags[word])
			if !ok {
				return nil, fmt.Errorf("tag %q is none of the tagger's", tags[word])
			}
			counts[(i*length+token)*classes+int(label)]++
			counts[(i*length+token)*classes+int(outside)]--
		}
	}
	return tensors.FromFlatDataAndDimensions(counts, len(entities), length, classes), nil
}

// embeddings returns the word embeddings of a text's tokens, [rows, tokens, hidden], and the
// same with padding in place of all but special tokens.
func (t *Tagger) embeddings(p part, rows int) (real, padding *tensors.Tensor, err error) {
	config := t.Model.Config
	table, err := t.Model.Store.GetVariable("/embeddings/word").Value()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the word embeddings: %w", err)
	}
	var one, none []float32
	err = tensors.ConstFlatData(table, func(flat []float32) {
		row := func(id int) []float32 { return flat[id*config.Hidden : (id+1)*config.Hidden] }
		for token, id := range p.encoding.IDs {
			one = append(one, row(int(id))...)
			if p.encoding.Words[token] >= 0 {
				id = int32(config.PadID)
			}
			none = append(none, row(int(id))...)
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reading the word embeddings: %w", err)
	}
	shape := []int{rows, len(p.encoding.IDs), config.Hidden}
	return tensors.FromFlatDataAndDimensions(slices.Repeat(one, rows), shape...), tensors.FromFlatDataAndDimensions(slices.Repeat(none, rows), shape...), nil
}

package ner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/task/explain"
)

// The methods of package explain.
const (
	IntegratedGradients = explain.IntegratedGradients
	GradientTimesInput  = explain.GradientTimesInput
	Relevance           = explain.Relevance
	Rollout             = explain.Rollout
	Flow                = explain.Flow
)

// ExplainMethods lists the methods, the default first.
func ExplainMethods() []string { return explain.Methods() }

// ExplainConfig says how entities are explained. Its zero value is the documented default.
type ExplainConfig = explain.Config

// Explanation says how much each word of a text speaks for one of its entities.
type Explanation struct {
	Entity Entity `json:"entity"`
	// Words are those of the text, in order.
	Words []explain.Contribution `json:"words"`
	// Evidence is the sum over the entity's words of logit(tag) − logit(O).
	Evidence float64 `json:"evidence"`
	// Without is the evidence in a text of nothing but padding. The contributions add up to
	// Evidence − Without but for Error. Both are 0 for methods that follow attention.
	Without float64 `json:"without,omitempty"`
	Error   float64 `json:"error,omitempty"`
}

// Explain finds the entities of a text and, for each, what every word contributes. The
// baseline of methods that have one is the text with padding in place of its words. A text
// with more tokens than the model has positions is an error.
func (t *Tagger) Explain(ctx context.Context, text string, config ExplainConfig) ([]Explanation, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("explaining entities: %w", err)
	}
	words, places := Words(text)
	list, examples, err := t.findings(ctx, [][]string{words}, []string{text}, [][][2]int{places})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	attributions, err := t.explainer.Explain(ctx, examples, config)
	if err != nil {
		return nil, fmt.Errorf("explaining entities: %w", err)
	}
	for i, a := range attributions {
		list[i].Evidence, list[i].Without, list[i].Error = a.Evidence, a.Without, a.Error
		for word, value := range a.Words {
			list[i].Words[word].Value = value
		}
	}
	return list, nil
}

// findings tags the sentences and returns their entities, each with what its explanation needs.
func (t *Tagger) findings(ctx context.Context, sentences [][]string, texts []string, places [][][2]int) (list []Explanation, examples []explain.Example, err error) {
	tagged, err := t.Tag(ctx, sentences, nil)
	if err != nil {
		return nil, nil, err
	}
	for i, words := range sentences {
		entities, err := Entities(texts[i], places[i], FromTags(tagged[i].Tags), tagged[i].Scores)
		if err != nil {
			return nil, nil, err
		}
		if len(entities) == 0 {
			continue
		}
		_, parts, err := t.cut(words, t.net.maxLength())
		if err != nil {
			return nil, nil, err
		}
		if len(parts) != 1 {
			return nil, nil, fmt.Errorf("a text has more tokens than the model has positions for, %d: explain a part of it", t.net.maxLength())
		}
		at := codePoints(texts[i])
		for _, entity := range entities {
			e := Explanation{Entity: entity}
			for _, place := range places[i] {
				e.Words = append(e.Words, explain.Contribution{Text: texts[i][at[place[0]]:at[place[1]]], Start: place[0], End: place[1]})
			}
			example, err := t.evidence(parts[0], entity, tagged[i].Tags)
			if err != nil {
				return nil, nil, err
			}
			list, examples = append(list, e), append(examples, example)
		}
	}
	return list, examples, nil
}

// evidence says which logits count for an entity, and how.
func (t *Tagger) evidence(p part, entity Entity, tags []string) (explain.Example, error) {
	e := explain.Example{IDs: p.encoding.IDs, TypeIDs: p.encoding.TypeIDs, Words: p.encoding.Words, Size: p.words}
	classes := t.labels.Len()
	e.Counts = make([]float32, len(e.IDs)*classes)
	outside, _ := t.labels.ID(Outside)
	for word := entity.Words[0]; word < entity.Words[1]; word++ {
		token := p.alignment.First[word]
		if token < 0 {
			continue
		}
		label, ok := t.labels.ID(tags[word])
		if !ok {
			return e, fmt.Errorf("tag %q is none of the tagger's", tags[word])
		}
		e.Counts[int(token)*classes+int(label)]++
		e.Counts[int(token)*classes+int(outside)]--
		e.Outputs = append(e.Outputs, int(token))
	}
	return e, nil
}

// explaining returns what explains the net as it is.
func (t *Tagger) explaining() explain.Explainer {
	n := t.net
	var adapter []elastic.Variable
	if n.adapter != nil {
		adapter = n.adapter.Variables()
	}
	return explain.Explainer{
		Adapter: adapter,
		Backend: t.backend, Model: n.Model, Weights: func(w elastic.Weights) elastic.Weights { return n.weights(w, nil) },
		Virtual: n.adapter != nil && slices.Contains([]string{"prefix", "prompt"}, n.adapter.Config().Kind), Length: t.padded, Lock: &t.mu,
	}
}

// padded returns the length that a text of so many tokens is padded to when it is explained, so
// that there are few different ones.
func (t *Tagger) padded(length int) int {
	const step = 16
	return min((length+step-1)/step*step, t.net.maxLength())
}

// Faithfulness says how far the explanations of a method can be trusted, over the entities
// that were found in sentences of two and more words. A word is removed by padding in place
// of its tokens. Evidence is in logits.
type Faithfulness struct {
	Method    string `json:"method"`
	Sentences int    `json:"sentences"` // that have such entities
	Entities  int    `json:"entities"`
	interpret.Faithfulness
}

// Faithfulness explains the entities found in sentences (their tags are not read) and tests
// the explanations by [interpret.Faithful]. Seed draws the random orders. Progress, if not
// nil, is told how many entities of how many are done.
func (t *Tagger) Faithfulness(ctx context.Context, sentences []data.Sentence, config ExplainConfig, seed uint64, progress func(done, total int)) (Faithfulness, error) {
	if err := config.Validate(); err != nil {
		return Faithfulness{}, fmt.Errorf("testing explanations: %w", err)
	}
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
	_, examples, err := t.findings(ctx, words, texts, places)
	if err != nil {
		return Faithfulness{}, err
	}
	if len(examples) == 0 {
		return Faithfulness{}, errors.New("testing explanations: the tagger finds no entity in sentences of two and more words")
	}
	seen := map[*int32]bool{} // sentences, by their first token
	for _, e := range examples {
		seen[&e.IDs[0]] = true
	}
	sum, err := t.explainer.Faithfulness(ctx, examples, config, seed, progress)
	return Faithfulness{Method: config.WithDefaults().Method, Sentences: len(seen), Entities: len(examples), Faithfulness: sum}, err
}

// Sanity explains the entities of a text again and again while the model forgets what it has
// learned, and says how like the first explanation each is; see [explain.Explainer.Sanity]. What is
// explained stays the same: the evidence for the entities that the trained model found. A text
// without entities is an error.
func (t *Tagger) Sanity(ctx context.Context, text string, config ExplainConfig, seed uint64) ([]interpret.Similarity, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("sanity check: %w", err)
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("sanity check: the text is not UTF-8: convert it first")
	}
	words, places := Words(text)
	_, examples, err := t.findings(ctx, [][]string{words}, []string{text}, [][][2]int{places})
	if err != nil {
		return nil, err
	}
	if len(examples) == 0 {
		return nil, errors.New("sanity check: the tagger finds no entity in the text")
	}
	return t.explainer.Sanity(ctx, examples, config, seed)
}

// Heads judges all heads on labelled sentences; see [explain.Explainer.Heads].
func (t *Tagger) Heads(ctx context.Context, sentences []data.Sentence, removal bool, progress func(done, total int)) ([]explain.Head, error) {
	if err := t.labels.coverAll(sentences); err != nil {
		return nil, err
	}
	examples, err := t.Examples(sentences)
	if err != nil {
		return nil, err
	}
	if len(examples) == 0 {
		return nil, errors.New("judging heads: there is no sentence")
	}
	return t.explainer.Heads(ctx, examples, removal, progress)
}

// Attention returns the attention weights of all layers and heads for a text. A text with
// more tokens than the model has positions is an error.
func (t *Tagger) Attention(ctx context.Context, text string) (interpret.AttentionMap, error) {
	if !utf8.ValidString(text) {
		return interpret.AttentionMap{}, errors.New("the text is not UTF-8: convert it first")
	}
	words, _ := Words(text)
	if len(words) == 0 {
		return interpret.AttentionMap{}, errors.New("the text has no words")
	}
	limit := t.net.maxLength()
	_, parts, err := t.cut(words, limit)
	if err != nil {
		return interpret.AttentionMap{}, err
	}
	if len(parts) != 1 {
		return interpret.AttentionMap{}, fmt.Errorf("the text has more tokens than the model has positions for, %d", limit)
	}
	e := parts[0].encoding
	return t.explainer.Attention(ctx, e.IDs, e.TypeIDs, len(e.IDs), t.Tokenizer.Token)
}

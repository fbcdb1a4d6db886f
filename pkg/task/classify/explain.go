package classify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/task/explain"
)

// ExplainConfig says how classes are explained. Its zero value is the documented default.
type ExplainConfig = explain.Config

// Explanation says how much each word of a text speaks for the class that is predicted.
type Explanation struct {
	Choice
	// Words are those of the text, in order; punctuation marks are words too.
	Words []explain.Contribution `json:"words"`
	// Evidence is the class's logit less the mean of all classes' logits, and Without the same
	// for a text of nothing but padding. The contributions add up to their difference, but for
	// Error. Both are 0 for methods that follow attention.
	Evidence float64 `json:"evidence"`
	Without  float64 `json:"without"`
	Error    float64 `json:"error"`
}

// Explain predicts the class of a text and says what every word contributes. The baseline of methods
// that have one is the text with padding in place of its words. Of a text that is too long only what
// the model reads is explained. Lengths are rounded up to a multiple of 16 tokens; each is compiled once.
func (c *Classifier) Explain(ctx context.Context, text string, config ExplainConfig) (Explanation, error) {
	if err := config.Validate(); err != nil {
		return Explanation{}, fmt.Errorf("explaining the class: %w", err)
	}
	list, examples, err := c.findings(ctx, text)
	if err != nil {
		return Explanation{}, err
	}
	attributions, err := c.explainer.Explain(ctx, examples, config)
	if err != nil {
		return Explanation{}, fmt.Errorf("explaining the class: %w", err)
	}
	e, a := list[0], attributions[0]
	e.Evidence, e.Without, e.Error = a.Evidence, a.Without, a.Error
	for word, value := range a.Words {
		e.Words[word].Value = value
	}
	return e, nil
}

// findings predicts the classes of texts, and says what the explanation of each needs.
func (c *Classifier) findings(ctx context.Context, texts ...string) ([]Explanation, []explain.Example, error) {
	predictions, err := c.Predict(ctx, texts...)
	if err != nil {
		return nil, nil, err
	}
	list, examples := make([]Explanation, len(texts)), make([]explain.Example, len(texts))
	for i, text := range texts {
		encoding, err := c.encode(text, c.longest())
		if err != nil {
			return nil, nil, err
		}
		e, example := Explanation{Choice: predictions[i].Choice}, explain.Example{IDs: encoding.IDs, TypeIDs: encoding.TypeIDs}
		characters, word := []rune(text), int32(-1)
		for token, offsets := range encoding.Offsets {
			if encoding.Special[token] {
				example.Words = append(example.Words, -1)
				continue
			}
			if encoding.Words[token] != word {
				word = encoding.Words[token]
				e.Words = append(e.Words, explain.Contribution{Start: offsets[0]})
			}
			w := &e.Words[len(e.Words)-1]
			w.End = offsets[1]
			w.Text = string(characters[w.Start:w.End])
			example.Words = append(example.Words, int32(len(e.Words)-1))
		}
		example.Size = len(e.Words)
		labels := len(c.Labels())
		example.Counts = slices.Repeat([]float32{-1 / float32(labels)}, labels)
		example.Counts[c.numbers[e.Label]]++
		list[i], examples[i] = e, example
	}
	return list, examples, nil
}

// explaining returns what explains the model.
func (c *Classifier) explaining() explain.Explainer {
	return explain.Explainer{Backend: c.backend, Model: c.Model, Length: c.padded, Lock: &c.mu}
}

// longest is how many tokens of a text are read at the most.
func (c *Classifier) longest() int { return c.config.Lengths[len(c.config.Lengths)-1] }

// padded returns the length that a text of so many tokens is padded to when it is explained, which takes hundreds of times as
// long as a prediction: a multiple of 16, or one of the config's lengths if that is less.
func (c *Classifier) padded(tokens int) int {
	const step = 16
	i, _ := slices.BinarySearch(c.config.Lengths, tokens)
	return min((tokens+step-1)/step*step, c.config.Lengths[i])
}

// Faithfulness says how far the explanations of a method can be trusted, over texts of two and more
// words. A word is removed by padding in place of its tokens. Evidence is in logits.
type Faithfulness struct {
	Method string `json:"method"`
	Texts  int    `json:"texts"` // that have two and more words
	interpret.Faithfulness
}

// Faithfulness explains the classes that are predicted for texts (their labels are not read) and tests the
// explanations by [interpret.Faithful]. Seed draws the random orders. Progress, if not nil, is told how
// many texts of how many are done.
func (c *Classifier) Faithfulness(ctx context.Context, texts []data.Text, config ExplainConfig, seed uint64, progress func(done, total int)) (Faithfulness, error) {
	if err := config.Validate(); err != nil {
		return Faithfulness{}, fmt.Errorf("testing explanations: %w", err)
	}
	plain := make([]string, len(texts))
	for i, t := range texts {
		plain[i] = t.Text
	}
	_, examples, err := c.findings(ctx, plain...)
	if err != nil {
		return Faithfulness{}, err
	}
	examples = slices.DeleteFunc(examples, func(e explain.Example) bool { return e.Size < 2 }) // there is no order to be tested
	if len(examples) == 0 {
		return Faithfulness{}, errors.New("testing explanations: there is no text of two and more words")
	}
	sum, err := c.explainer.Faithfulness(ctx, examples, config, seed, progress)
	return Faithfulness{Method: config.WithDefaults().Method, Texts: len(examples), Faithfulness: sum}, err
}

// Sanity explains the class of a text again and again while the model forgets what it has learned, and
// says how like the first explanation each is; see [explain.Explainer.Sanity]. What is explained stays
// the same: the evidence for the class that the trained model predicts. A text without words is an
// error.
func (c *Classifier) Sanity(ctx context.Context, text string, config ExplainConfig, seed uint64) ([]interpret.Similarity, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("sanity check: %w", err)
	}
	_, examples, err := c.findings(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("sanity check: %w", err)
	}
	if examples[0].Size == 0 {
		return nil, errors.New("sanity check: the text has no words")
	}
	return c.explainer.Sanity(ctx, examples, config, seed)
}

// Heads judges all heads on labelled texts, as far as the model reads them; see [explain.Explainer.Heads].
func (c *Classifier) Heads(ctx context.Context, texts []data.Text, removal bool, progress func(done, total int)) ([]explain.Head, error) {
	examples, err := c.examples(texts, c.longest())
	if err != nil {
		return nil, err
	}
	if len(examples) == 0 {
		return nil, errors.New("judging heads: there is no text")
	}
	return c.explainer.Heads(ctx, examples, removal, progress)
}

// Attention returns the attention weights of all layers and heads for a text. Of a text that is too long only what the model
// reads is there. Lengths are rounded up as by [Classifier.Explain].
func (c *Classifier) Attention(ctx context.Context, text string) (interpret.AttentionMap, error) {
	encoding, err := c.encode(text, c.longest())
	if err != nil {
		return interpret.AttentionMap{}, err
	}
	return c.explainer.Attention(ctx, encoding.IDs, encoding.TypeIDs, c.padded(len(encoding.IDs)), c.Tokenizer.Token)
}

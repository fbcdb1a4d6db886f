package ner

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
)

// Sanity explains the entities of a text again and again while the model forgets what it has
// learned, from its head down, and says how like the first explanation each is; see
// [interpret.Randomise]. What is explained stays the same: the evidence for the entities that
// the trained model found. The fresh weights are drawn under seed. In the end the model is as
// it was; nothing else may use it until then. A text without entities is an error.
func (t *Tagger) Sanity(ctx context.Context, text string, config ExplainConfig, seed uint64) ([]interpret.Similarity, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("sanity check: %w", err)
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("sanity check: the text is not UTF-8: convert it first")
	}
	words, places := Words(text)
	found, err := t.findings(ctx, [][]string{words}, []string{text}, [][][2]int{places})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("sanity check: the tagger finds no entity in the text")
	}
	return interpret.Randomise(t.Model.Store, interpret.Cascade(t.Model.Config.Variables()), seed, func() ([]float64, error) {
		for i := range found {
			for j := range found[i].explanation.Words {
				found[i].explanation.Words[j].Value = 0
			}
		}
		if err := t.attribute(ctx, found, config.withDefaults()); err != nil {
			return nil, fmt.Errorf("sanity check: %w", err)
		}
		var values []float64
		for _, f := range found {
			for _, w := range f.explanation.Words {
				values = append(values, w.Value)
			}
		}
		return values, nil
	})
}

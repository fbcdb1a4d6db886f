package ner_test

import (
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/ner"
)

// TestExplain: the contributions of all words add up to the evidence, and stand where the
// words stand.
func TestExplain(t *testing.T) {
	tagger := loadTrained(t)
	const text = "Ann Lee lives in Rome ."
	documents, err := tagger.Predict(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	explanations, err := tagger.Explain(t.Context(), text, ner.ExplainConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if len(explanations) == 0 || len(explanations) != len(documents[0].Entities) {
		t.Fatalf("%d explanations for the entities %v", len(explanations), documents[0].Entities)
	}
	runes := []rune(text)
	for i, e := range explanations {
		if e.Entity.Text != documents[0].Entities[i].Text || e.Entity.Type != documents[0].Entities[i].Type {
			t.Errorf("entity %+v, want %+v", e.Entity, documents[0].Entities[i])
		}
		sum := 0.0
		for _, w := range e.Words {
			sum += w.Value
			if got := string(runes[w.Start:w.End]); got != w.Text {
				t.Errorf("%q stands where the text has %q", w.Text, got)
			}
		}
		if len(e.Words) != 6 {
			t.Errorf("%d words, want 6: %v", len(e.Words), e.Words)
		}
		difference := e.Evidence - e.Without
		if math.Abs(sum+e.Error-difference) > 1e-3*math.Abs(difference) {
			t.Errorf("%s: contributions %g and error %g do not add up to %g", e.Entity.Text, sum, e.Error, difference)
		}
		if math.Abs(e.Error) > 0.01*math.Abs(difference) {
			t.Errorf("%s: %g of %g is left open, want a hundredth at most", e.Entity.Text, e.Error, difference)
		}
		if e.Evidence <= 0 {
			t.Errorf("%s: evidence is %g for an entity that was found", e.Entity.Text, e.Evidence)
		}
	}
}

func TestExplainOddTexts(t *testing.T) {
	tagger := loadTrained(t)
	for _, text := range []string{"", "   ", "."} {
		if explanations, err := tagger.Explain(t.Context(), text, ner.ExplainConfig{Steps: 4}); err != nil || len(explanations) > 0 {
			t.Errorf("%q: %v, %v", text, explanations, err)
		}
	}
	long := strings.Repeat("Ann lives in Rome . ", 40)
	if _, err := tagger.Explain(t.Context(), long, ner.ExplainConfig{Steps: 4}); err == nil || !strings.Contains(err.Error(), "more tokens than the model has positions for") {
		t.Errorf("a long text: %v", err)
	}
	if _, err := tagger.Explain(t.Context(), "Ann lives in Rome .", ner.ExplainConfig{Steps: -1}); err == nil || !strings.Contains(err.Error(), "steps is -1") {
		t.Errorf("no steps: %v", err)
	}
}

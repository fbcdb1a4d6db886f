package ner_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
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

// TestExplainMethods: every method sees the same evidence, alone and among others, and those
// that follow attention say nothing against an entity.
func TestExplainMethods(t *testing.T) {
	tagger := loadTrained(t)
	const text = "Ann Lee lives in Rome ."
	var evidence float64
	for i, method := range ner.ExplainMethods() {
		explanations, err := tagger.Explain(t.Context(), text, ner.ExplainConfig{Method: method, Steps: 8})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			evidence = explanations[0].Evidence
		}
		follows := i >= 2
		e, sum := explanations[0], 0.0
		for _, w := range e.Words {
			sum += w.Value
			if follows && w.Value < 0 {
				t.Errorf("%s: %s has %g", method, w.Text, w.Value)
			}
		}
		if math.Abs(e.Evidence-evidence) > 1e-4*math.Abs(evidence) || follows && (e.Without != 0 || e.Error != 0 || sum == 0) {
			t.Errorf("%s: evidence %g (first method: %g), without %g, error %g, sum %g", method, e.Evidence, evidence, e.Without, e.Error, sum)
		}
		if method == ner.Rollout && sum > 1+1e-4 { // special tokens have the rest
			t.Errorf("rollout adds up to %g, want 1 at most", sum)
		}
	}
	if _, err := tagger.Explain(t.Context(), text, ner.ExplainConfig{Method: "guess"}); err == nil || !strings.Contains(err.Error(), `known: integrated_gradients, `) {
		t.Errorf("unknown method: %v", err)
	}
}

// TestFaithfulness: on a trained tagger integrated gradients are complete and beat random
// orders; the curves begin and end with the whole and with nothing.
func TestFaithfulness(t *testing.T) {
	tagger := loadTrained(t)
	f, err := tagger.Faithfulness(t.Context(), synth.Entities(3, 5), ner.ExplainConfig{Steps: 16}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f.Entities < 4 || f.Sentences < 2 || f.Completeness == nil || !(f.Completeness.Greatest <= 0.01) || !(f.Completeness.Mean <= f.Completeness.Greatest) {
		t.Errorf("completeness %+v of %d entities in %d sentences, want an error of 1 %% at most", f.Completeness, f.Entities, f.Sentences)
	}
	if f.DeletionBetter < 0.95 || !(f.Deletion < f.Random && f.Random < f.Insertion) {
		t.Errorf("areas of deletion %g, random %g, insertion %g; better than random %g", f.Deletion, f.Random, f.Insertion, f.DeletionBetter)
	}
	c := f.Curves
	if whole, nothing := c.Deletion[0], c.Deletion[10]; math.Abs(whole-c.Insertion[10]) > 1e-4 || math.Abs(nothing-c.Insertion[0]) > 1e-4 || math.Abs(whole-c.Random[0]) > 1e-4 || whole <= nothing {
		t.Errorf("curves do not meet: %+v", c)
	}
	if _, err := tagger.Faithfulness(t.Context(), []data.Sentence{{Words: []string{"."}}}, ner.ExplainConfig{}, 1, nil); err == nil || !strings.Contains(err.Error(), "finds no entity") {
		t.Errorf("no entity: %v", err)
	}
}

// TestHeads: every head is judged, and profiles are shares where they must be.
func TestHeads(t *testing.T) {
	tagger := loadTrained(t)
	config := tagger.Model.Config
	heads, err := tagger.Heads(t.Context(), synth.Entities(3, 4), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(heads) != config.Layers*config.Attention.Heads {
		t.Fatalf("%d heads", len(heads))
	}
	moved := 0.0
	for _, h := range heads {
		moved += math.Abs(h.Removal)
		p := h.Profile
		if h.Importance <= 0 || len(p) != len(interpret.Features)-1 || p["greatest"] <= 0 || p["greatest"] > 1 || p["self"]+p["previous"]+p["next"] > 1+1e-5 || p["entropy"] < 0 || p["sparsity"] != 0 {
			t.Errorf("head %+v", h)
		}
	}
	if moved == 0 {
		t.Error("removing heads changes nothing")
	}
	m, err := tagger.Attention(t.Context(), "Ann lives in Rome .")
	if err != nil {
		t.Fatal(err)
	}
	row := 0.0
	for _, v := range m.Weights[config.Layers-1][0][1] {
		row += v
	}
	if len(m.Weights) != config.Layers || len(m.Weights[0]) != config.Attention.Heads || len(m.Weights[0][0]) != len(m.Tokens) || math.Abs(row-1) > 1e-4 {
		t.Errorf("attention of %d tokens: row sums to %g", len(m.Tokens), row)
	}
	for text, want := range map[string]string{" ": "no words", "\xff": "not UTF-8", strings.Repeat("Rome . ", 100): "more tokens"} {
		if _, err := tagger.Attention(t.Context(), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.10q: %v, want %q", text, err, want)
		}
	}
	if _, err := tagger.Heads(t.Context(), nil, false, nil); err == nil || !strings.Contains(err.Error(), "no sentence") {
		t.Errorf("no sentence: %v", err)
	}
}

// TestSanity: explanations go away with what the model has learned, and come back with it.
func TestSanity(t *testing.T) {
	tagger := loadTrained(t)
	const text = "Ann Lee lives in Rome ."
	before := weights(t, tagger)
	list, err := tagger.Sanity(t.Context(), text, ner.ExplainConfig{Steps: 16}, 3)
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	for _, s := range list {
		stages = append(stages, s.Stage)
	}
	if want := "head layer_1 layer_0 embeddings"; strings.Join(stages, " ") != want {
		t.Errorf("stages are %q, want %q", stages, want)
	}
	if last := list[len(list)-1]; !(last.Rank < 0.9) {
		t.Errorf("a random model's explanation has rank correlation %g", last.Rank)
	}
	if !bytes.Equal(weights(t, tagger), before) {
		t.Error("the model is not as it was")
	}
	if _, err := tagger.Sanity(t.Context(), ".", ner.ExplainConfig{}, 3); err == nil || !strings.Contains(err.Error(), "finds no entity") {
		t.Errorf("no entity: %v", err)
	}
}

// TestHeadsOfAnAdapter: heads are judged as the adapter has them, and the same when it is merged.
func TestHeadsOfAnAdapter(t *testing.T) {
	tagger, sentences := adapted(t, savedBase(t), peft.Config{Kind: "lora"}, nil), synth.Entities(3, 2)
	for _, v := range tagger.Adapter().Variables() {
		flat := make([]float32, v.Size())
		for i := range flat {
			flat[i] = float32(math.Sin(float64(i + len(v.Path))))
		}
		if err := tagger.Model.Store.GetVariable(v.Path).SetValue(tensors.FromFlatDataAndDimensions(flat, v.Shape...)); err != nil {
			t.Fatal(err)
		}
	}
	before, err := tagger.Heads(t.Context(), sentences, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tagger.Merge(); err != nil {
		t.Fatal(err)
	}
	after, err := tagger.Heads(t.Context(), sentences, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(after, before, cmpopts.EquateApprox(1e-3, 1e-5)); diff != "" {
		t.Errorf("merged and not, heads differ:\n%s", diff)
	}
}

package ner_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// adapted returns a tagger with an adapter on the model in base.
func adapted(t *testing.T, base string, config peft.Config, spec *attention.Spec) *ner.Tagger {
	t.Helper()
	labels, err := ner.LabelsOfTypes("LOC", "ORG", "PER")
	if err != nil {
		t.Fatal(err)
	}
	tagger, err := ner.NewTagger(gxtest.Backend(t), base, labels, ner.Config{MaxLength: 40, Lengths: []int{24, 40}, Overlap: 8, Adapter: &config, Attention: spec}, 4)
	if err != nil {
		t.Fatal(err)
	}
	return tagger
}

func savedBase(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "base")
	if err := newTagger(t, 3).Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// logitsOf computes the logits of a sentence.
func logitsOf(t *testing.T, tagger *ner.Tagger) []float32 {
	t.Helper()
	parts, err := tagger.Logits(t.Context(), strings.Fields("Angela met Tim in Berlin ."))
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(parts[0].Logits...)
}

func flatWeights(t *testing.T, tagger *ner.Tagger, path string) []byte {
	t.Helper()
	var all []byte
	if err := tagger.Model.Store.GetVariable(path).MustValue().ConstBytes(func(data []byte) { all = append(all, data...) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAdaptersTrainSaveAndMerge trains each kind a little. The base must stay as it is, the
// adapter be saved without it and come back, a merged model predict the same.
func TestAdaptersTrainSaveAndMerge(t *testing.T) {
	base := savedBase(t)
	sentences := synth.Entities(1, 64)
	for _, kind := range peft.Kinds() {
		t.Run(kind, func(t *testing.T) {
			config := peft.Config{Kind: kind}
			switch kind {
			case "adalora":
				config.Rank, config.Budget = 4, &peft.Budget{Target: 2, Every: 1}
			case "prefix", "prompt":
				config.Length = 5
			}
			tagger := adapted(t, base, config, nil)
			start := logitsOf(t, tagger)
			recipe := recipe(2)
			if kind == "adalora" {
				recipe.Accumulate = 2
			}
			if _, err := tagger.Train(t.Context(), sentences, nil, recipe, ner.TrainOptions{}); err != nil {
				t.Fatal(err)
			}
			before := adapted(t, base, config, nil)
			for _, path := range []string{"/embeddings/word", "/layer_0/attention/query/weights", "/layer_1/feed_forward/norm/bias"} {
				if !slices.Equal(flatWeights(t, tagger, path), flatWeights(t, before, path)) {
					t.Errorf("%s of the base has changed", path)
				}
			}
			for _, v := range tagger.Adapter().Variables() {
				// Adalora ends smaller; a bias of keys has no gradient, since softmax does not see it.
				if kind != "adalora" && slices.Equal(flatWeights(t, tagger, v.Path), flatWeights(t, before, v.Path)) {
					t.Errorf("%s was not trained", v.Path)
				}
			}
			trained := logitsOf(t, tagger)
			if slices.Equal(start, trained) {
				t.Error("training changed nothing")
			}
			if kind == "adalora" {
				total := 0
				for _, rank := range tagger.Adapter().Ranks() {
					total += rank
				}
				if total != 2*4 {
					t.Errorf("%d ranks are left, want 2 each of 4 layers", total)
				}
			}

			dir := filepath.Join(t.TempDir(), "model")
			if err := tagger.Save(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err == nil {
				t.Error("the base was saved with the adapter")
			}
			again, err := ner.Load(gxtest.Backend(t), dir)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(logitsOf(t, again), trained) {
				t.Error("the saved adapter computes something else")
			}
			if again.Adapter().Config().Mergeable() != nil {
				if err := again.Merge(); err == nil {
					t.Error("merged what cannot be")
				}
				return
			}
			if err := again.Merge(); err != nil {
				t.Fatal(err)
			}
			gxtest.Close(t, logitsOf(t, again), trained, 1e-5)
			whole := filepath.Join(t.TempDir(), "whole")
			if err := again.Save(whole); err != nil {
				t.Fatal(err)
			}
			if again, err = ner.Load(gxtest.Backend(t), whole); err != nil {
				t.Fatal(err)
			}
			if again.Adapter() != nil {
				t.Error("the merged model has an adapter")
			}
			gxtest.Close(t, logitsOf(t, again), trained, 1e-5)
		})
	}
}

// TestInterruptedAdapterEndsWithTheSameWeights stops in the middle, before and after adalora's
// ranks are settled.
func TestInterruptedAdapterEndsWithTheSameWeights(t *testing.T) {
	base := savedBase(t)
	sentences, dev := synth.Entities(1, 96), synth.Entities(2, 16)
	config := recipe(2) // 12 updates
	config.SaveEvery = 2
	spec := peft.Config{Kind: "adalora", Rank: 4, Dropout: 0.1, Budget: &peft.Budget{Target: 2, Every: 2}}
	temperature := &attention.Spec{Scores: []attention.Score{attention.Temperature{Learned: true}}}
	whole := adapted(t, base, spec, temperature)
	if _, err := whole.Train(t.Context(), sentences, dev, config, ner.TrainOptions{Run: checkpoint.Run{Dir: t.TempDir()}}); err != nil {
		t.Fatal(err)
	}
	for _, stop := range []int{1, 5, 11} {
		run := checkpoint.Run{Dir: t.TempDir()}
		ctx, cancel := context.WithCancel(t.Context())
		_, err := adapted(t, base, spec, temperature).Train(ctx, sentences, dev, config, ner.TrainOptions{Run: run, Step: func(s train.Step) {
			if s.Update == stop {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, train.ErrInterrupted) {
			t.Fatalf("stopped at %d: %v", stop, err)
		}
		folder, err := run.Latest()
		if err != nil {
			t.Fatal(err)
		}
		tagger, err := ner.Load(gxtest.Backend(t), folder.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tagger.Train(t.Context(), sentences, dev, config, ner.TrainOptions{Run: run, Resume: folder.Dir}); err != nil {
			t.Fatal(err)
		}
		for _, v := range whole.Adapter().Trained() {
			if !slices.Equal(flatWeights(t, tagger, v.Path), flatWeights(t, whole, v.Path)) {
				t.Errorf("stopped after update %d: %s differs", stop, v.Path)
			}
		}
	}
}

// TestAdapterWithoutItsBase checks what is said when the base is gone or is another model.
func TestAdapterWithoutItsBase(t *testing.T) {
	base := savedBase(t)
	dir := filepath.Join(t.TempDir(), "model")
	if err := adapted(t, base, peft.Config{Kind: "lora"}, nil).Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(base, base+"-moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := ner.Load(gxtest.Backend(t), dir); err == nil || !strings.Contains(err.Error(), "base_model_name_or_path") || !strings.Contains(err.Error(), base) {
		t.Errorf("error is %v", err)
	}
}

// TestAdapterThatCannotBeSaved is refused before it is trained.
func TestAdapterThatCannotBeSaved(t *testing.T) {
	labels, err := ner.LabelsOfTypes("LOC")
	if err != nil {
		t.Fatal(err)
	}
	config := ner.Config{Adapter: &peft.Config{Kind: "prefix", Targets: []string{"/layer_0/attention/key/weights"}}}
	if _, err := ner.NewTagger(gxtest.Backend(t), savedBase(t), labels, config, 1); err == nil || !strings.Contains(err.Error(), "a prefix of only some layers") {
		t.Errorf("error is %v", err)
	}
}

// TestAdaptedTaggerExplains checks that explanations see virtual tokens.
func TestAdaptedTaggerExplains(t *testing.T) {
	tagger := adapted(t, savedBase(t), peft.Config{Kind: "prefix", Length: 3}, nil)
	if _, err := tagger.Explain(t.Context(), "Angela met Tim in Berlin .", ner.ExplainConfig{Steps: 4}); err != nil {
		t.Fatal(err)
	}
	for _, x := range logitsOf(t, tagger) {
		if math.IsNaN(float64(x)) {
			t.Fatal("a logit is not a number")
		}
	}
}

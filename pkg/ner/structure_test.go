package ner_test

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// TestElasticStructure: a tagger with early exits and experts trains all of them, is saved and
// loaded, and leaves where the threshold says.
func TestElasticStructure(t *testing.T) {
	labels, err := ner.LabelsOfTypes("LOC", "ORG", "PER")
	if err != nil {
		t.Fatal(err)
	}
	config := ner.Config{
		MaxLength: 48, Lengths: []int{48}, Overlap: 8,
		Depth: &transformer.Depth{Kind: transformer.EarlyExit}, Experts: &transformer.Experts{Count: 2, Balance: 0.01},
	}
	tagger, err := ner.NewTaggerFromScratch(gxtest.Backend(t), tokenizerDir(t), encoder(), labels, config, 1)
	if err != nil {
		t.Fatal(err)
	}
	value := func(path string) []float32 {
		return tensors.MustCopyFlatData[float32](tagger.Model.Store.GetVariable(path).MustValue())
	}
	paths := []string{"/depth/exit_0/classifier/weights", "/head/classifier/weights", "/layer_0/feed_forward/router/weights", "/layer_1/feed_forward/experts/outer/bias"}
	before := map[string][]float32{}
	for _, path := range paths {
		before[path] = value(path)
	}
	if _, err := tagger.Train(t.Context(), synth.Entities(1, 60), nil, recipe(1), ner.TrainOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if slices.Equal(before[path], value(path)) {
			t.Errorf("training leaves %s as it was", path)
		}
	}

	dir := filepath.Join(t.TempDir(), "model")
	if err := tagger.Save(dir); err != nil {
		t.Fatal(err)
	}
	loaded, err := ner.Load(gxtest.Backend(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	words := [][]string{{"Anna", "went", "to", "Berlin", "."}}
	tag := func(threshold float64) []ner.Tagged {
		t.Helper()
		if err := loaded.ExitAt(threshold); err != nil {
			t.Fatal(err)
		}
		tagged, err := loaded.Tag(t.Context(), words, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tagged
	}
	full := tag(0)
	if layers := loaded.MeanLayers(); layers != 2 {
		t.Errorf("threshold 0 takes %g layers, want 2", layers)
	}
	if want, err := tagger.Tag(t.Context(), words, nil); err != nil || !reflect.DeepEqual(full, want) {
		t.Errorf("loaded: %v, want %v (%v)", full, want, err)
	}
	first := tag(1)
	if layers := loaded.MeanLayers(); layers != 1.5 {
		t.Errorf("two batches of 2 layers and 1 have a mean of %g", layers)
	}
	if reflect.DeepEqual(first, full) {
		t.Error("the first exit says the same as the last, to the last bit of its scores")
	}
	if err := loaded.ExitAt(-1); err == nil || !strings.Contains(err.Error(), "depth.threshold is -1") {
		t.Errorf("a threshold that is none: %v", err)
	}
	if err := newTagger(t, 1).ExitAt(0.5); err == nil || !strings.Contains(err.Error(), "no early exits") {
		t.Errorf("a model of fixed depth: %v", err)
	}
}

package ner_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
)

// TestDistillation: a small student is nearer to its teacher, in sentences that neither has seen, than one that
// learned from labels only.
func TestDistillation(t *testing.T) {
	sentences := synth.Entities(3, 60)
	teacher := newTagger(t, 3)
	if _, err := teacher.Train(t.Context(), sentences, nil, recipe(3), ner.TrainOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "teacher")
	if err := teacher.Save(dir); err != nil {
		t.Fatal(err)
	}
	predict := func(tagger *ner.Tagger) (rows [][]float64) { // log-probabilities of each token
		for _, s := range synth.Entities(4, 8) {
			windows, err := tagger.Logits(t.Context(), s.Words)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range windows[0].Logits {
				sum := 0.0
				for _, z := range row {
					sum += math.Exp(float64(z))
				}
				var p []float64
				for _, z := range row {
					p = append(p, float64(z)-math.Log(sum))
				}
				rows = append(rows, p)
			}
		}
		return rows
	}
	want := predict(teacher)
	divergence := func(distill run.Distill) (mean float64) {
		t.Helper()
		small := encoder()
		small.Hidden, small.FeedForward, small.Layers = 24, 48, 1
		student, err := ner.NewTaggerFromScratch(gxtest.Backend(t), tokenizerDir(t), small, teacher.Labels(), ner.Config{MaxLength: 48, Lengths: []int{24, 48}}, 9)
		if err != nil {
			t.Fatal(err)
		}
		config := recipe(8)
		config.Distill = distill
		if _, err := student.Train(t.Context(), sentences, nil, config, ner.TrainOptions{}); err != nil {
			t.Fatal(err)
		}
		got := predict(student)
		for i := range want {
			for class, p := range want[i] {
				mean += math.Exp(p) * (p - got[i][class]) / float64(len(want))
			}
		}
		return mean
	}
	alone, followed := divergence(run.Distill{}), divergence(run.Distill{Teacher: dir, Temperature: 1, Alpha: 0.9})
	if !(followed < 0.8*alone) {
		t.Errorf("divergence from the teacher is %.4f with it and %.4f without", followed, alone)
	}
}

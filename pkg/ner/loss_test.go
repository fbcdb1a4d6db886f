package ner_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
)

// TestLossOfATagger looks at the first loss, which the weights of the seed decide.
func TestLossOfATagger(t *testing.T) {
	corpus := synth.Entities(3, 48)
	first := func(c loss.Config, change func(*transformer.Config)) float64 {
		t.Helper()
		tagger := newTagger(t, 2)
		if change != nil {
			change(&tagger.Model.Config)
		}
		config := recipe(1)
		config.MaxUpdates, config.LogEvery, config.Loss = 1, 1, c
		result, err := tagger.Train(t.Context(), corpus, nil, config, ner.TrainOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return result.State.History[0].Loss
	}
	still := func(c *transformer.Config) { c.Dropout, c.Attention.Dropout, c.Head.Dropout = 0, 0, 0 }
	plain := first(loss.Config{}, still)
	doubled := loss.Config{RDrop: 5, ClassWeights: map[string]float64{"O": 2, "B-LOC": 2, "I-LOC": 2, "B-ORG": 2, "I-ORG": 2, "B-PER": 2, "I-PER": 2}}
	if got := first(doubled, still); !near(got, plain, 1e-5) {
		t.Errorf("two equal passes, with equal weights, have loss %g, want that of the plain one, %g", got, plain)
	}
	if focused := first(loss.Config{FocalGamma: 2}, still); !(focused < plain) {
		t.Errorf("focused loss %g is not below the plain one, %g", focused, plain)
	}
	// With dropout the passes differ, and the divergence comes in with its weight.
	if one, three := first(loss.Config{RDrop: 1}, nil), first(loss.Config{RDrop: 3}, nil); !(three > one+1e-3) {
		t.Errorf("losses for r_drop 1 and 3 are %g and %g; want a divergence in them", one, three)
	}
	// Exits are compared one by one.
	exits := func(c loss.Config) float64 {
		labels, err := ner.LabelsOfTypes("LOC", "ORG", "PER")
		if err != nil {
			t.Fatal(err)
		}
		e := encoder()
		still(&e)
		tagger, err := ner.NewTaggerFromScratch(gxtest.Backend(t), tokenizerDir(t), e, labels, ner.Config{MaxLength: 48, Depth: &transformer.Depth{Kind: transformer.EarlyExit}}, 2)
		if err != nil {
			t.Fatal(err)
		}
		config := recipe(1)
		config.MaxUpdates, config.LogEvery, config.Loss = 1, 1, c
		result, err := tagger.Train(t.Context(), corpus, nil, config, ner.TrainOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return result.State.History[0].Loss
	}
	if plain, twice := exits(loss.Config{}), exits(loss.Config{RDrop: 3}); !near(plain, twice, 1e-5) {
		t.Errorf("with exits and equal passes the loss is %g, want %g", twice, plain)
	}
}

func near(a, b, tolerance float64) bool { return a-b <= tolerance && b-a <= tolerance }

func TestLossesThatATaggerRefuses(t *testing.T) {
	for want, c := range map[string]loss.Config{
		"loss.mixup has no use in tagging":                       {Mixup: 0.2},
		`loss.class_weights: "PER" is no class`:                  {ClassWeights: map[string]float64{"PER": 2}},
		"loss.label_smoothing is 2":                              {LabelSmoothing: 2},
		`loss.penalties[0].variables: pattern "/pooler/*" match`: {Penalties: []loss.Penalty{{Variables: []string{"/pooler/*"}, L2: 1}}},
	} {
		config := recipe(1)
		config.Loss = c
		if _, err := newTagger(t, 2).Train(t.Context(), synth.Entities(3, 4), nil, config, ner.TrainOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

// TestLossResumesExactly interrupts a run whose loss compares passes with noise of their own: the weights
// must be those of a run that was let be, bit by bit.
func TestLossResumesExactly(t *testing.T) {
	corpus := synth.Entities(1, 96)
	config := recipe(1)
	config.Loss = loss.Config{RDrop: 1, LabelSmoothing: 0.1, Balanced: true, Penalties: []loss.Penalty{{Variables: []string{"/head/*"}, L1: 1e-3}}}
	config.Noise = run.Noise{DropPath: 0.3, WordDropout: 0.1}
	config.Shapes = 1 // one compilation a run
	whole := newTagger(t, 9)
	if _, err := whole.Train(t.Context(), corpus, nil, config, ner.TrainOptions{}); err != nil {
		t.Fatal(err)
	}
	folder := checkpoint.Run{Dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := newTagger(t, 9).Train(ctx, corpus, nil, config, ner.TrainOptions{Run: folder, Step: func(s train.Step) {
		if s.Update == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatal(err)
	}
	latest, err := folder.Latest()
	if err != nil {
		t.Fatal(err)
	}
	torn, err := ner.Load(gxtest.Backend(t), latest.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.Train(t.Context(), corpus, nil, config, ner.TrainOptions{Run: folder, Resume: latest.Dir}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(weights(t, torn), weights(t, whole)) {
		t.Error("the resumed run has other weights")
	}
}

package lm_test

import (
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/lm"
)

// TestLossOfALanguageModel looks at the first loss, which the weights of the seed decide.
func TestLossOfALanguageModel(t *testing.T) {
	first := func(c loss.Config, noise run.Noise) float64 {
		t.Helper()
		model := tiny()
		model.Layers, model.Dropout, model.Attention.Dropout = 2, 0, 0
		m, err := lm.New(gxtest.Backend(t), model, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Finalize()
		config := recipe
		config.Loss, config.Noise, config.MaxUpdates, config.LogEvery = c, noise, 1, 1
		result, err := m.Train(t.Context(), song, nil, config, lm.TrainOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return result.State.History[0].Loss
	}
	plain := first(loss.Config{}, run.Noise{})
	if twice := first(loss.Config{RDrop: 2}, run.Noise{}); math.Abs(twice-plain) > 1e-5 {
		t.Errorf("two equal passes have loss %g, one %g", twice, plain)
	}
	if apart := first(loss.Config{RDrop: 2}, run.Noise{DropPath: 0.5}); math.Abs(apart-plain) < 1e-4 {
		t.Errorf("passes that leave out parts have loss %g, as one whole pass", apart)
	}
	if costs := first(loss.Config{Penalties: []loss.Penalty{{Variables: []string{"/embeddings/*"}, L2: 1}}}, run.Noise{}); !(costs > plain+0.01) {
		t.Errorf("loss %g with a penalty, %g without", costs, plain)
	}
}

func TestLossesThatALanguageModelRefuses(t *testing.T) {
	for want, change := range map[string]func(*lm.TrainConfig){
		"loss.class_weights or loss.balanced has no use in a language model": func(c *lm.TrainConfig) { c.Loss.Balanced = true },
		"loss.mixup has no use in a language model":                          func(c *lm.TrainConfig) { c.Loss.Mixup = 1 },
		"noise.word_dropout has no use in a language model":                  func(c *lm.TrainConfig) { c.Noise.WordDropout = 0.1 },
		`loss.penalties[0].variables: pattern "/no/*" matches`: func(c *lm.TrainConfig) {
			c.Loss.Penalties = []loss.Penalty{{Variables: []string{"/no/*"}, L1: 1}}
		},
	} {
		config := recipe
		change(&config)
		m, err := lm.New(gxtest.Backend(t), tiny(), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Finalize()
		if _, err := m.Train(t.Context(), song, nil, config, lm.TrainOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

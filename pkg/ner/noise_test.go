package ner_test

import (
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
)

// TestNoiseIsOfTrainingOnly: it changes the loss of training, and nothing of the model that is left.
func TestNoiseIsOfTrainingOnly(t *testing.T) {
	corpus := synth.Entities(3, 48)
	first := func(noise run.Noise) (*ner.Tagger, float64) {
		tagger := newTagger(t, 2)
		config := recipe(1)
		config.MaxUpdates, config.LogEvery, config.Noise = 1, 1, noise
		config.Schedule.Peak = 1e-30 // what is trained stays as it was
		config.Schedule.Kind, config.Schedule.Warmup = "constant", 0
		result, err := tagger.Train(t.Context(), corpus, nil, config, ner.TrainOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return tagger, result.State.History[0].Loss
	}
	plain, without := first(run.Noise{})
	for name, noise := range map[string]run.Noise{"drop_path": {DropPath: 0.9}, "word_dropout": {WordDropout: 0.9}} {
		noisy, with := first(noise)
		if with == without {
			t.Errorf("%s: the loss is %g as without", name, with)
		}
		if noisy.Model.Config.Noise != nil {
			t.Errorf("%s: the model has the noise %+v", name, noisy.Model.Config.Noise)
		}
		a, err := noisy.Evaluate(t.Context(), corpus, ner.Options{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := plain.Evaluate(t.Context(), corpus, ner.Options{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, a.Micro.F1, b.Micro.F1, 0)
	}
}

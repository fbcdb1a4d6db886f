package experiment_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	runs "github.com/elastic-attention/workbench/pkg/run"
)

// TestStrategyFromAnEarlierRun learns from the weights and the Fisher information of a run, ends by
// its budget, logs it, and gives the same files when it is interrupted and resumed.
func TestStrategyFromAnEarlierRun(t *testing.T) {
	parent := t.TempDir()
	first := filepath.Join(parent, "first")
	if err := run(t, tiny(t), experiment.Options{Dir: first}); err != nil {
		t.Fatal(err)
	}
	config := tiny(t)
	config.Train.MaxUpdates, config.Train.Seed = 8, 9
	config.Train.Adapt = adapt.Strategy{
		Gradient:   []adapt.Rate{{Variables: []string{"/embeddings/*"}, Factor: 0.1}, {Variables: []string{"/layer_0/*"}, Factor: 0}},
		Objective:  []adapt.Objective{{Kind: "entropy", Weight: 0.01}},
		Experience: []adapt.Prior{{FromRun: first, Initial: true, Weight: 10, Fisher: 5}},
		Budget:     adapt.Budget{Updates: 5}, LogEvery: 2,
	}
	whole, parts := filepath.Join(parent, "whole"), filepath.Join(parent, "parts")
	result, err := experiment.Run(t.Context(), gxtest.Backend(t), config, experiment.Options{Dir: whole})
	if err != nil {
		t.Fatal(err)
	}
	if result.Updates != 5 || result.Ended != "budget of 5 updates used" {
		t.Errorf("%d updates, ended because %q", result.Updates, result.Ended)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = experiment.Run(ctx, gxtest.Backend(t), config, experiment.Options{Dir: parts, Step: func(s train.Step) {
		if s.Update == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatal(err)
	}
	if err := run(t, config, experiment.Options{Dir: parts, Resume: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{experiment.EventsFile, filepath.Join(runs.ModelDir, "model.safetensors")} {
		a, err := os.ReadFile(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(parts, name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs after an interruption (%v)", name, err)
		}
	}
	events, err := os.ReadFile(filepath.Join(whole, experiment.EventsFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(events)), "\n")
	if len(lines) != 5 || !strings.Contains(lines[0], `"why":"begin"`) || !strings.Contains(lines[0], "Fisher information of 5 examples") ||
		!strings.Contains(lines[4], `"update":5,"why":"budget of 5 updates used"`) {
		t.Errorf("events are\n%s", events)
	}

	config.Train.Adapt.Experience[0].FromRun = filepath.Join(parent, "nothing")
	wants(t, "no such run", run(t, config, experiment.Options{Dir: filepath.Join(parent, "third")}), "experience[0]", "from_run")
	config.Train.Adapt.Converge.Below = -1
	wants(t, "bad strategy", run(t, config, experiment.Options{Dir: filepath.Join(parent, "fourth")}), "adapt", "converge.below is -1")
}

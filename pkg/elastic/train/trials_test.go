package train_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// scaleOf returns the last factor that trials chose.
func scaleOf(t *testing.T, state train.State) float64 {
	t.Helper()
	scale := 0.0
	for _, e := range state.Control {
		if e.Controller == "trials" && e.Action == "choose" {
			scale = e.Factor
		}
	}
	if scale == 0 {
		t.Fatalf("no factor was chosen: %+v", state.Control)
	}
	return scale
}

// TestTrialsFindTheRate: on a quadratic, gradient descent reaches the bottom from rates that are 100 times too
// high, where the loss overflows, and 100 times too low, where it hardly falls; without trials neither does.
func TestTrialsFindTheRate(t *testing.T) {
	for _, peak := range []float64{100, 0.01} {
		t.Run(fmt.Sprint(peak), func(t *testing.T) {
			run := func(configs ...control.Config) (train.State, error) {
				task, err := newBowl(1)
				if err != nil {
					t.Fatal(err)
				}
				trainer, err := train.New(gxtest.Backend(t), task, train.Config{
					Epochs: 1, Optimizer: optim.Config{Rule: optim.SGD{}}, LogEvery: 1, Control: configs,
					Schedule: schedule.Config{Kind: "constant", Peak: peak},
				})
				if err != nil {
					t.Fatal(err)
				}
				result, err := trainer.Run(t.Context(), ones(60), train.Hooks{})
				return result.State, err
			}
			last := func(s train.State) float64 { return s.History[len(s.History)-1].Loss }
			state, err := run(control.Config{Trials: &control.Trials{Updates: 8}})
			if err != nil {
				t.Fatal(err)
			}
			if rate := peak * scaleOf(t, state); !(rate > 0.3 && rate < 2) {
				t.Errorf("chose the rate %g, want one near 1: the bound is 2", rate)
			}
			if got := last(state); got > 1e-3 {
				t.Errorf("loss %g at the end", got)
			}
			if plain, err := run(); err == nil && last(plain) < 1e3 {
				t.Errorf("loss %g without trials: the test shows nothing", last(plain))
			}
		})
	}
}

// TestTrialsLeaveNothing: a run after trials is, to the last bit, one that begins with the rate they chose.
func TestTrialsLeaveNothing(t *testing.T) {
	for i, rule := range []optim.Rule{optim.AdamW{WeightDecay: 0.1}, optim.Prodigy{D0: 1e-3}, optim.ScheduleFreeAdamW{}} {
		t.Run(rule.Kind(), func(t *testing.T) {
			cfg := config()
			cfg.Optimizer, cfg.Accumulate = optim.Config{Rule: rule}, 1+i%2
			data := rows{batches: 6, size: 8}
			// Trials are longer than an epoch.
			cfg.Control = []control.Config{{Trials: &control.Trials{Factors: []float64{0.25, 1, 4}, Updates: 10}}}
			tried := newClassifier(t)
			got, err := newTrainer(t, tried, cfg).Run(t.Context(), data, train.Hooks{})
			if err != nil {
				t.Fatal(err)
			}
			cfg.Control = nil
			cfg.Schedule.Peak *= scaleOf(t, got.State)
			plain := newClassifier(t)
			want, err := newTrainer(t, plain, cfg).Run(t.Context(), data, train.Hooks{})
			if err != nil {
				t.Fatal(err)
			}
			if got.State.TrialUpdates < 6*10 || want.State.TrialUpdates != 0 {
				t.Errorf("trials made %d updates, and %d where there are none", got.State.TrialUpdates, want.State.TrialUpdates)
			}
			if !slices.Equal(weights(t, tried), weights(t, plain)) {
				t.Error("weights differ")
			}
			// A factor is multiplied in another order here, so that rates may differ in the last bit of float64.
			for _, s := range []train.State{got.State, want.State} {
				for i := range s.History {
					s.History[i].Rate = float64(float32(s.History[i].Rate))
				}
			}
			if fmt.Sprint(got.State.History) != fmt.Sprint(want.State.History) || got.State.Update != want.State.Update || got.State.Epoch != want.State.Epoch {
				t.Errorf("the run differs:\n%+v\nwant\n%+v", got.State, want.State)
			}
			if got.Compilations != want.Compilations {
				t.Errorf("%d compilations, %d without trials", got.Compilations, want.Compilations)
			}
		})
	}
}

// ending is data that calls end when the batch of a number is taken, over all epochs.
type ending struct {
	rows
	left *int
	end  func()
}

func (d ending) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for batch, err := range d.rows.Batches(epoch, skip) {
			if *d.left--; *d.left == 0 {
				d.end()
			}
			if !yield(batch, err) {
				return
			}
		}
	}
}

// TestTrialsResume: a run that is interrupted in the middle of a trial, of an update in it, or later ends as one in one piece, to
// the last bit.
func TestTrialsResume(t *testing.T) {
	cfg := config()
	cfg.Accumulate = 2
	cfg.Control = []control.Config{{Trials: &control.Trials{Factors: []float64{0.25, 1, 4}, Updates: 4}}}
	data := rows{batches: 8, size: 8}
	whole := newClassifier(t)
	batches := 1 << 30
	want, err := newTrainer(t, whole, cfg).Run(t.Context(), ending{data, &batches, nil}, train.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	batches = 1<<30 - batches
	later := 0
	for after := 3; after < batches; after += 7 {
		ctx, cancel := context.WithCancel(t.Context())
		first, dir := newClassifier(t), t.TempDir()
		trainer := newTrainer(t, first, cfg)
		left := after
		interrupted, err := trainer.Run(ctx, ending{data, &left, cancel}, train.Hooks{
			Save: func(train.State, bool) error { return save(dir, first, trainer) },
		})
		cancel()
		if !errors.Is(err, train.ErrInterrupted) {
			t.Fatalf("after %d batches: %v", after, err)
		}
		if interrupted.State.Update > 0 {
			later++
		}
		second := load(t, dir)
		resumed := newTrainer(t, second, cfg)
		if err := resumed.Restore(dir); err != nil {
			t.Fatal(err)
		}
		got, err := resumed.Run(t.Context(), data, train.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(weights(t, whole), weights(t, second)) || fmt.Sprint(got.State.Control) != fmt.Sprint(want.State.Control) || got.State.TrialUpdates != want.State.TrialUpdates {
			t.Errorf("interrupted after %d batches: weights or events differ:\n%v\nwant\n%v", after, got.State.Control, want.State.Control)
		}
	}
	if later == 0 {
		t.Error("no run was interrupted after its first update")
	}
}

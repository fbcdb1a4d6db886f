package train

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// scale returns the factor of the scheduled rate.
func (t *Trainer) scale() float64 {
	if t.trying != nil {
		return *t.trying
	}
	return t.control.Scale()
}

// tryRates makes the trials that a controller wants before the next update, see [control.Trials]. All is
// afterwards as it was, but for what the controller learned. Of a trial that is interrupted nothing stays, so that a
// run that is resumed makes it again. It reports whether there was one.
func (t *Trainer) tryRates(ctx context.Context, data Data, rates rates, total int) (tried bool, err error) {
	if t.trying != nil {
		return false, nil
	}
	left := total - t.state.Update
	trial, due := t.control.Trial(left)
	if !due {
		return false, nil
	}
	changing := slices.Concat(t.variables, t.kept())
	before, err := copies(t.task.Store(), changing)
	if err != nil {
		return true, fmt.Errorf("trial of rates: %w", err)
	}
	for ; due; trial, due = t.control.Trial(left) {
		shape := newTrialRates(rates, t.state.Update, total, trial.Updates)
		losses, err := t.tryRate(ctx, data, shape, trial.Scale, total)
		if err != nil {
			return true, fmt.Errorf("trial of %g times the rate: %w", trial.Scale, err)
		}
		if err := putBack(t.task.Store(), changing, before); err != nil {
			return true, fmt.Errorf("trial of rates: %w", err)
		}
		if ctx.Err() != nil {
			return true, t.clearSums()
		}
		t.state.TrialUpdates += len(losses)
		for _, event := range t.control.Tried(t.state.Update, losses) {
			t.event(event)
		}
	}
	return true, nil
}

// tryRate trains under a factor of the rate and returns the losses: fewer if one is not finite, which is then the last. The
// state is afterwards what it was; variables and slots are not.
func (t *Trainer) tryRate(ctx context.Context, data Data, shape trialRates, scale float64, total int) ([]float64, error) {
	before := t.state
	// What is appended must not lie behind what the copy has.
	t.state.History, t.state.Adaptation = slices.Clip(before.History), slices.Clip(before.Adaptation)
	t.trying = &scale
	defer func() { t.state, t.trying = before, nil }()
	var losses []float64
	hooks := Hooks{Step: func(s Step) {
		if math.IsNaN(s.GradientNorm) || math.IsInf(s.GradientNorm, 0) {
			s.Loss = math.NaN()
		}
		losses = append(losses, s.Loss)
		if math.IsNaN(s.Loss) || math.IsInf(s.Loss, 0) {
			t.state.Ended = "the loss is not finite"
		}
	}}
	until := shape.from + shape.updates
	for t.state.Update < until && t.state.Ended == "" && ctx.Err() == nil {
		if err := t.train(ctx, data, hooks, shape, until, total, nil); err != nil {
			return nil, err
		}
		t.endEpoch(data)
	}
	return losses, nil
}

// trialRates are the rates of a trial, those of the run in small: they rise as there, in at most half of the trial, and then go where the rest of the run goes.
type trialRates struct {
	run           rates
	from, updates int
	rises, warmup int // in how many updates the run's rate becomes the highest, and that of the trial
	rest          int // of the run after that
}

func newTrialRates(run rates, from, total, updates int) trialRates {
	highest := from
	for update := from; update < total; update++ {
		if run.At(update) > run.At(highest) {
			highest = update
		}
	}
	return trialRates{run, from, updates, highest - from, min(highest-from, updates/2), total - highest}
}

// At returns the rate of an update of the run.
func (r trialRates) At(update int) float64 {
	i := update - r.from
	if i < r.warmup {
		return r.run.At(r.from + i*r.rises/r.warmup)
	}
	return r.run.At(r.from + r.rises + (i-r.warmup)*r.rest/(r.updates-r.warmup))
}

// copies returns copies of the values of variables.
func copies(store *model.Store, variables []elastic.Variable) ([]*tensors.Tensor, error) {
	values := make([]*tensors.Tensor, len(variables))
	for i, v := range variables {
		value, err := store.GetVariable(v.Path).Value()
		if err == nil {
			values[i], err = value.LocalClone()
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", v.Path, err)
		}
	}
	return values, nil
}

// putBack gives variables copies of the values that [copies] returned.
func putBack(store *model.Store, variables []elastic.Variable, values []*tensors.Tensor) error {
	for i, v := range variables {
		value, err := values[i].LocalClone()
		if err == nil {
			err = store.GetVariable(v.Path).SetValue(value)
		}
		if err != nil {
			return fmt.Errorf("setting %s: %w", v.Path, err)
		}
	}
	return nil
}

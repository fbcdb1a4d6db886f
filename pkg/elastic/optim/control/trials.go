package control

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Trials finds the rate by trying. Before the first update, the loop trains for some updates under each of several factors of
// the scheduled rate, on the same batches and with the same dropout, and puts weights and optimizer back after
// each. The factor with the lowest mean loss in the last quarter of its updates is found, its half and its double are
// tried too, and the run begins under the best of all. After twice as many updates as a trial has, half and double are tried
// again, since losses then tell more; if the double is taken, its double is tried after as many more, and so on.
//
// In a trial the rate is the highest that the schedule still has, times the factor; at last it falls to 0. Before the
// first update it rises in the first quarter and falls in the rest, as in a run in small; later it falls in the second half. Without the
// fall, the lowest rate would nearly always win, since it has the least noise at its end. Losses that differ by at most 1 % are
// alike. The first choice is then the lower rate, since too high a rate destroys what does not show within a trial;
// later choices are the higher, since what is left of the bias of short trials speaks for low rates. That is also why no trial after the second lowers the rate:
// lowering is what the schedule is for.
//
// A rate that is far too high destroys nothing here, which no controller that only lowers the rate can achieve. What that
// costs is the updates of the trials, [Trials.Cost], and while they last, a copy of all weights and slots in the host's memory. A run of few
// updates is not worth that: it would choose by one loss or two.
//
// Source: Jin et al. 2021, "AutoLRS: automatic learning-rate schedule by Bayesian optimization on the fly", for trials from
// a checkpoint that is put back; Wu et al. 2018, "Understanding short-horizon bias in stochastic meta-optimization", for
// the bias. The grids, in place of a Gaussian process, and the fall are ours: docs/design/0019-trials.md.
type Trials struct {
	// Factors are tried first; none means 4⁻⁴, 4⁻³, … 4⁴.
	Factors []float64 `json:"factors,omitempty"`
	// Updates of each trial; 0 means 40.
	Updates int `json:"updates,omitempty"`
}

func (t Trials) withDefaults() Trials {
	if len(t.Factors) == 0 {
		for k := -4; k <= 4; k++ {
			t.Factors = append(t.Factors, math.Pow(4, float64(k)))
		}
	}
	if t.Updates == 0 {
		t.Updates = 40
	}
	return t
}

// Cost returns how many updates the trials make that every run has, beside its own; each double that is taken after the beginning costs 2·Updates more.
func (t Trials) Cost() int {
	t = t.withDefaults()
	return (len(t.Factors) + 5) * t.Updates
}

func (t Trials) validate(path string) error {
	t = t.withDefaults()
	path += "trials."
	var problems []error
	for i, factor := range t.Factors {
		if !(factor > 0) || math.IsInf(factor, 0) {
			problems = append(problems, fmt.Errorf("%sfactors[%d] is %g, want a positive number", path, i, factor))
		}
		if slices.Contains(t.Factors[:i], factor) {
			problems = append(problems, fmt.Errorf("%sfactors[%d] is %g, as one before it", path, i, factor))
		}
	}
	if t.Updates < 4 {
		problems = append(problems, fmt.Errorf("%supdates is %d, want at least 4", path, t.Updates))
	}
	return errors.Join(problems...)
}

func (t Trials) start() worker {
	t = t.withDefaults()
	return &trials{t, trialsState{Scale: 1, Queue: slices.Clone(t.Factors)}}
}

// outcome is that of the trial of one factor.
type outcome struct {
	Factor float64 `json:"factor"`
	Loss   float64 `json:"loss"` // 0 if Failed: JSON has no NaN
	Failed bool    `json:"failed,omitempty"`
}

type trialsState struct {
	// All fields are always written, since an absent one would leave what a fresh run has.
	Scale   float64   `json:"scale"`
	Queue   []float64 `json:"queue"`   // factors that are still to be tried
	Tried   []outcome `json:"tried"`   // those that compete with them
	Refined bool      `json:"refined"` // half and double of the best are among them
	Next    int       `json:"next"`    // after how many updates they are tried; 0 before the run's first
}

type trials struct {
	options Trials
	trialsState
}

func (t *trials) factor() float64               { return t.Scale }
func (t *trials) stopped() string               { return "" }
func (t *trials) state() any                    { return &t.trialsState }
func (t *trials) observe(Signals) (Event, bool) { return Event{}, false }

// next returns the factor that is to be tried now that so many updates are made, 0 if none is.
func (t *trials) next(update int) float64 {
	if len(t.Queue) == 0 || update < t.Next {
		return 0
	}
	return t.Queue[0]
}

// tried takes the losses under the factor that was next.
func (t *trials) tried(update int, losses []float64) []Event {
	result := outcome{Factor: t.Queue[0]}
	last := losses[len(losses)*3/4:]
	for _, loss := range last {
		result.Loss += loss / float64(len(last))
	}
	what := fmt.Sprintf("loss %.4g", result.Loss)
	if math.IsNaN(result.Loss) || math.IsInf(result.Loss, 0) {
		result.Loss, result.Failed, what = 0, true, "a loss that is not finite"
	}
	t.Tried, t.Queue = append(t.Tried, result), t.Queue[1:]
	tell := func(action, format string, args ...any) Event {
		return Event{Controller: "trials", Signal: "loss", Action: action, Reason: fmt.Sprintf(format, args...)}
	}
	events := []Event{tell("try", "factor %.4g gives %s after %d updates; weights are put back", result.Factor, what, len(losses))}
	if len(t.Queue) > 0 {
		return events
	}
	best := t.best()
	switch {
	case best.Failed && t.Next == 0:
		t.Scale = best.Factor
		return append(events, tell("reduce", "no loss is finite under %d factors, of which this is the lowest", len(t.Tried)))
	case t.Next == 0 && !t.Refined:
		t.Refined = true
		for _, factor := range []float64{best.Factor / 2, best.Factor * 2} {
			if !slices.ContainsFunc(t.Tried, func(o outcome) bool { return o.Factor == factor }) {
				t.Queue = append(t.Queue, factor)
			}
		}
		if len(t.Queue) > 0 {
			return events
		}
	case t.Next > 0 && (best.Failed || best.Factor == t.Scale):
		return append(events, tell("keep", "no other factor is better"))
	}
	events = append(events, tell("choose", "loss %.4g is the lowest of %d factors, or within %g %% of it", best.Loss, len(t.Tried), 100*alike))
	switch raised := best.Factor > t.Scale; {
	case t.Next == 0:
		t.Queue = []float64{best.Factor / 2, best.Factor, 2 * best.Factor}
	case raised:
		t.Queue = []float64{best.Factor, 2 * best.Factor}
	}
	t.Scale, t.Next, t.Tried = best.Factor, update+2*t.options.Updates, nil
	return events
}

// alike is by what share a loss may be greater than the lowest and yet count as the same.
const alike = 0.01

// best returns the outcome to go on with: of those whose losses are alike, before the first update the one with the lowest
// rate, if half of the best has been tried too, and later the one with the highest. If all failed, it is the one with the lowest rate.
func (t *trials) best() outcome {
	lowest := slices.MinFunc(t.Tried, func(a, b outcome) int {
		switch {
		case a.Failed && b.Failed:
			return cmp.Compare(a.Factor, b.Factor)
		case a.Failed:
			return 1
		case b.Failed:
			return -1
		}
		return cmp.Compare(a.Loss, b.Loss)
	})
	best := lowest
	for _, o := range t.Tried {
		better := t.Refined && o.Factor < best.Factor
		if t.Next > 0 {
			better = o.Factor > best.Factor
		}
		if better && !o.Failed && o.Loss-lowest.Loss <= alike*math.Abs(lowest.Loss) {
			best = o
		}
	}
	return best
}

package control

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// Trials finds the rate by trying, before the first update. The loop trains for some updates under each of several factors of
// the scheduled rate, on the same batches and with the same dropout, and puts weights and optimizer back after each. Trials of
// factors that lie far apart are short and tell where to look. From the best of them on, longer trials go downhill by factors of two, until
// a factor has a lower loss than its half and its double; then half steps to both sides are tried. Of those from the half to
// the double of the best whose losses are not told from the lowest by their noise, the run begins under the middle one, or the higher of two, since
// what is left of the bias of short trials speaks for low rates.
//
// In a trial the rate rises as in the run to come, in at most half of the trial, and then falls as in the rest of the run. Without the
// fall the lowest rate would nearly always win, since it has the least noise at its end; with a warm-up that is shorter than that
// of the run, rates would seem too high that are not. The loss of a trial is the mean over its last quarter. It is told from another if the mean of the differences,
// batch by batch, is more than two standard errors.
//
// A rate that is far too high destroys nothing here, which no controller that only lowers the rate can achieve. What that
// costs is the updates of the trials, two runs and more (of 400 updates four), and while they last, a copy of all weights and slots in the host's memory.
//
// Source: Jin et al. 2021, "AutoLRS: automatic learning-rate schedule by Bayesian optimization on the fly", for trials from
// a checkpoint that is put back; Wu et al. 2018, "Understanding short-horizon bias in stochastic meta-optimization", for
// the bias. Factors that are bracketed, in place of a Gaussian process, and the fall are ours: docs/design/0019-trials.md.
type Trials struct {
	// Factors are tried first; none means 4⁻⁴, 4⁻³, … 4⁴.
	Factors []float64 `json:"factors,omitempty"`
	// Updates of each long trial; 0 means a quarter of the run's, but at least 200 if the run has so many. Short ones have a
	// quarter of that, but at least 16 if long ones do.
	Updates int `json:"updates,omitempty"`
}

const (
	// shortest is the number of updates below which a trial tells little.
	shortest = 16
	// enough is the number of updates that a long trial has at least. In fewer, a rate must be higher to be the best one.
	enough = 200
	// most is the number of long trials after which the search ends wherever it is.
	most = 12
)

func (t Trials) withDefaults() Trials {
	if len(t.Factors) == 0 {
		for k := -4; k <= 4; k++ {
			t.Factors = append(t.Factors, math.Pow(4, float64(k)))
		}
	}
	return t
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
	if t.Updates != 0 && t.Updates < 4 {
		problems = append(problems, fmt.Errorf("%supdates is %d, want at least 4, or 0 for a quarter of the run's and at least 200", path, t.Updates))
	}
	return errors.Join(problems...)
}

func (t Trials) start() worker {
	t = t.withDefaults()
	return &trials{t, trialsState{Scale: 1, Queue: slices.Clone(t.Factors)}}
}

// outcome is that of the trial of one factor.
type outcome struct {
	Factor float64   `json:"factor"`
	Losses []float64 `json:"losses"` // of the last quarter; none if one is not finite
}

func (o outcome) failed() bool { return len(o.Losses) == 0 }

// loss returns the mean loss, infinite if there is none.
func (o outcome) loss() float64 {
	if o.failed() {
		return math.Inf(1)
	}
	return stat.Mean(o.Losses, nil)
}

// alike says whether o is near best, and the noise of batches can explain that its loss is not as low.
func (o outcome) alike(best outcome) bool {
	if o.failed() || best.failed() || o.Factor < best.Factor/2 || o.Factor > best.Factor*2 {
		return false
	}
	differences := make([]float64, len(best.Losses))
	floats.SubTo(differences, o.Losses, best.Losses)
	mean, deviation := stat.PopMeanStdDev(differences, nil)
	return mean <= 2*deviation/math.Sqrt(float64(len(differences)))
}

// stage is what trials are for.
type stage int

const (
	looking  stage = iota // short trials of the factors that are given
	walking               // long trials, by factors of two
	refining              // long trials, by half steps
)

type trialsState struct {
	// All fields are always written, since an absent one would leave what a fresh run has.
	Scale float64   `json:"scale"`
	Queue []float64 `json:"queue"` // factors that are still to be tried
	Tried []outcome `json:"tried"` // those that compete with them
	Stage stage     `json:"stage"`
}

type trials struct {
	options Trials
	trialsState
}

func (t *trials) factor() float64               { return t.Scale }
func (t *trials) stopped() string               { return "" }
func (t *trials) state() any                    { return &t.trialsState }
func (t *trials) observe(Signals) (Event, bool) { return Event{}, false }

// next returns the factor that is to be tried and for how many updates of a run that has so many left; 0 if none is.
func (t *trials) next(left int) (factor float64, updates int) {
	if len(t.Queue) == 0 {
		return 0, 0
	}
	updates = t.options.Updates
	if updates == 0 {
		updates = max(left/4, min(left, enough))
	}
	if t.Stage == looking {
		updates = max(updates/4, min(updates, shortest))
	}
	return t.Queue[0], max(1, min(updates, left))
}

// tried takes the losses under the factor that was next.
func (t *trials) tried(losses []float64) []Event {
	result := outcome{t.Queue[0], losses[len(losses)*3/4:]}
	what := fmt.Sprintf("loss %.4g", result.loss())
	if sum := floats.Sum(losses); math.IsNaN(sum) || math.IsInf(sum, 0) {
		result.Losses, what = nil, "a loss that is not finite"
	}
	t.Tried, t.Queue = append(t.Tried, result), t.Queue[1:]
	tell := func(action, format string, args ...any) Event {
		return Event{Controller: "trials", Signal: "loss", Action: action, Reason: fmt.Sprintf(format, args...)}
	}
	events := []Event{tell("try", "factor %.4g gives %s after %d updates; weights are put back", result.Factor, what, len(losses))}
	if len(t.Queue) > 0 {
		return events
	}
	// In the order of factors, so that of equal losses the lowest factor's counts.
	slices.SortFunc(t.Tried, func(a, b outcome) int { return cmp.Compare(a.Factor, b.Factor) })
	at := 0
	for i, o := range t.Tried {
		if o.loss() < t.Tried[at].loss() {
			at = i
		}
	}
	best := t.Tried[at]
	full := len(t.Tried) >= most
	switch {
	case best.failed() && (t.Stage == looking || full):
		t.Scale = best.Factor
		events = append(events, tell("reduce", "no loss is finite under %d factors, of which this is the lowest", len(t.Tried)))
	case t.Stage == looking:
		t.Stage, t.Tried, t.Queue = walking, nil, []float64{best.Factor, best.Factor / 2, best.Factor * 2}
	case t.Stage == walking && at == 0 && !full:
		t.Queue = []float64{best.Factor / 2}
	case t.Stage == walking && at == len(t.Tried)-1 && !full:
		t.Queue = []float64{best.Factor * 2}
	case t.Stage == walking && !full:
		t.Stage, t.Queue = refining, []float64{best.Factor / math.Sqrt2, best.Factor * math.Sqrt2}
	default:
		alike := slices.DeleteFunc(slices.Clone(t.Tried), func(o outcome) bool { return !o.alike(best) })
		t.Scale = alike[len(alike)/2].Factor
		events = append(events, tell("choose", "loss %.4g is the lowest of %d factors; this is the middle of %d whose losses are alike", best.loss(), len(t.Tried), len(alike)))
	}
	return events
}

package control_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
)

// valley returns losses of trials that are lowest at a rate, and infinite from 100 times that on.
func valley(best float64) func(trial control.Trial) []float64 {
	return func(trial control.Trial) []float64 {
		losses := make([]float64, trial.Updates)
		for i := range losses {
			// At first all seem alike: only the end counts.
			losses[i] = 3
			if i >= trial.Updates*3/4 {
				losses[i] = 1 + math.Abs(math.Log(trial.Scale/best))
			}
			if trial.Scale >= 100*best {
				return append(losses[:i], math.Inf(1))
			}
		}
		return losses
	}
}

// try makes all trials that are due, and writes and reads the set after each if again is not nil.
func try(t *testing.T, set *control.Set, again func() *control.Set, left int, losses func(control.Trial) []float64) (*control.Set, []control.Event) {
	t.Helper()
	var events []control.Event
	for {
		trial, due := set.Trial(left)
		if !due {
			return set, events
		}
		events = append(events, set.Tried(0, losses(trial))...)
		if again == nil {
			continue
		}
		state, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		set = again()
		if err := json.Unmarshal(state, set); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTrials: from wherever the best rate lies, also where only trials that are long enough show it, the factor that is
// chosen is near, and a set that is read in the middle goes on the same.
func TestTrials(t *testing.T) {
	configs := []control.Config{{Trials: &control.Trials{}}}
	fresh := func() *control.Set { return start(t, configs) }
	for _, best := range []float64{0.01, 0.3, 1, 7, 100} {
		for _, bias := range []float64{1, 1. / 8, 8} {
			short, long := 0, 0
			losses := func(trial control.Trial) []float64 {
				lowest := best
				switch trial.Updates {
				case 50:
					lowest *= bias
					short++
				case 200:
					long++
				}
				return valley(lowest)(trial)
			}
			set, events := try(t, fresh(), nil, 800, losses)
			if off := math.Abs(math.Log2(set.Scale() / best)); off > 0.25+1e-9 {
				t.Errorf("best %g, short trials %g times that: chose %g", best, bias, set.Scale())
			}
			if short != 9 || long > 9 || short+long+1 != len(events) {
				t.Errorf("best %g: %d short and %d long trials: %v", best, short, long, events)
			}
			resumed, other := try(t, fresh(), fresh, 800, losses)
			if fmt.Sprint(other) != fmt.Sprint(events) || resumed.Scale() != set.Scale() {
				t.Errorf("best %g: resumed after each trial: %v, want %v", best, other, events)
			}
		}
	}
}

// TestTrialsAlike: of losses whose differences are no greater than their noise the middle one's factor is taken, the higher of two.
func TestTrialsAlike(t *testing.T) {
	for noise, want := range map[float64]float64{0: 1, 0.1: math.Sqrt2, 20: 1} {
		noisy := func(trial control.Trial) []float64 {
			losses := make([]float64, trial.Updates)
			// Lowest at 1; √2, 2, … are nearly as good, 1/√2, 1/2, … are not.
			off := math.Log2(trial.Scale)
			for i := range losses {
				losses[i] = 5 + max(-3*off, 0.02*off) + noise*off*float64(1-2*(i%2))
			}
			return losses
		}
		if set, events := try(t, start(t, []control.Config{{Trials: &control.Trials{}}}), nil, 800, noisy); math.Abs(set.Scale()/want-1) > 1e-9 {
			t.Errorf("noise %g: chose %g, want %g: %v", noise, set.Scale(), want, events)
		}
	}
}

// TestTrialsEnd: they end where losses say nothing, or fall for ever, or are finite only in short trials.
func TestTrialsEnd(t *testing.T) {
	for name, loss := range map[string]func(control.Trial) float64{
		"flat":    func(control.Trial) float64 { return 2 },
		"falling": func(trial control.Trial) float64 { return -math.Log(trial.Scale) },
		"rising":  func(trial control.Trial) float64 { return math.Log(trial.Scale) },
		"failing": func(trial control.Trial) float64 {
			if trial.Updates == 200 {
				return math.NaN()
			}
			return trial.Scale
		},
	} {
		set, events := try(t, start(t, []control.Config{{Trials: &control.Trials{}}}), nil, 800, func(trial control.Trial) []float64 {
			return slices.Repeat([]float64{loss(trial)}, trial.Updates)
		})
		last := events[len(events)-1]
		if len(events) != 9+12+1 || !(set.Scale() > 0) || last.Action != map[bool]string{true: "reduce", false: "choose"}[name == "failing"] {
			t.Errorf("%s: %d events, factor %g, at last %+v", name, len(events), set.Scale(), last)
		}
	}
}

// TestTrialsWithoutALoss: where no rate gives a finite loss, the lowest is taken.
func TestTrialsWithoutALoss(t *testing.T) {
	set, events := try(t, start(t, []control.Config{{Trials: &control.Trials{Factors: []float64{1, 0.5}}}}), nil, 100,
		func(control.Trial) []float64 { return []float64{3, math.NaN()} })
	if last := events[len(events)-1]; set.Scale() != 0.5 || last.Action != "reduce" || last.Factor != 0.5 || len(events) != 3 {
		t.Errorf("scale %g, events %v", set.Scale(), events)
	}
}

// TestTrialsOfShortRuns: a trial has at least one update and no more than the run.
func TestTrialsOfShortRuns(t *testing.T) {
	for left, want := range map[int]string{1: "1 1", 10: "10 10", 100: "25 100", 400: "50 200", 800: "50 200", 1600: "100 400"} {
		var short, long int
		try(t, start(t, []control.Config{{Trials: &control.Trials{Factors: []float64{1}}}}), nil, left, func(trial control.Trial) []float64 {
			if short == 0 {
				short = trial.Updates
			}
			long = trial.Updates
			return valley(1)(trial)
		})
		if got := fmt.Sprint(short, long); got != want {
			t.Errorf("of %d updates: short and long trials have %s, want %s", left, got, want)
		}
	}
}

func TestTrialsRefuse(t *testing.T) {
	for want, configs := range map[string][]control.Config{
		"control.trials.factors[1] is -1, want a positive": {{Trials: &control.Trials{Factors: []float64{1, -1}}}},
		"factors[2] is 1, as one before it":                {{Trials: &control.Trials{Factors: []float64{1, 2, 1}}}},
		"control.trials.updates is 3, want at least 4":     {{Trials: &control.Trials{Updates: 3}}},
		"several trials": {{Trials: &control.Trials{}}, {Trials: &control.Trials{}}},
	} {
		if _, err := control.New(configs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// The loop trains from the same weights under each factor that is due, and tells the losses.
func ExampleTrials() {
	set, err := control.New([]control.Config{{Trials: &control.Trials{Factors: []float64{0.01, 0.1, 1}}}})
	if err != nil {
		panic(err)
	}
	for {
		trial, due := set.Trial(400)
		if !due {
			break
		}
		// A tenth of the scheduled rate is best here.
		loss := 1 + math.Abs(math.Log10(trial.Scale)+1)
		for _, event := range set.Tried(0, slices.Repeat([]float64{loss}, trial.Updates)) {
			fmt.Println(event.Action, event.Reason)
		}
	}
	fmt.Printf("factor %.3g\n", set.Scale())
	// Output:
	// try factor 0.01 gives loss 2 after 50 updates; weights are put back
	// try factor 0.1 gives loss 1 after 50 updates; weights are put back
	// try factor 1 gives loss 2 after 50 updates; weights are put back
	// try factor 0.1 gives loss 1 after 200 updates; weights are put back
	// try factor 0.05 gives loss 1.301 after 200 updates; weights are put back
	// try factor 0.2 gives loss 1.301 after 200 updates; weights are put back
	// try factor 0.07071 gives loss 1.151 after 200 updates; weights are put back
	// try factor 0.1414 gives loss 1.151 after 200 updates; weights are put back
	// choose loss 1 is the lowest of 5 factors; this is the middle of 1 whose losses are alike
	// factor 0.1
}

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
func try(t *testing.T, set *control.Set, again func() *control.Set, update int, losses func(control.Trial) []float64) (*control.Set, []control.Event) {
	t.Helper()
	var events []control.Event
	for {
		trial, due := set.Trial(update)
		if !due {
			return set, events
		}
		events = append(events, set.Tried(update, losses(trial))...)
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

// TestTrials: from wherever the best rate lies, the factor that is chosen is within √2 of it, the double is tried
// later until it does not help, and a set that is read in the middle goes on the same.
func TestTrials(t *testing.T) {
	configs := []control.Config{{Trials: &control.Trials{Updates: 12}}}
	for _, best := range []float64{0.01, 0.3, 1, 7, 100} {
		set, events := try(t, start(t, configs), nil, 0, valley(best))
		if off := math.Abs(math.Log2(set.Scale() / best)); off > 0.5+1e-9 {
			t.Errorf("best %g: chose %g", best, set.Scale())
		}
		resumed, other := try(t, start(t, configs), func() *control.Set { return start(t, configs) }, 0, valley(best))
		if fmt.Sprint(other) != fmt.Sprint(events) || resumed.Scale() != set.Scale() {
			t.Errorf("best %g: resumed after each trial: %v, want %v", best, other, events)
		}
		if made := len(events) - 1; made*12 > configs[0].Trials.Cost() {
			t.Errorf("best %g: %d trials of 12 updates, more than %d updates", best, made, configs[0].Trials.Cost())
		}
		scale := set.Scale()
		if _, due := set.Trial(23); due {
			t.Errorf("best %g: a trial after 23 updates, want one after 24", best)
		}
		// Twice what was best now is: raised twice, tried a third time.
		update := 24
		for _, want := range []float64{2, 4, 4, 4} {
			set, events = try(t, set, func() *control.Set { return start(t, configs) }, update, valley(4*scale))
			if set.Scale() != want*scale {
				t.Errorf("best %g: after %d updates %v the factor is %g, want %g", best, update, events, set.Scale(), want*scale)
			}
			update += 24
		}
		if len(events) > 0 {
			t.Errorf("best %g: trials go on after one that changed nothing: %v", best, events)
		}
		// A quarter of what was best now is: lowered by the second trial, and by no other.
		set, _ = try(t, start(t, configs), nil, 0, valley(best))
		for update := 24; update < 120; update += 24 {
			if set, _ = try(t, set, nil, update, valley(scale/4)); set.Scale() != scale/2 {
				t.Errorf("best %g: after %d updates the factor is %g, want %g", best, update, set.Scale(), scale/2)
			}
		}
	}
}

// TestTrialsAlike: of rates whose losses are within 1 %, the run begins with the lowest, and rises to the highest.
func TestTrialsAlike(t *testing.T) {
	flat := func(trial control.Trial) []float64 {
		loss := 2.1
		if trial.Scale >= 0.25 && trial.Scale <= 4 {
			loss = 2 + 0.001*trial.Scale
		}
		return slices.Repeat([]float64{loss}, trial.Updates)
	}
	set := start(t, []control.Config{{Trials: &control.Trials{Updates: 12}}})
	for i, want := range []float64{0.25, 0.5, 1, 2, 4, 4, 4} {
		if set, _ = try(t, set, nil, 24*i, flat); set.Scale() != want {
			t.Errorf("after %d updates the factor is %g, want %g", 24*i, set.Scale(), want)
		}
	}
	if _, due := set.Trial(1000); due {
		t.Error("trials go on")
	}
}

// TestTrialsWithoutALoss: where no rate gives a finite loss, the lowest is taken.
func TestTrialsWithoutALoss(t *testing.T) {
	set, events := try(t, start(t, []control.Config{{Trials: &control.Trials{Factors: []float64{1, 0.5}}}}), nil, 0,
		func(control.Trial) []float64 { return []float64{3, math.NaN()} })
	if last := events[len(events)-1]; set.Scale() != 0.5 || last.Action != "reduce" || last.Factor != 0.5 || len(events) != 3 {
		t.Errorf("scale %g, events %v", set.Scale(), events)
	}
	if _, due := set.Trial(1000); due {
		t.Error("trials go on")
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
	set, err := control.New([]control.Config{{Trials: &control.Trials{Factors: []float64{0.01, 0.1, 1}, Updates: 4}}})
	if err != nil {
		panic(err)
	}
	for {
		trial, due := set.Trial(0)
		if !due {
			break
		}
		// A tenth of the scheduled rate is best here.
		loss := 1 + math.Abs(math.Log10(trial.Scale)+1)
		for _, event := range set.Tried(0, []float64{3, 2, 2, loss}) {
			fmt.Println(event.Action, event.Reason)
		}
	}
	fmt.Println("factor", set.Scale())
	// Output:
	// try factor 0.01 gives loss 2 after 4 updates; weights are put back
	// try factor 0.1 gives loss 1 after 4 updates; weights are put back
	// try factor 1 gives loss 2 after 4 updates; weights are put back
	// try factor 0.05 gives loss 1.301 after 4 updates; weights are put back
	// try factor 0.2 gives loss 1.301 after 4 updates; weights are put back
	// choose loss 1 is the lowest of 5 factors, or within 1 % of it
	// factor 0.1
}

package search_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/study/search"
)

var line = search.Space{{Name: "x", Kind: search.Float, High: 1}}

// script plays a search with one worker. After a resource r, trial i has value(i, r); a whole trial has used whole. It
// returns what the worker did: "3→9" is trial 3 going on to resource 9.
func script(t *testing.T, config search.Config, whole int, value func(trial, resource int) float64) (*search.Search, string) {
	t.Helper()
	s, err := search.New(config)
	if err != nil {
		t.Fatal(err)
	}
	var did []string
	at := map[int]int{}
	for {
		event, advice := s.Ask()
		if advice != search.Work {
			return s, strings.Join(did, " ")
		}
		apply(t, s, event)
		trial := s.Trials()[event.Trial]
		if trial.Parent != nil && at[event.Trial] == 0 {
			at[event.Trial] = at[*trial.Parent]
		}
		end := search.Event{Kind: search.Finish, Trial: event.Trial}
		for at[event.Trial] < whole && end.Kind == search.Finish {
			at[event.Trial]++
			v := value(event.Trial, at[event.Trial])
			apply(t, s, search.Event{Kind: search.Told, Trial: event.Trial, Resource: at[event.Trial], Value: &v})
			switch s.Verdict(event.Trial) {
			case search.Paused:
				end.Kind = search.Pause
			case search.Stopped:
				end.Kind = search.Stop
			}
		}
		v := value(event.Trial, at[event.Trial])
		if end.Kind == search.Finish {
			end.Value = &v
		}
		apply(t, s, end)
		did = append(did, fmt.Sprintf("%d→%d", event.Trial, at[event.Trial]))
	}
}

// byNumber makes trials better in the order of this list of numbers, whatever the resource.
func byNumber(order ...int) func(trial, resource int) float64 {
	place := map[int]int{}
	for i, n := range order {
		place[n] = i
	}
	return func(trial, _ int) float64 { return float64(place[trial]) }
}

func TestHalvingByHand(t *testing.T) {
	config := search.Config{Space: line, Sampler: search.Random{}, Trials: 9, Scheduler: search.Halving{Rungs: search.Rungs{Max: 9}}}
	s, did := script(t, config, 9, byNumber(4, 7, 2, 0, 1, 3, 5, 6, 8))
	if want := "0→1 1→1 2→1 3→1 4→1 5→1 6→1 7→1 8→1 4→3 7→3 2→3 4→9"; did != want {
		t.Errorf("did  %s\nwant %s", did, want)
	}
	if best, _ := s.Best(); best.Number != 4 {
		t.Errorf("the best is %d", best.Number)
	}
}

// TestHalvingWaits: a rung is judged when all are there, and one that failed is not waited for.
func TestHalvingWaits(t *testing.T) {
	s, err := search.New(search.Config{Space: line, Sampler: search.Random{}, Trials: 3, Scheduler: search.Halving{Rungs: search.Rungs{Max: 3}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		event, _ := s.Ask()
		apply(t, s, event)
	}
	told := func(trial int, value float64) {
		apply(t, s, search.Event{Kind: search.Told, Trial: trial, Resource: 1, Value: &value}, search.Event{Kind: search.Pause, Trial: trial})
	}
	told(0, 5)
	told(1, 4)
	if _, advice := s.Ask(); advice != search.Wait {
		t.Errorf("with one trial under way the advice is %v", advice)
	}
	apply(t, s, search.Event{Kind: search.Fail, Trial: 2, Error: "broken"})
	if event, advice := s.Ask(); advice != search.Work || event.Kind != search.Resume || event.Trial != 1 || event.Until != 0 {
		t.Errorf("then %v: %+v, want trial 1 to go on to its end", advice, event)
	}
}

// TestASHAByHand follows algorithm 2 with one worker: a trial goes on as soon as three have reached its rung.
func TestASHAByHand(t *testing.T) {
	config := search.Config{Space: line, Sampler: search.Random{}, Trials: 9, Scheduler: search.ASHA{Rungs: search.Rungs{Max: 9}}}
	for want, order := range map[string][]int{
		// The best one in three of 3, 6 and 9 trials goes on; when three have reached the second rung, the best of them does.
		"0→1 1→1 2→1 0→3 3→1 4→1 5→1 1→3 6→1 7→1 8→1 2→3 0→9": {0, 1, 2, 3, 4, 5, 6, 7, 8},
		// Each is better than all before, and goes on at once: too early, but none is waited for.
		"0→1 1→1 2→1 2→3 3→1 3→3 4→1 4→3 4→9 5→1 5→3 5→9 6→1 6→3 6→9 7→1 7→3 7→9 8→1 8→3 8→9": {8, 7, 6, 5, 4, 3, 2, 1, 0},
	} {
		if _, did := script(t, config, 9, byNumber(order...)); did != want {
			t.Errorf("did  %s\nwant %s", did, want)
		}
	}
}

// TestASHAEndsWithAResult: with too few trials for the last rung, the best goes on all the same.
func TestASHAEndsWithAResult(t *testing.T) {
	config := search.Config{Space: line, Sampler: search.Random{}, Trials: 4, Scheduler: search.ASHA{Rungs: search.Rungs{Max: 27}}}
	s, did := script(t, config, 27, byNumber(1, 0, 2, 3))
	if want := "0→1 1→1 2→1 1→3 3→1 1→9 1→27"; did != want {
		t.Errorf("did  %s\nwant %s", did, want)
	}
	if best, found := s.Best(); !found || best.Number != 1 {
		t.Errorf("the best is %d, %v", best.Number, found)
	}
}

// TestHyperbandIsThatOfThePaper compares with the table of Li et al. for R = 81 and η = 3: how many trials begin with how
// much resource.
func TestHyperbandIsThatOfThePaper(t *testing.T) {
	config := search.Config{Space: line, Sampler: search.Random{}, Scheduler: search.Hyperband{Rungs: search.Rungs{Max: 81}}}
	s, _ := script(t, config, 81, func(trial, _ int) float64 { return float64(trial % 7) })
	reached := map[int]int{}
	for _, trial := range s.Trials() {
		last := trial.Reports[len(trial.Reports)-1].Resource
		for _, r := range []int{1, 3, 9, 27, 81} {
			if last >= r {
				reached[r]++
			}
		}
	}
	// s=4: 81 27 9 3 1; s=3: 34 11 3 1; s=2: 15 5 1; s=1: 8 2; s=0: 5
	want := map[int]int{1: 81 + 34 + 15 + 8 + 5, 3: 27 + 34 + 15 + 8 + 5, 9: 9 + 11 + 15 + 8 + 5, 27: 3 + 3 + 5 + 8 + 5, 81: 1 + 1 + 1 + 2 + 5}
	if fmt.Sprint(reached) != fmt.Sprint(want) {
		t.Errorf("trials by what they reached are %v, want %v", reached, want)
	}
	if plan := config.Scheduler.Plan(); plan != 143 {
		t.Errorf("it plans %d trials, want 143", plan)
	}
	config.Scheduler = search.Hyperband{Rungs: search.Rungs{Max: 9}, Rounds: 2}
	if s, _ := script(t, config, 9, func(trial, _ int) float64 { return float64(trial) }); len(s.Trials()) != 2*(9+5+3) {
		t.Errorf("two rounds make %d trials", len(s.Trials()))
	}
}

func TestMedianByHand(t *testing.T) {
	config := search.Config{Space: line, Sampler: search.Random{}, Trials: 8, Scheduler: search.Median{Startup: 3, Warmup: 2}}
	// Trials 0 to 2 are never stopped, being too few to compare with. 3 is worse than their median, 4 equals it, 5 is better, 6 was
	// better once, 7 is worse.
	values := []float64{1, 2, 3, 2.5, 2, 0.5, 9, 2.5}
	_, did := script(t, config, 5, func(trial, resource int) float64 {
		if trial == 6 && resource == 1 {
			return 0
		}
		return values[trial]
	})
	if want := "0→5 1→5 2→5 3→3 4→5 5→5 6→5 7→3"; did != want {
		t.Errorf("did  %s\nwant %s", did, want)
	}
}

func TestPopulationByHand(t *testing.T) {
	space := search.Space{
		{Name: "rate", Kind: search.Float, Low: 1e-6, High: 1, Log: true}, {Name: "layers", Kind: search.Int, Low: 1, High: 100},
		{Name: "kind", Kind: search.Categorical, Choices: []string{"a", "b"}},
	}
	config := search.Config{Space: space, Sampler: search.Random{}, Seed: 4, Scheduler: search.Population{Size: 4, Interval: 2, Max: 6, Quantile: 0.25}}
	// Trial 3 is the worst of the first four, so a fifth takes its place, from the state of trial 0, the best.
	s, did := script(t, config, 6, byNumber(0, 4, 1, 2, 3))
	if want := "0→2 1→2 2→2 3→2 0→4 1→4 2→4 4→6 0→6 1→6 2→6"; did != want {
		t.Errorf("did  %s\nwant %s", did, want)
	}
	trials := s.Trials()
	if len(trials) < 5 {
		t.Fatalf("there are %d trials, want a replacement", len(trials))
	}
	child := trials[4]
	if child.Parent == nil || trials[3].State != search.Stopped {
		t.Fatalf("trial 4 is %+v, and trial 3 %s", child, trials[3].State)
	}
	parent := trials[*child.Parent].Params
	ratio := float(child.Params, "rate") / float(parent, "rate")
	if child.Params["kind"] == parent["kind"] && (ratio < 0.79 || ratio > 1.21) && child.Params["layers"] == parent["layers"] {
		t.Errorf("trial 4 has %v, its parent %v", child.Params, parent)
	}
	for _, trial := range trials {
		if trial.State == search.Running || trial.State == search.Paused {
			t.Errorf("trial %d is left %s", trial.Number, trial.State)
		}
	}
}

// TestPopulationFollowsASchedule: where the best rate falls while training goes on, no fixed rate is as good as a
// population whose rates change.
func TestPopulationFollowsASchedule(t *testing.T) {
	space := search.Space{{Name: "rate", Kind: search.Float, Low: 0.01, High: 1, Log: true}}
	// Each step brings progress that depends on how near the rate is to 1/step.
	progress := func(s *search.Search) float64 {
		state := map[int]float64{}
		at := map[int]int{}
		bestEnd := 0.0
		for {
			event, advice := s.Ask()
			if advice != search.Work {
				return bestEnd
			}
			apply(t, s, event)
			trial := s.Trials()[event.Trial]
			if trial.Parent != nil && at[trial.Number] == 0 {
				at[trial.Number], state[trial.Number] = at[*trial.Parent], state[*trial.Parent]
			}
			for {
				at[trial.Number]++
				step := float64(at[trial.Number])
				gap := float(trial.Params, "rate") * step
				state[trial.Number] += 1 / (1 + (gap-1)*(gap-1)*9)
				value := -state[trial.Number]
				apply(t, s, search.Event{Kind: search.Told, Trial: trial.Number, Resource: at[trial.Number], Value: &value})
				if s.Verdict(trial.Number) == search.Paused {
					apply(t, s, search.Event{Kind: search.Pause, Trial: trial.Number})
					break
				}
				if at[trial.Number] == 40 {
					apply(t, s, search.Event{Kind: search.Finish, Trial: trial.Number, Value: &value})
					bestEnd = max(bestEnd, -value)
					break
				}
			}
		}
	}
	var fixed, population []float64
	for seed := range uint64(10) {
		for _, config := range []search.Config{
			{Space: space, Sampler: search.Random{}, Trials: 20, Seed: seed},
			{Space: space, Sampler: search.Random{}, Scheduler: search.Population{Size: 20, Interval: 2, Max: 40}, Seed: seed},
		} {
			s, err := search.New(config)
			if err != nil {
				t.Fatal(err)
			}
			if got := progress(s); config.Scheduler == nil {
				fixed = append(fixed, got)
			} else {
				population = append(population, got)
			}
		}
	}
	t.Logf("progress of 40 steps: %.1f with fixed rates, %.1f in a population", median(fixed), median(population))
	if median(population) < 1.05*median(fixed) {
		t.Errorf("the best of a population comes to %.1f, of 20 fixed rates to %.1f", median(population), median(fixed))
	}
}

// TestSchedulersTakeUpAnywhere: a search that is made anew from the events so far decides the same.
func TestSchedulersTakeUpAnywhere(t *testing.T) {
	rungs := search.Rungs{Max: 9}
	for _, config := range []search.Config{
		{Trials: 12}, {Trials: 12, Scheduler: search.ASHA{Rungs: rungs}}, {Trials: 12, Scheduler: search.Halving{Rungs: rungs}},
		{Scheduler: search.Hyperband{Rungs: rungs}}, {Trials: 12, Scheduler: search.Median{Startup: 2}},
		{Scheduler: search.Population{Size: 5, Interval: 3, Max: 9}}, {Trials: 12, Sampler: search.CMAES{}},
	} {
		config.Space, config.Seed = problems["branin"].space, 11
		var events []search.Event
		s, err := search.New(config)
		if err != nil {
			t.Fatal(err)
		}
		note := func(event search.Event) {
			apply(t, s, event)
			events = append(events, event)
			again, err := search.New(config)
			if err != nil {
				t.Fatal(err)
			}
			apply(t, again, events...)
			a, x := s.Ask()
			b, y := again.Ask()
			if x != y || fmt.Sprintf("%+v", a.Params) != fmt.Sprintf("%+v", b.Params) || a.Kind != b.Kind || a.Trial != b.Trial || a.Until != b.Until {
				t.Fatalf("after %d events: %+v, taken up again %+v", len(events), a, b)
			}
		}
		for {
			event, advice := s.Ask()
			if advice != search.Work {
				break
			}
			note(event)
			trial := s.Trials()[event.Trial]
			value := problems["branin"].f(trial.Params)
			end := search.Event{Kind: search.Finish, Trial: event.Trial, Value: &value}
			for from := len(trial.Reports); from < 9; from++ {
				v := value + 1/float64(from+1)
				note(search.Event{Kind: search.Told, Trial: event.Trial, Resource: from + 1, Value: &v})
				if verdict := s.Verdict(event.Trial); verdict != search.Running {
					end = search.Event{Kind: map[search.State]string{search.Paused: search.Pause, search.Stopped: search.Stop}[verdict], Trial: event.Trial}
					break
				}
			}
			note(end)
		}
		if _, found := s.Best(); !found {
			t.Errorf("%+v: nothing finished", config)
		}
	}
}

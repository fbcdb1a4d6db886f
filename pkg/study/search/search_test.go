package search_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/study/search"
)

func TestConfigAsJSON(t *testing.T) {
	content := `{"space":[{"name":"x","kind":"float","low":0.1,"high":1,"log":true}],"sampler":{"kind":"tpe","startup":4},` +
		`"scheduler":{"kind":"asha","max":27,"eta":3},"trials":9,"maximize":true,"seed":18446744073709551615}`
	var config search.Config
	if err := json.Unmarshal([]byte(content), &config); err != nil {
		t.Fatal(err)
	}
	want := search.Config{
		Space: search.Space{{Name: "x", Kind: search.Float, Low: 0.1, High: 1, Log: true}}, Sampler: search.TPE{Startup: 4},
		Scheduler: search.ASHA{Rungs: search.Rungs{Max: 27, Eta: 3}}, Trials: 9, Maximize: true, Seed: math.MaxUint64,
	}
	if !reflect.DeepEqual(config, want) {
		t.Errorf("read %+v, want %+v", config, want)
	}
	if again, err := json.Marshal(config); err != nil || string(again) != content {
		t.Errorf("written %s, %v", again, err)
	}
	for content, want := range map[string]string{
		`{"space": [], "sampler": "gauss"}`:                      `sampler: kind "gauss" is unknown; known: cmaes, grid, random, sobol, tpe`,
		`{"space": [], "sampler": {"kind": "tpe", "start": 1}}`:  `sampler (tpe): unknown field "start"`,
		`{"space": [], "scheduler": {"kind": "asha", "top": 1}}`: `scheduler (asha): unknown field "top"`,
		`{"spaces": []}`: `unknown field "spaces"`,
		`{"space": [{"name": "x", "type": "float"}]}`: `unknown field "type"`,
	} {
		if err := json.Unmarshal([]byte(content), &config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", content, err, want)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	x := search.Space{{Name: "x", Kind: search.Float, High: 1}}
	wide := make(search.Space, 0, 22)
	for i := range 22 {
		wide = append(wide, search.Parameter{Name: fmt.Sprintf("x%d", i), Kind: search.Float, High: 1})
	}
	choice := search.Space{{Name: "c", Kind: search.Categorical, Choices: []string{"a"}}}
	rungs := search.Rungs{Max: 9}
	for want, config := range map[string]search.Config{
		"space is empty":                  {Trials: 1},
		"trials is 0":                     {Space: x},
		"trials is -1":                    {Space: x, Trials: -1},
		"plans them itself":               {Space: x, Trials: 3, Scheduler: search.Hyperband{Rungs: rungs}},
		"sobol has 21 dimensions":         {Space: wide, Trials: 1, Sampler: search.Sobol{}},
		"cmaes needs a number":            {Space: choice, Trials: 1, Sampler: search.CMAES{}},
		"sampler.sigma is 2":              {Space: x, Trials: 1, Sampler: search.CMAES{Sigma: 2}},
		"sampler.size is 2":               {Space: x, Trials: 1, Sampler: search.CMAES{Size: 2}},
		"startup is -1":                   {Space: x, Trials: 1, Sampler: search.TPE{Startup: -1}},
		"sampler.points is -1":            {Space: x, Trials: 1, Sampler: search.Grid{Points: -1}},
		"scheduler.max is 2":              {Space: x, Trials: 1, Scheduler: search.ASHA{Rungs: search.Rungs{Max: 2}}},
		"scheduler.eta is 1":              {Space: x, Trials: 1, Scheduler: search.Halving{Rungs: search.Rungs{Max: 9, Eta: 1}}},
		"scheduler.min is -1":             {Space: x, Trials: 1, Scheduler: search.Halving{Rungs: search.Rungs{Max: 9, Min: -1}}},
		"scheduler.rounds is -1":          {Space: x, Scheduler: search.Hyperband{Rungs: rungs, Rounds: -1}},
		"warmup -1":                       {Space: x, Trials: 1, Scheduler: search.Median{Warmup: -1}},
		"scheduler.size is 1":             {Space: x, Scheduler: search.Population{Size: 1, Interval: 1, Max: 3}},
		"scheduler.interval is 3 and max": {Space: x, Scheduler: search.Population{Size: 4, Interval: 3, Max: 3}},
		"scheduler.quantile is 0.6":       {Space: x, Scheduler: search.Population{Size: 4, Interval: 1, Max: 3, Quantile: 0.6}},
		"scheduler.resample is 2":         {Space: x, Scheduler: search.Population{Size: 4, Interval: 1, Max: 3, Resample: 2}},
	} {
		if _, err := search.New(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	s, err := search.New(search.Config{Space: search.Space{{Name: "x", Kind: search.Float, High: 1}}, Trials: 3})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, search.Event{Kind: search.Begin, Params: search.Params{"x": 0.5}})
	infinite, one := math.Inf(1), 1.0
	for want, event := range map[string]search.Event{
		"want trial 1":              {Kind: search.Begin, Trial: 2, Params: search.Params{"x": 0.5}},
		"x is missing":              {Kind: search.Begin, Trial: 1},
		"there is no trial 7":       {Kind: search.Begin, Trial: 1, Params: search.Params{"x": 0.5}, Parent: new(7)},
		"there is no such trial":    {Kind: search.Finish, Trial: 1, Value: &one},
		"it is running, want":       {Kind: search.Resume},
		"want a finite value":       {Kind: search.Finish, Value: &infinite},
		`event "report" of trial 0`: {Kind: search.Told, Resource: 1},
		"is unknown":                {Kind: "dance"},
	} {
		if err := s.Apply(event); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", event, err, want)
		}
	}
	apply(t, s, search.Event{Kind: search.Finish, Value: &one})
	if err := s.Apply(search.Event{Kind: search.Finish, Value: &one}); err == nil {
		t.Error("a trial finished twice")
	}
}

// TestReportsOfATrialTakenUpAgain: what it says twice counts once.
func TestReportsOfATrialTakenUpAgain(t *testing.T) {
	s, err := search.New(search.Config{Space: search.Space{{Name: "x", Kind: search.Float, High: 1}}, Trials: 3})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, search.Event{Kind: search.Begin, Params: search.Params{"x": 0.5}})
	for _, r := range []search.Report{{1, 5}, {2, 4}, {3, 3}, {2, 4.5}, {3, 3.5}} {
		apply(t, s, search.Event{Kind: search.Told, Resource: r.Resource, Value: &r.Value})
	}
	if got, want := fmt.Sprint(s.Trials()[0].Reports), "[{1 5} {2 4.5} {3 3.5}]"; got != want {
		t.Errorf("reports are %s, want %s", got, want)
	}
}

func TestMaximize(t *testing.T) {
	p := problems["branin"]
	least := play(t, search.Config{Space: p.space, Trials: 40, Seed: 3}, p.f)
	most := play(t, search.Config{Space: p.space, Trials: 40, Seed: 3, Maximize: true}, func(params search.Params) float64 { return -p.f(params) })
	a, _ := least.Best()
	b, _ := most.Best()
	if a.Number != b.Number || a.Value != -b.Value {
		t.Errorf("the least is %v in trial %d, the most of the negative %v in trial %d", a.Value, a.Number, b.Value, b.Number)
	}
}

// TestEarlierTrialsTeach: a search that knows another one is better in its first trials, and does not begin at random.
func TestEarlierTrialsTeach(t *testing.T) {
	p := problems["hartmann6"]
	var cold, warm []float64
	for seed := range uint64(10) {
		before := play(t, search.Config{Space: p.space, Trials: 60, Seed: seed}, p.f).Trials()
		for _, earlier := range [][]search.Trial{nil, before} {
			s, err := search.New(search.Config{Space: p.space, Trials: 5, Seed: seed + 100}, earlier...)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				event, _ := s.Ask()
				value := p.f(event.Params)
				apply(t, s, event, search.Event{Kind: search.Finish, Trial: event.Trial, Value: &value})
			}
			best, _ := s.Best()
			if earlier == nil {
				cold = append(cold, best.Value)
			} else {
				warm = append(warm, best.Value)
			}
		}
	}
	if median(warm) > median(cold)-0.5 {
		t.Errorf("the best of five trials is %.3f with experience and %.3f without", median(warm), median(cold))
	}
}

// TestWorkersDoNotCrowd: suggestions for trials that run at the same time differ, and lie apart from each other.
func TestWorkersDoNotCrowd(t *testing.T) {
	p := problems["branin"]
	s := play(t, search.Config{Space: p.space, Trials: 30, Seed: 1}, p.f)
	more, err := search.New(search.Config{Space: p.space, Trials: 8, Seed: 2}, s.Trials()...)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 8 {
		event, advice := more.Ask()
		if advice != search.Work {
			t.Fatal("no work")
		}
		seen[fmt.Sprint(event.Params)] = true
		apply(t, more, event)
	}
	if len(seen) != 8 {
		t.Errorf("8 workers got %d different suggestions", len(seen))
	}
	if _, advice := more.Ask(); advice != search.Wait {
		t.Errorf("with all begun the advice is %v, want to wait", advice)
	}
}

// TestCMAESOnAnEllipsoid: it learns that axes have different lengths and are turned; random search cannot.
func TestCMAESOnAnEllipsoid(t *testing.T) {
	ellipsoid := func(p search.Params) float64 {
		a, b, c := float(p, "x0")-0.3, float(p, "x1")-0.6, float(p, "x2")-0.45
		return 100*math.Pow(a+b+c, 2) + math.Pow(a-b, 2) + 10*math.Pow(a+b-2*c, 2)
	}
	s := play(t, search.Config{Space: cube(3), Sampler: search.CMAES{}, Trials: 400, Seed: 5}, ellipsoid)
	best, _ := s.Best()
	if best.Value > 1e-6 {
		t.Errorf("the best of 400 trials is %g at %v", best.Value, best.Params)
	}
}

func TestImportance(t *testing.T) {
	space := append(cube(3), search.Parameter{Name: "c", Kind: search.Categorical, Choices: []string{"a", "b", "d"}})
	f := func(p search.Params) float64 {
		v := 10*math.Pow(float(p, "x0")-0.2, 2) + math.Pow(float(p, "x1")-0.7, 2)
		if p["c"] != "b" {
			v += 1
		}
		return v
	}
	s := play(t, search.Config{Space: space, Sampler: search.Random{}, Trials: 400, Seed: 1}, f)
	shares := search.Importance(space, s.Trials(), false)
	sum := 0.0
	for _, share := range shares {
		sum += share
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("shares add up to %g", sum)
	}
	if !(shares["x0"] > 4*shares["x1"] && shares["x0"] > 10*shares["x2"] && shares["c"] > 10*shares["x2"] && shares["x2"] < 0.05) {
		t.Errorf("x0 and c decide, x1 little and x2 nothing, but the shares are %v", shares)
	}
	negative := play(t, search.Config{Space: space, Sampler: search.Random{}, Trials: 400, Seed: 1, Maximize: true}, func(p search.Params) float64 { return -f(p) })
	if again := search.Importance(space, negative.Trials(), true); !reflect.DeepEqual(again, shares) {
		t.Errorf("with all signs changed the shares are %v, want %v", again, shares)
	}
	if none := search.Importance(space, s.Trials()[:3], false); none != nil {
		t.Errorf("three trials say %v", none)
	}
	// By hand: a kernel has its own choice with probability (1+s)/(1+2s) of two, where s is 1 by the number of kernels, and the
	// prior each with a half.
	two := search.Space{{Name: "c", Kind: search.Categorical, Choices: []string{"a", "b"}}, {Name: "e", Kind: search.Categorical, Choices: []string{"a", "b"}}}
	var trials []search.Trial
	for i := range 8 {
		params := search.Params{"c": []string{"b", "b", "a", "a", "b", "b", "a", "a"}[i], "e": []string{"b", "a", "a", "a", "b", "b", "a", "a"}[i]}
		trials = append(trials, search.Trial{Number: i, State: search.Finished, Value: float64(i), Params: params})
	}
	density := func(b, n float64) float64 { // of b, which b of n trials have
		s := 1.0 / (n + 1)
		own := (1 + s) / (1 + 2*s)
		return (b*own + (n-b)*(1-own) + 0.5) / (n + 1)
	}
	divergence := func(p, q float64) float64 { return (p-q)*(p-q)/q + (p-q)*(p-q)/(1-q) }
	c, e := divergence(density(2, 2), density(4, 8)), divergence(density(1, 2), density(3, 8))
	shares = search.Importance(two, trials, false)
	if want := c / (c + e); math.Abs(shares["c"]-want) > 1e-9 {
		t.Errorf("the share of c is %.6f, want %.6f", shares["c"], want)
	}
}

package search_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/study/search"
)

// problem is a function of which the least value is known.
type problem struct {
	space search.Space
	least float64
	f     func(search.Params) float64
}

func float(p search.Params, name string) float64 { return p[name].(float64) }

// problems are the functions of the recorded facts.
var problems = map[string]problem{
	"branin": {
		search.Space{{Name: "x", Kind: search.Float, Low: -5, High: 10}, {Name: "y", Kind: search.Float, High: 15}}, 0.397887,
		func(p search.Params) float64 {
			x, y := float(p, "x"), float(p, "y")
			return math.Pow(y-5.1/(4*math.Pi*math.Pi)*x*x+5/math.Pi*x-6, 2) + 10*(1-1/(8*math.Pi))*math.Cos(x) + 10
		},
	},
	"hartmann6": {cube(6), -3.32237, hartmann6},
	"mixed": {
		search.Space{
			{Name: "optimizer", Kind: search.Categorical, Choices: []string{"sgd", "adamw", "lion", "adafactor"}},
			{Name: "lr", Kind: search.Float, Low: 1e-6, High: 1e-1, Log: true},
			{Name: "wd", Kind: search.Float, Low: 1e-5, High: 1, Log: true},
			{Name: "warmup_pct", Kind: search.Int, High: 30},
			{Name: "beta2", Kind: search.Float, Low: 0.9, High: 0.9999, When: map[string][]string{"optimizer": {"adamw", "lion"}}},
		}, 0,
		func(p search.Params) float64 {
			optimizer := p["optimizer"].(string)
			rate := map[string]float64{"sgd": -1.5, "adamw": -4.5, "lion": -5, "adafactor": -3}[optimizer]
			v := map[string]float64{"sgd": 0.5, "adamw": 0, "lion": 0.1, "adafactor": 0.2}[optimizer]
			v += 0.35*math.Pow(math.Log10(float(p, "lr"))-rate, 2) + 0.05*math.Pow(math.Log10(float(p, "wd"))+2, 2)
			v += 0.0006 * math.Pow(float64(p["warmup_pct"].(int))-8, 2)
			if _, ok := p["beta2"]; ok {
				v += 80 * math.Pow(float(p, "beta2")-0.98, 2)
			}
			return v
		},
	},
}

func cube(n int) (s search.Space) {
	for i := range n {
		s = append(s, search.Parameter{Name: fmt.Sprintf("x%d", i), Kind: search.Float, High: 1})
	}
	return s
}

func hartmann6(p search.Params) (v float64) {
	a := [4][6]float64{{10, 3, 17, 3.5, 1.7, 8}, {0.05, 10, 17, 0.1, 8, 14}, {3, 3.5, 1.7, 10, 17, 8}, {17, 8, 0.05, 10, 0.1, 14}}
	c := [4][6]float64{{1312, 1696, 5569, 124, 8283, 5886}, {2329, 4135, 8307, 3736, 1004, 9991}, {2348, 1451, 3522, 2883, 3047, 6650}, {4047, 8828, 8732, 5743, 1091, 381}}
	for k, alpha := range []float64{1, 1.2, 3, 3.2} {
		s := 0.0
		for j := range 6 {
			s += a[k][j] * math.Pow(float(p, fmt.Sprintf("x%d", j))-1e-4*c[k][j], 2)
		}
		v -= alpha * math.Exp(-s)
	}
	return v
}

// play makes a search from its begin to its end, all trials by f, and returns it.
func play(tb testing.TB, config search.Config, f func(search.Params) float64) *search.Search {
	tb.Helper()
	s, err := search.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	for {
		event, advice := s.Ask()
		if advice == search.Done {
			return s
		}
		value := f(event.Params)
		apply(tb, s, event, search.Event{Kind: search.Finish, Trial: event.Trial, Value: &value})
	}
}

func apply(tb testing.TB, s *search.Search, events ...search.Event) {
	tb.Helper()
	for _, e := range events {
		if err := s.Apply(e); err != nil {
			tb.Fatal(err)
		}
	}
}

// regrets returns how far the best of n trials is from the least value, by seed.
func regrets(tb testing.TB, p problem, sampler search.Sampler, trials, seeds int) (all []float64) {
	for seed := range seeds {
		s := play(tb, search.Config{Space: p.space, Sampler: sampler, Trials: trials, Seed: uint64(seed)}, p.f)
		best, _ := s.Best()
		all = append(all, best.Value-p.least)
	}
	return all
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile(v []float64, q float64) float64 {
	v = slices.Clone(v)
	sort.Float64s(v)
	at := q * float64(len(v)-1)
	low := int(at)
	return v[low] + (at-float64(low))*(v[min(low+1, len(v)-1)]-v[low])
}

// facts are what Optuna reached.
type facts struct {
	Trials   int `json:"n_trials"`
	Seeds    int `json:"seeds"`
	Samplers map[string]struct {
		Median float64 `json:"regret60_median"`
	} `json:"sampler_bench"`
}

// readFacts reads what the folder holds, by file.
func readFacts(tb testing.TB) map[string]facts {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(golden.Dir(tb, "hpo"), "*.json"))
	if err != nil {
		tb.Fatal(err)
	}
	all := map[string]facts{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		var f facts
		if err := json.Unmarshal(content, &f); err != nil {
			tb.Fatal(err)
		}
		if len(f.Samplers) > 0 {
			all[filepath.Base(file)] = f
		}
	}
	if len(all) == 0 {
		tb.Fatal("no file has facts of samplers")
	}
	return all
}

// TestGoldenRegret compares with Optuna's samplers over 50 seeds, whose median strays by a seventh from that of a hundred, which
// BenchmarkRegret prints. Random search is 2.3 to 5.2 times as far away as Optuna's TPE, so a sampler that has learned nothing fails.
func TestGoldenRegret(t *testing.T) {
	for file, f := range readFacts(t) {
		for _, name := range slices.Sorted(maps.Keys(f.Samplers)) {
			function, sampler, _ := strings.Cut(name, "/")
			p, known := problems[function]
			if !known {
				t.Errorf("%s: %s: no such function here", file, name)
				continue
			}
			want := f.Samplers[name].Median
			check := func(sampler search.Sampler, seeds int, low, high float64) {
				got := median(regrets(t, p, sampler, f.Trials, seeds))
				t.Logf("%s: %s: %.4g, %.2f times Optuna's %.4g", file, name, got, got/want, want)
				if got < low*want || got > high*want {
					t.Errorf("%s: %s: median regret %.4g, want it from %g to %g times Optuna's %.4g", file, name, got, low, high, want)
				}
			}
			switch sampler {
			case "tpe_mv":
				check(search.TPE{}, 50, 0, 1.25)
			case "cmaes":
				check(search.CMAES{}, 100, 0, 1.5)
			case "random": // the functions are the same, and so is random search
				check(search.Random{}, 1000, 0.7, 1.4)
			}
		}
	}
}

// BenchmarkRegret prints the median regret over the seeds of the facts, with its quartiles, and its ratio to that of Optuna's
// multivariate TPE.
func BenchmarkRegret(b *testing.B) {
	f, ok := readFacts(b)["hpo_facts100.json"]
	if !ok {
		b.Fatal("the facts of 100 seeds are missing")
	}
	for _, function := range []string{"branin", "hartmann6", "mixed"} {
		for _, sampler := range []search.Sampler{search.Random{}, search.Sobol{}, search.CMAES{}, search.TPE{}} {
			b.Run(function+"/"+sampler.Kind(), func(b *testing.B) {
				var all []float64
				for b.Loop() {
					all = regrets(b, problems[function], sampler, f.Trials, f.Seeds)
				}
				b.ReportMetric(median(all), "regret")
				b.ReportMetric(quantile(all, 0.25), "regret-q1")
				b.ReportMetric(quantile(all, 0.75), "regret-q3")
				b.ReportMetric(median(all)/f.Samplers[function+"/tpe_mv"].Median, "of-optuna")
			})
		}
	}
}

// The learning curves of the facts: values fall towards one that depends on the parameters, at a rate that does so too, and
// those that fall fast are not the best.
var curveSpace = search.Space{
	{Name: "lr", Kind: search.Float, Low: 1e-6, High: 1, Log: true}, {Name: "wd", Kind: search.Float, Low: 1e-5, High: 1, Log: true},
}

const curveEpochs = 81

func curve(lr, wd float64, epoch int) float64 {
	end := 0.1 + 0.25*math.Pow(math.Log10(lr)+3, 2) + 0.05*math.Pow(math.Log10(wd)+2, 2)
	rate := 0.02 + 0.25/(1+math.Exp(-3*(math.Log10(lr)+3.2)))
	return end + 2*math.Exp(-rate*float64(epoch))
}

func leastCurve() float64 {
	least := math.Inf(1)
	for i := range 20001 {
		least = min(least, curve(math.Pow(10, -6+6*float64(i)/20000), 1e-2, curveEpochs))
	}
	return least
}

// train plays a search over learning curves, by one worker that resumes, and returns its regret and the epochs that it used.
// What is reported has noise of 0.02.
func train(tb testing.TB, config search.Config) (regret float64, epochs int) {
	tb.Helper()
	config.Space = curveSpace
	s, err := search.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	noise := rand.New(rand.NewPCG(1000+config.Seed, 0))
	at := map[int]int{} // epochs by trial
	for {
		event, advice := s.Ask()
		if advice != search.Work {
			break
		}
		apply(tb, s, event)
		trial := s.Trials()[event.Trial]
		lr, wd := float(trial.Params, "lr"), float(trial.Params, "wd")
		if trial.Parent != nil && at[event.Trial] == 0 {
			at[event.Trial] = at[*trial.Parent]
		}
		verdict := search.Running
		for verdict == search.Running && at[event.Trial] < curveEpochs {
			at[event.Trial]++
			epochs++
			value := curve(lr, wd, at[event.Trial]) + 0.02*noise.NormFloat64()
			apply(tb, s, search.Event{Kind: search.Told, Trial: event.Trial, Resource: at[event.Trial], Value: &value})
			verdict = s.Verdict(event.Trial)
		}
		switch value := curve(lr, wd, curveEpochs); verdict {
		case search.Paused:
			apply(tb, s, search.Event{Kind: search.Pause, Trial: event.Trial})
		case search.Stopped:
			apply(tb, s, search.Event{Kind: search.Stop, Trial: event.Trial})
		default:
			apply(tb, s, search.Event{Kind: search.Finish, Trial: event.Trial, Value: &value})
		}
	}
	best, found := s.Best()
	if !found {
		tb.Fatal("no trial finished")
	}
	return best.Value - leastCurve(), epochs
}

// trainSeeds returns medians.
func trainSeeds(tb testing.TB, config search.Config, seeds int) (regret, epochs float64) {
	var r, e []float64
	for seed := range seeds {
		config.Seed = uint64(seed)
		one, used := train(tb, config)
		r, e = append(r, one), append(e, float64(used))
	}
	return median(r), median(e)
}

const fullEpochs = 60 * curveEpochs

// TestHyperbandIsCheap: against 60 random trials that all go to their end, Hyperband uses at most 35 % of the epochs, and its
// regret is at most 1.3 times theirs, both with the same sampler.
func TestHyperbandIsCheap(t *testing.T) {
	full, epochs := trainSeeds(t, search.Config{Sampler: search.Random{}, Trials: 60}, 40)
	if epochs != fullEpochs {
		t.Fatalf("without a scheduler %g epochs were used, want %d", epochs, fullEpochs)
	}
	regret, epochs := trainSeeds(t, search.Config{Sampler: search.Random{}, Scheduler: search.Hyperband{Rungs: search.Rungs{Max: curveEpochs}}}, 40)
	t.Logf("%.0f %% of the epochs, regret %.4f against %.4f", 100*epochs/fullEpochs, regret, full)
	if epochs > 0.35*fullEpochs || regret > 1.3*full {
		t.Errorf("%g epochs and regret %.4f, want at most %g and %.4f", epochs, regret, 0.35*fullEpochs, 1.3*full)
	}
}

// BenchmarkSchedulers prints the median regret and share of the epochs over 100 seeds.
func BenchmarkSchedulers(b *testing.B) {
	rungs := search.Rungs{Max: curveEpochs}
	for _, sampler := range []search.Sampler{search.Random{}, search.TPE{}} {
		for _, c := range []struct {
			name      string
			scheduler search.Scheduler
			trials    int
		}{
			{"none", nil, 60}, {"median", search.Median{Warmup: 3}, 60}, {"halving", search.Halving{Rungs: rungs}, 60}, {"asha", search.ASHA{Rungs: rungs}, 60},
			{"hyperband", search.Hyperband{Rungs: rungs}, 0}, {"population", search.Population{Size: 20, Interval: 9, Max: curveEpochs}, 0},
		} {
			b.Run(c.name+"/"+sampler.Kind(), func(b *testing.B) {
				var regret, epochs float64
				for b.Loop() {
					regret, epochs = trainSeeds(b, search.Config{Sampler: sampler, Scheduler: c.scheduler, Trials: c.trials}, 100)
				}
				b.ReportMetric(regret, "regret")
				b.ReportMetric(100*epochs/fullEpochs, "%epochs")
			})
		}
	}
}

package schedule_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
)

// arguments are those of a function of another package, by its own names.
type arguments map[string]any

func (a arguments) number(name string, missing float64) float64 {
	if v, ok := a[name].(float64); ok {
		return v
	}
	return missing
}

func (a arguments) count(name string, missing int) int { return int(a.number(name, float64(missing))) }

func (a arguments) text(name, missing string) string {
	if v, ok := a[name].(string); ok {
		return v
	}
	return missing
}

func (a arguments) yes(name string) bool { v, _ := a[name].(bool); return v }

type goldenSchedule struct {
	ID, Source, Name string
	Kw               arguments
	LR               float64
	Metric           []float64
	Values           []float64
}

// TestGoldenSchedules compares every recorded schedule of Transformers, PyTorch, optax,
// pytorch-optimizer and timm, from the arguments of its own function.
func TestGoldenSchedules(t *testing.T) {
	if os.Getenv(golden.DirEnv) == "" {
		t.Chdir("..") // the vectors lie with the optimizers'
	}
	content, err := os.ReadFile(filepath.Join(golden.Dir(t, "optim"), "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Schedules []goldenSchedule }
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest.Schedules) == 0 {
		t.Fatal("no schedules")
	}
	for _, recorded := range manifest.Schedules {
		t.Run(recorded.ID, func(t *testing.T) { replay(t, recorded) })
	}
}

func replay(t *testing.T, recorded goldenSchedule) {
	got := make([]float64, len(recorded.Values))
	if recorded.Name == "ReduceLROnPlateau" {
		plateau(t, recorded, got)
	} else {
		s := peer(t, recorded.Source, recorded.Name, recorded.Kw, recorded.LR)
		for step := range got {
			got[step] = s.At(step)
		}
	}
	largest := slices.Max(recorded.Values)
	for step, want := range recorded.Values {
		if step == 0 && recorded.Source == "po" {
			continue // the package sets its first rate one step late
		}
		// The second term is for rates that are 0 but for rounding.
		if !(math.Abs(got[step]-want) <= 1e-9*math.Abs(want)+1e-14*largest) {
			t.Errorf("update %d: rate is %.15g, want %.15g", step, got[step], want)
		}
	}
}

func plateau(t *testing.T, recorded goldenSchedule, rates []float64) {
	kw := recorded.Kw
	config := control.Plateau{
		Progress: control.Progress{
			Mode: kw.text("mode", "min"), Patience: kw.count("patience", 10),
			Threshold: kw.number("threshold", 1e-4), ThresholdMode: kw.text("threshold_mode", "rel"),
		},
		Factor: kw.number("factor", 0.1), Cooldown: kw.count("cooldown", 0),
		Min: kw.number("min_lr", 0) / recorded.LR, Epsilon: kw.number("eps", 1e-8) / recorded.LR,
	}
	set, err := control.New([]control.Config{{Plateau: &config}})
	if err != nil {
		t.Fatal(err)
	}
	for step := range rates {
		rates[step] = recorded.LR * set.Scale()
		set.Observe(control.Signals{Update: step + 1, Metric: &recorded.Metric[step]})
	}
}

// peer returns the schedule of another package's function, with its defaults.
func peer(t *testing.T, source, name string, kw arguments, rate float64) schedule.Schedule {
	switch source {
	case "hf":
		return transformers(t, name, kw, rate)
	case "torch":
		return torch(t, name, kw, rate)
	case "optax":
		return optax(t, name, kw)
	case "timm":
		return timm(t, name, kw, rate)
	case "po":
		if name == "REXScheduler" {
			return schedule.Anneal{
				From: kw.number("max_lr", 1), To: kw.number("min_lr", 0), Steps: kw.count("total_steps", 0), Curve: schedule.Rational{},
			}
		}
	}
	t.Fatalf("unknown: %s of %s", name, source)
	return nil
}

var peerCurves = map[string]schedule.Curve{
	"linear": schedule.Line{}, "cosine": schedule.HalfCosine{}, "cos": schedule.HalfCosine{}, "1-sqrt": schedule.Root{},
}

func transformers(t *testing.T, name string, kw arguments, rate float64) schedule.Schedule {
	warmup := kw.count("num_warmup_steps", 0)
	total := kw.count("num_training_steps", 0)
	after := max(1, total-warmup)
	warm := schedule.Warmup{Steps: warmup, To: rate, FromFirst: true}
	low := kw.number("min_lr", kw.number("min_lr_rate", 0)*rate)
	switch name {
	case "constant_schedule", "constant_schedule_with_warmup":
		warm.Of = schedule.Constant{Rate: rate}
	case "linear_schedule_with_warmup":
		warm.Of = schedule.Anneal{From: rate, Steps: after}
	case "cosine_schedule_with_warmup", "cosine_with_min_lr_schedule_with_warmup":
		warm.Of = schedule.Wave{Peak: rate, Min: low, HalfPeriod: float64(after) / (2 * kw.number("num_cycles", 0.5))}
	case "cosine_with_hard_restarts_schedule_with_warmup":
		cycles := kw.count("num_cycles", 1)
		warm.Of = schedule.Restarts{Peak: rate, Steps: float64(after) / float64(cycles), Cycles: cycles}
	case "polynomial_decay_schedule_with_warmup":
		warm.Of = schedule.Anneal{From: rate, To: kw.number("lr_end", 1e-7), Steps: after, Curve: schedule.Power{Exponent: kw.number("power", 1)}}
	case "inverse_sqrt_schedule":
		scale := warmup
		if scale == 0 {
			scale = 10_000
		}
		warm.Of = schedule.InverseSqrt{Peak: rate, Timescale: kw.number("timescale", float64(scale))}
	case "wsd_schedule":
		low = kw.number("min_lr_ratio", 0) * rate
		decay := kw.count("num_decay_steps", 0)
		stable := kw.count("num_stable_steps", total-warmup-decay)
		var falls schedule.Schedule = schedule.Anneal{From: rate, To: low, Steps: decay, Curve: peerCurves[kw.text("decay_type", "cosine")]}
		if cycles := kw.number("num_cycles", 0.5); cycles != 0.5 && kw.text("decay_type", "cosine") == "cosine" {
			falls = schedule.Wave{Peak: rate, Min: low, HalfPeriod: float64(decay) / (2 * cycles)}
		}
		warm.From, warm.Curve = low, peerCurves[kw.text("warmup_type", "linear")]
		warm.Of = schedule.Join{
			Schedules:  []schedule.Schedule{schedule.Constant{Rate: rate}, falls, schedule.Constant{Rate: low}},
			Boundaries: []int{stable, stable + decay},
		}
	default:
		t.Fatalf("unknown schedule %q", name)
	}
	return warm
}

func torch(t *testing.T, name string, kw arguments, rate float64) schedule.Schedule {
	switch name {
	case "ConstantLR":
		return schedule.Join{
			Schedules:  []schedule.Schedule{schedule.Constant{Rate: rate * kw.number("factor", 1.0/3)}, schedule.Constant{Rate: rate}},
			Boundaries: []int{kw.count("total_iters", 5)},
		}
	case "LinearLR":
		return schedule.Anneal{From: rate * kw.number("start_factor", 1.0/3), To: rate * kw.number("end_factor", 1), Steps: kw.count("total_iters", 5)}
	case "PolynomialLR":
		return schedule.Anneal{From: rate, Steps: kw.count("total_iters", 5), Curve: schedule.Power{Exponent: kw.number("power", 1)}}
	case "ExponentialLR":
		return schedule.Exponential{From: rate, Factor: kw.number("gamma", 0), Every: 1}
	case "StepLR":
		return schedule.Exponential{From: rate, Factor: kw.number("gamma", 0.1), Every: kw.number("step_size", 0), Staircase: true}
	case "MultiStepLR":
		milestones := numbers(kw["milestones"])
		slices.Sort(milestones)
		points := []schedule.Point{{Rate: rate}}
		for _, at := range milestones {
			rate *= kw.number("gamma", 0.1)
			points = append(points, schedule.Point{Step: at, Rate: rate})
		}
		return schedule.Piecewise{Points: points}
	case "CosineAnnealingLR":
		return schedule.Wave{Peak: rate, Min: kw.number("eta_min", 0), HalfPeriod: kw.number("T_max", 0)}
	case "CosineAnnealingWarmRestarts":
		return schedule.Restarts{Peak: rate, Min: kw.number("eta_min", 0), Steps: kw.number("T_0", 0), Growth: kw.number("T_mult", 1)}
	case "CyclicLR":
		up := kw.number("step_size_up", 2000)
		cyclic := schedule.Cyclic{Min: kw.number("base_lr", 0), Max: kw.number("max_lr", 0), Up: up, Down: kw.number("step_size_down", up)}
		switch kw.text("mode", "triangular") {
		case "triangular2":
			cyclic.CycleFactor = 0.5
		case "exp_range":
			cyclic.StepFactor = kw.number("gamma", 1)
		}
		return cyclic
	case "OneCycleLR":
		return schedule.OneCycle{
			Peak: kw.number("max_lr", 0), Steps: kw.count("total_steps", kw.count("epochs", 0)*kw.count("steps_per_epoch", 0)), Rise: kw.number("pct_start", 0.3),
			Divisor: kw.number("div_factor", 25), FinalDivisor: kw.number("final_div_factor", 1e4),
			ThreePhase: kw.yes("three_phase"), Curve: peerCurves[kw.text("anneal_strategy", "cos")],
		}
	case "SequentialLR":
		var join schedule.Join
		for _, entry := range kw["schedulers"].([]any) {
			pair := entry.([]any)
			join.Schedules = append(join.Schedules, torch(t, pair[0].(string), pair[1].(map[string]any), rate))
		}
		for _, at := range numbers(kw["milestones"]) {
			join.Boundaries = append(join.Boundaries, int(at))
		}
		return join
	}
	t.Fatalf("unknown schedule %q", name)
	return nil
}

func optax(t *testing.T, name string, kw arguments) schedule.Schedule {
	first, end := kw.number("init_value", 0), kw.number("end_value", 0)
	peak, warmup := kw.number("peak_value", 0), kw.count("warmup_steps", 0)
	// delayed starts a schedule late, warm after a warm-up.
	delayed := func(s schedule.Schedule, first float64) schedule.Schedule {
		return schedule.Join{Schedules: []schedule.Schedule{schedule.Constant{Rate: first}, s}, Boundaries: []int{max(0, kw.count("transition_begin", 0))}}
	}
	warm := func(s schedule.Schedule) schedule.Schedule {
		return schedule.Warmup{Steps: warmup, From: first, To: peak, FromFirst: true, Of: s}
	}
	exponential := func(first float64) schedule.Schedule {
		s := delayed(schedule.Exponential{
			From: first, Factor: kw.number("decay_rate", 0), Every: kw.number("transition_steps", 0), Staircase: kw.yes("staircase"),
		}, first)
		if _, ok := kw["end_value"].(float64); !ok {
			return s
		}
		if kw.number("decay_rate", 0) < 1 {
			return schedule.Limit{Of: s, Min: end}
		}
		return schedule.Limit{Of: s, Max: end}
	}
	// through interpolates between boundaries, each of which multiplies the rate.
	through := func(first float64, curve schedule.Curve, scales map[int]float64) schedule.Schedule {
		points := []schedule.Point{{Rate: first}}
		for _, at := range sortedKeys(scales) {
			first *= scales[at]
			points = append(points, schedule.Point{Step: float64(at), Rate: first})
		}
		return schedule.Piecewise{Points: points, Curve: curve}
	}
	boundaries := map[int]float64{}
	if list, ok := kw["boundaries_and_scales"].(map[string]any); ok {
		for at, scale := range list {
			step, err := strconv.Atoi(at)
			if err != nil {
				t.Fatal(err)
			}
			boundaries[step] = scale.(float64)
		}
	}
	steps := kw.number("transition_steps", 0)
	divisor, final := kw.number("div_factor", 25), kw.number("final_div_factor", 1e4)
	switch name {
	case "constant_schedule":
		return schedule.Constant{Rate: kw.number("value", 0)}
	case "polynomial_schedule", "linear_schedule":
		return delayed(schedule.Anneal{From: first, To: end, Steps: int(steps), Curve: schedule.Power{Exponent: kw.number("power", 1)}}, first)
	case "cosine_decay_schedule":
		return schedule.Anneal{
			From: first, To: kw.number("alpha", 0) * first, Steps: kw.count("decay_steps", 0),
			Curve: schedule.Power{Of: schedule.HalfCosine{}, Exponent: kw.number("exponent", 1)},
		}
	case "warmup_constant_schedule":
		return warm(schedule.Constant{Rate: peak})
	case "warmup_cosine_decay_schedule":
		return warm(schedule.Anneal{
			From: peak, To: end, Steps: kw.count("decay_steps", 0) - warmup,
			Curve: schedule.Power{Of: schedule.HalfCosine{}, Exponent: kw.number("exponent", 1)},
		})
	case "exponential_decay":
		return exponential(first)
	case "warmup_exponential_decay_schedule":
		return warm(exponential(peak))
	case "piecewise_constant_schedule":
		return through(first, nil, boundaries)
	case "piecewise_interpolate_schedule":
		return through(first, peerCurves[kw.text("interpolate_type", "")], boundaries)
	case "cosine_onecycle_schedule":
		return through(peak/divisor, schedule.HalfCosine{}, map[int]float64{
			int(kw.number("pct_start", 0.3) * steps): divisor, int(steps): 1 / (divisor * final),
		})
	case "linear_onecycle_schedule":
		return through(peak/divisor, schedule.Line{}, map[int]float64{
			int(kw.number("pct_start", 0.3) * steps): divisor, int(kw.number("pct_final", 0.85) * steps): 1 / divisor, int(steps): 1 / final,
		})
	case "join_schedules":
		var join schedule.Join
		for _, entry := range kw["schedules"].([]any) {
			pair := entry.(map[string]any)["$sched"].([]any)
			join.Schedules = append(join.Schedules, optax(t, pair[0].(string), pair[1].(map[string]any)))
		}
		for _, at := range numbers(kw["boundaries"]) {
			join.Boundaries = append(join.Boundaries, int(at))
		}
		return join
	}
	t.Fatalf("unknown schedule %q", name)
	return nil
}

func timm(t *testing.T, name string, kw arguments, rate float64) schedule.Schedule {
	// Without a prefix the warm-up hides the beginning; only tanh then ends it at the rate that follows.
	prefix, given := kw["warmup_prefix"].(bool)
	warm := schedule.Warmup{
		Steps: kw.count("warmup_t", 0), From: kw.number("warmup_lr_init", 0), To: rate, FromFirst: true, Within: !prefix,
	}
	restarts := schedule.Restarts{
		Peak: rate, Min: kw.number("lr_min", 0), Steps: kw.number("t_initial", 0),
		Growth: kw.number("cycle_mul", 1), Shrink: kw.number("cycle_decay", 1), Cycles: kw.count("cycle_limit", 1),
	}
	k := kw.number("k_decay", 1)
	switch name {
	case "cosine":
		restarts.Curve = schedule.KDecay{Of: schedule.HalfCosine{}, K: k}
	case "poly":
		restarts.Curve = schedule.Power{Of: schedule.KDecay{K: k}, Exponent: kw.number("power", 0.5)}
	case "tanh":
		restarts.Curve = schedule.HyperbolicTangent{Low: kw.number("lb", -7), High: kw.number("ub", 3)}
		if warm.Within {
			warm.To = restarts.At(warm.Steps)
		}
	case "step":
		warm.Within = given && !prefix
		warm.Of = schedule.Exponential{From: rate, Factor: kw.number("decay_rate", 1), Every: kw.number("decay_t", 0), Staircase: true}
		return warm
	default:
		t.Fatalf("unknown schedule %q", name)
	}
	warm.Of = restarts
	return warm
}

func numbers(list any) []float64 {
	var out []float64
	for _, v := range list.([]any) {
		out = append(out, v.(float64))
	}
	return out
}

func sortedKeys(m map[int]float64) []int {
	var keys []int
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

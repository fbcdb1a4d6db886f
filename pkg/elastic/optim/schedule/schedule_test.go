package schedule_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
)

func TestLinear(t *testing.T) {
	l := schedule.Linear{Peak: 8, WarmupSteps: 4, TotalSteps: 12}
	for step, want := range []float64{2, 4, 6, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0} {
		if got := l.At(step); got != want {
			t.Errorf("At(%d) = %g, want %g", step, got, want)
		}
	}
	if got := (schedule.Linear{Peak: 1, TotalSteps: 2}).At(0); got != 1 {
		t.Errorf("without warm-up the first rate is %g, want 1", got)
	}
}

// own is a schedule of another package, to be combined with those here.
type own struct{}

func (own) At(step int) float64   { return 1 / float64(step+1) }
func (own) Node(step *Node) *Node { return Reciprocal(AddScalar(step, 1)) }

// everyKind has each type and curve, with values that reach all of their parts within 48 updates.
var everyKind = map[string]schedule.Schedule{
	"constant":     schedule.Constant{Rate: 0.3},
	"linear":       schedule.Linear{Peak: 0.1, WarmupSteps: 7, TotalSteps: 40},
	"line":         schedule.Anneal{From: 0.1, To: 0.01, Steps: 30},
	"half cosine":  schedule.Anneal{From: 0.1, To: 0.01, Steps: 30, Curve: schedule.HalfCosine{}},
	"root":         schedule.Anneal{From: 0.1, To: 0.01, Steps: 30, Curve: schedule.Root{}},
	"rational":     schedule.Anneal{From: 0.1, To: 0.01, Steps: 30, Curve: schedule.Rational{}},
	"tanh":         schedule.Anneal{From: 0.1, To: 0.01, Steps: 30, Curve: schedule.HyperbolicTangent{}},
	"power":        schedule.Anneal{From: 0.1, To: 0.01, Steps: 30, Curve: schedule.Power{Exponent: 1.7}},
	"k-decay":      schedule.Anneal{From: 0.1, To: 0.01, Steps: 30, Curve: schedule.KDecay{Of: schedule.HalfCosine{}, K: 1.7}},
	"wave":         schedule.Wave{Peak: 0.1, Min: 0.01, HalfPeriod: 13.5},
	"jumps":        schedule.Piecewise{Points: []schedule.Point{{Step: 3, Rate: 0.1}, {Step: 11, Rate: 0.3}, {Step: 20.5, Rate: 0.2}}},
	"points":       schedule.Piecewise{Points: []schedule.Point{{Step: 3, Rate: 0.1}, {Step: 11, Rate: 0.3}, {Step: 20.5, Rate: 0.2}}, Curve: schedule.Line{}},
	"one cycle":    schedule.OneCycle{Peak: 0.1, Steps: 45},
	"three phases": schedule.OneCycle{Peak: 0.1, Steps: 45, Rise: 0.25, ThreePhase: true, Curve: schedule.Line{}},
	"inverse root": schedule.InverseSqrt{Peak: 0.1, Timescale: 7},
	"exponential":  schedule.Exponential{From: 0.1, Factor: 0.5, Every: 7},
	"staircase":    schedule.Exponential{From: 0.1, Factor: 0.5, Every: 49, Staircase: true}, // 49·(1/49) < 1
	"cyclic":       schedule.Cyclic{Min: 0.01, Max: 0.1, Up: 7, Down: 3},
	"triangular2":  schedule.Cyclic{Min: 0.01, Max: 0.1, Up: 7, Down: 4, CycleFactor: 0.5},
	"exp_range":    schedule.Cyclic{Min: 0.01, Max: 0.1, Up: 7, Down: 4, StepFactor: 0.98},
	"restarts":     schedule.Restarts{Peak: 0.1, Min: 0.001, Steps: 49.0 / 7, Cycles: 5},
	"sgdr":         schedule.Restarts{Peak: 0.1, Min: 0.001, Steps: 3, Growth: 3},
	"timm":         schedule.Restarts{Peak: 0.1, Min: 0.001, Steps: 7, Growth: 1.5, Shrink: 0.7, Cycles: 3, Curve: schedule.KDecay{Of: schedule.HalfCosine{}, K: 0.7}},
	"warm-up":      schedule.Warmup{Steps: 9, From: 0.01, Curve: schedule.Root{}, Of: schedule.Wave{Peak: 0.1, HalfPeriod: 11}},
	"from first":   schedule.Warmup{Steps: 9, FromFirst: true, Within: true, To: 0.2, Of: schedule.Wave{Peak: 0.1, HalfPeriod: 11}},
	"join": schedule.Join{
		Schedules: []schedule.Schedule{schedule.Constant{Rate: 0.1}, own{}, schedule.Exponential{From: 1, Factor: 0.9, Every: 1}}, Boundaries: []int{11, 29},
	},
	"scale": schedule.Scale{Factor: 0.3, Of: own{}},
	"limit": schedule.Limit{Min: 0.1, Max: 0.4, Of: own{}},
	"floor": schedule.Limit{Min: 0.1, Of: own{}},
}

// TestNode compares the graph of every schedule with what the host computes.
func TestNode(t *testing.T) {
	for name, s := range everyKind {
		t.Run(name, func(t *testing.T) {
			exec := MustNewExec(gxtest.Backend(t), s.Node)
			defer exec.Finalize()
			for step := range 60 {
				outputs, err := exec.Call(float64(step))
				if err != nil {
					t.Fatal(err)
				}
				got, want := tensors.ToScalar[float64](outputs[0]), s.At(step)
				if !(math.Abs(got-want) <= 1e-12) {
					t.Errorf("update %d: in a graph %.17g, on the host %.17g", step, got, want)
				}
			}
		})
	}
}

// TestBoundaries has cycles whose ends no division or logarithm meets exactly.
func TestBoundaries(t *testing.T) {
	for steps := 1.0; steps < 120; steps++ {
		for _, growth := range []float64{1, 1.2, 1.5, 2, 3} {
			restarts := schedule.Restarts{Peak: 1, Steps: steps, Growth: growth}
			for begin, length := 0.0, steps; begin < 2000; begin, length = begin+length, length*growth {
				step := math.Round(begin)
				if math.Abs(begin-step) > 1e-9 {
					continue // the cycle begins between two updates
				}
				if got := restarts.At(int(step)); math.Abs(got-1) > 1e-9 {
					t.Errorf("%g updates, growth %g: restart at %g has the rate %g, want 1", steps, growth, step, got)
				}
			}
		}
	}
}

func TestConfig(t *testing.T) {
	for _, test := range []struct {
		json string
		want map[int]float64 // by update, of 100
	}{
		{`{"peak": 1}`, map[int]float64{0: 1, 50: 0.5, 99: 0.01, 100: 0}},
		{`{"peak": 1, "warmup": 0.1, "min": 0.1}`, map[int]float64{0: 0.1, 9: 1, 10: 1, 55: 0.55, 100: 0.1}},
		{`{"peak": 1, "warmup": 0.1, "warmup_from_zero": true}`, map[int]float64{0: 0, 9: 0.9, 10: 1, 55: 0.5}},
		{`{"kind": "constant", "peak": 1}`, map[int]float64{0: 1, 1000: 1}},
		{`{"kind": "constant", "peak": 1, "warmup": 0.5}`, map[int]float64{0: 0.02, 50: 1, 1000: 1}},
		{`{"kind": "cosine", "peak": 1, "min": 0.2}`, map[int]float64{0: 1, 50: 0.6, 100: 0.2, 150: 0.2}},
		{`{"kind": "polynomial", "peak": 1, "power": 2}`, map[int]float64{0: 1, 50: 0.25, 100: 0}},
		{`{"kind": "rex", "peak": 1}`, map[int]float64{0: 1, 50: 2.0 / 3, 100: 0}},
		{`{"kind": "tanh", "peak": 1}`, map[int]float64{70: 0.5, 100: 0}},
		{`{"kind": "inverse_sqrt", "peak": 1, "warmup": 0.05, "min": 0.4}`, map[int]float64{4: 1, 5: 1, 20: 0.5, 80: 0.4}},
		{`{"kind": "exponential", "peak": 1, "factor": 0.01}`, map[int]float64{0: 1, 50: 0.1, 100: 0.01, 150: 0.001}},
		{`{"kind": "restarts", "peak": 1, "cycles": 2, "factor": 0.5}`, map[int]float64{0: 1, 25: 0.5, 50: 0.5, 75: 0.25, 100: 0}},
		{`{"kind": "restarts", "peak": 1, "cycles": 2, "growth": 3}`, map[int]float64{0: 1, 25: 1, 100: 0}},
		{`{"kind": "step", "peak": 1, "at": [0.5, 0.75], "factor": 0.1}`, map[int]float64{0: 1, 49: 1, 50: 0.1, 75: 0.01, 100: 0.01}},
		{`{"kind": "piecewise", "peak": 1, "warmup": 0.1, "at": [0.5], "rates": [0.1]}`, map[int]float64{0: 0.1, 49: 1, 50: 0.1}},
		{`{"kind": "piecewise", "peak": 1, "warmup": 0.1, "at": [0.5], "rates": [0.5], "shape": "linear"}`, map[int]float64{0: 0.1, 10: 1, 30: 0.75, 50: 0.5}},
		{`{"kind": "wsd", "peak": 1, "warmup": 0.1, "decay": 0.2, "shape": "1-sqrt"}`, map[int]float64{0: 0.1, 80: 1, 85: 0.5, 100: 0}},
		{`{"kind": "onecycle", "peak": 1, "warmup": 0.5}`, map[int]float64{0: 0.04, 49: 1, 99: 4e-6}},
		{`{"kind": "cyclic", "peak": 1, "min": 0.2, "cycles": 2, "factor": 0.5}`, map[int]float64{0: 0.2, 25: 1, 50: 0.2, 75: 0.6}},
	} {
		var config schedule.Config
		if err := json.Unmarshal([]byte(test.json), &config); err != nil {
			t.Fatal(err)
		}
		if err := config.Validate(); err != nil {
			t.Errorf("%s: %v", test.json, err)
		}
		rates := config.Schedule(100)
		for step, want := range test.want {
			if got := rates.At(step); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s: update %d has the rate %g, want %g", test.json, step, got, want)
			}
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, bad := range []struct{ json, want string }{
		{`{"kind": "sine", "peak": 1}`, `schedule.kind "sine" is unknown; known: constant, cosine`},
		{`{}`, "peak is 0"},
		{`{"peak": 1, "warmup": 1}`, "schedule.warmup is 1"},
		{`{"peak": 1, "warmup_from_zero": true}`, "schedule.warmup_from_zero is set"},
		{`{"peak": 1, "power": 2}`, "schedule.power is set, but kind linear has only warmup, min"},
		{`{"kind": "constant", "peak": 1, "min": 0.1}`, "schedule.min is set"},
		{`{"kind": "cyclic", "peak": 1, "warmup": 0.1, "cycles": 1}`, "schedule.warmup is set"},
		{`{"kind": "cosine", "peak": 1, "min": 1}`, "schedule.min is 1"},
		{`{"kind": "cosine", "peak": 1, "at": [0.1], "rates": [1], "decay": 0.1, "three_phase": true}`, "schedule.three_phase is set"},
		{`{"kind": "inverse_sqrt", "peak": 1}`, "schedule.warmup is 0"},
		{`{"kind": "exponential", "peak": 1}`, "schedule.factor is 0"},
		{`{"kind": "restarts", "peak": 1, "growth": 0.5}`, "schedule.growth is 0.5"},
		{`{"kind": "restarts", "peak": 1}`, "schedule.cycles is 0"},
		{`{"kind": "step", "peak": 1, "factor": 0.1}`, "schedule.at is empty"},
		{`{"kind": "step", "peak": 1, "factor": 0.1, "at": [0.5, 0.5]}`, "schedule.at[1] is 0.5"},
		{`{"kind": "piecewise", "peak": 1, "at": [0.5], "rates": [2, 1]}`, "schedule.rates has 2 elements, want 1"},
		{`{"kind": "piecewise", "peak": 1, "at": [0.5], "rates": [2]}`, "schedule.rates[0] is 2"},
		{`{"kind": "wsd", "peak": 1, "warmup": 0.5, "decay": 0.6}`, "schedule.decay is 0.6"},
		{`{"kind": "wsd", "peak": 1, "decay": 0.6, "shape": "round"}`, `schedule.shape "round" is unknown; known: 1-sqrt, cosine, linear`},
		{`{"kind": "polynomial", "peak": 1, "power": -1}`, "schedule.power is -1"},
	} {
		var config schedule.Config
		if err := json.Unmarshal([]byte(bad.json), &config); err != nil {
			t.Fatal(err)
		}
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: error is %v, want %q", bad.json, err, bad.want)
		}
	}
	for _, peak := range []float64{math.NaN(), math.Inf(1)} {
		if err := (schedule.Config{Peak: peak}).Validate(); err == nil {
			t.Errorf("a peak of %g is accepted", peak)
		}
	}
}

func ExampleLinear() {
	rates := schedule.Linear{Peak: 1e-4, WarmupSteps: 2, TotalSteps: 6}
	for step := range 7 {
		fmt.Printf("%.1e ", rates.At(step))
	}
	// Output: 5.0e-05 1.0e-04 1.0e-04 7.5e-05 5.0e-05 2.5e-05 0.0e+00
}

func ExampleWarmup() {
	decay := schedule.Anneal{From: 1, Steps: 4, Curve: schedule.HalfCosine{}}
	ours := schedule.Warmup{Steps: 2, Of: decay}
	transformers := schedule.Warmup{Steps: 2, Of: decay, FromFirst: true}
	for step := range 7 {
		fmt.Printf("%.2f %.2f\n", ours.At(step), transformers.At(step))
	}
	// Output:
	// 0.50 0.00
	// 1.00 0.50
	// 1.00 1.00
	// 0.85 0.85
	// 0.50 0.50
	// 0.15 0.15
	// 0.00 0.00
}

func ExampleJoin() { // warm-up, stable, decay
	rates := schedule.Warmup{Steps: 2, Of: schedule.Join{
		Schedules:  []schedule.Schedule{schedule.Constant{Rate: 1}, schedule.Anneal{From: 1, To: 0.1, Steps: 3}},
		Boundaries: []int{2},
	}}
	for step := range 8 {
		fmt.Printf("%.1f ", rates.At(step))
	}
	// Output: 0.5 1.0 1.0 1.0 1.0 0.7 0.4 0.1
}

func ExampleConfig() {
	config := schedule.Config{Kind: "wsd", Peak: 1, Warmup: 0.25, Decay: 0.5}
	fmt.Println(config.Validate())
	for _, total := range []int{4, 8} {
		fmt.Printf("%d updates:", total)
		for step := range total {
			fmt.Printf(" %.2f", config.Schedule(total).At(step))
		}
		fmt.Println()
	}
	config.Factor = 0.5
	fmt.Println(config.Validate())
	// Output:
	// <nil>
	// 4 updates: 1.00 1.00 1.00 0.50
	// 8 updates: 0.50 1.00 1.00 1.00 1.00 0.75 0.50 0.25
	// schedule.factor is set, but kind wsd has only warmup, min, decay, shape
}

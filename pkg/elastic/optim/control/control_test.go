package control_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
)

var all = []control.Config{
	{Plateau: &control.Plateau{Progress: control.Progress{Patience: 2}, Factor: 0.5, Cooldown: 3, Min: 0.1}},
	{Spike: &control.Spike{Window: 8, Hold: 3, Recovery: 4}},
	{Stop: &control.Stop{Progress: control.Progress{Signal: "loss", Patience: 60, Threshold: 0.02, ThresholdMode: "abs"}}},
	{Noise: &control.Noise{Every: 7, Decay: 0.8}},
}

// signals are those of a run with evaluations that stall, and with spikes of the loss.
func signals(n int) []control.Signals {
	random := rand.New(rand.NewPCG(1, 2))
	var list []control.Signals
	for i := range n {
		s := control.Signals{Update: i + 1, Loss: 1/float64(i+1) + 0.01*random.Float64()}
		s.Small, s.Big = control.SquaredNorm{Value: 2 + random.Float64(), Examples: 4}, control.SquaredNorm{Value: 1 + random.Float64(), Examples: 16}
		if i%31 == 20 {
			s.Loss += 3
		}
		list = append(list, s)
		if i%3 == 2 {
			metric := math.Min(0.5, float64(i)/60) + 1e-9*random.Float64()
			list = append(list, control.Signals{Update: i + 1, Metric: &metric})
		}
	}
	return list
}

func start(t *testing.T, configs []control.Config) *control.Set {
	t.Helper()
	set, err := control.New(configs)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestResume interrupts a run after every update, and compares events and factors of
// the rest with those of the run in one piece, bit for bit.
func TestResume(t *testing.T) {
	run := signals(150)
	whole := start(t, all)
	var events [][]control.Event
	var scales []float64
	actions := map[string]bool{}
	for _, s := range run {
		did := whole.Observe(s)
		for _, event := range did {
			actions[event.Controller+" "+event.Action] = true
			if event.Update != s.Update || event.Reason == "" || event.Signal == "" {
				t.Errorf("event lacks something: %+v", event)
			}
		}
		events, scales = append(events, did), append(scales, whole.Scale())
	}
	for _, want := range []string{"plateau reduce", "spike back off", "spike recover", "stop stop", "noise_scale measure"} {
		if !actions[want] {
			t.Errorf("the run has no event %q, so it tests nothing of that", want)
		}
	}
	for cut := range run {
		first, second := start(t, all), start(t, all)
		for _, s := range run[:cut] {
			first.Observe(s)
		}
		state, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(state, second); err != nil {
			t.Fatal(err)
		}
		for i, s := range run[cut:] {
			if got := second.Observe(s); !slices.Equal(got, events[cut+i]) || second.Scale() != scales[cut+i] {
				t.Fatalf("resumed after %d, update %d: events %+v, scale %v; want %+v, %v", cut, s.Update, got, second.Scale(), events[cut+i], scales[cut+i])
			}
		}
		if second.Stop() != whole.Stop() {
			t.Fatalf("resumed after %d: stop is %q, want %q", cut, second.Stop(), whole.Stop())
		}
	}
}

func TestSpike(t *testing.T) {
	set := start(t, []control.Config{{Spike: &control.Spike{Window: 4, Factor: 0.2, Hold: 2, Recovery: 3}}})
	losses := []float64{1, 1.01, 0.99, 1, 5, 1, 1, 1, 1, 1, 1}
	var got []string
	for i, loss := range losses {
		set.Observe(control.Signals{Update: i + 1, Loss: loss})
		got = append(got, fmt.Sprintf("%.1f", set.Scale()))
	}
	want := strings.Fields("1.0 1.0 1.0 1.0 0.2 0.2 0.4 0.6 0.8 1.0 1.0")
	if !slices.Equal(got, want) {
		t.Errorf("factors are %v, want %v", got, want)
	}
	// A loss that stays up is the new normal, not a spike for ever.
	for i := range 40 {
		set.Observe(control.Signals{Update: 100 + i, Loss: 9 + 0.01*float64(i%2)})
	}
	if set.Scale() != 1 {
		t.Errorf("after 40 updates at a higher loss the factor is %g, want 1", set.Scale())
	}
	// Falling losses never are spikes, nor are any before the window is full.
	set = start(t, []control.Config{{Spike: &control.Spike{}}})
	for i := range 31 {
		set.Observe(control.Signals{Loss: math.Pow(10, float64(i%7))})
	}
	for i := range 100 {
		if events := set.Observe(control.Signals{Loss: -float64(i)}); len(events) > 0 {
			t.Errorf("a falling loss gives %+v", events)
		}
	}
}

// TestMetricsBelowZero: a metric that is negative, as that of language models, improves if it rises, or falls in mode min; what is
// infinite improves nothing, and can be written.
func TestMetricsBelowZero(t *testing.T) {
	for mode, sign := range map[string]float64{"max": -1, "min": 1} {
		for _, stalled := range [][]float64{{3, 3, 3}, {3, 3.0001, 3.0002}, {3, math.Inf(1), math.Inf(1)}, {3, math.Inf(-1), math.Inf(-1)}} {
			for _, below := range []float64{1, -1} {
				if sign*below*stalled[2] > sign*below*stalled[0] {
					continue // rises or falls as it should
				}
				set := start(t, []control.Config{{Stop: &control.Stop{Progress: control.Progress{Patience: 1, Mode: mode}}}})
				for _, metric := range stalled {
					metric *= below
					set.Observe(control.Signals{Metric: &metric})
				}
				if set.Stop() == "" {
					t.Errorf("mode %s: %g times %v is said to improve", mode, below, stalled)
				}
				if _, err := json.Marshal(set); err != nil {
					t.Errorf("mode %s, %g times %v: %v", mode, below, stalled, err)
				}
			}
		}
		set := start(t, []control.Config{{Stop: &control.Stop{Progress: control.Progress{Mode: mode}}}})
		for _, metric := range []float64{2, 1.9, 1.8} {
			metric *= sign
			set.Observe(control.Signals{Metric: &metric})
		}
		if set.Stop() != "" {
			t.Errorf("mode %s: does not see an improvement: %s", mode, set.Stop())
		}
	}
}

func TestStop(t *testing.T) {
	set := start(t, []control.Config{{Stop: &control.Stop{Progress: control.Progress{Patience: 1}}}})
	for i, metric := range []float64{0.5, math.NaN(), 0.6, 0.6} {
		set.Observe(control.Signals{Update: i, Metric: &metric})
		set.Observe(control.Signals{Update: i, Loss: 100}) // no metric, no observation
	}
	if set.Stop() != "" {
		t.Fatalf("stops early: %s", set.Stop())
	}
	metric := 0.4
	events := set.Observe(control.Signals{Update: 9, Metric: &metric})
	if want := "metric did not improve 2 times in a row, last 0.4, best 0.6"; set.Stop() != want || len(events) != 1 || events[0].Reason != want {
		t.Errorf("stop is %q, events %+v, want %q", set.Stop(), events, want)
	}
}

func TestRefuses(t *testing.T) {
	for _, bad := range []struct{ json, want string }{
		{`[{}]`, "controller 0: control names 0 controllers"},
		{`[{"plateau": {}, "spike": {}}]`, "control names 2 controllers"},
		{`[{"plateau": {"patience": -1, "factor": 2}}]`, "control.plateau.patience is -1"},
		{`[{"plateau": {"factor": 2}}]`, "control.plateau.factor is 2"},
		{`[{"plateau": {"cooldown": -1}}]`, "control.plateau.cooldown is -1"},
		{`[{"plateau": {"min": 2}}]`, "control.plateau.min is 2"},
		{`[{"plateau": {"epsilon": -1}}]`, "control.plateau.epsilon is -1"},
		{`[{"stop": {"signal": "f1"}}]`, `control.stop.signal "f1" is unknown; known: metric, loss`},
		{`[{"stop": {"mode": "up"}}]`, `control.stop.mode "up" is unknown; known: max, min`},
		{`[{"stop": {"threshold_mode": "x"}}]`, `control.stop.threshold_mode "x"`},
		{`[{"stop": {"threshold": -1}}]`, "control.stop.threshold is -1"},
		{`[{"stop": {}}, {"spike": {"window": 2}}]`, "controller 1: control.spike.window is 2"},
		{`[{"spike": {"deviations": -1, "floor": -1, "factor": 1}}]`, "control.spike.factor is 1"},
		{`[{"noise_scale": {"every": -1, "decay": 1}}]`, "control.noise_scale.decay is 1"},
		{`[{"spike": {"hold": -1, "recovery": -1}}]`, "control.spike.recovery is -1"},
	} {
		var configs []control.Config
		if err := json.Unmarshal([]byte(bad.json), &configs); err != nil {
			t.Fatal(err)
		}
		if _, err := control.New(configs); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: error is %v, want %q", bad.json, err, bad.want)
		}
	}
	set := start(t, all)
	for _, state := range []string{`[]`, `{}`, `[{"scale": 1}, {"scale": 1}, {}]`} {
		if err := json.Unmarshal([]byte(state), set); err == nil {
			t.Errorf("state %s is accepted", state)
		}
	}
}

// TestNoiseScale draws gradients of known mean and noise: |G|² = 4·25, tr Σ = 4·9.
func TestNoiseScale(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var noise control.NoiseScale
	if !math.IsNaN(noise.Examples()) {
		t.Error("a noise scale without observations is not NaN")
	}
	const small, big = 2, 16
	for range 20_000 {
		var sums [2][4]float64
		for i := range big {
			for d := range 4 {
				g := 5 + 3*random.NormFloat64()
				sums[1][d] += g / big
				if i < small {
					sums[0][d] += g / small
				}
			}
		}
		square := func(g [4]float64) (s float64) {
			for _, x := range g {
				s += x * x
			}
			return s
		}
		var err error
		noise, err = noise.Observe(control.SquaredNorm{Value: square(sums[0]), Examples: small}, control.SquaredNorm{Value: square(sums[1]), Examples: big}, 0.9995)
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := noise.Signal / noise.Weight; math.Abs(got-100) > 2 {
		t.Errorf("|G|² is %g, want 100", got)
	}
	if got := noise.Examples(); math.Abs(got-0.36) > 0.03 {
		t.Errorf("noise scale is %g examples, want 0.36", got)
	}
	for _, examples := range [][2]int{{0, 4}, {4, 4}, {5, 4}} {
		if _, err := noise.Observe(control.SquaredNorm{Examples: examples[0]}, control.SquaredNorm{Examples: examples[1]}, 0.9); err == nil {
			t.Errorf("batches of %v examples are accepted", examples)
		}
	}
}

func ExampleSet() {
	set, err := control.New([]control.Config{{Plateau: &control.Plateau{Progress: control.Progress{Patience: 1}, Factor: 0.5}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, metric := range []float64{0.6, 0.7, 0.7, 0.69, 0.71} {
		for _, event := range set.Observe(control.Signals{Update: 100 * (i + 1), Metric: &metric}) {
			fmt.Printf("update %d: %s: %s, factor %g\n", event.Update, event.Action, event.Reason, event.Factor)
		}
	}
	// Output: update 400: reduce: metric did not improve 2 times in a row, last 0.69, best 0.7, factor 0.5
}

func ExampleNoiseScale() {
	var noise control.NoiseScale
	for range 3 { // squared gradient norms of a micro-batch and of the batch that it is part of
		noise, _ = noise.Observe(control.SquaredNorm{Value: 5, Examples: 8}, control.SquaredNorm{Value: 2, Examples: 32}, 0.9)
	}
	fmt.Println(noise.Examples(), "examples")
	// Output: 32 examples
}

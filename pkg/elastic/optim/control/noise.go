package control

import (
	"errors"
	"fmt"
	"math"
)

// NoiseScale measures the gradient noise scale, an estimate of the batch size above
// which larger batches stop to help. It compares squared gradient norms at two batch
// sizes b < B of the same update, say of a micro-batch and of the whole batch:
//
//	|G|² = (B·|G_B|² − b·|G_b|²)/(B − b)      square of the true gradient
//	tr Σ = (|G_b|² − |G_B|²)/(1/b − 1/B)      noise of one example
//	B_simple = tr Σ / |G|²
//
// Both estimates are unbiased but their ratio is not, so each is averaged by itself
// over updates, with bias correction. The zero value has seen nothing; all fields are
// plain data.
//
// Source: McCandlish et al. 2018, "An empirical model of large-batch training", appendix A.1.
type NoiseScale struct {
	Signal float64 `json:"signal"` // running average of |G|², before bias correction
	Noise  float64 `json:"noise"`  // running average of tr Σ, before bias correction
	Weight float64 `json:"weight"` // 1 − decayⁿ, the sum of the weights of n observations
}

// SquaredNorm is the squared norm of a gradient, a mean over a number of examples.
type SquaredNorm struct {
	Value    float64
	Examples int
}

// Observe returns n with one more observation; decay, in [0, 1), is the weight of what was before.
// The batch sizes must differ.
func (n NoiseScale) Observe(small, big SquaredNorm, decay float64) (NoiseScale, error) {
	b, B := float64(small.Examples), float64(big.Examples)
	if !(b >= 1 && b < B) {
		return n, fmt.Errorf("gradient noise scale: batches of %d and %d examples, want at least 1 and more than that", small.Examples, big.Examples)
	}
	if !(decay >= 0 && decay < 1) {
		return n, fmt.Errorf("gradient noise scale: decay is %g, want 0 ≤ d < 1", decay)
	}
	average := func(old, value float64) float64 { return decay*old + (1-decay)*value }
	return NoiseScale{
		Signal: average(n.Signal, (B*big.Value-b*small.Value)/(B-b)),
		Noise:  average(n.Noise, (small.Value-big.Value)/(1/b-1/B)),
		Weight: average(n.Weight, 1),
	}, nil
}

// Examples returns B_simple. It is NaN before the first observation, and while the
// averages are not positive: too few observations.
func (n NoiseScale) Examples() float64 {
	if !(n.Signal > 0 && n.Noise >= 0) {
		return math.NaN()
	}
	return n.Noise / n.Signal // the bias correction is the same for both
}

// Noise watches the [NoiseScale] of a run that accumulates micro-batches, and tells it now and then in an event; it
// changes nothing. Examples are targets here. Since the batches of an update are few, the estimate is rough: it says
// whether updates are far too small or far too large.
type Noise struct {
	Every int     `json:"every,omitempty"` // updates between events; 0 means 50
	Decay float64 `json:"decay,omitempty"` // weight of the past at each update; 0 means 0.95
}

func (n Noise) withDefaults() Noise {
	if n.Every == 0 {
		n.Every = 50
	}
	if n.Decay == 0 {
		n.Decay = 0.95
	}
	return n
}

func (n Noise) validate(path string) error {
	n = n.withDefaults()
	path += "noise_scale."
	var problems []error
	if n.Every < 1 {
		problems = append(problems, fmt.Errorf("%severy is %d, want a number of updates", path, n.Every))
	}
	if !(n.Decay >= 0 && n.Decay < 1) {
		problems = append(problems, fmt.Errorf("%sdecay is %g, want 0 < d < 1", path, n.Decay))
	}
	return errors.Join(problems...)
}

func (n Noise) start() worker { return &noise{Noise: n.withDefaults()} }

type noiseState struct {
	NoiseScale
	Seen int `json:"seen"` // observations since the last event
}

type noise struct {
	Noise
	noiseState
}

func (*noise) factor() float64 { return 1 }
func (*noise) stopped() string { return "" }
func (n *noise) state() any    { return &n.noiseState }

func (n *noise) observe(signals Signals) (Event, bool) {
	next, err := n.NoiseScale.Observe(signals.Small, signals.Big, n.Decay)
	if err != nil || signals.Metric != nil { // an evaluation, or an update of one micro-batch
		return Event{}, false
	}
	n.NoiseScale = next
	n.Seen++
	if n.Seen < n.Every {
		return Event{}, false
	}
	n.Seen = 0
	reason := "gradient noise scale is not known: too few updates"
	if scale := n.Examples(); !math.IsNaN(scale) {
		reason = fmt.Sprintf("gradient noise scale is about %.3g targets; an update has %d", scale, signals.Big.Examples)
	}
	return Event{Controller: "noise_scale", Signal: "gradient", Action: "measure", Reason: reason}, true
}

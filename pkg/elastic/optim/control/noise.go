package control

import (
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

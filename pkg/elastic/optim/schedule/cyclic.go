package schedule

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Cyclic rises from Min to Max within Up updates, falls back within Down updates, and
// begins again. The n-th cycle, from 0, is CycleFactorⁿ times as high above Min, and update s
// StepFactor^s times. With both 1 the policy is PyTorch's "triangular"; with a
// CycleFactor of 0.5 it is "triangular2", with a StepFactor γ "exp_range".
//
// Source: Smith 2017, "Cyclical learning rates for training neural networks".
type Cyclic struct {
	Min, Max                float64
	Up, Down                float64 // updates, need not be whole
	CycleFactor, StepFactor float64 // 0 means 1
}

// At returns the rate of update step.
func (c Cyclic) At(step int) float64 { return at(c.rate, step) }

// Node builds the rate of update step.
func (c Cyclic) Node(step *Node) *Node { return node(c.rate, step) }

func (c Cyclic) rate(step number) number {
	period := c.Up + c.Down
	n := whole(div(step, period))
	since := maximum(0.0, sub(step, mul(n, period)))
	height := minimum(div(since, c.Up), div(sub(period, since), c.Down))
	height = mul(height, pow(orOne(c.CycleFactor), n))
	height = mul(height, pow(orOne(c.StepFactor), step))
	return add(c.Min, mul(c.Max-c.Min, height))
}

// Restarts goes from Peak to Min along a curve again and again. The n-th cycle, from 0,
// takes Growthⁿ times as long as the first and starts at Shrinkⁿ·Peak:
//
//	Min + (Shrinkⁿ·Peak − Min)·curve(p),   p the share of the cycle that is over
//
// After so many Cycles the rate is Min. SGDR has a HalfCosine and a Growth that is whole;
// Transformers' hard restarts have cycles of (T−W)/num_cycles updates and as many
// Cycles; timm's schedulers have it all.
//
// Source: Loshchilov, Hutter 2017, "SGDR: Stochastic gradient descent with warm restarts".
type Restarts struct {
	Peak, Min float64
	Steps     float64 // of the first cycle, need not be whole
	Growth    float64 // ≥ 1; 0 means 1
	Shrink    float64 // 0 means 1
	Cycles    int     // 0 means without an end
	Curve     Curve   // nil means HalfCosine
}

// At returns the rate of update step.
func (r Restarts) At(step int) float64 { return at(r.rate, step) }

// Node builds the rate of update step.
func (r Restarts) Node(step *Node) *Node { return node(r.rate, step) }

func (r Restarts) rate(step number) number {
	var n, start, length number
	if growth := orOne(r.Growth); growth == 1 {
		n = whole(div(step, r.Steps))
		start, length = mul(n, r.Steps), r.Steps
	} else { // the first n cycles take Steps·(growthⁿ − 1)/(growth − 1)
		n = whole(div(log(add(1.0, mul(div(step, r.Steps), growth-1))), log(growth)))
		length = mul(r.Steps, pow(growth, n))
		start = div(sub(length, r.Steps), growth-1)
	}
	curve := r.Curve
	if curve == nil {
		curve = HalfCosine{}
	}
	since := maximum(0.0, div(sub(step, start), length)) // rounding must not make it negative: curves have roots
	rate := along(curve, mul(r.Peak, pow(orOne(r.Shrink), n)), r.Min, since)
	if r.Cycles > 0 {
		rate = less(n, float64(r.Cycles), rate, r.Min)
	}
	return rate
}

func orOne(x float64) float64 {
	if x == 0 {
		return 1
	}
	return x
}

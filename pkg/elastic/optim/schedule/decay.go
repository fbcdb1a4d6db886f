package schedule

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// InverseSqrt falls with the root of time, without an end:
//
//	Peak / √(1 + s/Timescale)
//
// After a [Warmup] of as many steps it is that of the transformer, Peak·√(W/s) in steps of the run.
//
// Source: Vaswani et al. 2017, "Attention is all you need", equation 3; the time scale: Zhai et al. 2022, "Scaling vision transformers".
type InverseSqrt struct {
	Peak      float64
	Timescale float64 // in updates
}

// At returns the rate of update step.
func (i InverseSqrt) At(step int) float64 { return at(i.rate, step) }

// Node builds the rate of update step.
func (i InverseSqrt) Node(step *Node) *Node { return node(i.rate, step) }

func (i InverseSqrt) rate(step number) number {
	return div(i.Peak, sqrt(add(1.0, div(step, i.Timescale))))
}

// Exponential multiplies the rate by Factor every so many updates, without an end:
//
//	From · Factor^(s/Every)      or, as a staircase,
//	From · Factor^⌊s/Every⌋
//
// A [Limit] around it gives it a floor.
type Exponential struct {
	From, Factor float64
	Every        float64 // updates
	Staircase    bool
}

// At returns the rate of update step.
func (e Exponential) At(step int) float64 { return at(e.rate, step) }

// Node builds the rate of update step.
func (e Exponential) Node(step *Node) *Node { return node(e.rate, step) }

func (e Exponential) rate(step number) number {
	times := div(step, e.Every)
	if e.Staircase {
		times = whole(times)
	}
	return mul(e.From, pow(e.Factor, times))
}

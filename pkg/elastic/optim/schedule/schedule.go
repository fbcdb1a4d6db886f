// Package schedule has learning-rate schedules as plain values.
//
// A schedule counts updates, from 0: At(0) is the rate of the first update. It is
// computed on the host in float64 and handed to the compiled step as an input, so no
// schedule causes a compilation, and a run that resumes goes on where it was. The
// same expression can be built into a graph, with Node.
//
// What a rate does alone is an [Anneal] along a [Curve], a [Wave], a [Piecewise],
// [OneCycle], [InverseSqrt], [Exponential], [Cyclic] or [Restarts]. [Warmup], [Join],
// [Scale] and [Limit] combine schedules, also those of other packages:
//
//	schedule.Warmup{Steps: 100, Of: schedule.Anneal{From: 3e-4, Steps: 900, Curve: schedule.HalfCosine{}}}
//
// All hold their last rate after their end, unless they say otherwise. [Config] names
// the usual ones in a training config, for a run of any length.
//
// At the first update, every schedule has the rate that it starts from, as in PyTorch,
// optax and timm. Only [Warmup] has two conventions, because a warm-up from 0 would
// waste an update.
package schedule

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Schedule gives the learning rate of each update.
type Schedule interface {
	// At returns the rate of update step, counted from 0.
	At(step int) float64
	// Node builds the same rate in a graph; step and rate are float64 scalars.
	Node(step *Node) *Node
}

// Constant is the same rate for ever.
type Constant struct{ Rate float64 }

// At returns the rate.
func (c Constant) At(int) float64 { return c.Rate }

// Node returns the rate as a constant.
func (c Constant) Node(step *Node) *Node {
	return node(func(number) number { return c.Rate }, step)
}

// Linear rises to Peak during the warm-up and then falls to 0 at TotalSteps:
//
//	(s+1)/W · Peak       for s < W
//	(T−s)/(T−W) · Peak   from there on, 0 after T
//
// with W = WarmupSteps and T = TotalSteps. The first update already has a positive
// rate; the decay begins at Peak. (Transformers' own schedule gives the first update
// of a warm-up the rate 0: [Warmup] has both.)
type Linear struct {
	Peak                    float64
	WarmupSteps, TotalSteps int
}

// At returns the rate of update step.
func (l Linear) At(step int) float64 { return at(l.rate, step) }

// Node builds the rate of update step.
func (l Linear) Node(step *Node) *Node { return node(l.rate, step) }

func (l Linear) rate(step number) number {
	return Warmup{
		Steps: l.WarmupSteps, To: l.Peak,
		Of: Anneal{From: l.Peak, Steps: l.TotalSteps - l.WarmupSteps},
	}.rate(step)
}

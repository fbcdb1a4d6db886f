package schedule

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Anneal goes from one rate to another along a curve, down or up, and stays there:
//
//	To + (From − To)·curve(s/Steps)   for s < Steps
//	To                                from there on
type Anneal struct {
	From, To float64
	Steps    int
	Curve    Curve // nil means Line
}

// At returns the rate of update step.
func (a Anneal) At(step int) float64 { return at(a.rate, step) }

// Node builds the rate of update step.
func (a Anneal) Node(step *Node) *Node { return node(a.rate, step) }

func (a Anneal) rate(step number) number {
	steps := float64(a.Steps)
	return less(step, steps, along(a.Curve, a.From, a.To, div(step, steps)), a.To)
}

// Wave swings between Peak and Min for ever, down within HalfPeriod updates and up
// again within as many:
//
//	Min + (Peak − Min)·(1 + cos(πs/HalfPeriod))/2
//
// PyTorch's CosineAnnealingLR does that after T_max, and Transformers' cosine schedule after
// its last step, with a half period of T/(2·num_cycles). Cosine decay that ends at its
// minimum is an [Anneal] along a [HalfCosine].
type Wave struct {
	Peak, Min  float64
	HalfPeriod float64 // need not be whole
}

// At returns the rate of update step.
func (w Wave) At(step int) float64 { return at(w.rate, step) }

// Node builds the rate of update step.
func (w Wave) Node(step *Node) *Node { return node(w.rate, step) }

func (w Wave) rate(step number) number {
	return along(HalfCosine{}, w.Peak, w.Min, div(step, w.HalfPeriod))
}

// Point is a rate at a step.
type Point struct {
	Step float64 // need not be whole
	Rate float64
}

// Piecewise goes through points, of which the steps never fall. Without a curve, each rate holds
// until the step of the next one; with a curve, it moves there. Before the first
// point the rate is the first one, after the last point the last one.
type Piecewise struct {
	Points []Point // at least one
	Curve  Curve   // nil means jumps
}

// At returns the rate of update step.
func (p Piecewise) At(step int) float64 { return at(p.rate, step) }

// Node builds the rate of update step.
func (p Piecewise) Node(step *Node) *Node { return node(p.rate, step) }

func (p Piecewise) rate(step number) number {
	var rate number = p.Points[0].Rate
	for i, point := range p.Points {
		var piece number = point.Rate
		if p.Curve != nil && i+1 < len(p.Points) {
			next := p.Points[i+1]
			piece = along(p.Curve, point.Rate, next.Rate, div(sub(step, point.Step), next.Step-point.Step))
		}
		rate = less(step, point.Step, rate, piece)
	}
	return rate
}

// OneCycle rises from Peak/Divisor to Peak within the share Rise of all updates and falls to
// Peak/Divisor/FinalDivisor at the last one. In three phases it falls to Peak/Divisor
// first, as fast as it rose, and from there to the end. As in PyTorch, phases end at
// Rise·Steps − 1, 2·Rise·Steps − 2 and Steps − 1, which need not be whole.
//
// Source: Smith, Topin 2018, "Super-convergence: Very fast training of neural networks
// using large learning rates".
type OneCycle struct {
	Peak  float64
	Steps int
	// Rise is a share of the updates; 0 means 0.3.
	Rise float64
	// Divisor and FinalDivisor are 25 and 10,000 if 0.
	Divisor, FinalDivisor float64
	ThreePhase            bool
	Curve                 Curve // nil means HalfCosine
}

// At returns the rate of update step.
func (o OneCycle) At(step int) float64 { return o.points().At(step) }

// Node builds the rate of update step.
func (o OneCycle) Node(step *Node) *Node { return o.points().Node(step) }

func (o OneCycle) points() Piecewise {
	if o.Rise == 0 {
		o.Rise = 0.3
	}
	if o.Divisor == 0 {
		o.Divisor = 25
	}
	if o.FinalDivisor == 0 {
		o.FinalDivisor = 1e4
	}
	if o.Curve == nil {
		o.Curve = HalfCosine{}
	}
	first := o.Peak / o.Divisor
	steps := float64(o.Steps)
	top := o.Rise*steps - 1
	points := []Point{{0, first}, {top, o.Peak}}
	if o.ThreePhase {
		points = append(points, Point{2 * top, first})
	}
	return Piecewise{Points: append(points, Point{steps - 1, first / o.FinalDivisor}), Curve: o.Curve}
}

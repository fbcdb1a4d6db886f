package schedule

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Warmup rises to the first rate of another schedule, which begins after it:
//
//	From + (To − From)·(s+1)/Steps   for s < Steps, by default
//	From + (To − From)·s/Steps       for s < Steps, if FromFirst
//	Of(s − Steps)                    from there on; Of(s) if Within
//
// By default the first update already has more than the rate From, and the last update of
// the warm-up has To, as has the first one after it. Transformers, PyTorch, optax and
// timm give From to the first update, which is lost if that is 0: FromFirst does the
// same. A curve makes the rise its mirror image in time: HalfCosine gives (1 − cos πp)/2.
type Warmup struct {
	Of       Schedule
	Steps    int
	From, To float64 // To is Of(0) if 0
	Curve    Curve   // nil means Line
	// FromFirst gives the rate From to the first update.
	FromFirst bool
	// Within says that the updates of the warm-up count for Of too: the warm-up hides Of's beginning.
	Within bool
}

// At returns the rate of update step.
func (w Warmup) At(step int) float64 { return at(w.rate, step) }

// Node builds the rate of update step.
func (w Warmup) Node(step *Node) *Node { return node(w.rate, step) }

func (w Warmup) rate(step number) number {
	steps := float64(w.Steps)
	if w.To == 0 {
		w.To = w.Of.At(0)
	}
	passed, since := step, step
	if !w.FromFirst {
		passed = add(step, 1.0)
	}
	if !w.Within {
		since = maximum(0.0, sub(step, steps))
	}
	if w.Steps <= 0 {
		return rateOf(w.Of, since)
	}
	rise := along(w.Curve, w.To, w.From, div(sub(steps, passed), steps)) // exactly To at the end: curves have roots
	return less(step, steps, rise, rateOf(w.Of, since))
}

// Join runs schedules one after another, each with its own count from 0: the first until Boundaries[0], the
// second from there, and so on. Boundaries never fall and are one fewer than schedules.
type Join struct {
	Schedules  []Schedule
	Boundaries []int // in updates of the whole
}

// At returns the rate of update step.
func (j Join) At(step int) float64 { return at(j.rate, step) }

// Node builds the rate of update step.
func (j Join) Node(step *Node) *Node { return node(j.rate, step) }

func (j Join) rate(step number) number {
	rate := rateOf(j.Schedules[0], step)
	for i, next := range j.Schedules[1:] {
		begin := float64(j.Boundaries[i])
		rate = less(step, begin, rate, rateOf(next, maximum(0.0, sub(step, begin))))
	}
	return rate
}

// Scale multiplies another schedule by a factor.
type Scale struct {
	Of     Schedule
	Factor float64
}

// At returns the rate of update step.
func (s Scale) At(step int) float64 { return at(s.rate, step) }

// Node builds the rate of update step.
func (s Scale) Node(step *Node) *Node { return node(s.rate, step) }

func (s Scale) rate(step number) number { return mul(s.Factor, rateOf(s.Of, step)) }

// Limit keeps another schedule between a floor and a ceiling.
type Limit struct {
	Of       Schedule
	Min, Max float64 // Max 0 means none
}

// At returns the rate of update step.
func (c Limit) At(step int) float64 { return at(c.rate, step) }

// Node builds the rate of update step.
func (c Limit) Node(step *Node) *Node { return node(c.rate, step) }

func (c Limit) rate(step number) number {
	ceiling := c.Max
	if ceiling == 0 {
		ceiling = math.Inf(1)
	}
	return minimum(ceiling, maximum(c.Min, rateOf(c.Of, step)))
}

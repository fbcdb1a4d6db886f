package attention

import (
	"errors"
	"fmt"
	"math"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Span lets each head learn how far it looks. Weights fade to 0 over Ramp positions beyond
// the head's span zₕ·Max, and the rest is renormalised:
//
//	m(x) = clamp((Ramp + zₕ·Max − x) / Ramp, 0, 1),  x = |q − k|
//	a ← m·a / (Σ m·a + 1e-8)
//
// z is learned, one number a head. Result.Losses["span"] is the mean of zₕ·Max.
//
// Source: Sukhbaatar et al. 2019, "Adaptive attention span in transformers".
type Span struct {
	Max  int     `json:"max"`            // positions
	Ramp int     `json:"ramp,omitempty"` // positions; 0 means 32
	Init float64 `json:"init,omitempty"` // where z begins
	// Penalty is what a position of mean span costs in the training loss.
	Penalty float64 `json:"penalty,omitempty"`
	// Limit freezes the spans: keys at that distance and beyond are hidden, so that they cost
	// no time, and z gets no gradient. 0 means not frozen. See [Span.Freeze].
	Limit int `json:"limit,omitempty"`
}

// Freeze returns p with a Limit beyond which no weight is left with the spans z that training
// ended with. Limits are multiples of 32, so that models have few shapes.
//
// Nothing changes by it where the weights that are left keep their proportions when keys are hidden: with softmax, sinks, sigmoid
// and linear. [Sparsemax], [Entmax] and [TopKeys] share out anew, [SSMax] counts fewer keys, and [Inhibition] and [Selective] see fewer: train
// on with the limit there.
func (p Span) Freeze(z ...float64) Span {
	const multiple = 32
	longest := p.ramp() + max(0, slices.Max(z))*float64(p.Max)
	p.Limit = multiple * int(math.Ceil(longest/multiple))
	return p
}

func (p Span) ramp() float64 { return orElse(float64(p.Ramp), 32) }

// spanEpsilon keeps a row whose weights have all faded from a division by 0.
const spanEpsilon = 1e-8

// Kind returns "span".
func (Span) Kind() string { return "span" }

// Validate implements [Part].
func (p Span) Validate(Sizes) error {
	problems := []error{atLeast("max", p.Max, 1), atLeast("ramp", p.Ramp, 0), atLeast("limit", p.Limit, 0)}
	if !(p.Init >= 0 && p.Init <= 1) {
		problems = append(problems, fmt.Errorf("init is %g, want 0 to 1", p.Init))
	}
	return errors.Join(append(problems, finite("penalty", p.Penalty))...)
}

// Variables implements [Part]: "z" [heads].
func (p Span) Variables(s Sizes) []elastic.Variable { return onePerHead("z", s, p.Init) }

// Reweigh implements [Reweigher].
func (p Span) Reweigh(t *Tile, w elastic.Weights, weights *Node) *Node {
	span := p.lengths(w)
	t.Report(p.Kind(), ReduceAllMean(span), p.Penalty)
	distance := ConvertDType(Abs(t.Distance()), weights.DType())
	weights = Mul(weights, p.fade(perHead(span), distance))
	return Mul(weights, Reciprocal(AddScalar(ReduceAndKeep(weights, ReduceSum, -1), spanEpsilon)))
}

// lengths returns z·Max [heads].
func (p Span) lengths(w elastic.Weights) *Node {
	z := w.At("z")
	if p.Limit > 0 {
		z = StopGradient(z)
	}
	return MulScalar(z, float64(p.Max))
}

// fade returns m of the formula.
func (p Span) fade(lengths, distance *Node) *Node {
	return clamp01(MulScalar(Sub(AddScalar(lengths, p.ramp()), distance), 1/p.ramp()))
}

// clamp01 limits x to [0, 1], with a gradient of 1 inside and 0 outside.
func clamp01(x *Node) *Node {
	zero, one := ZerosLike(x), OnesLike(x)
	return Where(GreaterThan(x, zero), Where(LessThan(x, one), x, one), zero)
}

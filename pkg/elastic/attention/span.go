package attention

import (
	"errors"
	"fmt"

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
}

// Kind returns "span".
func (Span) Kind() string { return "span" }

// Validate implements [Part].
func (p Span) Validate(Sizes) error {
	problems := []error{atLeast("max", p.Max, 1), atLeast("ramp", p.Ramp, 0)}
	if !(p.Init >= 0 && p.Init <= 1) {
		problems = append(problems, fmt.Errorf("init is %g, want 0 to 1", p.Init))
	}
	return errors.Join(append(problems, finite("penalty", p.Penalty))...)
}

// Variables implements [Part]: "z" [heads].
func (p Span) Variables(s Sizes) []elastic.Variable { return onePerHead("z", s, p.Init) }

// Reweigh implements [Reweigher].
func (p Span) Reweigh(t *Tile, w elastic.Weights, weights *Node) *Node {
	ramp := float64(p.Ramp)
	if ramp == 0 {
		ramp = 32
	}
	span := MulScalar(w.At("z"), float64(p.Max)) // [h]
	t.Report(p.Kind(), ReduceAllMean(span), p.Penalty)
	distance := ConvertDType(Abs(t.Distance()), weights.DType())
	mask := MulScalar(Sub(AddScalar(perHead(span), ramp), distance), 1/ramp)
	weights = Mul(weights, clamp01(mask))
	return Mul(weights, Reciprocal(AddScalar(ReduceAndKeep(weights, ReduceSum, -1), 1e-8)))
}

// clamp01 limits x to [0, 1], with a gradient of 1 inside and 0 outside.
func clamp01(x *Node) *Node {
	zero, one := ZerosLike(x), OnesLike(x)
	return Where(GreaterThan(x, zero), Where(LessThan(x, one), x, one), zero)
}

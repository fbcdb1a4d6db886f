package attention

import (
	"errors"
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
)

// HeadGate multiplies what a head gives by a learned number:
//
//	yₕ ← σ(gₕ)·yₕ
//
// g begins at Init (0 means 2, a gate of 0.88).
type HeadGate struct {
	Init float64 `json:"init,omitempty"`
}

// Kind returns "head_gate".
func (HeadGate) Kind() string { return "head_gate" }

// Validate implements [Part].
func (p HeadGate) Validate(Sizes) error { return finite("init", p.Init) }

// Variables implements [Part]: "logit" [heads].
func (p HeadGate) Variables(s Sizes) []elastic.Variable {
	return onePerHead("logit", s, orElse(p.Init, 2))
}

// Gate implements [Gate].
func (HeadGate) Gate(_ *Tile, w elastic.Weights, y *Node) *Node {
	return Mul(y, InsertAxes(Logistic(w.At("logit")), 0, 0, -1))
}

// HardConcrete opens and closes whole heads: while training at random, with a distribution
// that has weight on exactly 0 and 1; while evaluating at the distribution's centre.
//
//	g = clamp(1.2·σ((ln u − ln(1−u) + aₕ)/β) − 0.1, 0, 1),  yₕ ← g·yₕ,  β = 2/3
//
// u is uniform, and ½ while evaluating with β = 1 as in the source. a begins at Init (0
// means 2). Result.Losses["hard_concrete"] is the expected number of open heads,
// Σ σ(aₕ − β·ln(0.1/1.1)).
//
// Source: Louizos, Welling, Kingma 2018, "Learning sparse neural networks through L₀
// regularization"; for heads Voita et al. 2019, "Analyzing multi-head self-attention".
type HardConcrete struct {
	Init float64 `json:"init,omitempty"`
	// Penalty is what an open head costs in the training loss.
	Penalty float64 `json:"penalty,omitempty"`
}

// The constants of the source: β, and how far the distribution is stretched beyond 0 and 1.
const (
	concreteBeta    = 2.0 / 3
	concreteStretch = 0.1
)

// Kind returns "hard_concrete".
func (HardConcrete) Kind() string { return "hard_concrete" }

// Validate implements [Part].
func (p HardConcrete) Validate(Sizes) error {
	return errors.Join(finite("init", p.Init), finite("penalty", p.Penalty))
}

// Variables implements [Part]: "logit" [heads], a of the formula.
func (p HardConcrete) Variables(s Sizes) []elastic.Variable {
	return onePerHead("logit", s, orElse(p.Init, 2))
}

// Gate implements [Gate].
func (p HardConcrete) Gate(t *Tile, w elastic.Weights, y *Node) *Node {
	logit := w.At("logit")
	t.Report(p.Kind(), ReduceAllSum(Logistic(AddScalar(logit, -concreteBeta*math.Log(concreteStretch/(1+concreteStretch))))), p.Penalty)
	gate := hardConcrete(logit, t.Drop.Uniform(logit.Shape()))
	return Mul(y, InsertAxes(gate, 0, 0, -1))
}

// hardConcrete returns the gates for noise u in (0, 1), or without noise if it is nil.
func hardConcrete(logit, u *Node) *Node {
	if u != nil {
		logit = MulScalar(Add(Sub(Log(u), Log1p(Neg(u))), logit), 1/concreteBeta)
	}
	return clamp01(AddScalar(MulScalar(Logistic(logit), 1+2*concreteStretch), -concreteStretch))
}

// OutputGate lets each token gate every column of what the heads give:
//
//	y ← σ(x·W)·y
//
// x is the layer's input; W [hidden, heads·value width] begins small.
//
// Source: Qiu et al. 2025, "Gated attention for large language models".
type OutputGate struct{ plain }

// Kind returns "output_gate".
func (OutputGate) Kind() string { return "output_gate" }

// Variables implements [Part]: "weights" [hidden, heads·value width].
func (OutputGate) Variables(s Sizes) []elastic.Variable {
	return []elastic.Variable{{Path: "weights", Shape: []int{s.Hidden, s.Heads * s.ValueDim}, Init: elastic.Init{Normal: 0.02}, Decay: true}}
}

// Gate implements [Gate].
func (p OutputGate) Gate(t *Tile, w elastic.Weights, y *Node) *Node {
	gate := Logistic(Einsum("bqm,mn->bqn", t.input(p), w.At("weights")))
	return Mul(y, Reshape(gate, y.Shape().Dimensions...))
}

// MixtureOfHeads lets each token choose Keep of the heads:
//
//	r = softmax(x·W) over heads,  yₕ ← rₕ·yₕ for the Keep greatest rₕ of a token, else 0
//
// Result.Losses["mixture_of_heads"] is heads·Σ fₕ·Pₕ with fₕ the share of choices that fall
// on a head and Pₕ its mean rₕ: 1 when all are used alike. fₕ carries no gradient.
//
// Source: Jin et al. 2024, "MoH: Multi-head attention as mixture-of-head attention", without
// heads that are always on.
type MixtureOfHeads struct {
	Keep int `json:"keep"`
	// Penalty is what a unit of imbalance costs in the training loss.
	Penalty float64 `json:"penalty,omitempty"`
}

// Kind returns "mixture_of_heads".
func (MixtureOfHeads) Kind() string { return "mixture_of_heads" }

// Validate implements [Part].
func (p MixtureOfHeads) Validate(s Sizes) error {
	if p.Keep < 1 || p.Keep > s.Heads {
		return fmt.Errorf("keep is %d, want 1 to %d, the heads", p.Keep, s.Heads)
	}
	return finite("penalty", p.Penalty)
}

// Variables implements [Part]: "weights" [hidden, heads].
func (MixtureOfHeads) Variables(s Sizes) []elastic.Variable {
	return []elastic.Variable{{Path: "weights", Shape: []int{s.Hidden, s.Heads}, Init: elastic.Init{Normal: 0.02}, Decay: true}}
}

// Gate implements [Gate].
func (p MixtureOfHeads) Gate(t *Tile, w elastic.Weights, y *Node) *Node {
	route := simplex.Softmax(Einsum("bqm,mh->bqh", t.input(p), w.At("weights")), nil) // [b, q, h]
	kept := ConvertDType(simplex.Greatest(route, p.Keep), y.DType())
	share := StopGradient(ReduceSum(kept, 0, 1)) // [h]
	share = Mul(share, Reciprocal(ReduceAllSum(share)))
	balance := MulScalar(ReduceAllSum(Mul(share, ReduceMean(route, 0, 1))), t.Heads)
	t.Report(p.Kind(), balance, p.Penalty)
	return Mul(y, InsertAxes(Mul(route, kept), -1))
}

func orElse(value, other float64) float64 {
	if value == 0 {
		return other
	}
	return value
}

package attention

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
)

// PlainSoftmax is the default normaliser, [simplex.Softmax].
type PlainSoftmax struct{ plain }

// Kind returns "softmax".
func (PlainSoftmax) Kind() string { return "softmax" }

// Normalize implements [Normalizer].
func (PlainSoftmax) Normalize(_ *Tile, _ elastic.Weights, logits, mask *Node) *Node {
	return simplex.Softmax(logits, mask)
}

// Sparsemax gives exact zeros to most keys, [simplex.Sparsemax].
type Sparsemax struct{ plain }

// Kind returns "sparsemax".
func (Sparsemax) Kind() string { return "sparsemax" }

// Normalize implements [Normalizer].
func (Sparsemax) Normalize(_ *Tile, _ elastic.Weights, logits, mask *Node) *Node {
	return simplex.Sparsemax(logits, mask)
}

// Entmax lies between softmax and sparsemax, [simplex.Entmax]. With Learned each head
// learns its own α between 1 and 2, αₕ = 1 + σ(aₕ), beginning at Alpha.
type Entmax struct {
	Alpha   float64 `json:"alpha,omitempty"` // 0 means 1.5
	Learned bool    `json:"learned,omitempty"`
}

// Kind returns "entmax".
func (Entmax) Kind() string { return "entmax" }

func (n Entmax) alpha() float64 {
	if n.Alpha == 0 {
		return 1.5
	}
	return n.Alpha
}

// Validate implements [Part].
func (n Entmax) Validate(Sizes) error {
	switch alpha := n.alpha(); {
	case !(alpha >= 1) || math.IsInf(alpha, 0):
		return fmt.Errorf("alpha is %g, want at least 1", alpha)
	case n.Learned && !(alpha > 1 && alpha < 2):
		return fmt.Errorf("alpha is %g, want a number between 1 and 2 to begin learning at", alpha)
	}
	return nil
}

// Variables implements [Part]: "alpha" [heads], a of the formula, if it is learned.
func (n Entmax) Variables(s Sizes) []elastic.Variable {
	if !n.Learned {
		return nil
	}
	return onePerHead("alpha", s, math.Log((n.alpha()-1)/(2-n.alpha())))
}

// Normalize implements [Normalizer].
func (n Entmax) Normalize(_ *Tile, w elastic.Weights, logits, mask *Node) *Node {
	if n.Learned {
		return simplex.LearnedEntmax(logits, mask, AddScalar(Logistic(perHead(w.At("alpha"))), 1))
	}
	return simplex.Entmax(logits, mask, n.alpha())
}

// ElementSigmoid weighs each key by itself, [simplex.Sigmoid], with a learned bias, a scalar that
// begins at −ln Keys.
type ElementSigmoid struct {
	// Keys is the usual number of keys.
	Keys int `json:"keys"`
}

// Kind returns "sigmoid".
func (ElementSigmoid) Kind() string { return "sigmoid" }

// Validate implements [Part].
func (n ElementSigmoid) Validate(Sizes) error { return atLeast("keys", n.Keys, 1) }

// Variables implements [Part]: "bias" [1].
func (n ElementSigmoid) Variables(Sizes) []elastic.Variable {
	return []elastic.Variable{{Path: "bias", Shape: []int{1}, Init: elastic.Init{Value: -math.Log(float64(n.Keys))}}}
}

// Normalize implements [Normalizer].
func (ElementSigmoid) Normalize(_ *Tile, w elastic.Weights, logits, mask *Node) *Node {
	return simplex.Sigmoid(logits, mask, w.At("bias"))
}

// OffByOne lets a query attend to nothing, [simplex.OffByOne].
type OffByOne struct{ plain }

// Kind returns "off_by_one".
func (OffByOne) Kind() string { return "off_by_one" }

// Normalize implements [Normalizer].
func (OffByOne) Normalize(_ *Tile, _ elastic.Weights, logits, mask *Node) *Node {
	return simplex.OffByOne(logits, mask)
}

// Sink lets a query attend to nothing by a learned logit for each head, [simplex.Sink].
type Sink struct{ plain }

// Kind returns "sink".
func (Sink) Kind() string { return "sink" }

// Variables implements [Part]: "logit" [heads].
func (Sink) Variables(s Sizes) []elastic.Variable { return onePerHead("logit", s, 0) }

// Normalize implements [Normalizer].
func (Sink) Normalize(_ *Tile, w elastic.Weights, logits, mask *Node) *Node {
	return simplex.Sink(logits, mask, perHead(w.At("logit")))
}

// TopKeys attends to the Keys greatest logits of a row, [simplex.TopK].
type TopKeys struct {
	Keys int `json:"keys"`
}

// Kind returns "top_k".
func (TopKeys) Kind() string { return "top_k" }

// Validate implements [Part].
func (n TopKeys) Validate(Sizes) error { return atLeast("keys", n.Keys, 1) }

// Variables implements [Part].
func (TopKeys) Variables(Sizes) []elastic.Variable { return nil }

// Normalize implements [Normalizer].
func (n TopKeys) Normalize(_ *Tile, _ elastic.Weights, logits, mask *Node) *Node {
	return simplex.TopK(logits, mask, n.Keys)
}

// Linear takes the product of positive features in place of an exponential; it reads
// queries and keys and no logits, so a spec with it can have no scores and no positions:
//
//	a = φ(q)·φ(k) / Σ φ(q)·φ(k),  φ(x) = elu(x) + 1
//
// Source: Katharopoulos et al. 2020, "Transformers are RNNs".
type Linear struct{ plain }

// Kind returns "linear".
func (Linear) Kind() string { return "linear" }

// Needs checks that nothing changes logits that are not used.
func (Linear) Needs(s Spec) error {
	if len(s.Scores)+len(s.Positions) > 0 || s.Differential != nil {
		return fmt.Errorf("uses no logits, so the spec can have no scores, positions or differential")
	}
	return nil
}

// Normalize implements [Normalizer].
func (Linear) Normalize(t *Tile, _ elastic.Weights, _, mask *Node) *Node {
	weights := products(feature(t.Q), feature(t.K))
	if mask != nil {
		weights = Where(mask, weights, ZerosLike(weights))
	}
	sum := ReduceAndKeep(weights, ReduceSum, -1)
	positive := GreaterThan(sum, ZerosLike(sum))
	return Mul(weights, Where(positive, Reciprocal(Where(positive, sum, OnesLike(sum))), ZerosLike(sum)))
}

// feature computes elu(x) + 1: x + 1 where x is positive, else exp(x).
func feature(x *Node) *Node {
	negative := Min(x, ZerosLike(x))
	return Where(GreaterThan(x, ZerosLike(x)), OnePlus(x), Exp(negative))
}

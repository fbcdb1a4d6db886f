package attention

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// SSMax multiplies the logits of a row by the logarithm of the number n of keys that the
// row may attend to, so that attention does not flatten as texts get longer:
//
//	s ← s · (aₕ·ln n + bₕ)
//
// a and b are learned, one a head; they begin at 0.43 and 0, as in the paper. A row without
// any key counts as one with n = 1.
//
// Source: Nakanishi 2025, "Scalable-softmax is superior for attention", equations 4 and 5.
type SSMax struct{ plain }

// Kind returns "ssmax".
func (SSMax) Kind() string { return "ssmax" }

// Variables implements [Part]: "scale" and "bias" [heads].
func (SSMax) Variables(s Sizes) []elastic.Variable {
	return []elastic.Variable{
		{Path: "scale", Shape: []int{s.Heads}, Init: elastic.Init{Value: 0.43}},
		{Path: "bias", Shape: []int{s.Heads}},
	}
}

// Score implements [Score].
func (p SSMax) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	return Mul(logits, p.factor(t, w))
}

func (SSMax) factor(t *Tile, w elastic.Weights) *Node {
	logCount := Log(MaxScalar(t.visible(), 1))
	return Add(Mul(perHead(w.At("scale")), logCount), perHead(w.At("bias")))
}

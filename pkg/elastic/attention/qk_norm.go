package attention

import (
	"errors"
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// QKNorm normalises each query and key over its width, before they are turned and
// multiplied:
//
//	"rms"  x / √(mean(x²) + 1e-6) · w       w learned, one per column
//	"l2"   x / √(Σ x² + 1e-12)
//
// With "l2" logits are cosines: set Scale to 1 and add a [Temperature], or Gain, which
// multiplies the logits of each head by a learned number that begins at Gain.
//
// Source: Henry et al. 2020, "Query-key normalization for transformers" (l2); Dehghani et
// al. 2023, "Scaling vision transformers to 22 billion parameters", section 2 (as norm layer).
type QKNorm struct {
	Norm string  `json:"norm"` // "rms" or "l2"
	Gain float64 `json:"gain,omitempty"`
}

// Kind returns "qk_norm".
func (QKNorm) Kind() string { return "qk_norm" }

// Validate implements [Part].
func (n QKNorm) Validate(Sizes) error {
	switch {
	case n.Norm != "rms" && n.Norm != "l2":
		return fmt.Errorf("norm is %q, want \"rms\" or \"l2\"", n.Norm)
	case !(n.Gain >= 0):
		return fmt.Errorf("gain is %g, want 0 or more", n.Gain)
	}
	return nil
}

// Needs refuses learned scales for the two maps of [Differential], whose queries are twice
// as wide.
func (n QKNorm) Needs(s Spec) error {
	if s.Differential != nil && n.Norm == "rms" {
		return errors.New("norm \"rms\" does not go with differential: use \"l2\"")
	}
	return nil
}

// Variables implements [Part]: "query" and "key" [head width] of "rms", "gain" [heads].
func (n QKNorm) Variables(s Sizes) []elastic.Variable {
	var list []elastic.Variable
	if n.Norm == "rms" {
		for _, name := range []string{"query", "key"} {
			list = append(list, elastic.Variable{Path: name, Shape: []int{s.HeadDim}, Init: elastic.Init{Value: 1}})
		}
	}
	if n.Gain > 0 {
		list = append(list, elastic.Variable{Path: "gain", Shape: []int{s.Heads}, Init: elastic.Init{Value: n.Gain}})
	}
	return list
}

// apply normalises queries and keys [b, l, h, d].
func (n QKNorm) apply(w elastic.Weights, q, k *Node) (*Node, *Node) {
	if n.Norm == "l2" {
		q, k = l2(q), l2(k)
	} else {
		q, k = rms(q, w.At("query"), 1e-6), rms(k, w.At("key"), 1e-6)
	}
	if n.Gain > 0 {
		q = Mul(q, InsertAxes(w.At("gain"), 0, 0, -1)) // [1, 1, h, 1]
	}
	return q, k
}

// rms computes x / √(mean(x²) + ε) · scale over the last axis.
func rms(x, scale *Node, epsilon float64) *Node {
	size := Sqrt(AddScalar(ReduceAndKeep(Square(x), ReduceMean, -1), epsilon))
	return Mul(Mul(x, Reciprocal(size)), ExpandLeftToRank(scale, x.Rank()))
}

func l2(x *Node) *Node {
	return Mul(x, Reciprocal(Sqrt(AddScalar(ReduceAndKeep(Square(x), ReduceSum, -1), 1e-12))))
}

// Package attention computes attention from a plain description of it.
//
// A [Spec] is data: it is part of a model's config, travels in its checkpoint and
// can be compared. [Self] turns it into graph nodes by a fixed pipeline:
//
//	project to queries, keys, values     [batch, length, heads, width]
//	logits  s = q·kᵀ · scale             [batch, heads, queries, keys]
//	mask    true where attention is allowed
//	weights a = normalise(s)             rows sum to 1, or are all zero
//	dropout on the weights, while training
//	y = Σ a·v, heads joined, projected   [batch, length, hidden]
//
// The normaliser is named by kind and looked up in one registry (normalizer.go).
package attention

import (
	"errors"
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Spec describes the attention of a layer.
type Spec struct {
	// Heads is the number of attention heads; it divides the hidden size.
	Heads int `json:"heads"`
	// Normalizer turns logits into weights: a kind that [Normalizers] lists. Empty means "softmax".
	Normalizer string `json:"normalizer,omitempty"`
	// Dropout is the probability that a weight is dropped while training.
	Dropout float64 `json:"dropout,omitempty"`
}

// Validate reports all that is wrong with s in a model of the given hidden size.
func (s Spec) Validate(hidden int) error {
	var problems []error
	if s.Heads <= 0 {
		problems = append(problems, fmt.Errorf("attention.heads is %d, want at least 1", s.Heads))
	} else if hidden%s.Heads != 0 {
		problems = append(problems, fmt.Errorf("attention.heads is %d, which does not divide the hidden size %d", s.Heads, hidden))
	}
	if _, ok := normalizers[s.normalizer()]; !ok {
		problems = append(problems, fmt.Errorf("attention.normalizer %q is unknown; known: %v", s.Normalizer, Normalizers()))
	}
	if !(s.Dropout >= 0 && s.Dropout < 1) {
		problems = append(problems, fmt.Errorf("attention.dropout is %g, want 0 ≤ p < 1", s.Dropout))
	}
	return errors.Join(problems...)
}

func (s Spec) normalizer() string {
	if s.Normalizer == "" {
		return "softmax"
	}
	return s.Normalizer
}

// Variables lists the weights of one attention layer, with paths relative to it.
// std is the standard deviation of the initial matrices.
func (s Spec) Variables(hidden int, std float64) []elastic.Variable {
	var list []elastic.Variable
	for _, name := range []string{"query", "key", "value", "output"} {
		list = append(list, elastic.Under(name, elastic.DenseVariables(hidden, hidden, std))...)
	}
	return list
}

// Self computes self-attention over x [batch, length, hidden]. The mask is boolean,
// true where a query may attend to a key, and of a shape that broadcasts to
// [batch, heads, queries, keys]; nil allows everything. A query that may attend to
// nothing gets zeros. It returns the output [batch, length, hidden] and the weights
// [batch, heads, queries, keys] from before dropout.
//
// Source: Vaswani et al. 2017, "Attention is all you need", equation 1 and section
// 3.2.2; with biases, as in BERT.
func Self(s Spec, w elastic.Weights, x, mask *Node, drop *dropout.Source) (y, weights *Node) {
	if x.Rank() != 3 {
		exceptions.Panicf("attention input must be [batch, length, hidden], got %s", x.Shape())
	}
	batch, length, hidden := x.Shape().Dimensions[0], x.Shape().Dimensions[1], x.Shape().Dimensions[2]
	width := hidden / s.Heads

	project := func(name string) *Node {
		return Reshape(elastic.Dense(w.In(name), x), batch, length, s.Heads, width)
	}
	q, k, v := project("query"), project("key"), project("value") // [b, l, h, d]

	q = MulScalar(q, 1/math.Sqrt(float64(width)))
	logits := Einsum("bqhd,bkhd->bhqk", q, k) // [b, h, q, k]
	if mask != nil {
		mask = BroadcastToDims(mask, logits.Shape().Dimensions...)
	}
	weights = normalizers[s.normalizer()](logits, mask)

	y = Einsum("bhqk,bkhd->bqhd", drop.Apply(weights, s.Dropout), v)
	return elastic.Dense(w.In("output"), Reshape(y, batch, length, hidden)), weights
}

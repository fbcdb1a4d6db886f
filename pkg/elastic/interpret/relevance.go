package interpret

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Relevance follows attention through all layers as [Rollout] does, but lets each weight
// count only as far as the target depends on it:
//
//	Āₗ = mean over heads of max(∂target/∂aₗ · aₗ, 0)
//	R  = (I + Ā_L) · … · (I + Ā₁)
//
// Weights are the nodes from which target [batch], one value a row, was computed, first
// layer first, [batch, heads, length, length]. It returns R [batch, length, length]: row i
// says how relevant each input is to what output i tells the target. It costs one backward
// pass and needs no rule for any operation, so it serves every attention; layer-wise
// relevance propagation in the stricter sense would need one for each part of a spec.
//
// Source: Chefer, Gur, Wolf 2021, "Generic attention-model explainability for interpreting
// bi-modal and encoder-decoder transformers", equations 5 and 6.
func Relevance(weights []*Node, target *Node) *Node {
	if len(weights) == 0 {
		exceptions.Panicf("relevance needs the weights of at least one layer")
	}
	if target.Rank() != 1 {
		exceptions.Panicf("relevance needs a target with one value a row, got %s", target.Shape())
	}
	var relevance *Node
	for i, gradient := range Gradient(ReduceAllSum(target), weights...) {
		product := Mul(weights[i], gradient)
		layer := Add(ReduceMean(Max(product, ZerosLike(product)), 1), identityLike(weights[i])) // [b, l, l]
		if relevance == nil {
			relevance = layer
		} else {
			relevance = Einsum("bij,bjk->bik", layer, relevance)
		}
	}
	return relevance
}

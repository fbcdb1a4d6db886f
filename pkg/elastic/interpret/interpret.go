// Package interpret asks why a model computed what it did.
//
// Of attention, graph functions on the weights that a model computes:
//
//	Rollout       which inputs the attention of all layers together leads back to
//	Relevance     the same, where each weight counts as far as the output depends on it
//	Entropy       how spread the attention of each head and query is
//	Profile       what the heads do on the whole: spread, sparsity, and where the mass lies
//	Flow          how much each input can send through all layers (on the host)
//	MapAttention  the weights themselves, by layer and head, for pictures (on the host)
//
// Of inputs, by an [Attributor], which runs the model:
//
//	GradientTimesInput   which inputs the output is sensitive to, to first order
//	IntegratedGradients  which inputs the output is owed to; the parts add up to it
//
// Of heads, by [Heads]: what the loss owes to each, by its gradient and by removing it.
//
// And of explanations themselves: [Faithful] removes what they call important and looks at
// what the model says then; [Randomise] forgets what the model has learned and looks whether
// they notice.
//
// Graph functions panic with an error that names the shapes.
package interpret

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// WithResidual returns what a layer moves from where to where, [batch, length, length], of
// its attention weights a [batch, heads, length, length]; the residual connection counts as
// much as attention:
//
//	Ã = ½·mean over heads of a + ½·I, rows normalised to 1
//
// Source: Abnar, Zuidema 2020, "Quantifying attention flow in transformers", section 3.
func WithResidual(a *Node) *Node {
	identity := identityLike(a) // [1, l, l]
	layer := MulScalar(Add(ReduceMean(a, 1), identity), 0.5)
	return Mul(layer, Reciprocal(ReduceAndKeep(layer, ReduceSum, -1)))
}

// identityLike returns I [1, length, length] for self-attention weights a.
func identityLike(a *Node) *Node {
	if a.Rank() != 4 || a.Shape().Dimensions[2] != a.Shape().Dimensions[3] {
		exceptions.Panicf("want self-attention weights [batch, heads, length, length], got %s", a.Shape())
	}
	length := a.Shape().Dimensions[2]
	square := shapes.Make(dtypes.Int32, 1, length, length)
	return ConvertDType(Equal(Iota(a.Graph(), square, 1), Iota(a.Graph(), square, 2)), a.DType())
}

// Rollout follows attention through all layers. Weights holds each layer's, first layer
// first, [batch, heads, length, length]:
//
//	R = Ã_L · … · Ã₁,  Ã as [WithResidual] has it
//
// It returns R [batch, length, length]: row i says from which inputs output i comes.
//
// Source: Abnar, Zuidema 2020, "Quantifying attention flow in transformers", section 3.
func Rollout(weights []*Node) *Node {
	if len(weights) == 0 {
		exceptions.Panicf("rollout needs the weights of at least one layer")
	}
	var rollout *Node
	for _, a := range weights {
		layer := WithResidual(a)
		if rollout == nil {
			rollout = layer
		} else {
			rollout = Einsum("bij,bjk->bik", layer, rollout)
		}
	}
	return rollout
}

// Entropy returns −Σ a·ln a over the keys of weights [..., keys], in nats, with 0·ln 0 = 0.
func Entropy(weights *Node) *Node {
	positive := GreaterThan(weights, ZerosLike(weights))
	logs := Log(Where(positive, weights, OnesLike(weights)))
	return Neg(ReduceSum(Mul(weights, logs), -1))
}

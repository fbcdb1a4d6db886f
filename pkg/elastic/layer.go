package elastic

import (
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// AddIf adds nodes of which either may be nil, which counts as 0.
func AddIf(x, y *Node) *Node {
	switch {
	case x == nil:
		return y
	case y == nil:
		return x
	}
	return Add(x, y)
}

// SumAll returns the sum of all elements of x. The last axis goes by a product with ones: XLA on a CPU reduces a tensor to one number
// element by element on one core, which for a large embedding takes six times as long.
func SumAll(x *Node) *Node {
	if d := x.Shape().Dimensions; len(d) > 1 && x.DType().IsFloat() {
		last := d[len(d)-1]
		x = MatMul(Reshape(x, -1, last), Ones(x.Graph(), shapes.Make(x.DType(), last, 1)))
	}
	return ReduceAllSum(x)
}

// Dense computes x·W + b over the last axis of x, with W [inputs, outputs] and b
// [outputs] the variables "weights" and "bias" of w, or what the adapter of w makes of it.
func Dense(w Weights, x *Node) *Node {
	if a := w.adapter; a != nil {
		return a.Dense(w.scope, w, x, func(x *Node) *Node { return dense(w, x) })
	}
	return dense(w, x)
}

func dense(w Weights, x *Node) *Node {
	weights, bias := w.At("weights"), w.At("bias")
	last := x.Rank() - 1
	if weights.Rank() != 2 || x.Shape().Dimensions[last] != weights.Shape().Dimensions[0] {
		exceptions.Panicf("%s/weights is %s and does not take %s", w.scope, weights.Shape(), x.Shape())
	}
	y := w.Product(product, x, weights)
	return Add(y, ExpandLeftToRank(bias, y.Rank()))
}

// product computes x·W over the last axis of x. It says how the gradient of W is to be
// computed: as xᵀ·g. GoMLX by itself builds (gᵀ·x)ᵀ, for which XLA transposes g and uses
// a slower kernel: twice the time for a wide W on CPUs.
func product(x, weights *Node) *Node {
	// Gradients are built backwards: that of the product is known before that of W, and so is x, which
	// in a block that [Weights.Checkpoint] begins is computed again.
	var gradient *Node
	factor := x
	weights = IdentityWithCustomGradient(weights, func(_, _ *Node) *Node {
		rows := func(n *Node) *Node { return Reshape(n, -1, n.Shape().Dimensions[n.Rank()-1]) }
		return DotGeneral(rows(factor), []int{0}, nil, rows(gradient), []int{0}, nil)
	})
	x = IdentityWithCustomGradient(x, func(x, g *Node) *Node {
		factor = x
		return g
	})
	y := DotGeneral(x, []int{x.Rank() - 1}, nil, weights, []int{0}, nil)
	return IdentityWithCustomGradient(y, func(_, g *Node) *Node {
		gradient = g
		return g
	})
}

// LayerNorm normalises the last axis of x to mean 0 and variance 1, then scales and
// shifts it by the variables "scale" and "bias" of w:
//
//	y = (x − μ) / √(σ² + ε) · scale + bias
//
// with the biased variance σ². Source: Ba, Kiros, Hinton 2016, "Layer normalization".
func LayerNorm(w Weights, x *Node, epsilon float64) *Node {
	mean := ReduceAndKeep(x, ReduceMean, -1)
	centred := Sub(x, mean)
	variance := ReduceAndKeep(Square(centred), ReduceMean, -1)
	y := Mul(centred, Reciprocal(Sqrt(AddScalar(variance, epsilon)))) // Rsqrt has no gradient in GoMLX
	y = Mul(y, ExpandLeftToRank(w.At("scale"), y.Rank()))
	return Add(y, ExpandLeftToRank(w.At("bias"), y.Rank()))
}

// DenseVariables lists the variables that [Dense] reads.
func DenseVariables(inputs, outputs int, std float64) []Variable {
	return []Variable{
		{Path: "weights", Shape: []int{inputs, outputs}, Init: Init{Normal: std}, Decay: true},
		{Path: "bias", Shape: []int{outputs}},
	}
}

// NormVariables lists the variables that [LayerNorm] reads.
func NormVariables(size int) []Variable {
	return []Variable{
		{Path: "scale", Shape: []int{size}, Init: Init{Value: 1}},
		{Path: "bias", Shape: []int{size}},
	}
}

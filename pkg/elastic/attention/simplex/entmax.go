package simplex

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Sparsemax is the point of the simplex that is nearest to the logits; most of it is
// exactly 0:
//
//	a = max(s − τ, 0), with τ such that Σ a = 1
//
// It is [Entmax] with α = 2. Source: Martins, Astudillo 2016, "From softmax to sparsemax".
func Sparsemax(logits, mask *graph.Node) *graph.Node { return Entmax(logits, mask, 2) }

// MinAlpha is the least α that is told apart from softmax: nearer to 1 the exponent
// 1/(α−1) leaves the range of float32.
const MinAlpha = 1.02

// Entmax lies between [Softmax] (α = 1) and [Sparsemax] (α = 2), and beyond:
//
//	a = max((α−1)·s − τ, 0)^(1/(α−1)), with τ such that Σ a = 1
//
// α must be at least 1; below [MinAlpha] it is softmax.
//
// τ is found without sorting: by Newton's method on (Σ a)^(α−1), which is convex and nearly
// linear, from the left, where it never overshoots; for α > 2, where it is not convex, by
// bisection. One more step of Newton's method, with the search held constant, carries the
// gradient, as the implicit function theorem has it.
//
// Source: Peters, Niculae, Martins 2019, "Sparse sequence-to-sequence models".
func Entmax(logits, mask *graph.Node, alpha float64) *graph.Node {
	switch {
	case !(alpha >= 1):
		exceptions.Panicf("entmax needs α of at least 1, got %g", alpha)
	case alpha < MinAlpha:
		return Softmax(logits, mask)
	}
	return entmax(logits, mask, fixed(logits, alpha))
}

// LearnedEntmax is [Entmax] with a gradient with respect to α too. Alpha is a scalar or
// broadcasts to one number a row, [..., 1]; outside [MinAlpha, 2] the nearer end is taken.
//
// Source: Correia, Niculae, Martins 2019, "Adaptively sparse transformers".
func LearnedEntmax(logits, mask, alpha *graph.Node) *graph.Node {
	g, dtype := logits.Graph(), logits.DType()
	if alpha.Rank() != 0 {
		alpha = graph.BroadcastToDims(alpha, rows(logits)...)
	}
	alpha = graph.Min(graph.Max(alpha, graph.Scalar(g, dtype, MinAlpha)), graph.Scalar(g, dtype, 2))
	return entmax(logits, mask, learned(graph.AddScalar(alpha, -1)))
}

// exponents are the powers that entmax takes, p = 1/(α−1).
type exponents struct {
	gap, p *graph.Node                     // α−1 and p, scalars or [..., 1]
	power  func(x *graph.Node) *graph.Node // max(x, 0)^p
	lower  func(x *graph.Node) *graph.Node // max(x, 0)^(p−1), 0 where x ≤ 0
	root   func(x *graph.Node) *graph.Node // x^(1/p) for positive x
	convex bool                            // p ≥ 1
}

func entmax(logits, mask *graph.Node, e exponents) *graph.Node {
	logits = masked(logits, mask)
	maximum := graph.StopGradient(graph.ReduceAndKeep(logits, graph.ReduceMax, -1))
	z := graph.Mul(graph.Sub(logits, maximum), e.gap) // greatest is 0, so −1 ≤ τ ≤ 0

	tau := graph.StopGradient(e.search(graph.StopGradient(z)))
	// f(τ) = Σ (z−τ)₊^p − 1 and f′(τ) = −p·Σ (z−τ)₊^(p−1). The step is 0 but for rounding;
	// its derivatives are those of the true τ.
	above := graph.Sub(z, tau)
	slope := graph.StopGradient(graph.Mul(e.p, graph.ReduceAndKeep(e.lower(above), graph.ReduceSum, -1)))
	excess := graph.AddScalar(graph.ReduceAndKeep(e.power(above), graph.ReduceSum, -1), -1)
	weights := e.power(graph.Sub(above, graph.Mul(excess, graph.Reciprocal(slope))))
	if mask == nil {
		return weights
	}
	return graph.Where(mask, weights, graph.ZerosLike(weights)) // a row without any key is not 0 yet
}

// Steps of the searches: Newton's error is squared by each, bisection's halved.
const (
	newtonSteps    = 10
	bisectionSteps = 30
)

// search finds τ in [−1, 0] for each row of z, whose maximum is 0.
func (e exponents) search(z *graph.Node) *graph.Node {
	sum := func(of func(*graph.Node) *graph.Node, tau *graph.Node) *graph.Node {
		return graph.ReduceAndKeep(of(graph.Sub(z, tau)), graph.ReduceSum, -1)
	}
	tau := graph.AddScalar(graph.ZerosLike(graph.ReduceAndKeep(z, graph.ReduceMax, -1)), -1)
	if !e.convex {
		low, high := tau, graph.ZerosLike(tau)
		for range bisectionSteps {
			middle := graph.MulScalar(graph.Add(low, high), 0.5)
			tooLow := graph.GreaterOrEqual(sum(e.power, middle), graph.OnesLike(middle))
			low, high = graph.Where(tooLow, middle, low), graph.Where(tooLow, high, middle)
		}
		return low
	}
	// h(τ) = S^(1/p) − 1 with S = Σ (z−τ)₊^p, and h′(τ) = −S^(1/p) / S · Σ (z−τ)₊^(p−1).
	for range newtonSteps {
		total := sum(e.power, tau)
		root := e.root(total)
		slope := graph.Mul(graph.Mul(root, graph.Reciprocal(total)), sum(e.lower, tau))
		tau = graph.Add(tau, graph.Mul(graph.AddScalar(root, -1), graph.Reciprocal(slope)))
	}
	return tau
}

// fixed returns the exponents of an α that is a number.
func fixed(like *graph.Node, alpha float64) exponents {
	g, dtype := like.Graph(), like.DType()
	positive := func(x *graph.Node) *graph.Node { return graph.Max(x, graph.ZerosLike(x)) }
	switch alpha {
	case 2:
		one := graph.Scalar(g, dtype, 1)
		return exponents{
			gap: one, p: one, convex: true, power: positive, root: func(x *graph.Node) *graph.Node { return x },
			lower: func(x *graph.Node) *graph.Node {
				return graph.ConvertDType(graph.GreaterThan(x, graph.ZerosLike(x)), dtype)
			},
		}
	case 1.5:
		return exponents{
			gap: graph.Scalar(g, dtype, 0.5), p: graph.Scalar(g, dtype, 2), convex: true,
			power: func(x *graph.Node) *graph.Node { return graph.Square(positive(x)) }, lower: positive, root: graph.Sqrt,
		}
	}
	e := learned(graph.Scalar(g, dtype, alpha-1))
	e.convex = alpha <= 2
	return e
}

// learned returns the exponents of an α that is a node.
func learned(gap *graph.Node) exponents {
	p := graph.Reciprocal(gap)
	return exponents{
		gap: gap, p: p, convex: true,
		power: func(x *graph.Node) *graph.Node { return positivePower(x, p) },
		lower: func(x *graph.Node) *graph.Node { return positivePower(x, graph.AddScalar(p, -1)) },
		root:  func(x *graph.Node) *graph.Node { return graph.Exp(graph.Mul(graph.Log(x), gap)) },
	}
}

// positivePower computes max(x, 0)^p, with a gradient of 0 where x ≤ 0.
func positivePower(x, p *graph.Node) *graph.Node {
	positive := graph.GreaterThan(x, graph.ZerosLike(x))
	return graph.Where(positive, graph.Exp(graph.Mul(graph.Log(graph.Where(positive, x, graph.OnesLike(x))), p)), graph.ZerosLike(x))
}

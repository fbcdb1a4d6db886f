// Package pooling is the theory that the project grew from, as code: attention that pools
// features u by a weight vector w which adapts.
//
//	a = softmax(w·u),  y = Σ aᵢ·uᵢ
//
// The text that proposed it takes w in ℝᵈ and then multiplies its components wᵢ by the
// whole vector u. Three readings are well defined, and all are here:
//
//	ByScalar   aᵢ ∝ exp(wᵢ·uᵢ), a number for each feature       w [d],    u [n, d]     → y [n]
//	ByRows     a = softmax(W·u), the rows of W score features   W [d, d], u [n, d]     → y [n]
//	ByTokens   aₜ ∝ exp(w·uₜ), w scores token vectors           w [d],    u [n, l, d]  → y [n, d]
//
// Only the last is attention in the usual sense, and the one to use. [Descent] adapts w: by
// the gradient of a loss with labels ([CrossEntropy]) while training, or of any objective
// F(w) that needs none while in use.
//
// Graph functions panic with an error that names the shapes, as GoMLX does.
package pooling

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
)

// ByScalar pools the features of each row of u [n, d] by w [d]:
//
//	aᵢ = exp(wᵢ·uᵢ) / Σⱼ exp(wⱼ·uⱼ),  y = Σ aᵢ·uᵢ
//
// It returns y [n] and a [n, d].
func ByScalar(w, u *Node) (y, a *Node) {
	check("ByScalar", w, 1, u, 2)
	a = simplex.Softmax(Mul(InsertAxes(w, 0), u), nil)
	return ReduceSum(Mul(a, u), -1), a
}

// ByRows pools the features of each row of u [n, d] by w [d, d], whose i-th row scores
// feature i:
//
//	aᵢ = exp(wᵢ·u) / Σⱼ exp(wⱼ·u),  y = Σ aᵢ·uᵢ
//
// It returns y [n] and a [n, d].
func ByRows(w, u *Node) (y, a *Node) {
	check("ByRows", w, 2, u, 2)
	a = simplex.Softmax(Einsum("nd,id->ni", u, w), nil)
	return ReduceSum(Mul(a, u), -1), a
}

// ByTokens pools the token vectors of each row of u [n, l, d] by w [d]:
//
//	aₜ = exp(w·uₜ) / Σₛ exp(w·uₛ),  y = Σ aₜ·uₜ
//
// The mask, boolean [n, l], is true for tokens and false for padding; nil means all tokens.
// It returns y [n, d] and a [n, l]; both are 0 in a row without any token.
func ByTokens(w, u, mask *Node) (y, a *Node) {
	check("ByTokens", w, 1, u, 3)
	a = simplex.Softmax(Einsum("nld,d->nl", u, w), mask)
	return Einsum("nl,nld->nd", a, u), a
}

// Mean pools the token vectors of each row of u [n, l, d] by their mean: [ByTokens] with w = 0.
// The mask is as there. It returns y [n, d], 0 in a row without any token.
func Mean(u, mask *Node) *Node {
	if mask == nil {
		return ReduceMean(u, 1)
	}
	tokens := ConvertDType(mask, u.DType())
	count := MaxScalar(ReduceSum(tokens, -1), 1) // [n]
	return Mul(Einsum("nl,nld->nd", tokens, u), InsertAxes(Reciprocal(count), -1))
}

// TokensGradient returns ∂(g·y)/∂w of [ByTokens], [d], for g [n, d], as derived by hand: y is
// a mean under a, so its derivative is the covariance of the vectors under a,
//
//	∂y/∂w = Σ aₜ·(uₜ − y)·(uₜ − y)ᵀ
//
// which is why w moves fastest where attention is undecided, and not at all where one token
// has it all. Automatic differentiation gives the same (tested); this is for reading.
func TokensGradient(w, u, mask, g *Node) *Node {
	y, a := ByTokens(w, u, mask)
	centred := Sub(u, InsertAxes(y, 1)) // [n, l, d]
	along := Einsum("nld,nd->nl", centred, g)
	return Einsum("nl,nld->d", Mul(a, along), centred)
}

// CrossEntropy is the loss of binary classification with p = σ(y):
//
//	F = −1/N · Σ (tᵢ·ln pᵢ + (1−tᵢ)·ln(1−pᵢ))
//
// for logits y [n] and labels t [n], 0 or 1. (Written as −1/N·Σ ln pᵢ, pᵢ must be read as the
// probability of the true class; without the label it has no minimum but p = 1 everywhere.)
func CrossEntropy(y, labels *Node) *Node {
	// ln(1 + exp y) − t·y, without overflow.
	positive := Max(y, ZerosLike(y))
	return ReduceAllMean(Add(Sub(positive, Mul(labels, y)), Log1p(Exp(Neg(Abs(y))))))
}

// Entropy returns the entropy of softmax(logits) over the last axis, in nats.
func Entropy(logits *Node) *Node {
	p := simplex.Softmax(logits, nil)
	shifted := Sub(logits, StopGradient(ReduceAndKeep(logits, ReduceMax, -1)))
	return Sub(Log(ReduceSum(Exp(shifted), -1)), ReduceSum(Mul(p, shifted), -1))
}

func check(name string, w *Node, wRank int, u *Node, uRank int) {
	width := u.Shape().Dimensions[u.Rank()-1]
	if w.Rank() != wRank || u.Rank() != uRank || w.Shape().Dimensions[0] != width || w.Shape().Dimensions[wRank-1] != width {
		exceptions.Panicf("pooling.%s needs weights of rank %d and features of rank %d with the same width, got %s and %s", name, wRank, uRank, w.Shape(), u.Shape())
	}
}

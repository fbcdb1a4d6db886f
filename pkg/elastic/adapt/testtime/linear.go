package testtime

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Linear is a layer that learns while it reads: its state is a matrix W, which after each token
// takes one step of rate η down the loss by which the token's key should give its value, and
// then answers the token's query:
//
//	W ← W − η·∇½‖kₜ·W − vₜ‖² = W − η·kₜᵀ·(kₜ·W − vₜ)
//	yₜ = qₜ·W
//
// Queries and keys are [length, keys], values [length, values], start is the W before the
// first token, [keys, values], and rate a scalar. It returns y [length, values] and the W after
// the last token. Gradients pass through the inner steps, to everything.
//
// The steps are not made one by one. With u = vₜ − kₜ·W, for all tokens at once,
//
//	(I + η·N)·U = V − K·start,  N the strictly lower triangle of K·Kᵀ
//	y = Q·start + η·L·U,        L the lower triangle of Q·Kᵀ
//
// and (I + X)⁻¹ = Π (I + (−X)^2ⁱ) for i up to log₂ length, for powers of a strict triangle
// vanish: a few matrix products of the length. Rates with η·‖k‖² > 2 diverge, here as step by
// step. Give long texts in pieces, each with the W of the one before.
//
// Source: Sun et al. 2024, "Learning to (learn at test time): RNNs with expressive hidden
// states", TTT-Linear with mini-batch 1 and without its normalisation; the sum over all
// tokens as in Yang et al. 2024, "Parallelizing linear transformers with the delta rule".
func Linear(queries, keys, values, start, rate *Node) (y, last *Node) {
	if queries.Rank() != 2 || !queries.Shape().Equal(keys.Shape()) || values.Rank() != 2 || values.Shape().Dimensions[0] != keys.Shape().Dimensions[0] ||
		start.Rank() != 2 || start.Shape().Dimensions[0] != keys.Shape().Dimensions[1] || start.Shape().Dimensions[1] != values.Shape().Dimensions[1] || !rate.IsScalar() {
		exceptions.Panicf("testtime.Linear needs queries and keys [length, keys], values [length, values], start [keys, values] and a scalar rate, got %s, %s, %s, %s and %s",
			queries.Shape(), keys.Shape(), values.Shape(), start.Shape(), rate.Shape())
	}
	length := keys.Shape().Dimensions[0]
	square := keys.Shape().Clone() // [l, l], for all pairs of tokens
	square.Dimensions[1] = length
	row, column := Iota(keys.Graph(), square, 0), Iota(keys.Graph(), square, 1)
	below := func(x *Node, allowed *Node) *Node { return Where(allowed, x, ZerosLike(x)) }
	products := func(x *Node) *Node { return Mul(rate, Einsum("qd,kd->qk", x, keys)) }

	power := Neg(below(products(keys), GreaterThan(row, column))) // −η·N
	errors := Sub(values, MatMul(keys, start))
	for size := 1; size < length; size *= 2 {
		errors = Add(errors, MatMul(power, errors))
		power = MatMul(power, power)
	}
	y = Add(MatMul(queries, start), MatMul(below(products(queries), GreaterOrEqual(row, column)), errors))
	return y, Add(start, Mul(rate, Einsum("lk,lv->kv", keys, errors)))
}

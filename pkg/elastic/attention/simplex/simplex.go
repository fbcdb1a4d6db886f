// Package simplex turns logits into weights: softmax and its alternatives.
//
// Every function normalises the last axis of logits. The mask is boolean, true where a
// weight may be positive, and of the shape of the logits; nil allows all. Where it is
// false weights are exactly 0, and a row that it masks entirely is all zero, with zero
// gradients: no row is ever NaN. Maxima carry no gradient: they cancel, and GoMLX would give
// the full gradient to every element of a tie.
//
//	Softmax    Σ = 1, all positive
//	Sparsemax  Σ = 1, exact zeros
//	Entmax     Σ = 1, between the two by α
//	TopK       Σ = 1, the k greatest
//	OffByOne   Σ < 1, may attend to nothing
//	Sink       Σ < 1, the rest goes to a learned sink
//	Sigmoid    each weight by itself
//
// Functions build graphs and panic with an error that names the shapes, as GoMLX does.
package simplex

import (
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// floor takes the place of masked logits: finite, since −Inf would give NaN gradients in a
// row without any allowed key. Beside an allowed logit, exp takes it to exactly 0.
const floor = -1e30

// Softmax computes
//
//	aᵢ = exp(sᵢ − max s) / Σⱼ exp(sⱼ − max s), over the i and j that the mask allows
func Softmax(logits, mask *graph.Node) *graph.Node {
	e, maximum, sum := exponentials(logits, mask, nil)
	scale := graph.Reciprocal(sum)
	if mask != nil { // a row without any key has the floor as its maximum, and exp(0) everywhere
		anything := graph.GreaterThan(maximum, graph.FillScalar(logits.Graph(), maximum.Shape(), floor))
		scale = graph.Where(anything, scale, graph.ZerosLike(scale))
	}
	return graph.Mul(e, scale)
}

// OffByOne computes softmax with one more logit, which is 0 and gets no weight, so that a
// row may attend to nothing:
//
//	aᵢ = exp(sᵢ) / (1 + Σⱼ exp(sⱼ))
//
// Source: Miller 2023, "Attention is off by one".
func OffByOne(logits, mask *graph.Node) *graph.Node {
	return Sink(logits, mask, graph.ScalarZero(logits.Graph(), logits.DType()))
}

// Sink is [OffByOne] with a learned logit in place of 0; sink broadcasts to the rows,
// [..., 1].
//
// Source: OpenAI 2025, "gpt-oss" model card (learned attention sinks).
func Sink(logits, mask, sink *graph.Node) *graph.Node {
	if sink.Rank() != 0 {
		sink = graph.BroadcastToDims(sink, rows(logits)...)
	}
	e, maximum, sum := exponentials(logits, mask, sink)
	return graph.Mul(e, graph.Reciprocal(graph.Add(sum, graph.Exp(graph.Sub(sink, maximum)))))
}

// exponentials returns exp(s − m), 0 where masked, the maximum m of each row (with the
// sink, if there is one) and their sum.
func exponentials(logits, mask, sink *graph.Node) (e, maximum, sum *graph.Node) {
	logits = masked(logits, mask)
	maximum = graph.ReduceAndKeep(logits, graph.ReduceMax, -1) // [..., 1]
	if sink != nil {
		maximum = graph.Max(maximum, sink)
	}
	maximum = graph.StopGradient(maximum)
	e = graph.Exp(graph.Sub(logits, maximum))
	return e, maximum, graph.ReduceAndKeep(e, graph.ReduceSum, -1)
}

// masked puts the floor where the mask is false.
func masked(logits, mask *graph.Node) *graph.Node {
	if mask == nil {
		return logits
	}
	if !slices.Equal(mask.Shape().Dimensions, logits.Shape().Dimensions) {
		exceptions.Panicf("mask %s has not the shape of the logits %s", mask.Shape(), logits.Shape())
	}
	return graph.Where(mask, logits, graph.FillScalar(logits.Graph(), logits.Shape(), floor))
}

// rows returns the dimensions of one number a row, [..., 1].
func rows(logits *graph.Node) []int {
	dims := slices.Clone(logits.Shape().Dimensions)
	dims[len(dims)-1] = 1
	return dims
}

// Sigmoid weighs each key by itself:
//
//	aᵢ = σ(sᵢ + b)
//
// The bias broadcasts to the logits; −ln(number of keys) is where it should begin.
//
// Source: Ramapuram et al. 2025, "Theory, analysis, and best practices for sigmoid
// self-attention".
func Sigmoid(logits, mask, bias *graph.Node) *graph.Node {
	if bias.Rank() != 0 {
		bias = graph.ExpandLeftToRank(bias, logits.Rank())
	}
	weights := graph.Logistic(graph.Add(logits, bias))
	if mask == nil {
		return weights
	}
	masked(logits, mask) // checks the shape
	return graph.Where(mask, weights, graph.ZerosLike(weights))
}

// TopK is [Softmax] over the k greatest allowed logits of a row; at a tie with the last of
// them, over all that are equal to it.
//
// Source: Gupta et al. 2021, "Memory-efficient transformers via top-k attention".
func TopK(logits, mask *graph.Node, k int) *graph.Node {
	if k < 1 {
		exceptions.Panicf("top-k needs k of at least 1, got %d", k)
	}
	if k < logits.Shape().Dimensions[logits.Rank()-1] {
		kept := Greatest(masked(logits, mask), k)
		if mask == nil {
			mask = kept
		} else {
			mask = graph.LogicalAnd(mask, kept)
		}
	}
	return Softmax(logits, mask)
}

// Greatest tells which elements of the last axis are among its k greatest; all that equal
// the last of them are. It has no gradient.
func Greatest(x *graph.Node, k int) *graph.Node {
	x = graph.StopGradient(x)
	top, _ := graph.TopK(x, k, -1)
	least := graph.ReduceAndKeep(top, graph.ReduceMin, -1) // [..., 1]
	return graph.GreaterOrEqual(x, graph.BroadcastToDims(least, x.Shape().Dimensions...))
}

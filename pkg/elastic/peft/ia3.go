package peft

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// ia3 scales what a layer computes, bias included, or what it reads, by a learned vector l.
// In peft's files l is [outputs, 1] or [1, inputs].
//
// Source: Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper
// than in-context learning", section 3.3.
type ia3 struct{}

func (ia3) variables(_ Config, l layer) []elastic.Variable {
	shape := []int{l.outputs, 1}
	if l.scalesInput {
		shape = []int{1, l.inputs}
	}
	return []elastic.Variable{{Path: "ia3_l", Shape: shape, Init: elastic.Init{Value: 1}}}
}

// vector returns l for the last axis of a tensor of a rank.
func (ia3) vector(own elastic.Weights, rank int) *Node {
	return ExpandLeftToRank(Reshape(own.At("ia3_l"), -1), rank)
}

func (i ia3) dense(_ Config, l layer, own, _ elastic.Weights, x *Node, base func(x *Node) *Node, _ *dropout.Source) *Node {
	if l.scalesInput {
		return base(Mul(x, i.vector(own, x.Rank())))
	}
	return Mul(base(x), i.vector(own, x.Rank()))
}

func (i ia3) merged(_ Config, l layer, own, w elastic.Weights) (weights, bias *Node) {
	if l.scalesInput {
		return Mul(w.At("weights"), Reshape(own.At("ia3_l"), -1, 1)), w.At("bias")
	}
	return Mul(w.At("weights"), i.vector(own, 2)), Mul(w.At("bias"), i.vector(own, 1))
}

package attention

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// fromAdapter fills in the prefix that an adapter of w has for the attention, if it has one:
// flat vectors [prefix, key heads · width], below "prefix".
func (in Inputs) fromAdapter(w elastic.Weights, k, v *Node) Inputs {
	keys, values := w.In("prefix").Extra("keys"), w.In("prefix").Extra("values")
	if keys == nil {
		return in
	}
	heads := func(flat, of *Node) *Node {
		return Reshape(flat, flat.Shape().Dimensions[0], of.Shape().Dimensions[2], of.Shape().Dimensions[3])
	}
	in.PrefixKeys, in.PrefixValues = heads(keys, k), heads(values, v)
	return in
}

// prefix returns the number of keys before those of the text.
func (in Inputs) prefix() int {
	if in.PrefixKeys == nil {
		return 0
	}
	return in.PrefixKeys.Shape().Dimensions[0]
}

// prepend puts the prefix before keys and values, both [b, l, heads, width], and makes room for
// it in positions, documents and mask.
func (in Inputs) prepend(k, v *Node) (*Node, *Node, Inputs) {
	prefix := in.prefix()
	if prefix == 0 {
		return k, v, in
	}
	dims := k.Shape().Dimensions
	if got := in.PrefixKeys.Shape().Dimensions; len(got) != 3 || got[1] != dims[2] || got[2] != dims[3] {
		exceptions.Panicf("prefix keys are %s, want [prefix, %d, %d]", in.PrefixKeys.Shape(), dims[2], dims[3])
	}
	before := func(prefix, x *Node) *Node {
		p := prefix.Shape().Dimensions
		return Concatenate([]*Node{BroadcastToDims(InsertAxes(prefix, 0), dims[0], p[0], p[1], p[2]), x}, 1)
	}
	k, v = before(in.PrefixKeys, k), before(in.PrefixValues, v)
	positions := in.KeyPositions // [b or 1, l]
	numbers := Iota(k.Graph(), shapes.Make(dtypes.Int32, positions.Shape().Dimensions[0], prefix), 1)
	in.KeyPositions = Concatenate([]*Node{numbers, positions}, 1)
	if in.KeyDocuments != nil {
		in.KeyDocuments = Concatenate([]*Node{Zeros(k.Graph(), shapes.Make(dtypes.Int32, dims[0], prefix)), in.KeyDocuments}, 1)
	}
	if mask := in.Mask; mask != nil {
		mask = ExpandLeftToRank(mask, 4)
		m := mask.Shape().Dimensions
		mask = BroadcastToDims(mask, m[0], m[1], m[2], dims[1])
		in.Mask = Concatenate([]*Node{BroadcastToDims(Const(k.Graph(), true), m[0], m[1], m[2], prefix), mask}, 3)
	}
	return k, v, in
}

// seePrefix lets all queries see the prefix, whatever a mask that knows nothing of it says.
func (t *Tile) seePrefix(mask *Node) *Node {
	prefix := t.prefix()
	if prefix == 0 {
		return mask
	}
	virtual := LessThan(t.KeyPosition(), Scalar(mask.Graph(), dtypes.Int32, int32(prefix)))
	return LogicalOr(mask, BroadcastToDims(virtual, t.shape()...))
}

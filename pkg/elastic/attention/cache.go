package attention

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Cache holds the keys and values of tokens that were computed before, so that each new
// token costs one row of attention. It has a fixed number of slots, so that one compiled
// graph serves all steps; the key of position p is in slot p mod slots, and a window's cache
// is a ring.
//
//	cache := attention.NewCache(g, dtypes.Float32, spec, hidden, batch, slots)
//	result, cache := attention.Step(spec, w, x, cache, position, attention.Inputs{})
//
// Its fields are nodes: a graph for one step takes them as inputs and returns the new ones.
type Cache struct {
	Keys      *Node // [batch, slots, key heads, key width], normalised and turned
	Values    *Node // [batch, slots, key heads, value width]
	Positions *Node // int32 [1, slots]; −1 marks an empty slot
}

// NewCache returns an empty cache for self-attention by a spec over states of the width hidden.
func NewCache(g *Graph, dtype dtypes.DType, s Spec, hidden, batch, slots int) Cache {
	sizes := s.Sizes(hidden)
	width := sizes.HeadDim
	if s.Differential != nil {
		width *= 2
	}
	return Cache{
		Keys:      Zeros(g, shapes.Make(dtype, batch, slots, sizes.KVHeads, width)),
		Values:    Zeros(g, shapes.Make(dtype, batch, slots, sizes.KVHeads, sizes.ValueDim)),
		Positions: AddScalar(Zeros(g, shapes.Make(dtypes.Int32, 1, slots)), -1),
	}
}

// Slots returns how many slots a cache needs so that steps of at most tokens tokens, up to
// a text of length tokens, give what one pass over the whole text gives. It is the window,
// if the spec's mask has one, and the whole length otherwise. A spec that cannot be computed
// step by step is an error that names the part: one whose mask lets tokens see later ones, or
// that needs all rows at once.
func (s Spec) Slots(length, tokens int) (int, error) {
	if tokens < 1 || length < tokens {
		return 0, fmt.Errorf("steps of %d tokens of %d: want at least 1, and no more than the whole", tokens, length)
	}
	if err := needsCausal(s); err != nil {
		return 0, fmt.Errorf("attention.mask: a cache %w", err)
	}
	for _, p := range s.parts() {
		if _, ok := p.part.(AllRows); ok {
			return 0, fmt.Errorf("attention.%s needs all rows at once and cannot be computed step by step", p.path)
		}
	}
	if usesDocuments(s.mask()) {
		return 0, errors.New("attention.mask: a cache holds one text a row, and \"document\" tells texts apart")
	}
	back, _ := reach(s.mask())
	return min(length, back+tokens), nil
}

// AllRows is implemented by parts that need the rows of all queries at once, so that a spec
// with one cannot be computed step by step.
type AllRows interface{ NeedsAllRows() }

func usesDocuments(m Mask) bool {
	switch m := m.(type) {
	case Document:
		return true
	case All:
		return slices.ContainsFunc(m, usesDocuments)
	case Any:
		return slices.ContainsFunc(m, usesDocuments)
	case None:
		return slices.ContainsFunc(m, usesDocuments)
	}
	return false
}

// Step computes self-attention of new tokens x [batch, tokens, hidden], of which the first
// has the given position, an int32 scalar, to themselves and to all that the cache holds. It
// returns the result for the new tokens and the cache with them in it. The spec must be one
// that [Spec.Slots] accepts; in.Mask, if there is one, is about the slots: it broadcasts to
// [batch, heads, tokens, slots].
func Step(s Spec, w elastic.Weights, x *Node, cache Cache, position *Node, in Inputs) (Result, Cache) {
	if x.Rank() != 3 || position.Rank() != 0 || position.DType() != dtypes.Int32 {
		exceptions.Panicf("a step needs tokens [batch, tokens, hidden] and an int32 scalar position, got %s and %s", x.Shape(), position.Shape())
	}
	if w.In("prefix").Extra("keys") != nil {
		exceptions.Panicf("an adapter has a prefix for this attention, for which its cache has no place")
	}
	g, tokens, slots := x.Graph(), x.Shape().Dimensions[1], cache.Keys.Shape().Dimensions[1]
	if tokens > slots {
		exceptions.Panicf("a step of %d tokens does not fit a cache of %d slots", tokens, slots)
	}
	positions := Add(Iota(g, shapes.Make(dtypes.Int32, 1, tokens), 1), position) // [1, tokens]
	in.X, in.QueryPositions = x, positions

	sizes := s.Sizes(x.Shape().Dimensions[2])
	q, k, v := project(s, sizes, w, x, x)
	q, k = prepare(s, w, q, k, positions, positions)

	// Which new token, if any, is written to a slot: one-hot [slots, tokens]. A product with it
	// moves keys and values; the pure-Go backend has no dynamic update of a slice.
	slot := Sub(positions, MulScalar(quotient(positions, slots), slots))                                      // [1, tokens]
	here := Equal(Iota(g, shapes.Make(dtypes.Int32, slots, tokens), 0), BroadcastToDims(slot, slots, tokens)) // [slots, tokens]
	taken := Reshape(ReduceLogicalOr(here, 1), 1, slots)                                                      // [1, slots]
	write := func(old, fresh *Node) *Node {
		moved := Einsum("st,bthd->bshd", ConvertDType(here, fresh.DType()), fresh)
		return Where(BroadcastToDims(InsertAxes(taken, -1, -1), old.Shape().Dimensions...), moved, old)
	}
	cache = Cache{
		Keys: write(cache.Keys, k), Values: write(cache.Values, v),
		Positions: Where(taken, InsertAxes(ReduceSum(Mul(ConvertDType(here, dtypes.Int32), BroadcastToDims(positions, slots, tokens)), 1), 0), cache.Positions),
	}
	in.KeyPositions = cache.Positions
	filled := GreaterOrEqual(cache.Positions, ZerosLike(cache.Positions)) // [1, slots]
	filled = InsertAxes(filled, 1, 1)                                     // [1, 1, 1, slots]
	if in.Mask != nil {
		dims := []int{x.Shape().Dimensions[0], sizes.Heads, tokens, slots}
		filled = LogicalAnd(BroadcastToDims(filled, dims...), BroadcastToDims(in.Mask, dims...))
	}
	in.Mask = filled
	s.Execution = Execution{Kind: Naive} // there are few queries
	out := pipeline(s, sizes, w, q, cache.Keys, cache.Values, in, false)
	return output(w, out, in), cache
}

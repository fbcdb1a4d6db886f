package attention

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// TalkingHeads mixes heads before and after normalising:
//
//	s ← P·s before, a ← Q·a after, over the axis of heads
//
// P and Q are learned [heads, heads] and begin as the identity. Rows of a no longer sum to 1.
//
// Source: Shazeer et al. 2020, "Talking-heads attention".
type TalkingHeads struct{ plain }

// Kind returns "talking_heads".
func (TalkingHeads) Kind() string { return "talking_heads" }

// Variables implements [Part]: "before" and "after" [heads, heads], to and from.
func (TalkingHeads) Variables(s Sizes) []elastic.Variable {
	identity := make([]float64, s.Heads*s.Heads)
	for i := range s.Heads {
		identity[i*s.Heads+i] = 1
	}
	init := elastic.Init{Values: identity}
	return []elastic.Variable{
		{Path: "before", Shape: []int{s.Heads, s.Heads}, Init: init, Decay: true},
		{Path: "after", Shape: []int{s.Heads, s.Heads}, Init: init, Decay: true},
	}
}

// Score implements [Score].
func (TalkingHeads) Score(_ *Tile, w elastic.Weights, logits *Node) *Node {
	return Einsum("gh,bhqk->bgqk", w.At("before"), logits)
}

// Reweigh implements [Reweigher].
func (TalkingHeads) Reweigh(_ *Tile, w elastic.Weights, weights *Node) *Node {
	return Einsum("gh,bhqk->bgqk", w.At("after"), weights)
}

package attention

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Chunk lets a query attend to keys of its own chunk of Size positions: ⌊q/Size⌋ = ⌊k/Size⌋.
// Join it with [Causal] for a decoder.
//
// Source: the local layers of Meta's Llama 4 (2025).
type Chunk struct {
	Size int `json:"size"`
}

// Kind returns "chunk".
func (Chunk) Kind() string { return "chunk" }

// Validate implements [Part].
func (m Chunk) Validate(Sizes) error { return atLeast("size", m.Size, 1) }

// Variables implements [Part].
func (Chunk) Variables(Sizes) []elastic.Variable { return nil }

// Allowed implements [Mask].
func (m Chunk) Allowed(t *Tile) *Node {
	return Equal(m.number(t.QueryPosition()), m.number(t.KeyPosition()))
}

// number returns the numbers of the chunks that positions lie in, rounded down also where they are negative, as those of more
// queries than keys are.
func (m Chunk) number(position *Node) *Node {
	below := Min(Max(Neg(position), number(position, 0)), number(position, 1)) // 1 where negative, else 0
	return quotient(Sub(position, Mul(below, number(position, m.Size-1))), m.Size)
}

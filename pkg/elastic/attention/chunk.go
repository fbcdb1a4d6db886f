package attention

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Chunk lets a query attend to keys of its own chunk of Size positions: ⌊q/Size⌋ = ⌊k/Size⌋.
// Positions must not be negative. Join it with [Causal] for a decoder.
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
	return Equal(quotient(t.QueryPosition(), m.Size), quotient(t.KeyPosition(), m.Size))
}

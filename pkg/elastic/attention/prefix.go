package attention

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Prefix lets every query attend to the first Length positions, and beyond them to what
// [Causal] allows: k < Length or k ≤ q.
//
// Source: Raffel et al. 2020, "Exploring the limits of transfer learning with a unified
// text-to-text transformer", figure 4 (prefix LM).
type Prefix struct {
	Length int `json:"length"`
}

// Kind returns "prefix".
func (Prefix) Kind() string { return "prefix" }

// Validate implements [Part].
func (m Prefix) Validate(Sizes) error { return atLeast("length", m.Length, 1) }

// Variables implements [Part].
func (Prefix) Variables(Sizes) []elastic.Variable { return nil }

// Allowed implements [Mask].
func (m Prefix) Allowed(t *Tile) *Node {
	return LogicalOr(LessThan(t.KeyPosition(), number(t.KeyPositions, m.Length)), Causal{}.Allowed(t))
}

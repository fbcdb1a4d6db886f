package attention

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Causal lets a query attend to keys at its own position and before: k ≤ q. Positions
// count, not places in the tensor, so it is right for queries that continue a cache.
//
// Source: Vaswani et al. 2017, "Attention is all you need", section 3.2.3.
type Causal struct{ plain }

// Kind returns "causal".
func (Causal) Kind() string { return "causal" }

// Allowed implements [Mask].
func (Causal) Allowed(t *Tile) *Node { return LessOrEqual(t.KeyPosition(), t.QueryPosition()) }

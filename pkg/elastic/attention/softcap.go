package attention

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Softcap keeps logits within ±Limit:
//
//	s ← Limit · tanh(s / Limit)
//
// Source: Gemma Team 2024, "Gemma 2", section 2.
type Softcap struct {
	Limit float64 `json:"limit"`
}

// Kind returns "softcap".
func (Softcap) Kind() string { return "softcap" }

// Validate implements [Part].
func (p Softcap) Validate(Sizes) error {
	if !(p.Limit > 0) || math.IsInf(p.Limit, 0) {
		return fmt.Errorf("limit is %g, want a positive number", p.Limit)
	}
	return nil
}

// Variables implements [Part].
func (Softcap) Variables(Sizes) []elastic.Variable { return nil }

// Score implements [Score].
func (p Softcap) Score(_ *Tile, _ elastic.Weights, logits *Node) *Node {
	return MulScalar(Tanh(MulScalar(logits, 1/p.Limit)), p.Limit)
}

func logOr0(x float64) float64 {
	if x == 0 {
		return 0
	}
	return math.Log(x)
}

package attention

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
)

// The three parts of this file put findings about human memory and attention into the
// logits. Each is learned, one number a head, begins at Init (0: no effect), and can be
// left out by name, so that what it is worth can be measured.

// Recency forgets with a power of the distance, as human memory does:
//
//	s ← s − dₕ·ln(1 + |q − k|)     so that a is multiplied by (1 + |q − k|)^−dₕ
//
// Source: Wixted, Ebbesen 1991, "On the form of forgetting"; the logarithmic bias of Chi et
// al. 2022, "KERPLE", with r₂ = 1.
type Recency struct {
	Init float64 `json:"init,omitempty"`
}

// Kind returns "recency".
func (Recency) Kind() string { return "recency" }

// Validate implements [Part].
func (p Recency) Validate(Sizes) error { return finite("init", p.Init) }

// Variables implements [Part]: "decay" [heads].
func (p Recency) Variables(s Sizes) []elastic.Variable { return onePerHead("decay", s, p.Init) }

// Score implements [Score].
func (Recency) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	return Sub(logits, Mul(perHead(w.At("decay")), logDistance(t, t.Distance())))
}

func logDistance(t *Tile, distance *Node) *Node {
	return Log(OnePlus(ConvertDType(Abs(distance), t.Q.DType())))
}

// Salience lets some keys stand out whatever the query is:
//
//	s ← s + scale · uₕ·k
//
// u is a learned vector a head and begins at 0. With logits this is the seed's attention
// pooling, w·u, added to what the query asks for.
//
// Source: Itti, Koch 2001, "Computational modelling of visual attention" (bottom-up salience).
type Salience struct{ plain }

// Kind returns "salience".
func (Salience) Kind() string { return "salience" }

// Variables implements [Part]: "vector" [heads, head width].
func (Salience) Variables(s Sizes) []elastic.Variable {
	return []elastic.Variable{{Path: "vector", Shape: []int{s.Heads, s.HeadDim}}}
}

// Score implements [Score].
func (p Salience) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	return Add(logits, p.bias(t, w))
}

func (Salience) bias(t *Tile, w elastic.Weights) *Node {
	vector := MulScalar(w.At("vector"), t.Scale) // [h, d]: one query for all
	vector = BroadcastToDims(InsertAxes(vector, 0, 0), t.shape()[0], 1, t.Heads, t.HeadDim)
	return products(vector, t.K) // [b, h, 1, k]
}

// Inhibition lowers the logits of keys that earlier queries have attended to:
//
//	s[q, k] ← s[q, k] − βₕ · Σ_{q' < q} a⁰[q', k],  a⁰ = softmax(s) under the mask
//
// It needs a causal mask and all rows at once. Source: Posner, Cohen 1984, "Components of
// visual orienting" (inhibition of return).
type Inhibition struct {
	Init float64 `json:"init,omitempty"`
}

// Kind returns "inhibition".
func (Inhibition) Kind() string { return "inhibition" }

// Validate implements [Part].
func (p Inhibition) Validate(Sizes) error { return finite("init", p.Init) }

// Needs checks that later keys are masked.
func (Inhibition) Needs(s Spec) error { return needsCausal(s) }

// NeedsAllRows implements [AllRows].
func (Inhibition) NeedsAllRows() {}

// Variables implements [Part]: "strength" [heads].
func (p Inhibition) Variables(s Sizes) []elastic.Variable { return onePerHead("strength", s, p.Init) }

// Score implements [Score].
func (Inhibition) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	first := simplex.Softmax(logits, t.Allowed)
	return Sub(logits, Mul(perHead(w.At("strength")), before(first)))
}

func onePerHead(name string, s Sizes, value float64) []elastic.Variable {
	return []elastic.Variable{{Path: name, Shape: []int{s.Heads}, Init: elastic.Init{Value: value}}}
}

func finite(field string, value float64) error {
	if value-value != 0 {
		return fmt.Errorf("%s is %g, want a finite number", field, value)
	}
	return nil
}

package attention

import (
	"math"
	"math/bits"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// ALiBi takes from every logit a penalty linear in the distance of query and key:
//
//	s ← s − slopeₕ·|q − k|
//
// Slopes are those of [ALiBiSlopes]; with Learned they begin there and are trained. The
// distance is absolute, so encoders can use it too; under a causal mask this is the paper's form.
//
// Source: Press et al. 2022, "Train short, test long", section 3.
type ALiBi struct {
	Learned bool `json:"learned,omitempty"`
}

// Kind returns "alibi".
func (ALiBi) Kind() string { return "alibi" }

// Validate implements [Part].
func (ALiBi) Validate(Sizes) error { return nil }

// Variables implements [Part]: "slopes" [heads] if they are learned.
func (a ALiBi) Variables(s Sizes) []elastic.Variable {
	if !a.Learned {
		return nil
	}
	return []elastic.Variable{{Path: "slopes", Shape: []int{s.Heads}, Init: elastic.Init{Values: ALiBiSlopes(s.Heads)}}}
}

// Score implements [Score].
func (a ALiBi) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	distance := ConvertDType(Abs(t.Distance()), logits.DType())
	return Sub(logits, Mul(perHead(a.slopes(t, w)), distance))
}

// slopes returns the slopes [heads].
func (a ALiBi) slopes(t *Tile, w elastic.Weights) *Node {
	if a.Learned {
		return w.At("slopes")
	}
	return ConstAsDType(t.Q.Graph(), t.Q.DType(), ALiBiSlopes(t.Heads))
}

// ALiBiSlopes returns one slope per head, steepest first: 2^(−8/n), 2^(−16/n), … for n heads.
//
// If n is no power of two, the slopes of the next smaller power come first, followed by
// every other slope of the next greater power: 6 heads have those of 4 and two of those of
// 8. Programs that use 2^(−8(h+1)/n) for every n do not agree with published checkpoints.
func ALiBiSlopes(n int) []float64 {
	geometric := func(n, step, count int) []float64 {
		slopes := make([]float64, count)
		for i := range slopes {
			slopes[i] = math.Exp2(-8 * float64(1+i*step) / float64(n))
		}
		return slopes
	}
	power := 1 << (bits.Len(uint(n)) - 1)
	return append(geometric(power, 1, power), geometric(2*power, 2, n-power)...)
}

// perHead returns numbers [heads] as [1, heads, 1, 1].
func perHead(n *Node) *Node { return InsertAxes(n, 0, -1, -1) }

package attention

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Differential subtracts a second attention map, so that what both maps attend to without
// reason cancels. Queries and keys are twice as wide as HeadDim; each half has its map:
//
//	a = a₁ − λ·a₂,  λ = exp(lq₁·lk₁) − exp(lq₂·lk₂) + λ₀
//	y = RMSNorm(Σ a·v)·(1 − λ₀)      ε 1e-5, with a learned scale
//
// Source: Ye et al. 2024, "Differential transformer", section 2.1.
type Differential struct {
	// Lambda is λ₀; 0 means 0.8.
	Lambda float64 `json:"lambda,omitempty"`
}

// Kind returns "differential".
func (Differential) Kind() string { return "differential" }

func (p Differential) lambda() float64 { return orElse(p.Lambda, 0.8) }

// Validate implements [Part].
func (p Differential) Validate(Sizes) error {
	if !(p.lambda() > 0 && p.lambda() < 1) {
		return fmt.Errorf("lambda is %g, want a number between 0 and 1, or 0 for 0.8", p.Lambda)
	}
	return nil
}

// Variables implements [Part]: "query_1", "key_1", "query_2", "key_2" [head width] and
// "scale" [value width].
func (Differential) Variables(s Sizes) []elastic.Variable {
	var list []elastic.Variable
	for _, name := range []string{"query_1", "key_1", "query_2", "key_2"} {
		list = append(list, elastic.Variable{Path: name, Shape: []int{s.HeadDim}, Init: elastic.Init{Normal: 0.1}})
	}
	return append(list, elastic.Variable{Path: "scale", Shape: []int{s.ValueDim}, Init: elastic.Init{Value: 1}})
}

// weigh computes the difference of the maps of both halves of q and k [b, l, h, 2d].
func (p Differential) weigh(s Spec, t *Tile, w elastic.Weights, q, k *Node) *Node {
	maps := make([]*Node, 2)
	for i := range maps {
		t.Q, t.K = half(q, i), half(k, i)
		maps[i] = weigh(s, t, w)
	}
	return Sub(maps[0], Mul(maps[1], p.share(w)))
}

// half returns the queries or keys x [b, l, h, 2d] of one of the maps.
func half(x *Node, i int) *Node {
	width := x.Shape().Dimensions[3] / 2
	return Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(i*width, (i+1)*width))
}

// share returns λ, a scalar.
func (p Differential) share(w elastic.Weights) *Node {
	w = w.In(p.Kind())
	product := func(i string) *Node { return Exp(ReduceAllSum(Mul(w.At("query_"+i), w.At("key_"+i)))) }
	return AddScalar(Sub(product("1"), product("2")), p.lambda())
}

// halves returns the job of each map.
func (p Differential) halves(j job) (first, second job) {
	j.spec.Differential = nil
	j.spec.Scale = j.spec.scale(j.sizes)
	first, second = j, j
	first.q, first.k = half(j.q, 0), half(j.k, 0)
	second.q, second.k = half(j.q, 1), half(j.k, 1)
	return first, second
}

// norm normalises the attended values y [b, q, h, d].
func (p Differential) norm(w elastic.Weights, y *Node) *Node {
	return MulScalar(rms(y, w.At("scale"), 1e-5), 1-p.lambda())
}

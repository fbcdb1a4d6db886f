package attention

import (
	"errors"
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Rotary turns pairs of columns of queries and keys by angles that grow with position,
// so that their product depends on distance only:
//
//	(x₁, x₂) → (x₁·cos pθᵢ − x₂·sin pθᵢ, x₂·cos pθᵢ + x₁·sin pθᵢ),  θᵢ = Base^(−2i/width)
//
// Pairs are a column of the first half and its partner of the second half (as in Llama and
// GPT-NeoX), or with Interleaved two neighbours (as in the paper and GPT-J). The two differ
// only by an order of columns, but weights of one do not work with the other.
//
// Source: Su et al. 2021, "RoFormer: Enhanced transformer with rotary position embedding".
type Rotary struct {
	// Base of the wave lengths; 0 means 10000.
	Base float64 `json:"base,omitempty"`
	// Interleaved pairs neighbours.
	Interleaved bool `json:"interleaved,omitempty"`
	// Width is how many of the first columns turn; 0 means all.
	Width int `json:"width,omitempty"`
	// Scale divides positions, to read longer texts than those of training (linear position
	// interpolation, Chen et al. 2023); 0 means 1.
	Scale float64 `json:"scale,omitempty"`
}

// Kind returns "rotary".
func (Rotary) Kind() string { return "rotary" }

// Validate implements [Part].
func (r Rotary) Validate(s Sizes) error {
	var problems []error
	if r.Base != 0 && !(r.Base > 1) {
		problems = append(problems, fmt.Errorf("base is %g, want more than 1, or 0 for 10000", r.Base))
	}
	if r.Scale < 0 || math.IsNaN(r.Scale) {
		problems = append(problems, fmt.Errorf("scale is %g, want a positive number, or 0 for 1", r.Scale))
	}
	if r.Width < 0 || r.Width > s.HeadDim || r.Width%2 != 0 {
		problems = append(problems, fmt.Errorf("width is %d, want an even number up to the head width %d, or 0 for all of it", r.Width, s.HeadDim))
	} else if r.Width == 0 && s.HeadDim%2 != 0 {
		problems = append(problems, fmt.Errorf("width is 0 for the head width %d, which is odd", s.HeadDim))
	}
	return errors.Join(problems...)
}

// Variables implements [Part].
func (Rotary) Variables(Sizes) []elastic.Variable { return nil }

// Apply turns x [b, l, h, d] at positions [b or 1, l]. With a second attention map beside
// the first in x, both are turned as if they were one.
func (r Rotary) Apply(x, positions *Node) *Node {
	g, dtype, d := x.Graph(), x.DType(), x.Shape().Dimensions
	width := r.Width
	if width == 0 {
		width = d[3]
	}
	base, scale := r.Base, r.Scale
	if base == 0 {
		base = 10000
	}
	if scale == 0 {
		scale = 1
	}
	frequencies := make([]float64, width/2)
	for i := range frequencies {
		frequencies[i] = math.Pow(base, -2*float64(i)/float64(width)) / scale
	}
	angles := Mul(InsertAxes(ConvertDType(positions, dtype), -1), ExpandLeftToRank(ConstAsDType(g, dtype, frequencies), 3)) // [b, l, width/2]
	angles = InsertAxes(angles, 2)                                                                                          // [b, l, 1, width/2]
	cos, sin := Cos(angles), Sin(angles)

	turning := Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, width))
	var turned *Node
	if r.Interleaved {
		pairs := Reshape(turning, d[0], d[1], d[2], width/2, 2)
		x1, x2 := Squeeze(Slice(pairs, AxisRange().Spacer(), AxisElem(0)), -1), Squeeze(Slice(pairs, AxisRange().Spacer(), AxisElem(1)), -1)
		y1, y2 := Sub(Mul(x1, cos), Mul(x2, sin)), Add(Mul(x1, sin), Mul(x2, cos))
		turned = Reshape(Stack([]*Node{y1, y2}, -1), d[0], d[1], d[2], width)
	} else {
		x1 := Slice(turning, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, width/2))
		x2 := Slice(turning, AxisRange(), AxisRange(), AxisRange(), AxisRange(width/2, width))
		turned = Concatenate([]*Node{Sub(Mul(x1, cos), Mul(x2, sin)), Add(Mul(x2, cos), Mul(x1, sin))}, -1)
	}
	if width == d[3] {
		return turned
	}
	return Concatenate([]*Node{turned, Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(width))}, -1)
}

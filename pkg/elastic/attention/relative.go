package attention

import (
	"errors"
	"fmt"
	"math"
	"sort"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// T5Bias adds a learned number per head and bucket of distance:
//
//	s ← s + table[bucket(k − q), h]
//
// Half of the buckets are for small distances, one each, the rest grow logarithmically up
// to MaxDistance; Bidirectional splits the buckets between keys before and after the query,
// otherwise later keys share the bucket of distance 0. T5 has no 1/√width: set Scale to 1.
//
// Source: Raffel et al. 2020, "Exploring the limits of transfer learning with a unified
// text-to-text transformer", section 2.1; bucket boundaries as in the authors' program,
// which computes them in float32.
type T5Bias struct {
	Buckets       int  `json:"buckets,omitempty"`      // 0 means 32
	MaxDistance   int  `json:"max_distance,omitempty"` // 0 means 128
	Bidirectional bool `json:"bidirectional,omitempty"`
}

// Kind returns "t5_bias".
func (T5Bias) Kind() string { return "t5_bias" }

func (b T5Bias) withDefaults() T5Bias {
	if b.Buckets == 0 {
		b.Buckets = 32
	}
	if b.MaxDistance == 0 {
		b.MaxDistance = 128
	}
	return b
}

// Validate implements [Part].
func (b T5Bias) Validate(Sizes) error {
	b = b.withDefaults()
	least := 2
	if b.Bidirectional {
		least = 4
	}
	var problems []error
	if b.Buckets < least || b.Buckets%least != 0 {
		problems = append(problems, fmt.Errorf("buckets is %d, want a multiple of %d", b.Buckets, least))
	} else if err := errors.Join(atLeast("buckets", b.Buckets, least), atLeast("max_distance", b.MaxDistance, 1)); err != nil {
		problems = append(problems, err)
	} else if exact := b.Buckets / least; b.MaxDistance <= exact {
		problems = append(problems, fmt.Errorf("max_distance is %d, want more than the %d distances that have their own bucket", b.MaxDistance, exact))
	}
	return errors.Join(problems...)
}

// Variables implements [Part]: "table" [buckets, heads].
func (b T5Bias) Variables(s Sizes) []elastic.Variable {
	return []elastic.Variable{{Path: "table", Shape: []int{b.withDefaults().Buckets, s.Heads}, Init: elastic.Init{Normal: 0.02}, Decay: true}}
}

// Score implements [Score].
func (b T5Bias) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	bucket := b.bucket(Neg(t.Distance()))                 // [b or 1, 1, q, k]
	bias := Gather(w.At("table"), InsertAxes(bucket, -1)) // [b or 1, 1, q, k, h]
	bias = Squeeze(TransposeAllDims(bias, 0, 4, 2, 3, 1), -1)
	return Add(logits, bias)
}

// bucket returns the bucket of each relative position k − q.
func (b T5Bias) bucket(relative *Node) *Node {
	b = b.withDefaults()
	count, first := b.Buckets, ZerosLike(relative)
	distance := Max(Neg(relative), ZerosLike(relative))
	if b.Bidirectional {
		count /= 2
		first = MulScalar(ConvertDType(GreaterThan(relative, ZerosLike(relative)), relative.DType()), count)
		distance = Abs(relative)
	}
	// The bucket is the number of boundaries that the distance has reached.
	for _, least := range t5Boundaries(count, b.MaxDistance) {
		reached := GreaterOrEqual(distance, Scalar(distance.Graph(), distance.DType(), least))
		first = Add(first, ConvertDType(reached, relative.DType()))
	}
	return first
}

// t5Boundaries returns the least distance of each bucket but the first.
func t5Boundaries(buckets, maxDistance int) []int {
	exact := buckets / 2
	bucket := func(distance int) int {
		if distance < exact {
			return distance
		}
		large := float32(math.Log(float64(float32(distance)/float32(exact)))) / float32(math.Log(float64(maxDistance)/float64(exact))) * float32(buckets-exact)
		return min(exact+int(large), buckets-1)
	}
	boundaries := make([]int, buckets-1)
	for i := range boundaries {
		boundaries[i] = 1 + sort.Search(maxDistance, func(n int) bool { return bucket(1+n) > i })
	}
	return boundaries
}

// ShawBias adds the product of the query with a learned vector per distance:
//
//	s ← s + scale · q·r[clip(k − q, −Radius, Radius)]
//
// The vectors are shared by all heads. Source: Shaw et al. 2018, "Self-attention with relative
// position representations", equation 3, for keys only.
type ShawBias struct {
	Radius int `json:"radius"`
}

// Kind returns "shaw_bias".
func (ShawBias) Kind() string { return "shaw_bias" }

// Validate implements [Part].
func (b ShawBias) Validate(Sizes) error { return atLeast("radius", b.Radius, 1) }

// Variables implements [Part]: "table" [2·Radius+1, head width], by k − q from −Radius up.
func (b ShawBias) Variables(s Sizes) []elastic.Variable {
	return []elastic.Variable{{Path: "table", Shape: []int{2*b.Radius + 1, s.HeadDim}, Init: elastic.Init{Normal: 0.02}, Decay: true}}
}

// Score implements [Score].
func (b ShawBias) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	products := Einsum("bqhd,rd->bhqr", MulScalar(t.Q, t.Scale), w.At("table")) // one per distance: [b, h, q, 2R+1]
	relative := Neg(t.Distance())
	g, dtype := relative.Graph(), relative.DType()
	relative = Min(Max(relative, Scalar(g, dtype, -b.Radius)), Scalar(g, dtype, b.Radius))
	index := BroadcastToDims(AddScalar(relative, b.Radius), t.Q.Shape().Dimensions[0], 1, t.shape()[2], t.shape()[3]) // [b, 1, q, k]
	bias := ZerosLike(logits)
	for r := range 2*b.Radius + 1 {
		column := Slice(products, AxisRange(), AxisRange(), AxisRange(), AxisElem(r)) // [b, h, q, 1]
		here := BroadcastToDims(Equal(index, Scalar(g, dtype, r)), logits.Shape().Dimensions...)
		bias = Where(here, BroadcastToDims(column, logits.Shape().Dimensions...), bias)
	}
	return Add(logits, bias)
}

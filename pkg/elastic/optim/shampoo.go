package optim

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Shampoo multiplies the gradient along each of its k axes by an inverse root of the products of its slices, summed over
// all updates. Of a matrix g [inputs, outputs]:
//
//	L ← L + g·gᵀ     R ← R + gᵀ·g     u = L^(−1/4)·g·R^(−1/4)
//
// and −1/(2k) in place of −1/4 in general. L and R begin as ε·I. Axes longer than Limit are left alone, and k counts the
// others. The roots are new every few updates; until the first of them nothing moves. They take some 200 d³ operations for an
// axis of size d, and state is 2·d² numbers for each.
//
// Source: Gupta, Koren, Singer 2018, "Shampoo: preconditioned stochastic tensor optimization"; as in pytorch-optimizer.
type Shampoo struct {
	Epsilon float64 `json:"epsilon,omitempty"` // ε; 0 means 1e-6
	Every   int     `json:"every,omitempty"`   // updates from one root to the next; 0 means 10
	Limit   int     `json:"limit,omitempty"`   // 0 means 10000
}

// Kind returns "shampoo".
func (Shampoo) Kind() string { return "shampoo" }

// Validate reports all that is wrong with r.
func (r Shampoo) Validate() error {
	var c check
	c.positive("epsilon", r.Epsilon)
	c.positive("every", float64(r.Every))
	c.positive("limit", float64(r.Limit))
	return c.err()
}

// axes returns those of a shape that are no longer than a limit.
func axes(shape []int, limit int) []int {
	var list []int
	for a, d := range shape {
		if float64(d) <= or(float64(limit), 10000) {
			list = append(list, a)
		}
	}
	return list
}

func axisSlot(name string, axis int) string { return fmt.Sprintf("%s_%d", name, axis) }

// Slots returns the sums of products, from which ε is left out, and the roots.
func (r Shampoo) Slots(p elastic.Variable) []Slot {
	var slots []Slot
	for _, a := range axes(p.Shape, r.Limit) {
		shape := []int{p.Shape[a], p.Shape[a]}
		slots = append(slots, Slot{Name: axisSlot("gram", a), Shape: shape}, Slot{Name: axisSlot("root", a), Shape: shape})
	}
	return slots
}

// every returns a scalar that is due, an int32, in updates whose number t is a multiple of n, else 0.
func every(t *Node, n, due int) *Node {
	rest := Sub(t, MulScalar(Floor(DivScalar(t, float64(n))), float64(n)))
	return MulScalar(ConvertDType(Equal(rest, ZerosLike(rest)), dtypes.Int32), float64(due))
}

// bySize gathers the square matrices of parameters' axes by what they have in common, so that they can be computed in one.
type bySize[K comparable] struct {
	keys []K
	of   map[K][]place
}

// place is an axis of a parameter of a step.
type place struct{ parameter, axis int }

func (b *bySize[K]) add(key K, p place) {
	if b.of == nil {
		b.of = map[K][]place{}
	}
	if b.of[key] == nil {
		b.keys = append(b.keys, key)
	}
	b.of[key] = append(b.of[key], p)
}

// stacked returns the matrices of a slot at some places, [k, n, n].
func (s *Step) stacked(name string, places []place) *Node {
	list := make([]*Node, len(places))
	for k, p := range places {
		list[k] = s.Slot(axisSlot(name, p.axis), p.parameter)
	}
	return Stack(list, 0)
}

// unstack puts them back.
func (s *Step) unstack(name string, places []place, all *Node) {
	for k, p := range places {
		s.SetSlot(axisSlot(name, p.axis), p.parameter, Squeeze(Slice(all, AxisElem(k)), 0))
	}
}

// newtonRounds is more than Newton's iteration needs for any matrix.
const newtonRounds = 100

// Apply multiplies by the roots.
func (r Shampoo) Apply(s *Step) {
	type key struct{ size, root int }
	var groups bySize[key]
	for i, g := range s.Updates {
		list := axes(s.Parameters[i].Shape, r.Limit)
		for _, a := range list {
			name := axisSlot("gram", a)
			s.SetSlot(name, i, Add(s.Slot(name, i), gram(g, a)))
			groups.add(key{g.Shape().Dimensions[a], 2 * len(list)}, place{i, a})
		}
	}
	due := every(s.Number, int(or(float64(r.Every), 10)), newtonRounds)
	for _, k := range groups.keys {
		places := groups.of[k]
		sums := s.stacked("gram", places)
		sums = Add(sums, InsertAxes(MulScalar(identity(sums, k.size), or(r.Epsilon, 1e-6)), 0))
		s.unstack("root", places, inverseRoots(sums, s.stacked("root", places), k.root, due))
	}
	for i, g := range s.Updates {
		s.Updates[i] = s.through(g, func(axis int) *Node { return s.Slot(axisSlot("root", axis), i) }, axes(s.Parameters[i].Shape, r.Limit))
	}
}

// through multiplies x along the listed axes by matrices.
func (s *Step) through(x *Node, matrix func(axis int) *Node, list []int) *Node {
	for a := range x.Rank() {
		var m *Node
		if slices.Contains(list, a) {
			m = matrix(a)
		}
		x = along(x, m)
	}
	return x
}

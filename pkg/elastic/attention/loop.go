package attention

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// blocks is a tensor cut along its first axis, as the body of a loop sees it.
type blocks interface {
	// at returns block i, without the first axis.
	at(i index) *Node
	// set replaces block i.
	set(i index, value *Node)
}

// index is a block's number: a node in a loop, a number where the loop is unrolled.
type index struct {
	node  *Node
	fixed int
}

// linear returns a·x + b·y + c.
func linear(a int, x index, b int, y index, c int) index {
	if x.node == nil {
		return index{fixed: a*x.fixed + b*y.fixed + c}
	}
	return index{node: Add(Add(Mul(x.node, number(x.node, a)), Mul(y.node, number(y.node, b))), number(x.node, c))}
}

// lanes says in how many groups the texts of a batch and the heads are cut; the blocks that a step of a loop sees are of one group of
// each. Several lanes go one after the other, so that what a step works on stays within the cache.
type lanes struct{ batches, heads int }

// stack is a tensor whose first axis counts its blocks: of each group of texts, if it has them, of each group of heads, if it has
// those, in this order.
type stack struct {
	node           *Node
	batches, heads bool
}

// overPairs runs body for each lane and each pair (i, j) of block numbers, in turn. The body reads inputs and
// changes state; the state's last value is returned. It has no gradient.
//
// Where the backend can, it is one loop in the graph, so that neither the time to compile nor
// memory grow with the number of pairs. The body then must be built with care, for GoMLX 0.28
// shares some nodes between a loop's body and the graph around it, which XLA refuses: constants
// only by [number], no reductions and nothing that makes scalars of its own (ZerosLike, MulScalar).
// The pure-Go backend has no update of a slice, and its loops can hang: there it is unrolled, for
// a single lane.
func overPairs(l lanes, pairs [][2]int, inputs, state []stack, body func(inputs, state []blocks, i, j index)) []*Node {
	g := inputs[0].node.Graph()
	if !canLoop(g.Backend()) {
		return unrolled(pairs, inputs, state, body)
	}
	flat := make([][]int32, len(pairs))
	for p, pair := range pairs {
		flat[p] = []int32{int32(pair[0]), int32(pair[1])}
	}
	stacks := slices.Concat(inputs, state)
	all := []*Node{Const(g, int32(0)), Const(g, flat)}
	for _, s := range stacks {
		all = append(all, s.node)
	}
	parameters := func(g *Graph) []*Node {
		list := make([]*Node, len(all))
		for i, n := range all {
			list[i] = Parameter(g, fmt.Sprintf("state_%d", i), n.Shape())
		}
		return list
	}
	steps := l.batches * l.heads * len(pairs)
	condition := NewClosure(g, func(g *Graph) []*Node {
		return []*Node{LessThan(parameters(g)[0], Const(g, int32(steps)))}
	})
	step := NewClosure(g, func(g *Graph) []*Node {
		now := parameters(g)
		zero := Const(g, int32(0))
		turn, batch, heads := now[0], zero, zero
		if l.batches*l.heads > 1 {
			lane := quotient(now[0], len(pairs))
			turn, batch, heads = Mod(now[0], number(zero, len(pairs))), quotient(lane, l.heads), Mod(lane, number(zero, l.heads))
		}
		pair := DynamicSlice(now[1], []*Node{turn, zero}, []int{1, 2})
		at := func(k int) index { return index{node: Reshape(Slice(pair, AxisElem(0), AxisElem(k)))} }
		wrapped := make([]blocks, len(stacks))
		for i, s := range stacks {
			w := &whole{node: &now[2+i]}
			count := s.node.Shape().Dimensions[0]
			if s.batches && l.batches > 1 {
				count /= l.batches
				w.groups = append(w.groups, group{batch, count})
			}
			if s.heads && l.heads > 1 {
				count /= l.heads
				w.groups = append(w.groups, group{heads, count})
			}
			wrapped[i] = w
		}
		body(wrapped[:len(inputs)], wrapped[len(inputs):], at(0), at(1))
		now[0] = Add(now[0], Const(g, int32(1)))
		return now
	})
	return While(condition, step, all...)[2+len(inputs):]
}

// canLoop tells whether a backend runs loops that update slices.
func canLoop(backend compute.Backend) bool {
	return backend.Capabilities().Operations[compute.OpTypeDynamicUpdateSlice]
}

// whole reads and writes blocks of a tensor in a loop.
type whole struct {
	node   **Node
	groups []group
}

// group says which group a step works on, and how many blocks each has.
type group struct {
	number *Node
	blocks int
}

func (w *whole) starts(i index) []*Node {
	first := i.node
	for _, g := range w.groups {
		first = Add(first, Mul(g.number, number(first, g.blocks)))
	}
	starts := []*Node{first}
	for range (*w.node).Rank() - 1 {
		starts = append(starts, Const(i.node.Graph(), int32(0)))
	}
	return starts
}

func (w *whole) at(i index) *Node {
	dims := slices.Clone((*w.node).Shape().Dimensions)
	dims[0] = 1
	return Reshape(DynamicSlice(*w.node, w.starts(i), dims), dims[1:]...)
}

func (w *whole) set(i index, value *Node) {
	dims := slices.Concat([]int{1}, value.Shape().Dimensions)
	*w.node = DynamicUpdateSlice(*w.node, Reshape(value, dims...), w.starts(i))
}

// pieces holds blocks as separate nodes.
type pieces []*Node

func (p pieces) at(i index) *Node         { return p[i.fixed] }
func (p pieces) set(i index, value *Node) { p[i.fixed] = value }

func unrolled(pairs [][2]int, inputs, state []stack, body func(inputs, state []blocks, i, j index)) []*Node {
	cut := func(list []stack) ([]blocks, []pieces) {
		as, of := make([]blocks, len(list)), make([]pieces, len(list))
		for i, s := range list {
			dims := s.node.Shape().Dimensions
			for b := range dims[0] {
				of[i] = append(of[i], Reshape(Slice(s.node, AxisElem(b)), dims[1:]...))
			}
			as[i] = of[i]
		}
		return as, of
	}
	in, _ := cut(inputs)
	st, of := cut(state)
	for _, pair := range pairs {
		body(in, st, index{fixed: pair[0]}, index{fixed: pair[1]})
	}
	out := make([]*Node, len(state))
	for i, p := range of {
		out[i] = Stack(p, 0)
	}
	return out
}

// number returns a constant of the type of like, for use with it. It is a node of its own
// wherever it is used, as loops need it; see [overPairs].
func number[T int | float64](like *Node, value T) *Node {
	return ConstAsDType(like.Graph(), like.DType(), value)
}

// rowSum returns the sum over the last axis of x [b, h, q, k], as [b, h, q, 1].
func rowSum(x *Node) *Node {
	return InsertAxes(Einsum("bhqk,k->bhq", x, vector(x, x.Shape().Dimensions[3], 1)), -1)
}

// rowMax returns the maximum over the last axis of x, as [..., 1].
func rowMax(x *Node) *Node {
	for width := x.Shape().Dimensions[x.Rank()-1]; width > 1; width = (width + 1) / 2 {
		half := (width + 1) / 2
		x = Max(Slice(x, AxisRange().Spacer(), AxisRange(0, half)), Slice(x, AxisRange().Spacer(), AxisRange(width-half, width)))
	}
	return x
}

// vector returns a constant vector.
func vector(like *Node, size int, value float64) *Node {
	return BroadcastToShape(number(like, value), shapes.Make(like.DType(), size))
}

// arange returns first, first + step, … as int32 [size].
func arange(g *Graph, first, step, size int) *Node {
	n := Iota(g, shapes.Make(dtypes.Int32, size), 0)
	return Add(Mul(n, number(n, step)), number(n, first))
}

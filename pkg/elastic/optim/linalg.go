package optim

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// GoMLX has neither eigenvectors nor roots of matrices. What is here is made of products, of whole batches of
// matrices of one size [k, n, n], in loops of the graph that make no round at all in updates that need none.
//
// The body of a loop must be built with care, for GoMLX 0.28 shares some nodes between it and the graph around it,
// which XLA refuses: constants only by [number], sums only as products with them, and nothing that makes scalars
// of its own (ZerosLike, MulScalar).

// loop applies body to state count times, an int32 scalar, or fewer if untilZero is set and the last of state, a scalar, is 0.
func loop(count *Node, untilZero bool, state []*Node, body func(i *Node, state []*Node) []*Node) []*Node {
	g := count.Graph()
	all := append([]*Node{Const(g, int32(0)), count}, state...)
	parameters := func(g *Graph) []*Node {
		list := make([]*Node, len(all))
		for i, n := range all {
			list[i] = Parameter(g, fmt.Sprintf("state_%d", i), n.Shape())
		}
		return list
	}
	condition := NewClosure(g, func(g *Graph) []*Node {
		now := parameters(g)
		more := LessThan(now[0], now[1])
		if last := now[len(now)-1]; untilZero {
			more = LogicalAnd(more, GreaterThan(last, number(last, 0)))
		}
		return []*Node{more}
	})
	step := NewClosure(g, func(g *Graph) []*Node {
		now := parameters(g)
		return append([]*Node{Add(now[0], number(now[0], 1)), now[1]}, body(now[0], now[2:])...)
	})
	return While(condition, step, all...)[2:]
}

// number returns a constant of the type of like: a node of its own wherever it is used.
func number(like *Node, value float64) *Node { return ConstAsDType(like.Graph(), like.DType(), value) }

// ones returns a constant vector.
func ones(like *Node, size int) *Node {
	return BroadcastToShape(number(like, 1), shapes.Make(like.DType(), size))
}

// identity returns the identity matrix [n, n].
func identity(like *Node, n int) *Node {
	shape := shapes.Make(dtypes.Int32, n, n)
	return ConvertDType(Equal(Iota(like.Graph(), shape, 0), Iota(like.Graph(), shape, 1)), like.DType())
}

// product multiplies matrices of a batch.
func product(x, y *Node) *Node { return Einsum("kij,kjl->kil", x, y) }

// precision is the relative precision of numbers of x's type.
func precision(x *Node) float64 {
	if x.DType() == dtypes.Float64 {
		return 0x1p-53
	}
	return 0x1p-24
}

// tiny keeps divisors from 0.
const tiny = 1e-30

// panel is how many columns are made orthogonal at a time.
const panel = 8

// orthogonalIteration makes rounds of Q ← orthogonal factor of M·Q, of matrices M [k, n, n], symmetric without
// negative eigenvalues, and orthogonal Q; rounds is an int32 scalar. The columns of Q turn to the eigenvectors of
// M, the greatest eigenvalue first: as fast as the ratios of neighbouring eigenvalues are small.
//
// A round is a block Gram-Schmidt, each panel of columns twice, since twice is enough. What M has no length for
// keeps its direction: M is shifted by some units of precision.
//
// Source: Golub, Van Loan 2013, "Matrix computations", sections 5.2.9 and 8.2.4.
func orthogonalIteration(m, q, rounds *Node) *Node {
	n := m.Shape().Dimensions[1]
	b := min(panel, n)
	panels := (n + b - 1) / b
	trace := ReduceSum(Mul(m, InsertAxes(identity(m, n), 0)), 1, 2)
	m = Div(m, InsertAxes(AddScalar(trace, tiny), 1, 2))
	m = Add(m, InsertAxes(MulScalar(identity(m, n), 64*precision(m)), 0))
	count := MulScalar(rounds, float64(panels))
	return loop(count, false, []*Node{q, ZerosLike(q), m}, func(i *Node, state []*Node) []*Node {
		old, now, m := state[0], state[1], state[2]
		g := i.Graph()
		at := Sub(i, Mul(Div(i, number(i, float64(panels))), number(i, float64(panels)))) // number of the panel
		start := Min(Mul(at, number(i, float64(b))), number(i, float64(n-b)))             // the last may overlap
		rows := Iota(g, shapes.Make(dtypes.Int32, n, b), 0)
		chosen := ConvertDType(Equal(rows, Add(Iota(g, shapes.Make(dtypes.Int32, n, b), 1), start)), m.DType())
		before := ConvertDType(LessThan(Iota(g, shapes.Make(dtypes.Int32, 1, 1, n), 2), start), m.DType())
		done := Mul(now, before)
		x := product(m, Einsum("kij,jb->kib", old, chosen))
		for range 2 {
			x = Sub(x, product(done, Einsum("kji,kjb->kib", done, x)))
			x = gramSchmidt(x)
		}
		others := Sub(number(m, 1), Einsum("jb,b->j", chosen, ones(m, b)))
		now = Add(Mul(now, InsertAxes(others, 0, 0)), Einsum("kib,jb->kij", x, chosen))
		last := Equal(at, number(at, float64(panels-1)))
		return []*Node{Where(last, now, old), now, m}
	})[0]
}

// gramSchmidt makes the columns of x [k, n, b] orthonormal, one after the other.
func gramSchmidt(x *Node) *Node {
	width := x.Shape().Dimensions[2]
	columns := make([]*Node, width)
	for j := range width {
		c := Slice(x, AxisRange(), AxisRange(), AxisRange(0, 1))
		length := Sqrt(Add(Einsum("kib,kib->kb", c, c), number(x, tiny)))
		c = Div(c, InsertAxes(length, 1))
		columns[j] = c
		if j < width-1 {
			x = Slice(x, AxisRange(), AxisRange(), AxisRange(1, width-j))
			x = Sub(x, product(c, Einsum("kib,kij->kbj", c, x)))
		}
	}
	return Concatenate(columns, 2)
}

// sorted returns Q with its columns in the order of qᵀ·M·q, the greatest first, and that order [k, n], in m's type; both only
// if count, an int32 scalar, is 1, else Q as it is and 0, 1, ….
func sorted(m, q, count *Node) (basis, order *Node) {
	k, n := m.Shape().Dimensions[0], m.Shape().Dimensions[1]
	order = Iota(m.Graph(), shapes.Make(m.DType(), k, n), 1)
	out := loop(count, false, []*Node{q, order, m}, func(_ *Node, state []*Node) []*Node {
		q, m := state[0], state[2]
		g := q.Graph()
		length := Einsum("kij,kij->kj", q, product(m, q))
		own, other := InsertAxes(length, 2), InsertAxes(length, 1) // [k, n, 1], [k, 1, n]
		shape := shapes.Make(dtypes.Int32, 1, n, n)
		first := LogicalAnd(Equal(other, own), LessThan(Iota(g, shape, 2), Iota(g, shape, 1)))
		ahead := ConvertDType(LogicalOr(GreaterThan(other, own), first), m.DType())
		rank := Einsum("kij,j->ki", ahead, ones(m, n))
		place := ConvertDType(Equal(InsertAxes(rank, 2), Iota(g, shapes.Make(m.DType(), 1, 1, n), 2)), m.DType()) // [k, from, to]
		return []*Node{product(q, place), Einsum("i,kij->kj", Iota(g, shapes.Make(m.DType(), n), 0), place), m}
	})
	return out[0], out[1]
}

// inverseRoots returns A^(−1/p) of matrices A [k, n, n], symmetric with positive eigenvalues, by the coupled iteration of Newton,
//
//	T = ((p+1)·I − M)/p     X ← X·T     M ← Tᵖ·M     from M = A/‖A‖ and X = ‖A‖^(−1/p)·I
//
// until M is no nearer to I: then X is the root. It is made if count, the greatest number of rounds, an int32 scalar, is
// not 0; else old is returned. Eigenvalues below some units of precision of the norm count as those.
//
// Source: Guo, Higham 2006, "A Schur–Newton method for the matrix pth root and its inverse", section 3; Anil et al. 2020,
// "Scalable second order optimization for deep learning".
func inverseRoots(a, old *Node, p int, count *Node) *Node {
	n := a.Shape().Dimensions[1]
	i := InsertAxes(identity(a, n), 0)
	size := InsertAxes(Sqrt(ReduceSum(Square(a), 1, 2)), 1, 2)
	m := Add(Div(a, size), MulScalar(i, 16*precision(a)))
	x := Mul(i, Pow(size, ScalarOf(size, -1/float64(p))))
	distance := func(m *Node) *Node {
		d := Sub(m, InsertAxes(identity(m, n), 0))
		return Einsum("kij,kij->k", d, d)
	}
	due := GreaterThan(count, ZerosLike(count))
	out := loop(count, true, []*Node{m, x, distance(m), ScalarOf(m, 1)}, func(_ *Node, state []*Node) []*Node {
		m, x, far := state[0], state[1], state[2]
		t := Div(Sub(Mul(InsertAxes(identity(m, n), 0), number(m, float64(p+1))), m), number(m, float64(p)))
		next := product(raised(t, p), m)
		now := distance(next)
		nearer := LessThan(now, far)
		kept := func(x, old *Node) *Node {
			return Where(BroadcastToDims(InsertAxes(nearer, 1, 2), x.Shape().Dimensions...), x, old)
		}
		going := ConvertDType(nearer, m.DType())
		return []*Node{kept(next, m), kept(product(x, t), x), Where(nearer, now, far), Einsum("k,k->", going, going)}
	})
	return Where(due, out[1], old)
}

// raised returns tᵖ of a batch of matrices.
func raised(t *Node, p int) *Node {
	switch {
	case p == 1:
		return t
	case p%2 == 1:
		return product(raised(t, p-1), t)
	}
	half := raised(t, p/2)
	return product(half, half)
}

// gram returns the products of the slices of x along an axis with each other, [d, d].
func gram(x *Node, axis int) *Node {
	var others []int
	for a := range x.Rank() {
		if a != axis {
			others = append(others, a)
		}
	}
	return DotGeneral(x, others, nil, x, others, nil)
}

// along multiplies x along its first axis by a matrix [d, e] and makes that axis the last; without a matrix it only does that. After as
// many as x has axes they are in their order again.
func along(x, matrix *Node) *Node {
	if matrix == nil {
		order := make([]int, x.Rank())
		for a := range order {
			order[a] = (a + 1) % x.Rank()
		}
		return TransposeAllDims(x, order...)
	}
	return DotGeneral(x, []int{0}, nil, matrix, []int{0}, nil)
}

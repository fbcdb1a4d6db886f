package schedule

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// number is a float64, or a float64 scalar of a graph. Schedules are written once, over
// numbers: from a step that is a float64 they compute a rate, from a node they build it.
type number any

// boundary is the share of a cycle by which a step may lie before the cycle's end and
// still count as the first of the next one. Divisions differ in the last bit between
// the host, backends and packages; without it that bit could decide between the highest
// and the lowest rate.
const boundary = 1e-9

func add(x, y number) number {
	return binary(x, y, func(x, y float64) float64 { return x + y }, Add)
}

func sub(x, y number) number {
	return binary(x, y, func(x, y float64) float64 { return x - y }, Sub)
}

func mul(x, y number) number {
	return binary(x, y, func(x, y float64) float64 { return x * y }, Mul)
}

func div(x, y number) number {
	return binary(x, y, func(x, y float64) float64 { return x / y }, Div)
}

func pow(x, y number) number     { return binary(x, y, math.Pow, Pow) }
func minimum(x, y number) number { return binary(x, y, math.Min, Min) }
func maximum(x, y number) number { return binary(x, y, math.Max, Max) }

func cos(x number) number  { return unary(x, math.Cos, Cos) }
func tanh(x number) number { return unary(x, math.Tanh, Tanh) }
func sqrt(x number) number { return unary(x, math.Sqrt, Sqrt) }
func log(x number) number  { return unary(x, math.Log, Log) }

// whole is the number of cycles that are over after a time of x cycles.
func whole(x number) number { return unary(add(x, boundary), math.Floor, Floor) }

// less is then where x < y, else otherwise.
func less(x, y, then, otherwise number) number {
	a, xIsHost := x.(float64)
	b, yIsHost := y.(float64)
	if xIsHost && yIsHost {
		if a < b {
			return then
		}
		return otherwise
	}
	g := graphOf(x, y)
	return Where(LessThan(inGraph(g, x), inGraph(g, y)), inGraph(g, then), inGraph(g, otherwise))
}

func unary(x number, host func(x float64) float64, build func(x *Node) *Node) number {
	if x, ok := x.(float64); ok {
		return host(x)
	}
	return build(x.(*Node))
}

func binary(x, y number, host func(x, y float64) float64, build func(x, y *Node) *Node) number {
	a, xIsHost := x.(float64)
	b, yIsHost := y.(float64)
	if xIsHost && yIsHost {
		return host(a, b)
	}
	g := graphOf(x, y)
	return build(inGraph(g, x), inGraph(g, y))
}

func graphOf(x, y number) *Graph {
	if node, ok := x.(*Node); ok {
		return node.Graph()
	}
	return y.(*Node).Graph()
}

func inGraph(g *Graph, x number) *Node {
	if x, ok := x.(float64); ok {
		return Const(g, x)
	}
	return x.(*Node)
}

// at evaluates an expression on the host.
func at(rate func(step number) number, step int) float64 {
	return rate(float64(step)).(float64)
}

// node builds an expression.
func node(rate func(step number) number, step *Node) *Node {
	if step.DType() != dtypes.Float64 || !step.IsScalar() {
		exceptions.Panicf("a schedule needs a float64 scalar for the step, got %s", step.Shape())
	}
	return inGraph(step.Graph(), rate(step))
}

// rateOf is the rate of any schedule at a step, which is whole.
func rateOf(s Schedule, step number) number {
	if step, ok := step.(float64); ok {
		return s.At(int(math.Round(step)))
	}
	return s.Node(step.(*Node))
}

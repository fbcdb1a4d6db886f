package attention

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Statistics says how weights are spread, without a matrix of them. Weights of a row without any
// key are 0, and so are its entropy and support.
type Statistics struct {
	// Entropy is −Σ |a|·ln |a| of each row's weights, in nats, [batch, heads, queries]; weights are
	// negative only with [Differential].
	Entropy *Node
	// Support is the number of keys whose weight is not 0, [batch, heads, queries]: rows are
	// sparse if it is less than the number of keys that they may attend to.
	Support *Node
	// Mass is the weight that each key gets, summed over queries, [batch, heads, keys].
	Mass *Node
}

// statisticsOf computes the statistics of weights [b, h, q, k].
func statisticsOf(weights *Node) Statistics {
	size := Abs(weights)
	positive := GreaterThan(size, ZerosLike(size))
	logs := Log(Where(positive, size, OnesLike(size)))
	return Statistics{
		Entropy: Neg(ReduceSum(Mul(size, logs), -1)),
		Support: ReduceSum(ConvertDType(positive, weights.DType()), -1),
		Mass:    ReduceSum(weights, 2),
	}
}

// statistics goes over the rows some at a time, whatever the execution, unless a part needs all rows
// at once.
func (j job) statistics() *Statistics {
	j.in.Drop = nil // weights are from before dropout
	if rowwise(j.spec) != nil {
		weights, _ := j.matrix()
		whole := statisticsOf(weights)
		return &whole
	}
	var total Statistics
	var entropies, supports []*Node
	size := j.block(j.rowsAtATime())
	for first := 0; first < j.queries(); first += size {
		c, low := j.chunk(first, min(first+size, j.queries()))
		if total.Mass != nil {
			c.q = SchedulingBarrier(c.q, total.Mass)
		}
		weights, _ := c.matrix()
		s := statisticsOf(weights)
		entropies, supports = append(entropies, s.Entropy), append(supports, s.Support)
		total.Mass = elastic.AddIf(total.Mass, pad(s.Mass, 2, low, j.keys()-low-c.keys()))
	}
	total.Entropy, total.Support = Concatenate(entropies, -1), Concatenate(supports, -1)
	return &total
}

// rowsOf computes the weights of some queries only, [b, h, len(rows), k].
func (j job) rowsOf(rows []int) *Node {
	j.in.Drop = nil
	pick := func(x *Node, axis int) *Node {
		if x == nil || x.Shape().Dimensions[axis] == 1 {
			return x
		}
		var list []*Node
		for _, row := range rows {
			list = append(list, SliceAxis(x, axis, AxisElem(row)))
		}
		return Concatenate(list, axis)
	}
	if rowwise(j.spec) != nil {
		weights, _ := j.matrix()
		return pick(weights, 2)
	}
	j.q, j.in.X = pick(j.q, 1), pick(j.in.X, 1)
	j.in.QueryPositions, j.in.QueryDocuments = pick(j.in.QueryPositions, 1), pick(j.in.QueryDocuments, 1)
	if j.in.Mask != nil {
		j.in.Mask = pick(ExpandLeftToRank(j.in.Mask, 4), 2)
	}
	weights, _ := j.matrix()
	return weights
}

package interpret

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Features names what [Profile] measures of a head, in its order, each a mean over queries:
//
//	entropy    of the weights, in nats
//	sparsity   share of the tokens that get no weight at all
//	greatest   the greatest weight
//	distance   |q − k| under the weights
//	self, previous, next, first    the weight on the query's own position, on its two
//	           neighbours, and on the first position (of BERT, [CLS])
//
// The last name is that of the count: how many queries the sums are over.
var Features = []string{"entropy", "sparsity", "greatest", "distance", "self", "previous", "next", "first", "queries"}

// Profile sums the [Features] of each head over the queries of a batch, [heads, features], so
// that sums over many batches can be divided by the last column. Weights are those of one
// layer, [batch, heads, length, length]; tokens, int32 [batch, length], is 1 for a token and 0
// for padding, which counts neither as a query nor as a key.
func Profile(weights, tokens *Node) *Node {
	if weights.Rank() != 4 || tokens.Rank() != 2 || weights.Shape().Dimensions[3] != tokens.Shape().Dimensions[1] {
		exceptions.Panicf("a profile needs weights [batch, heads, length, length] and tokens [batch, length], got %s and %s", weights.Shape(), tokens.Shape())
	}
	g, dtype := weights.Graph(), weights.DType()
	length := tokens.Shape().Dimensions[1]
	real := ConvertDType(tokens, dtype)
	queries := InsertAxes(real, 1) // [b, 1, q]
	keys := InsertAxes(real, 1, 1) // [b, 1, 1, k]
	visible := ReduceSum(keys, -1) // [b, 1, 1]
	a := Mul(weights, keys)        // [b, h, q, k]
	square := shapes.Make(dtypes.Int32, 1, 1, length, length)
	back := Sub(Iota(g, square, 2), Iota(g, square, 3)) // q − k
	at := func(which *Node) *Node {                     // the weight where which is true
		return ReduceSum(Mul(a, ConvertDType(which, dtype)), -1)
	}
	offset := func(n int) *Node { return at(Equal(back, Scalar(g, dtypes.Int32, n))) }
	none := Mul(ConvertDType(Equal(a, ZerosLike(a)), dtype), keys)
	list := []*Node{
		Entropy(a),
		Mul(ReduceSum(none, -1), Reciprocal(MaxScalar(visible, 1))),
		ReduceMax(a, -1),
		ReduceSum(Mul(a, ConvertDType(Abs(back), dtype)), -1),
		offset(0), offset(1), offset(-1),
		at(Equal(Iota(g, square, 3), ZerosLike(back))),
		OnesLike(ReduceMax(a, -1)),
	}
	features := Mul(Stack(list, -1), InsertAxes(queries, -1)) // [b, h, q, features]
	return ReduceSum(features, 0, 2)
}

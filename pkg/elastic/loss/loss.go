// Package loss has training losses as graph functions.
//
// Each returns the sum over the targets that count and their number, not the mean,
// so that gradients of micro-batches of unequal size add up to the gradient of the
// large batch; the training loop divides once.
package loss

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Ignored is the label of a position that takes no part in a loss: padding, special
// tokens, and the second and later subwords of a word.
const Ignored = -100

// CrossEntropy computes, over the targets whose label is not [Ignored],
//
//	sum = Σ −log softmax(logits)[label],  count = number of such targets
//
// Logits are [..., classes] and labels int32 of the same shape without the last
// axis, each Ignored or in [0, classes). Both results are float32 scalars; with no
// target both are 0. A label outside the range is not seen by the graph: check
// labels where they are made.
func CrossEntropy(logits, labels *Node) (sum, count *Node) {
	rank := labels.Rank()
	if logits.Rank() != rank+1 || labels.DType() != dtypes.Int32 {
		exceptions.Panicf("cross-entropy needs logits [..., classes] and int32 labels [...], got %s and %s", logits.Shape(), labels.Shape())
	}
	logits = ConvertDType(logits, dtypes.Float32) // losses stay in float32 under half precision
	maximum := StopGradient(ReduceAndKeep(logits, ReduceMax, -1))
	shifted := Sub(logits, maximum)
	logNorm := Log(ReduceSum(Exp(shifted), -1)) // [...]

	labels = InsertAxes(labels, -1) // [..., 1]
	shape := logits.Shape().Clone()
	shape.DType = dtypes.Int32
	classes := Iota(logits.Graph(), shape, rank)
	chosen := Equal(classes, BroadcastToDims(labels, logits.Shape().Dimensions...))
	target := ReduceSum(Where(chosen, shifted, ZerosLike(shifted)), -1) // [...]

	counts := Squeeze(NotEqual(labels, FillScalar(labels.Graph(), labels.Shape(), Ignored)), -1)
	losses := Sub(logNorm, target)
	sum = ReduceAllSum(Where(counts, losses, ZerosLike(losses)))
	count = ReduceAllSum(ConvertDType(counts, dtypes.Float32))
	return sum, count
}

// Package loss has training losses as graph functions, and a [Config] that chooses among them as
// plain data.
//
// Each returns the sum over the targets that count and their number, not the mean, so that
// gradients of micro-batches of unequal size add up to the gradient of the large batch; the
// training loop divides once. Where classes have weights, the number is the sum of the weights of
// the targets, so that the loop's quotient is the weighted mean, as it is in PyTorch.
//
//	criterion, err := loss.Config{LabelSmoothing: 0.1, Balanced: true}.Criterion(labels, counts)
//	…
//	sum, count := criterion.Loss(loss.Targets{Labels: labels}, logits)
//
// [Classes] is cross-entropy with label smoothing, class weights or focusing; [Criterion] joins it
// with what compares several passes or examples (R-Drop, mixup). [Penalty] is about the
// variables. [Distill] and [HiddenCosine] follow a teacher; [Uncertainty] and [GradNorm] weigh the
// losses of several tasks, as a [Weighing] says.
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
	return Classes{}.CrossEntropy(logits, labels)
}

// Classes is a cross-entropy over classes. With p = softmax(logits), y a target's label, w the
// weights, K the number of classes, ε the smoothing and γ the focus, a target's loss is
//
//	(1−ε)·w_y·(1−p_y)^γ·(−log p_y) + ε/K·Σ_c w_c·(−log p_c)
//
// and it counts as w_y. The zero value is the plain one. Smoothing and focus exclude each other.
//
// Source: Szegedy et al. 2016, "Rethinking the inception architecture for computer vision",
// section 7, for smoothing, whose second term has the classes' weights as in PyTorch's
// cross_entropy; Lin et al. 2017, "Focal loss for dense object detection", equation 5, with the
// softmax in place of the sigmoid and w for its α: two classes with logits (0, z) give the same.
type Classes struct {
	// Smoothing is ε, 0 ≤ ε < 1.
	Smoothing float64
	// Focus is γ ≥ 0: the greater, the less count targets that are predicted well already.
	Focus float64
	// Weights has a weight for each class, 0 or more; nil weighs all by 1.
	Weights []float64
}

// CrossEntropy computes the summed loss and what it is to be divided by, both float32 scalars.
// For shapes, and labels that take no part, see the function [CrossEntropy].
func (c Classes) CrossEntropy(logits, labels *Node) (sum, count *Node) {
	losses, weights := c.each(logits, labels)
	return ReduceAllSum(losses), ReduceAllSum(weights)
}

// tiny keeps the logarithm of 1−p finite where a prediction is sure.
const tiny = 1e-30

// each computes the loss of each target, [...], and what it counts as; both are 0 for ignored ones.
func (c Classes) each(logits, labels *Node) (losses, weights *Node) {
	rank, g := labels.Rank(), logits.Graph()
	if logits.Rank() != rank+1 || labels.DType() != dtypes.Int32 {
		exceptions.Panicf("cross-entropy needs logits [..., classes] and int32 labels [...], got %s and %s", logits.Shape(), labels.Shape())
	}
	if n := logits.Shape().Dimensions[rank]; c.Weights != nil && len(c.Weights) != n {
		exceptions.Panicf("cross-entropy has %d class weights for logits of %d classes", len(c.Weights), n)
	}
	logits = ConvertDType(logits, dtypes.Float32) // losses stay in float32 under half precision
	maximum := StopGradient(ReduceAndKeep(logits, ReduceMax, -1))
	shifted := Sub(logits, maximum)
	powers := Exp(shifted)
	logNorm := Log(ReduceSum(powers, -1)) // [...]

	labels = InsertAxes(labels, -1) // [..., 1]
	shape := logits.Shape().Clone()
	shape.DType = dtypes.Int32
	classes := Iota(g, shape, rank)
	chosen := Equal(classes, BroadcastToDims(labels, logits.Shape().Dimensions...))
	target := ReduceSum(Where(chosen, shifted, ZerosLike(shifted)), -1) // [...]

	counts := Squeeze(NotEqual(labels, FillScalar(labels.Graph(), labels.Shape(), Ignored)), -1)
	losses = Sub(logNorm, target)
	if c.Focus != 0 {
		// 1−p_y as the sum of the others, which is exact where p_y is near 1.
		others := ReduceSum(Where(chosen, ZerosLike(powers), powers), -1)
		rest := Sub(Log(MaxScalar(others, tiny)), logNorm) // log (1−p_y)
		losses = Mul(Exp(MulScalar(rest, c.Focus)), losses)
	}
	weights = ConvertDType(counts, dtypes.Float32)
	var table *Node // [..., classes]
	if c.Weights != nil {
		table = BroadcastToDims(ExpandLeftToRank(constant(g, c.Weights), rank+1), shape.Dimensions...)
		own := ReduceSum(Where(chosen, table, ZerosLike(table)), -1) // [...]
		losses, weights = Mul(own, losses), Where(counts, own, ZerosLike(own))
	}
	if c.Smoothing != 0 {
		all := Sub(InsertAxes(logNorm, -1), shifted) // −log p
		if table != nil {
			all = Mul(table, all)
		}
		all = ReduceSum(all, -1)
		share := c.Smoothing / float64(shape.Dimensions[rank])
		losses = Add(MulScalar(losses, 1-c.Smoothing), MulScalar(all, share))
	}
	return Where(counts, losses, ZerosLike(losses)), weights
}

func constant(g *Graph, values []float64) *Node {
	narrow := make([]float32, len(values))
	for i, v := range values {
		narrow[i] = float32(v)
	}
	return Const(g, narrow)
}

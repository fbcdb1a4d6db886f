package loss

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Distill compares a student's logits with a teacher's, both [..., classes], at temperature T > 0:
//
//	sum = T²·Σ KL(softmax(teacher/T) ‖ softmax(student/T)),  count = number of positions
//
// over the positions where is true, boolean [...]; nil takes all. The factor T² keeps gradients of
// one size for every T. No gradient reaches the teacher.
//
// Source: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2.
func Distill(student, teacher, where *Node, temperature float64) (sum, count *Node) {
	return over(where, distance(student, teacher, temperature))
}

// distance computes T²·KL(softmax(teacher/T) ‖ softmax(student/T)) of each position, [...].
func distance(student, teacher *Node, temperature float64) *Node {
	sameShapes("distillation", student, teacher)
	if !(temperature > 0) {
		exceptions.Panicf("distillation at temperature %g, want more than 0", temperature)
	}
	soft := func(logits *Node) *Node { return logSoftmax(MulScalar(logits, 1/temperature)) }
	p, q := StopGradient(soft(teacher)), soft(student)
	return MulScalar(ReduceSum(Mul(Exp(p), Sub(p, q)), -1), temperature*temperature)
}

// HiddenSquares compares hidden states [..., hidden] with a teacher's of the same width:
//
//	sum = Σ mean (student − teacher)²,  count = number of positions
//
// with the mean over the last axis. Positions are as in [Distill].
//
// Source: Jiao et al. 2020, "TinyBERT", equation 8, without its projection.
func HiddenSquares(student, teacher, where *Node) (sum, count *Node) {
	sameShapes("comparing hidden states", student, teacher)
	student, teacher = ConvertDType(student, dtypes.Float32), ConvertDType(teacher, dtypes.Float32)
	return over(where, ReduceMean(Square(Sub(student, StopGradient(teacher))), -1))
}

// HiddenCosine compares the directions of hidden states [..., hidden] with a teacher's:
//
//	sum = Σ 1 − s·t / √((|s|² + ε)·(|t|² + ε)),  count = number of positions,  ε = 1e-12
//
// Positions are as in [Distill].
//
// Source: Sanh et al. 2019, "DistilBERT", section 3, which has it by PyTorch's CosineEmbeddingLoss.
func HiddenCosine(student, teacher, where *Node) (sum, count *Node) {
	sameShapes("comparing hidden states", student, teacher)
	s, t := ConvertDType(student, dtypes.Float32), StopGradient(ConvertDType(teacher, dtypes.Float32))
	square := func(x *Node) *Node { return AddScalar(ReduceSum(Square(x), -1), 1e-12) }
	cosine := Div(ReduceSum(Mul(s, t), -1), Sqrt(Mul(square(s), square(t))))
	return over(where, OneMinus(cosine))
}

func sameShapes(what string, student, teacher *Node) {
	if !student.Shape().EqualDimensions(teacher.Shape()) || student.Rank() == 0 {
		exceptions.Panicf("%s needs a student and a teacher of one shape, got %s and %s", what, student.Shape(), teacher.Shape())
	}
}

// over sums losses [...] where that is true, and counts; nil takes all.
func over(where, losses *Node) (sum, count *Node) {
	if where == nil {
		return ReduceAllSum(losses), Scalar(losses.Graph(), dtypes.Float32, losses.Shape().Size())
	}
	if where.DType() != dtypes.Bool || !where.Shape().EqualDimensions(losses.Shape()) {
		exceptions.Panicf("positions must be a boolean of shape %v, got %s", losses.Shape().Dimensions, where.Shape())
	}
	return ReduceAllSum(Where(where, losses, ZerosLike(losses))), ReduceAllSum(ConvertDType(where, dtypes.Float32))
}

// logSoftmax computes log softmax of the last axis in float32.
func logSoftmax(logits *Node) *Node {
	logits = ConvertDType(logits, dtypes.Float32)
	shifted := Sub(logits, StopGradient(ReduceAndKeep(logits, ReduceMax, -1)))
	return Sub(shifted, Log(ReduceAndKeep(Exp(shifted), ReduceSum, -1)))
}

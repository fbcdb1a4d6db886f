package loss

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"gonum.org/v1/gonum/mathext"

	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Mixture mixes each example of a batch with another one:
//
//	x̃ᵢ = λᵢ·xᵢ + (1−λᵢ)·xⱼ,   loss = λᵢ·loss(x̃ᵢ, yᵢ) + (1−λᵢ)·loss(x̃ᵢ, yⱼ)
//
// Logits that are linear in x may be mixed in its place: that is the same.
//
// Source: Zhang et al. 2018, "mixup: beyond empirical risk minimization"; Guo et al. 2019,
// "Augmenting data with mixup for sentence classification" (senMixup: x is a sentence's embedding).
// Here each example has a λ of its own, where the authors' programs draw one a batch, and its
// partner is the next example of the batch, which is a random draw already.
type Mixture struct {
	shares   *Node // λ, float32 [examples]
	partners *Node // j, int32 [examples, 1]
}

// NewMixture draws λ from Beta(α, α) for each example. Exist, boolean [examples], is true for
// examples that are there: those come first, and the last one's partner is the first. A nil source,
// or α = 0, mixes nothing: the mixture is nil.
func NewMixture(drop *dropout.Source, exist *Node, alpha float64) *Mixture {
	if drop == nil || alpha == 0 {
		return nil
	}
	g, n := exist.Graph(), exist.Shape().Dimensions[0]
	uniform := drop.Uniform(shapes.Make(dtypes.Float32, n))
	quantile := ConvertDType(MulScalar(uniform, float64(quantiles)), dtypes.Int32)
	shares := Gather(constant(g, betaQuantiles(alpha)), InsertAxes(quantile, -1))
	next := AddScalar(Iota(g, shapes.Make(dtypes.Int32, n), 0), int32(1))
	there := ReduceAllSum(ConvertDType(exist, dtypes.Int32))
	next = Where(LessThan(next, there), next, ZerosLike(next))
	return &Mixture{shares: shares, partners: InsertAxes(next, -1)}
}

// Mix returns λᵢ·xᵢ + (1−λᵢ)·xⱼ for x [examples, ...]; a nil mixture returns x.
func (m *Mixture) Mix(x *Node) *Node {
	if m == nil {
		return x
	}
	return m.join(x, Gather(x, m.partners))
}

// Partners returns the labels [examples, ...] of the examples that are mixed in.
func (m *Mixture) Partners(labels *Node) *Node { return Gather(labels, m.partners) }

// join returns λ·own + (1−λ)·other.
func (m *Mixture) join(own, other *Node) *Node {
	shares := ConvertDType(m.shares, own.DType())
	for shares.Rank() < own.Rank() {
		shares = InsertAxes(shares, -1)
	}
	return Add(other, Mul(shares, Sub(own, other)))
}

// quantiles is the number of equally likely values that stand for a Beta distribution: few
// enough for a graph, and its mean is exact, its variance within a thousandth.
const quantiles = 4096

// betaQuantiles returns the quantiles of Beta(α, α) in the middle of equal steps.
func betaQuantiles(alpha float64) []float64 {
	values := make([]float64, quantiles)
	for i := range quantiles / 2 {
		values[i] = mathext.InvRegIncBeta(alpha, alpha, (float64(i)+0.5)/quantiles)
		values[quantiles-1-i] = 1 - values[i]
	}
	return values
}

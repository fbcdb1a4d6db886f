package loss

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Uncertainty joins the mean losses of several tasks by learned log-variances s, float32 [tasks]:
//
//	Σᵢ cᵢ·exp(−sᵢ)·Lᵢ + ½·sᵢ
//
// with cᵢ = ½ for a task that regression says is one, whose L is a mean squared error, and 1 for
// others, whose L is a cross-entropy. Losses are float32 scalars. The log-variances are variables
// of the model, trained with the rest; they begin as 0.
//
// Source: Kendall, Gal, Cipolla 2018, "Multi-task learning using uncertainty to weigh losses for scene
// geometry and semantics", equations 7 and 10, with s = log σ².
func Uncertainty(losses []*Node, logVariances *Node, regression []bool) *Node {
	if len(regression) != len(losses) {
		exceptions.Panicf("uncertainty weighting of %d losses is told the kind of %d", len(losses), len(regression))
	}
	s := tasks("log-variances", losses, logVariances)
	factors := make([]float64, len(losses))
	for i := range factors {
		factors[i] = 1
		if regression[i] {
			factors[i] = 0.5
		}
	}
	weighted := Mul(Mul(constant(s.Graph(), factors), Exp(Neg(s))), stacked(losses))
	return ReduceAllSum(Add(weighted, MulScalar(s, 0.5)))
}

// Balancing is what [GradNorm] computes, each float32 [tasks].
type Balancing struct {
	Norms    *Node // Gᵢ = ‖∇_W wᵢ·Lᵢ‖
	Targets  *Node // what the norms are to become
	Gradient *Node // of Σᵢ |Gᵢ − targetᵢ| with respect to the weights w
}

// GradNorm balances the mean losses L of several tasks, so that they train the variables W they share
// at similar rates. The model is trained on Σᵢ wᵢ·Lᵢ, the weights w, float32 [tasks], on
//
//	Σᵢ |Gᵢ − Ḡ·rᵢ^α|,   Gᵢ = ‖∇_W wᵢ·Lᵢ‖,   rᵢ = (Lᵢ/Lᵢ(0)) / mean (L/L(0))
//
// where the targets Ḡ·rᵢ^α, with Ḡ the mean of G, are constants. Initial holds L(0), [tasks]: the
// first losses, or log K for a cross-entropy over K classes. Weights begin as 1; after each of their
// updates [Renormalize] keeps their sum. A larger α > 0 pulls tasks that lag behind more.
//
// Shared are nodes that the losses depend on, as a rule the weights of the last layer that all tasks
// read. Each task costs a backward pass to them.
//
// Source: Chen et al. 2018, "GradNorm: gradient normalization for adaptive loss balancing in deep
// multitask networks", equations 1 and 2. Since weights are positive, Gᵢ = wᵢ·‖∇_W Lᵢ‖, so that no
// second derivative is needed.
func GradNorm(losses []*Node, weights, initial *Node, shared []*Node, alpha float64) Balancing {
	w, first := tasks("weights", losses, weights), tasks("initial losses", losses, initial)
	if len(shared) == 0 {
		exceptions.Panicf("GradNorm needs the variables that tasks share")
	}
	norms := make([]*Node, len(losses)) // ‖∇_W Lᵢ‖
	for i, l := range losses {
		var square *Node
		for _, gradient := range Gradient(l, shared...) {
			part := ReduceAllSum(Square(ConvertDType(gradient, dtypes.Float32)))
			if square == nil {
				square = part
			} else {
				square = Add(square, part)
			}
		}
		norms[i] = Sqrt(square)
	}
	own := StopGradient(Stack(norms, 0))
	g := Mul(w, own)
	ratio := Div(stacked(losses), first)
	rate := Div(ratio, ReduceAllMean(ratio))
	target := StopGradient(Mul(ReduceAllMean(g), Exp(MulScalar(Log(rate), alpha))))
	return Balancing{Norms: g, Targets: target, Gradient: Mul(Sign(Sub(g, target)), own)}
}

// Renormalize scales weights of tasks, [tasks], so that they add up to their number. They must not be
// negative; weights that an update has made negative become 0 first.
func Renormalize(weights *Node) *Node {
	positive := Max(weights, ZerosLike(weights))
	return MulScalar(Div(positive, ReduceAllSum(positive)), float64(weights.Shape().Size()))
}

// tasks checks that a node has a number for each loss.
func tasks(what string, losses []*Node, n *Node) *Node {
	if len(losses) == 0 || n.Rank() != 1 || n.Shape().Dimensions[0] != len(losses) {
		exceptions.Panicf("%s of %d losses must have the shape [%d], got %s", what, len(losses), len(losses), n.Shape())
	}
	return ConvertDType(n, dtypes.Float32)
}

// stacked returns losses, scalars, as [tasks].
func stacked(losses []*Node) *Node {
	list := make([]*Node, len(losses))
	for i, l := range losses {
		if !l.IsScalar() {
			exceptions.Panicf("loss %d is %s, want a scalar", i, l.Shape())
		}
		list[i] = ConvertDType(l, dtypes.Float32)
	}
	return Stack(list, 0)
}

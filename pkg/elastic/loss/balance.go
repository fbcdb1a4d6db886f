package loss

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// The kinds of [Weighing].
const (
	ByUncertainty = "uncertainty" // see [Uncertainty]
	ByGradNorm    = "gradnorm"    // see [GradNorm]
)

// Weighings lists the kinds that Weighing.Kind may name.
func Weighings() []string { return []string{ByGradNorm, ByUncertainty} }

// Weighing says how the weights of a loss's terms are learned while a model is trained on their
// weighted sum: plain data, stored with each run. The zero value learns none.
//
// What is learned is one number a term, the log-variances of [Uncertainty] or the weights of
// [GradNorm]. It moves by Adam at a rate of its own, whatever trains the model: rates that suit
// pretrained weights, some 1e-5, would hardly move it in a whole run.
type Weighing struct {
	// Kind is one of [Weighings].
	Kind string `json:"kind,omitempty"`
	// Exponent is the α of [GradNorm], more than 0; 0 means 1.5, as for the paper's scenes. Terms that learn at
	// similar rates anyway want less: the paper has 0.12 for them.
	Exponent float64 `json:"exponent,omitempty"`
	// Rate is the learning rate of what is learned; 0 means 0.025.
	Rate float64 `json:"rate,omitempty"`
}

// WithDefaults returns w with what its zero fields mean.
func (w Weighing) WithDefaults() Weighing {
	if w.Exponent == 0 && w.Kind == ByGradNorm {
		w.Exponent = 1.5
	}
	if w.Rate == 0 {
		w.Rate = 0.025
	}
	return w
}

// Validate reports all that is wrong with w.
func (w Weighing) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf("weigh."+format, args...)) }
	switch {
	case w == Weighing{}:
		return nil
	case !slices.Contains(Weighings(), w.Kind):
		add("kind %q is unknown; known: %s", w.Kind, strings.Join(Weighings(), ", "))
	case w.Exponent != 0 && w.Kind != ByGradNorm:
		add("exponent is for weigh.kind %q only, not %q", ByGradNorm, w.Kind)
	}
	for _, field := range []struct {
		name  string
		value float64
	}{{"exponent", w.Exponent}, {"rate", w.Rate}} {
		if !(field.value >= 0) || math.IsInf(field.value, 0) {
			add("%s is %g, want more than 0, and finite, or 0 for its default", field.name, field.value)
		}
	}
	return errors.Join(problems...)
}

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
// Gradients are ∇_W Lᵢ, for each loss those with respect to the nodes that make up W, as a rule the
// weights of the last layer that all tasks read. Each task costs a backward pass to them.
//
// Source: Chen et al. 2018, "GradNorm: gradient normalization for adaptive loss balancing in deep
// multitask networks", equations 1 and 2. Since weights are positive, Gᵢ = wᵢ·‖∇_W Lᵢ‖, so that no
// second derivative is needed.
func GradNorm(losses []*Node, gradients [][]*Node, weights, initial *Node, alpha float64) Balancing {
	w, first := tasks("weights", losses, weights), tasks("initial losses", losses, initial)
	if len(gradients) != len(losses) {
		exceptions.Panicf("GradNorm of %d losses has the gradients of %d", len(losses), len(gradients))
	}
	norms := make([]*Node, len(losses)) // ‖∇_W Lᵢ‖
	for i, list := range gradients {
		var square *Node
		for _, gradient := range list {
			square = elastic.AddIf(square, elastic.SumAll(Square(ConvertDType(gradient, dtypes.Float32))))
		}
		if square == nil {
			exceptions.Panicf("GradNorm needs gradients with respect to variables that tasks share")
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
// negative; weights that an update has made negative become 0 first, and if none is left all become 1.
func Renormalize(weights *Node) *Node {
	positive := Max(weights, ZerosLike(weights))
	sum := ReduceAllSum(positive)
	some := GreaterThan(sum, ZerosLike(sum))
	scaled := MulScalar(Div(positive, Where(some, sum, OnesLike(sum))), float64(weights.Shape().Size()))
	return Where(some, scaled, OnesLike(weights))
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

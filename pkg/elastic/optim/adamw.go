// Package optim has optimizers whose per-step numbers come from the host.
//
// An optimizer's graph part takes a parameter, its gradient and its slots (moments)
// to their new values. What changes from step to step, such as the learning rate and
// bias corrections, is computed on the host in float64 ([AdamW.Scalars]) and enters the
// graph as one small input: nothing recompiles, and the rate that is logged is the
// rate that was used.
package optim

import (
	"errors"
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// AdamW is Adam with decoupled weight decay:
//
//	m ← β₁m + (1−β₁)g             v ← β₂v + (1−β₂)g²
//	θ ← θ·(1 − η·λ)               for parameters that decay
//	θ ← θ − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)
//
// The decay is multiplied by the current rate η, as in PyTorch (the paper's λ is
// independent of it), and uses the parameter before the update. Which parameters
// decay is said by elastic.Variable.Decay: matrices and embeddings, not biases and
// normalisation scales. The zero value of each beta and of Epsilon means its default.
//
// Source: Loshchilov, Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
type AdamW struct {
	// Beta1 and Beta2 are the decay rates of the moments; 0 means 0.9 and 0.999.
	Beta1 float64 `json:"beta1,omitempty"`
	Beta2 float64 `json:"beta2,omitempty"`
	// Epsilon is added to the root of the second moment; 0 means 1e-8.
	Epsilon float64 `json:"epsilon,omitempty"`
	// WeightDecay is λ; 0 means none.
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// WithDefaults returns a with defaults in place of zeros.
func (a AdamW) WithDefaults() AdamW {
	if a.Beta1 == 0 {
		a.Beta1 = 0.9
	}
	if a.Beta2 == 0 {
		a.Beta2 = 0.999
	}
	if a.Epsilon == 0 {
		a.Epsilon = 1e-8
	}
	return a
}

// Validate reports all that is wrong with a.
func (a AdamW) Validate() error {
	a = a.WithDefaults()
	var problems []error
	for _, beta := range []struct {
		name  string
		value float64
	}{{"beta1", a.Beta1}, {"beta2", a.Beta2}} {
		if !(beta.value >= 0 && beta.value < 1) {
			problems = append(problems, fmt.Errorf("optimizer.%s is %g, want 0 ≤ β < 1", beta.name, beta.value))
		}
	}
	if !(a.Epsilon > 0) {
		problems = append(problems, fmt.Errorf("optimizer.epsilon is %g, want a positive number", a.Epsilon))
	}
	if !(a.WeightDecay >= 0) {
		problems = append(problems, fmt.Errorf("optimizer.weight_decay is %g, want 0 or more", a.WeightDecay))
	}
	return errors.Join(problems...)
}

// Slots names the state that AdamW keeps per parameter, each of the parameter's shape
// and 0 at first.
func (AdamW) Slots() []string { return []string{"m", "v"} }

// Scalars returns what update step (counted from 0) at a learning rate needs, as the
// float32 vector that [AdamW.Update] takes.
func (a AdamW) Scalars(step int, rate float64) []float32 {
	a = a.WithDefaults()
	t := float64(step + 1)
	return []float32{
		float32(rate / (1 - math.Pow(a.Beta1, t))),
		float32(1 / math.Sqrt(1-math.Pow(a.Beta2, t))),
		float32(1 - rate*a.WeightDecay),
	}
}

// Update returns the parameter and slots after one update. The scalars are a float32
// vector, see [AdamW.Scalars].
func (a AdamW) Update(parameter, gradient *Node, slots []*Node, scalars *Node, decay bool) (*Node, []*Node) {
	a = a.WithDefaults()
	scalar := func(i int) *Node { return Reshape(Slice(scalars, AxisElem(i))) }
	rate, correction, keep := scalar(0), scalar(1), scalar(2)

	m := Add(MulScalar(slots[0], a.Beta1), MulScalar(gradient, 1-a.Beta1))
	v := Add(MulScalar(slots[1], a.Beta2), MulScalar(Square(gradient), 1-a.Beta2))
	if decay && a.WeightDecay != 0 {
		parameter = Mul(parameter, keep)
	}
	root := AddScalar(Mul(Sqrt(v), correction), a.Epsilon)
	return Sub(parameter, Mul(rate, Div(m, root))), []*Node{m, v}
}

// GlobalNorm returns the Euclidean norm of all gradients together, a float32 scalar.
func GlobalNorm(gradients []*Node) *Node {
	var total *Node
	for _, g := range gradients {
		square := ReduceAllSum(Square(ConvertDType(g, dtypes.Float32)))
		if total == nil {
			total = square
		} else {
			total = Add(total, square)
		}
	}
	return Sqrt(total)
}

// ClipFactor returns what gradients of a global norm are multiplied by so that their
// norm is at most limit:
//
//	min(1, limit / (norm + 1e-6))
//
// Source: Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent
// neural networks", algorithm 1; the 1e-6 as in PyTorch's clip_grad_norm_.
func ClipFactor(norm *Node, limit float64) *Node {
	return MinScalar(MulScalar(Reciprocal(AddScalar(norm, 1e-6)), limit), 1)
}

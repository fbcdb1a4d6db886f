package optim

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// stateless is embedded by transforms that keep nothing.
type stateless struct{}

func (stateless) Slots(elastic.Variable) []Slot { return nil }

// GlobalNorm returns the Euclidean norm of all gradients together, a float32 scalar.
func GlobalNorm(gradients []*Node) *Node {
	var total *Node
	for _, g := range gradients {
		square := elastic.SumAll(Square(ConvertDType(g, dtypes.Float32)))
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

// ClipNorm multiplies the updates of a chain together so that their norm is at most Limit, see
// [ClipFactor]. To clip over the parameters of all rules, use train.Config.ClipNorm.
type ClipNorm struct {
	stateless
	Limit float64 `json:"limit"`
	// Exact leaves out the 1e-6 of the factor's denominator.
	Exact bool `json:"exact,omitempty"`
}

// Kind returns "clip_norm".
func (ClipNorm) Kind() string { return "clip_norm" }

func (ClipNorm) joint() {}

// Validate reports all that is wrong with c.
func (c ClipNorm) Validate() error { return limit("limit", c.Limit) }

// Apply clips.
func (c ClipNorm) Apply(s *Step) {
	n := Sqrt(s.total(func(i int) *Node { return elastic.SumAll(Square(s.Updates[i])) }))
	factor := ClipFactor(n, c.Limit)
	if c.Exact {
		factor = Where(LessThan(n, ScalarOf(n, c.Limit)), OnesLike(n), MulScalar(Reciprocal(n), c.Limit))
	}
	for i, u := range s.Updates {
		s.Updates[i] = Mul(u, factor)
	}
}

// ScalarOf returns a constant scalar of the type of x.
func ScalarOf(x *Node, value float64) *Node { return Scalar(x.Graph(), x.DType(), value) }

// ClipValue limits each element of an update to [−Limit, Limit].
type ClipValue struct {
	stateless
	Limit float64 `json:"limit"`
}

// Kind returns "clip_value".
func (ClipValue) Kind() string { return "clip_value" }

// Validate reports all that is wrong with c.
func (c ClipValue) Validate() error { return limit("limit", c.Limit) }

// Apply clips.
func (c ClipValue) Apply(s *Step) {
	for i, u := range s.Updates {
		s.Updates[i] = ClipScalar(u, -c.Limit, c.Limit)
	}
}

// ClipRMS divides the update of each tensor so that the root of its mean square is at most Limit:
//
//	u ← u / max(1, rms(u)/Limit)
//
// Source: Shazeer, Stern 2018, "Adafactor", section 6.
type ClipRMS struct {
	stateless
	Limit float64 `json:"limit"`
}

// Kind returns "clip_rms".
func (ClipRMS) Kind() string { return "clip_rms" }

// Validate reports all that is wrong with c.
func (c ClipRMS) Validate() error { return limit("limit", c.Limit) }

// Apply clips.
func (c ClipRMS) Apply(s *Step) {
	for i, u := range s.Updates {
		s.Updates[i] = clipRMS(u, c.Limit)
	}
}

func clipRMS(u *Node, limit float64) *Node {
	return Div(u, MaxScalar(MulScalar(rms(u), 1/limit), 1))
}

// AGC is adaptive gradient clipping: it limits the norm of each column of an update to Limit times that of
// the same column of the parameter, which counts as at least Epsilon; columns of a matrix [inputs,
// outputs] are the weights of one output, and tensors of one axis are one column.
//
// Source: Brock et al. 2021, "High-performance large-scale image recognition without normalization".
type AGC struct {
	stateless
	Limit   float64 `json:"limit"`
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-3
}

// Kind returns "agc".
func (AGC) Kind() string { return "agc" }

// Validate reports all that is wrong with a.
func (a AGC) Validate() error {
	var c check
	c.needed("limit", a.Limit)
	c.positive("epsilon", a.Epsilon)
	return c.err()
}

// Apply clips.
func (a AGC) Apply(s *Step) {
	unit := func(x *Node) *Node {
		if x.Rank() < 2 {
			return Sqrt(elastic.SumAll(Square(x)))
		}
		return Sqrt(ReduceAndKeep(Square(x), ReduceSum, 0))
	}
	for i, u := range s.Updates {
		n := unit(u)
		most := MulScalar(MaxScalar(unit(s.Values[i]), or(a.Epsilon, 1e-3)), a.Limit)
		factor := Where(LessThan(n, most), OnesLike(n), Div(most, MaxScalar(n, 1e-6)))
		s.Updates[i] = Mul(u, factor)
	}
}

// Centralize takes the mean over all axes but one from the updates of matrices: over all but the last
// axis, so that the weights of each output [inputs, outputs] sum to 0, or over all but the first.
//
// Source: Yong et al. 2020, "Gradient centralization".
type Centralize struct {
	stateless
	// First keeps the first axis apart in place of the last.
	First bool `json:"first,omitempty"`
}

// Kind returns "centralize".
func (Centralize) Kind() string { return "centralize" }

// Validate finds nothing.
func (Centralize) Validate() error { return nil }

// Apply centralizes.
func (c Centralize) Apply(s *Step) {
	for i, u := range s.Updates {
		if u.Rank() < 2 {
			continue
		}
		axes := make([]int, u.Rank()-1)
		for k := range axes {
			axes[k] = k
			if c.First {
				axes[k]++
			}
		}
		s.Updates[i] = Sub(u, ReduceAndKeep(u, ReduceMean, axes...))
	}
}

// Decay adds decoupled weight decay: u ← u + λ·θ for parameters that decay, so that θ ← θ·(1 − η·λ)
// beside what else u says. The decay is multiplied by the current rate η, as in PyTorch (the
// paper's λ is independent of it).
//
// Source: Loshchilov, Hutter 2019, "Decoupled weight decay regularization".
type Decay struct {
	stateless
	Weight float64 `json:"weight"`
}

// Kind returns "decay".
func (Decay) Kind() string { return "decay" }

// Validate reports all that is wrong with d.
func (d Decay) Validate() error { return weight(d.Weight) }

func (Decay) decays()           {}
func (d Decay) lambda() float64 { return d.Weight }

// Apply adds the decay.
func (d Decay) Apply(s *Step) { s.pull(d.Weight) }

// pull adds λ·θ to the updates of parameters that decay.
func (s *Step) pull(lambda float64) {
	for i, u := range s.Updates {
		if l := s.decay(i, lambda); l != 0 {
			s.Updates[i] = Add(u, MulScalar(s.Values[i], l))
		}
	}
}

// L2 adds the gradient of ½·λ·‖θ‖² for parameters that decay: u ← u + λ·θ before a rule scales it, as
// the weight decay of PyTorch's SGD and Adam.
type L2 struct {
	stateless
	Weight float64 `json:"weight"`
}

// Kind returns "l2".
func (L2) Kind() string { return "l2" }

// Validate reports all that is wrong with l.
func (l L2) Validate() error { return weight(l.Weight) }

func (L2) decays()           {}
func (l L2) lambda() float64 { return l.Weight }

// Apply adds the gradient.
func (l L2) Apply(s *Step) { s.pull(l.Weight) }

// Cautious keeps of an update only what points along the gradient, and makes up for the rest:
//
//	φ = 1 where u·g > 0, else 0     u ← u·φ · n/(Σφ + 1)     for each tensor of n elements
//
// Source: Liang et al. 2024, "Cautious optimizers".
type Cautious struct{ stateless }

// Kind returns "cautious".
func (Cautious) Kind() string { return "cautious" }

// Validate finds nothing.
func (Cautious) Validate() error { return nil }

// Apply masks.
func (Cautious) Apply(s *Step) {
	for i, u := range s.Updates {
		mask := PositiveIndicator(Mul(u, s.Gradients[i]))
		factor := MulScalar(Reciprocal(AddScalar(elastic.SumAll(mask), 1)), float64(u.Shape().Size()))
		s.Updates[i] = Mul(u, Mul(mask, factor))
	}
}

func limit(name string, x float64) error {
	var c check
	c.needed(name, x)
	return c.err()
}

func weight(x float64) error {
	var c check
	c.decay("weight", x)
	return c.err()
}

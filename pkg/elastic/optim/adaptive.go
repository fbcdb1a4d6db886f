package optim

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// RMSprop divides gradients by the root of their mean square:
//
//	v ← α·v + (1−α)·g²     u = g/(√v + ε)
//
// Centered subtracts the square of the mean gradient from v, Momentum adds b ← μ·b + u, u = b.
//
// Source: Tieleman, Hinton 2012, "Lecture 6.5 - rmsprop"; Graves 2013, "Generating sequences with
// recurrent neural networks"; as in PyTorch.
type RMSprop struct {
	Alpha    float64 `json:"alpha,omitempty"`   // 0 means 0.99
	Epsilon  float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	Centered bool    `json:"centered,omitempty"`
	Momentum float64 `json:"momentum,omitempty"`
}

// Kind returns "rmsprop".
func (RMSprop) Kind() string { return "rmsprop" }

// Validate reports all that is wrong with r.
func (r RMSprop) Validate() error {
	var c check
	c.beta("alpha", r.Alpha)
	c.positive("epsilon", r.Epsilon)
	c.beta("momentum", r.Momentum)
	return c.err()
}

// Slots returns the averages and the momentum.
func (r RMSprop) Slots(elastic.Variable) []Slot {
	slots := []Slot{{Name: "v"}}
	if r.Centered {
		slots = append(slots, Slot{Name: "mean"})
	}
	if r.Momentum != 0 {
		slots = append(slots, Slot{Name: "momentum"})
	}
	return slots
}

// Apply scales.
func (r RMSprop) Apply(s *Step) {
	alpha := or(r.Alpha, 0.99)
	for i, g := range s.Updates {
		v := s.Average("v", i, Square(g), alpha)
		if r.Centered {
			v = Sub(v, Square(s.Average("mean", i, g, alpha)))
		}
		s.Updates[i] = Div(g, AddScalar(Sqrt(v), or(r.Epsilon, 1e-8)))
	}
	if r.Momentum != 0 {
		Momentum{Beta: r.Momentum}.Apply(s)
	}
}

// Adagrad divides gradients by the root of the sum of all their squares: v ← v + g², u = g/(√v + ε).
//
// Source: Duchi, Hazan, Singer 2011, "Adaptive subgradient methods", as in PyTorch.
type Adagrad struct {
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-10
	Start   float64 `json:"start,omitempty"`   // of v
}

// Kind returns "adagrad".
func (Adagrad) Kind() string { return "adagrad" }

// Validate reports all that is wrong with r.
func (r Adagrad) Validate() error {
	var c check
	c.positive("epsilon", r.Epsilon)
	c.positive("start", r.Start)
	return c.err()
}

// Slots returns the sum.
func (r Adagrad) Slots(elastic.Variable) []Slot { return []Slot{{Name: "v", Start: r.Start}} }

// Apply scales.
func (r Adagrad) Apply(s *Step) {
	for i, g := range s.Updates {
		v := Add(s.Slot("v", i), Square(g))
		s.SetSlot("v", i, v)
		s.Updates[i] = Div(g, AddScalar(Sqrt(v), or(r.Epsilon, 1e-10)))
	}
}

// Adadelta gives updates the unit of parameters:
//
//	v ← ρ·v + (1−ρ)·g²     u = √(w+ε)/√(v+ε)·g     w ← ρ·w + (1−ρ)·u²
//
// Source: Zeiler 2012, "ADADELTA", as in PyTorch.
type Adadelta struct {
	Rho     float64 `json:"rho,omitempty"`     // 0 means 0.9
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-6
}

// Kind returns "adadelta".
func (Adadelta) Kind() string { return "adadelta" }

// Validate reports all that is wrong with r.
func (r Adadelta) Validate() error {
	var c check
	c.beta("rho", r.Rho)
	c.positive("epsilon", r.Epsilon)
	return c.err()
}

// Slots returns the averages.
func (Adadelta) Slots(elastic.Variable) []Slot { return []Slot{{Name: "v"}, {Name: "squared_update"}} }

// Apply scales.
func (r Adadelta) Apply(s *Step) {
	rho, epsilon := or(r.Rho, 0.9), or(r.Epsilon, 1e-6)
	for i, g := range s.Updates {
		v := s.Average("v", i, Square(g), rho)
		u := Mul(Div(Sqrt(AddScalar(s.Slot("squared_update", i), epsilon)), Sqrt(AddScalar(v, epsilon))), g)
		s.Average("squared_update", i, Square(u), rho)
		s.Updates[i] = u
	}
}

// Rprop has a step size for each element, which grows while the gradient keeps its sign and shrinks,
// with no move, when it changes:
//
//	Δ ← clip(Δ·η₊ or Δ·η₋, min, max)     u = sign(g)·Δ/η
//
// Δ begins at the learning rate. It is for full batches.
//
// Source: Riedmiller, Braun 1993, "A direct adaptive method for faster backpropagation learning", as
// in PyTorch.
type Rprop struct {
	Grow   float64 `json:"grow,omitempty"`   // η₊; 0 means 1.2
	Shrink float64 `json:"shrink,omitempty"` // η₋; 0 means 0.5
	Min    float64 `json:"min,omitempty"`    // 0 means 1e-6
	Max    float64 `json:"max,omitempty"`    // 0 means 50
}

// Kind returns "rprop".
func (Rprop) Kind() string { return "rprop" }

// Validate reports all that is wrong with r.
func (r Rprop) Validate() error {
	var c check
	c.positive("grow", r.Grow)
	c.positive("shrink", r.Shrink)
	c.positive("min", r.Min)
	c.positive("max", r.Max)
	return c.err()
}

// Slots returns the step sizes and the last gradient.
func (Rprop) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "step_size"}, {Name: "last_gradient"}}
}

// Apply steps.
func (r Rprop) Apply(s *Step) {
	for i, g := range s.Updates {
		rate := as(s.rate(i), g)
		size := Where(s.first(), BroadcastToShape(rate, g.Shape()), s.Slot("step_size", i))
		sign := Mul(g, s.Slot("last_gradient", i))
		turned := LessThan(sign, ZerosLike(sign))
		factor := Where(turned, ScalarOf(g, or(r.Shrink, 0.5)), Where(GreaterThan(sign, ZerosLike(sign)), ScalarOf(g, or(r.Grow, 1.2)), ScalarOf(g, 1)))
		size = ClipScalar(Mul(size, factor), or(r.Min, 1e-6), or(r.Max, 50))
		g = Where(turned, ZerosLike(g), g)
		s.SetSlot("step_size", i, size)
		s.SetSlot("last_gradient", i, g)
		s.Updates[i] = Div(Mul(Sign(g), size), rate)
	}
}

// SM3 keeps, of a matrix, one number for each row and one for each column:
//
//	v = min(row, column) + g²     row ← max of v over columns     column ← max of v over rows
//	m ← β·m + (1−β)·g/√(v+ε)      u = m
//
// Source: Anil et al. 2019, "Memory-efficient adaptive optimization", as in optax.
type SM3 struct {
	Momentum float64 `json:"momentum,omitempty"` // 0 means 0.9
}

// Kind returns "sm3".
func (SM3) Kind() string { return "sm3" }

// Validate reports all that is wrong with r.
func (r SM3) Validate() error {
	var c check
	c.beta("momentum", r.Momentum)
	return c.err()
}

var axisSlots = []string{"v_0", "v_1", "v_2", "v_3", "v_4"}

// Slots returns the moment and a vector for each axis.
func (SM3) Slots(p elastic.Variable) []Slot {
	slots := []Slot{{Name: "m"}}
	for k, d := range p.Shape {
		slots = append(slots, Slot{Name: axisSlots[k], Shape: []int{d}})
	}
	if len(p.Shape) == 0 {
		slots = append(slots, Slot{Name: axisSlots[0]})
	}
	return slots
}

// Apply scales.
func (r SM3) Apply(s *Step) {
	for i, g := range s.Updates {
		rank := g.Rank()
		var least *Node
		for k := range max(rank, 1) {
			v := s.Slot(axisSlots[k], i)
			if rank > 1 {
				dims := make([]int, rank)
				for j := range dims {
					dims[j] = 1
				}
				dims[k] = v.Shape().Size()
				v = BroadcastToShape(Reshape(v, dims...), g.Shape())
			}
			if least == nil {
				least = v
			} else {
				least = Min(least, v)
			}
		}
		v := Add(least, Square(g))
		scaled := Where(GreaterThan(v, ZerosLike(v)), Div(g, Sqrt(AddScalar(v, 1e-8))), ZerosLike(g))
		for k := range max(rank, 1) {
			most := v
			if rank > 1 {
				var others []int
				for j := range rank {
					if j != k {
						others = append(others, j)
					}
				}
				most = ReduceMax(v, others...)
			}
			s.SetSlot(axisSlots[k], i, most)
		}
		s.Updates[i] = s.Average("m", i, scaled, or(r.Momentum, 0.9))
	}
}

// NovoGrad has one second moment for each tensor:
//
//	v ← β₂·v + (1−β₂)·‖g‖²     m ← β₁·m + g/(√v + ε) + λ·θ     u = m
//
// with v = ‖g‖² at first.
//
// Source: Ginsburg et al. 2019, "Stochastic gradient methods with layer-wise adaptive moments", as in
// optax.
type NovoGrad struct {
	Beta1       float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"`   // 0 means 0.25
	Epsilon     float64 `json:"epsilon,omitempty"` // 0 means 1e-6
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "novograd".
func (NovoGrad) Kind() string { return "novograd" }

// Validate reports all that is wrong with r.
func (r NovoGrad) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon}.check()
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (NovoGrad) decays()           {}
func (r NovoGrad) lambda() float64 { return r.WeightDecay }

// Slots returns the moments.
func (NovoGrad) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "m"}, {Name: "v", Shape: []int{}}}
}

// Apply scales.
func (r NovoGrad) Apply(s *Step) {
	beta1, beta2, epsilon := moments{r.Beta1, r.Beta2, r.Epsilon}.or(0.9, 0.25, 1e-6)
	for i, g := range s.Updates {
		square := elastic.SumAll(Square(g))
		v := Where(s.first(), square, mix(s.Slot("v", i), square, beta2))
		s.SetSlot("v", i, v)
		u := Div(g, AddScalar(Sqrt(v), epsilon))
		if l := s.decay(i, r.WeightDecay); l != 0 {
			u = Add(u, MulScalar(s.Values[i], l))
		}
		m := Add(MulScalar(s.Slot("m", i), beta1), u)
		s.SetSlot("m", i, m)
		s.Updates[i] = m
	}
}

// factored returns the shapes of the row and column means of a matrix, or of each matrix of a stack
// of them: all axes but the last, and all but the one before. Tensors of fewer axes have none.
func factored(shape []int) (rows, columns []int) {
	n := len(shape)
	if n < 2 {
		return nil, nil
	}
	rows = append(rows, shape[:n-1]...)
	columns = append(append(columns, shape[:n-2]...), shape[n-1])
	return rows, columns
}

// Adafactor keeps, of a matrix, the mean squares of rows and columns only, and scales updates by the
// size of parameters:
//
//	β = 1 − t^(−0.8)     r ← β·r + (1−β)·mean of g² over columns     c alike
//	v = r·c/mean(r)      û = g/√v     u = û / max(1, rms(û)/Limit)
//	Δθ = −max(ε₂, rms(θ))·min(η, 1/√t)·u
//
// Source: Shazeer, Stern 2018, "Adafactor: adaptive learning rates with sublinear memory cost", as in
// PyTorch. Optax's differs: it adds ε₁ to g², takes 1 − t'^(−0.8) with t' from 0, does not bound η, and
// scales by the mean square of the parameter at least 1e-3.
type Adafactor struct {
	Epsilon1    float64 `json:"epsilon1,omitempty"`   // 0 means 1.2e-7, the precision of float32
	Epsilon2    float64 `json:"epsilon2,omitempty"`   // 0 means 1e-3
	Limit       float64 `json:"limit,omitempty"`      // 0 means 1
	BetaDecay   float64 `json:"beta_decay,omitempty"` // exponent; 0 means 0.8
	WeightDecay float64 `json:"weight_decay,omitempty"`
	// Optax follows optax in place of PyTorch.
	Optax bool `json:"optax,omitempty"`
}

// Kind returns "adafactor".
func (Adafactor) Kind() string { return "adafactor" }

// Validate reports all that is wrong with r.
func (r Adafactor) Validate() error {
	var c check
	c.positive("epsilon1", r.Epsilon1)
	c.positive("epsilon2", r.Epsilon2)
	c.positive("limit", r.Limit)
	c.positive("beta_decay", r.BetaDecay)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (Adafactor) decays()           {}
func (r Adafactor) lambda() float64 { return r.WeightDecay }

// Slots returns mean squares of rows and columns, or of all elements for vectors.
func (Adafactor) Slots(p elastic.Variable) []Slot { return secondMoments(p, "v") }

func secondMoments(p elastic.Variable, name string) []Slot {
	rows, columns := factored(p.Shape)
	if rows == nil {
		return []Slot{{Name: name}}
	}
	return []Slot{{Name: name + "_row", Shape: rows}, {Name: name + "_column", Shape: columns}}
}

// Apply scales.
func (r Adafactor) Apply(s *Step) {
	epsilon1, epsilon2, decay := or(r.Epsilon1, 1.1920929e-07), or(r.Epsilon2, 1e-3), or(r.BetaDecay, 0.8)
	weight := Exp(MulScalar(Log(s.Number), -decay)) // 1 − β
	towards := func(name string, i int, x *Node) *Node {
		old := s.Slot(name, i)
		v := Add(times(old, OneMinus(weight)), times(x, weight))
		s.SetSlot(name, i, v)
		return v
	}
	if r.Optax {
		epsilon1 = or(r.Epsilon1, 1e-30)
	}
	for i, g := range s.Updates {
		square := Square(g)
		if r.Optax {
			square = AddScalar(square, epsilon1)
		}
		var v *Node
		if g.Rank() > 1 {
			row := InsertAxes(towards("v_row", i, ReduceMean(square, -1)), -1)
			column := InsertAxes(towards("v_column", i, ReduceMean(square, -2)), -2)
			mean := ReduceAndKeep(row, ReduceMean, -2)
			if !r.Optax {
				mean = MaxScalar(mean, epsilon1)
			}
			v = Div(Mul(row, column), mean)
		} else {
			v = towards("v", i, square)
		}
		if !r.Optax {
			v = MaxScalar(v, epsilon1*epsilon1)
		}
		u := clipRMS(Div(g, Sqrt(v)), or(r.Limit, 1))
		scale := MaxScalar(rms(s.Values[i]), epsilon2)
		rate := s.rate(i)
		if !r.Optax {
			rate = Min(rate, Reciprocal(Sqrt(s.Number)))
		}
		u = Neg(times(Mul(u, scale), rate))
		if l := s.decay(i, r.WeightDecay); l != 0 {
			pulled := MulScalar(s.Values[i], l)
			if !r.Optax { // optax's decay is not multiplied by the rate
				pulled = times(pulled, s.rate(i))
			}
			u = Sub(u, pulled)
		}
		s.Updates[i] = u
	}
	s.descended = true
}

// CAME is Adafactor with momentum, whose update is divided once more by how far it strays from its
// mean:
//
//	û = g/√v clipped by rms, as [Adafactor] with β₂ constant     m ← β₁·m + (1−β₁)·û
//	R, C ← means of (û−m)² + ε₂ with β₃     u = m/√(R·C/mean(R))
//
// Vectors have u = m.
//
// Source: Luo et al. 2023, "CAME: confidence-guided adaptive memory efficient optimization".
type CAME struct {
	Beta1       float64 `json:"beta1,omitempty"`    // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"`    // 0 means 0.999
	Beta3       float64 `json:"beta3,omitempty"`    // 0 means 0.9999
	Epsilon1    float64 `json:"epsilon1,omitempty"` // 0 means 1e-30
	Epsilon2    float64 `json:"epsilon2,omitempty"` // 0 means 1e-16
	Limit       float64 `json:"limit,omitempty"`    // 0 means 1
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "came".
func (CAME) Kind() string { return "came" }

// Validate reports all that is wrong with r.
func (r CAME) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon1}.check()
	c.beta("beta3", r.Beta3)
	c.positive("epsilon2", r.Epsilon2)
	c.positive("limit", r.Limit)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (CAME) decays()           {}
func (r CAME) lambda() float64 { return r.WeightDecay }

// Slots returns the moment and the mean squares.
func (CAME) Slots(p elastic.Variable) []Slot {
	slots := append([]Slot{{Name: "m"}}, secondMoments(p, "v")...)
	if len(p.Shape) > 1 {
		slots = append(slots, secondMoments(p, "residual")...)
	}
	return slots
}

// Apply scales.
func (r CAME) Apply(s *Step) {
	beta1, beta2, epsilon1 := moments{r.Beta1, r.Beta2, r.Epsilon1}.or(0.9, 0.999, 1e-30)
	factor := func(name string, i int, x *Node, beta float64) *Node { // 1/√v from rows and columns
		row := InsertAxes(s.Average(name+"_row", i, ReduceMean(x, -1), beta), -1)
		column := InsertAxes(s.Average(name+"_column", i, ReduceMean(x, -2), beta), -2)
		return Mul(Reciprocal(Sqrt(Div(row, ReduceAndKeep(row, ReduceMean, -2)))), Reciprocal(Sqrt(column)))
	}
	for i, g := range s.Updates {
		square := AddScalar(Square(g), epsilon1)
		var u *Node
		if g.Rank() > 1 {
			u = Mul(factor("v", i, square, beta2), g)
		} else {
			u = Mul(Reciprocal(Sqrt(s.Average("v", i, square, beta2))), g)
		}
		u = clipRMS(u, or(r.Limit, 1))
		m := s.Average("m", i, u, beta1)
		if g.Rank() > 1 {
			stray := AddScalar(Square(Sub(u, m)), or(r.Epsilon2, 1e-16))
			m = Mul(factor("residual", i, stray, or(r.Beta3, 0.9999)), m)
		}
		s.Updates[i] = m
	}
	s.pull(r.WeightDecay)
}

// TrustRatio scales the update of each tensor to the norm of the parameter:
//
//	u ← c·‖θ‖/(‖u‖ + ε)·u     where both norms are positive
//
// Source: You et al. 2017, "Large batch training of convolutional networks".
type TrustRatio struct {
	stateless
	Coefficient float64 `json:"coefficient,omitempty"` // c; 0 means 1
	Epsilon     float64 `json:"epsilon,omitempty"`
	// MaxNorm bounds ‖θ‖; 0 means no bound.
	MaxNorm float64 `json:"max_norm,omitempty"`

	decay float64 // λ of the decay after it, by which ‖θ‖ is smaller already
	beta  float64 // if not 0, updates are divided by 1 − βᵗ after the ratio
}

// Kind returns "trust_ratio".
func (TrustRatio) Kind() string { return "trust_ratio" }

// Validate reports all that is wrong with r.
func (r TrustRatio) Validate() error {
	var c check
	c.positive("coefficient", r.Coefficient)
	c.positive("epsilon", r.Epsilon)
	c.positive("max_norm", r.MaxNorm)
	return c.err()
}

// Apply scales.
func (r TrustRatio) Apply(s *Step) {
	for i, u := range s.Updates {
		value := norm(s.Values[i])
		if l := s.decay(i, r.decay); r.decay != 0 && l != 0 {
			value = times(value, Abs(OneMinus(MulScalar(s.rate(i), l))))
		}
		u = Mul(u, r.ratio(value, norm(u), 0))
		if r.beta != 0 {
			u = over(u, s.Correction(r.beta))
		}
		s.Updates[i] = u
	}
}

// ratio returns c·v/(u + λ·v + ε), and 1 where v or u + λ·v is 0.
func (r TrustRatio) ratio(value, update *Node, lambda float64) *Node {
	if r.MaxNorm > 0 {
		value = MinScalar(value, r.MaxNorm)
	}
	below := Add(update, MulScalar(value, lambda))
	ratio := MulScalar(Div(value, AddScalar(below, r.Epsilon)), or(r.Coefficient, 1))
	usable := LogicalAnd(GreaterThan(value, ZerosLike(value)), GreaterThan(below, ZerosLike(below)))
	return Where(usable, ratio, OnesLike(ratio))
}

// LAMB is Adam with a [TrustRatio] for each tensor, for large batches; as in optax.
//
// Source: You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes".
type LAMB struct {
	Beta1       float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon     float64 `json:"epsilon,omitempty"` // 0 means 1e-6
	WeightDecay float64 `json:"weight_decay,omitempty"`
	// PyTorchOptimizer takes the form of that package: parameters decay before the ratio, in which their norm is at most 10,
	// and of the corrections for bias only 1/(1−β₁ᵗ) is made, after the ratio: the first update is ten times as long.
	PyTorchOptimizer bool `json:"pytorch_optimizer,omitempty"`
}

// Kind returns "lamb".
func (LAMB) Kind() string { return "lamb" }

// Validate reports all that is wrong with r.
func (r LAMB) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon}.check()
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

// Chain returns the links.
func (r LAMB) Chain() Chain {
	adam := Adam{Beta1: r.Beta1, Beta2: r.Beta2, Epsilon: or(r.Epsilon, 1e-6), plain: r.PyTorchOptimizer}
	decay := Decay{Weight: r.WeightDecay}
	if r.PyTorchOptimizer {
		return Chain{adam, TrustRatio{MaxNorm: 10, Epsilon: adam.Epsilon, decay: r.WeightDecay, beta: or(r.Beta1, 0.9)}, decay}
	}
	return Chain{adam, decay, TrustRatio{}}
}

// LARS is SGD with momentum over a [TrustRatio] for each matrix:
//
//	u = c·‖θ‖/(‖g‖ + λ·‖θ‖)·(g + λ·θ)     b ← μ·b + u
//
// Tensors of one axis have u = g.
//
// Source: You et al. 2017, "Large batch training of convolutional networks".
type LARS struct {
	Momentum    float64 `json:"momentum,omitempty"`    // 0 means 0.9
	Coefficient float64 `json:"coefficient,omitempty"` // 0 means 1e-3
	Nesterov    bool    `json:"nesterov,omitempty"`
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "lars".
func (LARS) Kind() string { return "lars" }

// Validate reports all that is wrong with r.
func (r LARS) Validate() error {
	var c check
	c.beta("momentum", r.Momentum)
	c.positive("coefficient", r.Coefficient)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

// Chain returns the links.
func (r LARS) Chain() Chain {
	return Chain{
		layerwise{Coefficient: or(r.Coefficient, 1e-3), WeightDecay: r.WeightDecay},
		Momentum{Beta: or(r.Momentum, 0.9), Nesterov: r.Nesterov},
	}
}

// layerwise is the transform of [LARS].
type layerwise struct {
	stateless
	Coefficient, WeightDecay float64
}

func (layerwise) Kind() string      { return "lars" }
func (layerwise) Validate() error   { return nil }
func (layerwise) decays()           {}
func (r layerwise) lambda() float64 { return r.WeightDecay }

func (r layerwise) Apply(s *Step) {
	for i, g := range s.Updates {
		if g.Rank() < 2 {
			continue
		}
		l := s.decay(i, r.WeightDecay)
		ratio := TrustRatio{Coefficient: r.Coefficient}.ratio(norm(s.Values[i]), norm(g), l)
		s.Updates[i] = Mul(Add(g, MulScalar(s.Values[i], l)), ratio)
	}
}

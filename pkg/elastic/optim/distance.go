package optim

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Prodigy is Adam that estimates its own learning rate from how far the parameters have come:
//
//	γ = d·η·b     b = √(1−β₂ᵗ)/(1−β₁ᵗ) if BiasCorrection, else 1
//	r ← β₃·r + (d/d₀)·γ·⟨g, θ₀ − θ⟩     s ← β₃·s + (d/d₀)·γ·g     (Safeguard: d in place of γ)
//	m ← β₁m + (1−β₁)d·g                 v ← β₂v + (1−β₂)d²·g²
//	d ← max(d, c·r/‖s‖₁)                Δθ = −γ·(m/(√v + d·ε) + λ·θ)
//
// with γ of the old d. The learning rate η is a factor, best 1 with a schedule; d begins at D0.
//
// Source: Mishchenko, Defazio 2023, "Prodigy: an expeditiously adaptive parameter-free learner".
type Prodigy struct {
	Beta1          float64 `json:"beta1,omitempty"`       // 0 means 0.9
	Beta2          float64 `json:"beta2,omitempty"`       // 0 means 0.999
	Beta3          float64 `json:"beta3,omitempty"`       // 0 means √β₂
	Epsilon        float64 `json:"epsilon,omitempty"`     // 0 means 1e-8
	D0             float64 `json:"d0,omitempty"`          // 0 means 1e-6
	Coefficient    float64 `json:"coefficient,omitempty"` // c; 0 means 1
	BiasCorrection bool    `json:"bias_correction,omitempty"`
	Safeguard      bool    `json:"safeguard,omitempty"` // for warm-ups
	WeightDecay    float64 `json:"weight_decay,omitempty"`
}

// Kind returns "prodigy".
func (Prodigy) Kind() string { return "prodigy" }

// Validate reports all that is wrong with r.
func (r Prodigy) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon}.check()
	c.beta("beta3", r.Beta3)
	c.positive("d0", r.D0)
	c.positive("coefficient", r.Coefficient)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (Prodigy) decays()           {}
func (r Prodigy) lambda() float64 { return r.WeightDecay }

// Slots returns moments, s and θ₀.
func (Prodigy) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "m"}, {Name: "v"}, {Name: "s"}, {Name: "start", Copy: true}}
}

// Shared returns d and r.
func (r Prodigy) Shared() []Slot {
	return []Slot{{Name: "d", Start: or(r.D0, 1e-6)}, {Name: "numerator"}}
}

// biased returns √(1−β₂ᵗ)/(1−β₁ᵗ), of the type of x.
func (s *Step) biased(beta1, beta2 float64, x *Node) *Node {
	return as(Div(Sqrt(s.Correction(beta2)), s.Correction(beta1)), x)
}

// Apply moves.
func (r Prodigy) Apply(s *Step) {
	beta1, beta2, epsilon := moments{r.Beta1, r.Beta2, r.Epsilon}.or(0.9, 0.999, 1e-8)
	beta3, d0 := or(r.Beta3, math.Sqrt(beta2)), or(r.D0, 1e-6)
	d := s.Shared("d")
	rate := Mul(d, as(s.Rate, d))
	if r.BiasCorrection {
		rate = Mul(rate, s.biased(beta1, beta2, d))
	}
	relative := MulScalar(d, 1/d0)
	weight := Mul(relative, rate)
	numerator := Mul(weight, s.total(func(i int) *Node { return dot(s.Updates[i], Sub(s.Slot("start", i), s.Values[i])) }))
	numerator = Add(MulScalar(s.Shared("numerator"), beta3), numerator)
	if r.Safeguard {
		weight = Mul(relative, d)
	}
	denominator := s.total(func(i int) *Node {
		g := s.Updates[i]
		s.Average("m", i, Mul(g, d), beta1)
		s.Average("v", i, Square(Mul(g, d)), beta2)
		sum := Add(MulScalar(s.Slot("s", i), beta3), Mul(g, weight))
		s.SetSlot("s", i, sum)
		return elastic.SumAll(Abs(sum))
	})
	estimate := MulScalar(Div(numerator, denominator), or(r.Coefficient, 1))
	moving := GreaterThan(denominator, ZerosLike(denominator))
	next := Where(LogicalAnd(moving, GreaterThan(s.Rate, ZerosLike(s.Rate))), Max(d, estimate), d)
	s.SetShared("d", next)
	s.SetShared("numerator", numerator)
	s.move(rate, func(i int) *Node {
		u := Div(s.Slot("m", i), Add(Sqrt(s.Slot("v", i)), MulScalar(next, epsilon)))
		if l := s.decay(i, r.WeightDecay); l != 0 {
			u = Add(u, MulScalar(s.Values[i], l))
		}
		return u
	})
}

// move sets the changes of parameters to −rate·u, each with its own factor of the learning rate.
func (s *Step) move(rate *Node, u func(i int) *Node) {
	for i := range s.Updates {
		s.Updates[i] = MulScalar(Neg(Mul(u(i), rate)), s.settings[i].rate)
	}
	s.Used = ConvertDType(rate, s.Rate.DType())
	s.descended = true
}

// DAdaptAdam is Adam that estimates its own learning rate from the sum of gradients:
//
//	γ = d·η·b     b = √(1−β₂ᵗ)/(1−β₁ᵗ) if BiasCorrection, else 1
//	a = γ·⟨g, s/(√v + ε)⟩                   with s and v before this update
//	m ← β₁m + (1−β₁)γ·g     v ← β₂v + (1−β₂)g²     s ← √β₂·s + (1−√β₂)γ·g
//	r ← √β₂·r + (1−√β₂)·a     d ← max(d, r/((1−√β₂)·‖s‖₁))
//	Δθ = −m/(√v + ε) − γ·λ·θ
//
// Source: Defazio, Mishchenko 2023, "Learning-rate-free learning by D-adaptation".
type DAdaptAdam struct {
	Beta1          float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2          float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon        float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	D0             float64 `json:"d0,omitempty"`      // 0 means 1e-6
	BiasCorrection bool    `json:"bias_correction,omitempty"`
	WeightDecay    float64 `json:"weight_decay,omitempty"`
}

// Kind returns "dadapt_adam".
func (DAdaptAdam) Kind() string { return "dadapt_adam" }

// Validate reports all that is wrong with r.
func (r DAdaptAdam) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon}.check()
	c.positive("d0", r.D0)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (DAdaptAdam) decays()           {}
func (r DAdaptAdam) lambda() float64 { return r.WeightDecay }

// Slots returns moments and s.
func (DAdaptAdam) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "m"}, {Name: "v"}, {Name: "s"}}
}

// Shared returns d and r.
func (r DAdaptAdam) Shared() []Slot {
	return []Slot{{Name: "d", Start: or(r.D0, 1e-6)}, {Name: "numerator"}}
}

// Apply moves.
func (r DAdaptAdam) Apply(s *Step) {
	beta1, beta2, epsilon := moments{r.Beta1, r.Beta2, r.Epsilon}.or(0.9, 0.999, 1e-8)
	root := math.Sqrt(beta2)
	d := s.Shared("d")
	rate := Mul(d, as(s.Rate, d))
	if r.BiasCorrection {
		rate = Mul(rate, s.biased(beta1, beta2, d))
	}
	along := Mul(rate, s.total(func(i int) *Node {
		return dot(s.Updates[i], Div(s.Slot("s", i), AddScalar(Sqrt(s.Slot("v", i)), epsilon)))
	}))
	length := s.total(func(i int) *Node {
		g := s.Updates[i]
		s.Average("m", i, Mul(g, rate), beta1)
		s.Average("v", i, Square(g), beta2)
		return elastic.SumAll(Abs(s.Average("s", i, Mul(g, rate), root)))
	})
	s.estimate(along, length, root)
	for i := range s.Updates {
		u := Div(s.Slot("m", i), AddScalar(Sqrt(s.Slot("v", i)), epsilon))
		if l := s.decay(i, r.WeightDecay); l != 0 {
			u = Add(u, Mul(MulScalar(s.Values[i], l), rate))
		}
		s.Updates[i] = MulScalar(Neg(u), s.settings[i].rate)
	}
	s.Used = ConvertDType(rate, s.Rate.DType())
	s.descended = true
}

// estimate sets r and d of D-adaptation with moving averages.
func (s *Step) estimate(along, length *Node, beta float64) {
	d := s.Shared("d")
	numerator := mix(s.Shared("numerator"), along, beta)
	s.SetShared("numerator", numerator)
	estimate := Div(numerator, MulScalar(length, 1-beta))
	s.SetShared("d", Where(GreaterThan(length, ZerosLike(length)), Max(d, estimate), d))
}

// DAdaptSGD is SGD with momentum that estimates its own learning rate:
//
//	γ = d·η/‖g₀‖     r ← r + γ·⟨g, s⟩     s ← s + γ·g     d ← max(d, 2r/‖s‖)
//	z = θ₀ − s       θ ← μ·θ + (1−μ)·z
//
// with g₀ the first gradient that is not 0.
//
// Source: Defazio, Mishchenko 2023, "Learning-rate-free learning by D-adaptation".
type DAdaptSGD struct {
	Momentum float64 `json:"momentum,omitempty"`
	D0       float64 `json:"d0,omitempty"` // 0 means 1e-6
}

// Kind returns "dadapt_sgd".
func (DAdaptSGD) Kind() string { return "dadapt_sgd" }

// Validate reports all that is wrong with r.
func (r DAdaptSGD) Validate() error {
	var c check
	c.beta("momentum", r.Momentum)
	c.positive("d0", r.D0)
	return c.err()
}

// Slots returns s and θ₀.
func (DAdaptSGD) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "s"}, {Name: "start", Copy: true}}
}

// Shared returns d, r and ‖g₀‖.
func (r DAdaptSGD) Shared() []Slot {
	return []Slot{{Name: "d", Start: or(r.D0, 1e-6)}, {Name: "numerator"}, {Name: "first_norm"}}
}

// Apply moves.
func (r DAdaptSGD) Apply(s *Step) {
	d := s.Shared("d")
	now := Sqrt(s.total(func(i int) *Node { return elastic.SumAll(Square(s.Updates[i])) }))
	first, zero := s.Shared("first_norm"), ZerosLike(now)
	first = Where(GreaterThan(first, zero), first, now)
	s.SetShared("first_norm", first)
	rate := Where(GreaterThan(first, zero), Div(Mul(d, as(s.Rate, d)), first), zero)
	numerator := s.Shared("numerator")
	square := s.total(func(i int) *Node {
		sum := s.Slot("s", i)
		numerator = Add(numerator, Mul(rate, dot(s.Updates[i], sum)))
		sum = Add(sum, Mul(s.Updates[i], rate))
		s.SetSlot("s", i, sum)
		return elastic.SumAll(Square(sum))
	})
	s.SetShared("numerator", numerator)
	s.SetShared("d", Where(GreaterThan(square, ZerosLike(square)), Max(d, Div(MulScalar(numerator, 2), Sqrt(square))), d))
	for i, v := range s.Values {
		z := Sub(s.Slot("start", i), MulScalar(s.Slot("s", i), s.settings[i].rate))
		s.Updates[i] = Sub(mix(v, z, r.Momentum), v)
	}
	s.Used = ConvertDType(rate, s.Rate.DType())
	s.descended = true
}

// DAdaptLion is [Lion] that estimates its own learning rate:
//
//	γ = d·η     u = sign(β₁m + (1−β₁)g)     Δθ = −γ·(u + λ·θ)     m ← β₂m + (1−β₂)γ·g
//	a = γ·⟨u, s⟩     s ← √β₂·s + (1−√β₂)γ·u     r and d as [DAdaptAdam]
//
// Source: Defazio, Mishchenko 2023, "Learning-rate-free learning by D-adaptation", its code.
type DAdaptLion struct {
	Beta1       float64 `json:"beta1,omitempty"` // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"` // 0 means 0.99
	D0          float64 `json:"d0,omitempty"`    // 0 means 1e-6
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "dadapt_lion".
func (DAdaptLion) Kind() string { return "dadapt_lion" }

// Validate reports all that is wrong with r.
func (r DAdaptLion) Validate() error {
	c := moments{r.Beta1, r.Beta2, 0}.check()
	c.positive("d0", r.D0)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (DAdaptLion) decays()           {}
func (r DAdaptLion) lambda() float64 { return r.WeightDecay }

// Slots returns the moment and s.
func (DAdaptLion) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "s"}} }

// Shared returns d and r.
func (r DAdaptLion) Shared() []Slot {
	return []Slot{{Name: "d", Start: or(r.D0, 1e-6)}, {Name: "numerator"}}
}

// Apply moves.
func (r DAdaptLion) Apply(s *Step) {
	beta1, beta2 := or(r.Beta1, 0.9), or(r.Beta2, 0.99)
	root := math.Sqrt(beta2)
	d := s.Shared("d")
	rate := Mul(d, as(s.Rate, d))
	signs := make([]*Node, len(s.Updates))
	along := Mul(rate, s.total(func(i int) *Node {
		g := s.Updates[i]
		signs[i] = Sign(mix(s.Slot("m", i), g, beta1))
		s.Average("m", i, Mul(g, rate), beta2)
		return dot(signs[i], s.Slot("s", i))
	}))
	length := s.total(func(i int) *Node { return elastic.SumAll(Abs(s.Average("s", i, Mul(signs[i], rate), root))) })
	s.estimate(along, length, root)
	s.move(rate, func(i int) *Node {
		if l := s.decay(i, r.WeightDecay); l != 0 {
			return Add(signs[i], MulScalar(s.Values[i], l))
		}
		return signs[i]
	})
}

// DoWG is gradient descent with a rate from distance over weighted gradients:
//
//	r² ← max(r², ‖θ − θ₀‖²)     w ← w + r²·‖g‖²     u = r²/(√w + ε)·g
//
// Source: Khaled, Mishchenko, Jin 2023, "DoWG unleashed", as in optax.
type DoWG struct {
	Start   float64 `json:"start,omitempty"`   // of r²; 0 means Epsilon
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-4
}

// Kind returns "dowg".
func (DoWG) Kind() string { return "dowg" }

// Validate reports all that is wrong with r.
func (r DoWG) Validate() error {
	var c check
	c.positive("start", r.Start)
	c.positive("epsilon", r.Epsilon)
	return c.err()
}

// Slots returns θ₀.
func (DoWG) Slots(elastic.Variable) []Slot { return []Slot{{Name: "start", Copy: true}} }

// Shared returns r² and w.
func (r DoWG) Shared() []Slot {
	return []Slot{{Name: "distance", Start: or(r.Start, or(r.Epsilon, 1e-4))}, {Name: "weighted"}}
}

// Apply scales.
func (r DoWG) Apply(s *Step) {
	distance := s.total(func(i int) *Node { return elastic.SumAll(Square(Sub(s.Values[i], s.Slot("start", i)))) })
	distance = Max(s.Shared("distance"), distance)
	square := s.total(func(i int) *Node { return elastic.SumAll(Square(s.Updates[i])) })
	weighted := Add(s.Shared("weighted"), Mul(distance, square))
	s.SetShared("distance", distance)
	s.SetShared("weighted", weighted)
	s.scale(Div(distance, AddScalar(Sqrt(weighted), or(r.Epsilon, 1e-4))))
}

// scale multiplies all updates, and the rate that is said to be used.
func (s *Step) scale(factor *Node) {
	for i, u := range s.Updates {
		s.Updates[i] = times(u, factor)
	}
	s.Used = times(s.Used, factor)
}

// DoG is DoWG with gradients that are not weighted: u = r/√(Σ‖g‖² + ε)·g.
//
// Source: Ivgi, Hinder, Carmon 2023, "DoG is SGD's best friend".
type DoG struct {
	Start   float64 `json:"start,omitempty"`   // of r; 0 means 1e-6·(1 + ‖θ₀‖)
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-8
}

// Kind returns "dog".
func (DoG) Kind() string { return "dog" }

// Validate reports all that is wrong with r.
func (r DoG) Validate() error {
	var c check
	c.positive("start", r.Start)
	c.positive("epsilon", r.Epsilon)
	return c.err()
}

// Slots returns θ₀.
func (DoG) Slots(elastic.Variable) []Slot { return []Slot{{Name: "start", Copy: true}} }

// Shared returns r and the sum of squares.
func (DoG) Shared() []Slot { return []Slot{{Name: "distance"}, {Name: "squares"}} }

// Apply scales.
func (r DoG) Apply(s *Step) {
	moved := Sqrt(s.total(func(i int) *Node { return elastic.SumAll(Square(Sub(s.Values[i], s.Slot("start", i)))) }))
	begin := ScalarOf(moved, r.Start)
	if r.Start == 0 {
		begin = MulScalar(AddScalar(Sqrt(s.total(func(i int) *Node { return elastic.SumAll(Square(s.Slot("start", i))) })), 1), 1e-6)
	}
	distance := Max(s.Shared("distance"), Max(moved, begin))
	squares := Add(s.Shared("squares"), s.total(func(i int) *Node { return elastic.SumAll(Square(s.Updates[i])) }))
	s.SetShared("distance", distance)
	s.SetShared("squares", squares)
	s.scale(Div(distance, Sqrt(AddScalar(squares, or(r.Epsilon, 1e-8)))))
}

// Mechanic learns the scale of the updates of the rules before it, whose learning rate is then best 1:
//
//	Δ = (θ₀ − θ)/(Σs + ε)     h = ⟨g + λ·Σs·‖g‖/‖θ‖·θ, Δ⟩     for β = 0.9, 0.99, …
//	r ← β·r + clip(h, ±m)·s   m ← max(β·m, |h| + ε)   v ← β²·v + h²
//	s ← (s₀/n·m + max(r, 0))/(√v + ε)     θ ← θ₀ − Σs·(Δ − change by the rules before)
//
// Source: Cutkosky, Defazio, Mehta 2023, "Mechanic: a learning rate tuner", as in optax.
type Mechanic struct {
	Start float64 `json:"start,omitempty"` // s₀; 0 means 1e-6
	Betas int     `json:"betas,omitempty"` // n; 0 means 6
	Decay float64 `json:"decay,omitempty"` // λ; 0 means 0.01
}

// Kind returns "mechanic".
func (Mechanic) Kind() string { return "mechanic" }

// Validate reports all that is wrong with r.
func (r Mechanic) Validate() error {
	var c check
	c.positive("start", r.Start)
	c.positive("betas", float64(r.Betas))
	c.positive("decay", r.Decay)
	return c.err()
}

// Slots returns θ₀.
func (Mechanic) Slots(elastic.Variable) []Slot { return []Slot{{Name: "start", Copy: true}} }

func (r Mechanic) betas() int { return int(or(float64(r.Betas), 6)) }

// Shared returns r, m, v and s, each a vector of the betas.
func (r Mechanic) Shared() []Slot {
	n := []int{r.betas()}
	return []Slot{{Name: "reward", Shape: n}, {Name: "largest", Shape: n}, {Name: "variance", Shape: n}, {Name: "scale", Shape: n, Start: or(r.Start, 1e-6)}}
}

// Apply scales.
func (r Mechanic) Apply(s *Step) {
	const epsilon = 1e-8
	s.descend()
	reward, largest, variance, scale := s.Shared("reward"), s.Shared("largest"), s.Shared("variance"), s.Shared("scale")
	sum := elastic.SumAll(scale)
	root := func(list []*Node) *Node {
		return Sqrt(s.total(func(i int) *Node { return elastic.SumAll(Square(list[i])) }))
	}
	pull := Div(MulScalar(Mul(sum, root(s.Gradients)), or(r.Decay, 0.01)), AddScalar(root(s.Values), epsilon))
	before := make([]*Node, len(s.Values))
	h := s.total(func(i int) *Node {
		before[i] = Div(Sub(s.Slot("start", i), s.Values[i]), AddScalar(sum, epsilon))
		return dot(Add(s.Gradients[i], Mul(pull, s.Values[i])), before[i])
	})
	clipped := Min(Max(BroadcastToShape(h, largest.Shape()), Neg(largest)), largest)
	betas := make([]float64, r.betas())
	for i := range betas {
		betas[i] = 1 - math.Pow(0.1, float64(i+1))
	}
	beta := ConvertDType(Const(h.Graph(), betas), h.DType())
	newLargest := Max(Mul(beta, largest), BroadcastToShape(AddScalar(Abs(h), epsilon), largest.Shape()))
	variance = Add(Mul(Square(beta), variance), Square(h))
	reward = Add(Mul(beta, reward), Mul(clipped, scale))
	wealth := Add(MulScalar(newLargest, or(r.Start, 1e-6)/float64(r.betas())), MaxScalar(reward, 0))
	scale = Div(wealth, AddScalar(Sqrt(variance), epsilon))
	s.SetShared("reward", reward)
	s.SetShared("largest", newLargest)
	s.SetShared("variance", variance)
	s.SetShared("scale", scale)
	sum = elastic.SumAll(scale)
	for i, change := range s.Updates {
		next := Sub(s.Slot("start", i), Mul(sum, Sub(before[i], change)))
		s.Updates[i] = Sub(next, s.Values[i])
	}
	s.Used = times(s.Used, sum)
}

// MoMo bounds the learning rate of Adam by what the loss says about the distance to its lower bound:
//
//	f̄ ← β₁f̄ + (1−β₁)·loss     γ ← β₁γ + (1−β₁)⟨g, θ⟩     p = √(v/(1−β₂ᵗ)) + ε
//	τ = min(η/(1−β₁ᵗ), max(f̄ − (1−β₁ᵗ)·bound − γ + ⟨m, θ⟩, 0)/⟨m, m/p⟩)     Δθ = −τ·m/p
//
// Source: Schaipp et al. 2023, "MoMo: momentum models for adaptive learning rates", as in optax.
type MoMo struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	Bound   float64 `json:"bound,omitempty"`   // lower bound of the loss
}

// Kind returns "momo".
func (MoMo) Kind() string { return "momo" }

// Validate reports all that is wrong with r.
func (r MoMo) Validate() error { return moments{r.Beta1, r.Beta2, r.Epsilon}.check().err() }

// Slots returns the moments.
func (MoMo) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Shared returns the averages of loss and ⟨g, θ⟩.
func (MoMo) Shared() []Slot { return []Slot{{Name: "loss"}, {Name: "along"}} }

// Apply moves.
func (r MoMo) Apply(s *Step) {
	beta1, beta2, epsilon := moments{r.Beta1, r.Beta2, r.Epsilon}.or(0.9, 0.999, 1e-8)
	loss := mix(s.Shared("loss"), as(s.Loss, s.Shared("loss")), beta1)
	along := mix(s.Shared("along"), s.total(func(i int) *Node { return dot(s.Updates[i], s.Values[i]) }), beta1)
	s.SetShared("loss", loss)
	s.SetShared("along", along)
	first, second := as(s.Correction(beta1), loss), Reciprocal(s.Correction(beta2))
	scaled := make([]*Node, len(s.Updates))
	length := s.total(func(i int) *Node {
		m := s.Average("m", i, s.Updates[i], beta1)
		v := s.Average("v", i, Square(s.Updates[i]), beta2)
		scaled[i] = Div(m, AddScalar(Sqrt(times(v, second)), epsilon))
		return dot(m, scaled[i])
	})
	product := s.total(func(i int) *Node { return dot(s.Slot("m", i), s.Values[i]) })
	gap := MaxScalar(Add(Sub(Sub(loss, MulScalar(first, r.Bound)), along), product), 0)
	tau := Where(GreaterThan(length, ScalarOf(length, 2.3e-16)), Div(gap, length), ZerosLike(gap))
	s.move(Min(Div(as(s.Rate, tau), first), tau), func(i int) *Node { return scaled[i] })
}

// Polyak is gradient descent with the step that would reach the lower bound of a linear loss, at most
// the learning rate:
//
//	u = g     step min(η, (loss − bound)/‖g‖²)
//
// Source: Loizou et al. 2021, "Stochastic Polyak step-size for SGD", as in optax.
type Polyak struct {
	stateless
	Bound float64 `json:"bound,omitempty"`
}

// Kind returns "polyak".
func (Polyak) Kind() string { return "polyak" }

func (Polyak) joint() {}

// Validate finds nothing.
func (Polyak) Validate() error { return nil }

// Apply moves.
func (r Polyak) Apply(s *Step) {
	square := s.total(func(i int) *Node { return elastic.SumAll(Square(s.Updates[i])) })
	step := Min(Div(AddScalar(as(s.Loss, square), -r.Bound), square), as(s.Rate, square))
	step = Where(GreaterThan(square, ScalarOf(square, 2.3e-16)), step, ZerosLike(step))
	s.move(step, func(i int) *Node { return s.Updates[i] })
}

// COCOB bets on gradients as on coins, and has no learning rate:
//
//	c = η·g     L ← max(L, |c|)     G ← G + |c|     R ← max(R − c·(θ − θ₀), 0)     C ← C − c
//	θ = θ₀ + C/(L·max(G + L, α·L))·(L + R)
//
// for each element: the largest gradient L, the sum of all G, the reward R and the bet on C.
//
// Source: Orabona, Tommasi 2017, "Training deep networks without learning rates through coin betting".
type COCOB struct {
	Alpha   float64 `json:"alpha,omitempty"`   // 0 means 100
	Epsilon float64 `json:"epsilon,omitempty"` // start of L; 0 means 1e-8
}

// Kind returns "cocob".
func (COCOB) Kind() string { return "cocob" }

// Validate reports all that is wrong with r.
func (r COCOB) Validate() error {
	var c check
	c.positive("alpha", r.Alpha)
	c.positive("epsilon", r.Epsilon)
	return c.err()
}

// Slots returns θ₀, C, L, G and R.
func (r COCOB) Slots(elastic.Variable) []Slot {
	return []Slot{
		{Name: "start", Copy: true}, {Name: "sum"}, {Name: "largest", Start: or(r.Epsilon, 1e-8)}, {Name: "length"}, {Name: "reward"},
	}
}

// Apply moves.
func (r COCOB) Apply(s *Step) {
	for i, u := range s.Updates {
		g := times(u, s.rate(i))
		start, value := s.Slot("start", i), s.Values[i]
		largest := Max(s.Slot("largest", i), Abs(g))
		length := Add(s.Slot("length", i), Abs(g))
		reward := MaxScalar(Sub(s.Slot("reward", i), Mul(g, Sub(value, start))), 0)
		sum := Sub(s.Slot("sum", i), g)
		s.SetSlot("largest", i, largest)
		s.SetSlot("length", i, length)
		s.SetSlot("reward", i, reward)
		s.SetSlot("sum", i, sum)
		stake := Div(sum, Mul(largest, Max(Add(length, largest), MulScalar(largest, or(r.Alpha, 100)))))
		s.Updates[i] = Sub(Add(start, Mul(stake, Add(largest, reward))), value)
	}
	s.descended = true
}

// Hypergradient moves the learning rate by its own gradient, which is how far the last update u₋₁
// pointed along this gradient:
//
//	h = ⟨g, u₋₁⟩     η ← η + β·h     or η·(1 + β·h/(‖g‖·‖u₋₁‖)) if Multiplicative
//
// over all parameters of a chain. It stands after the rule that makes u. With a schedule, the schedule
// multiplies what was learned so far.
//
// Source: Baydin et al. 2018, "Online learning rate adaptation with hypergradient descent".
type Hypergradient struct {
	Beta           float64 `json:"beta"`
	Multiplicative bool    `json:"multiplicative,omitempty"`
}

// Kind returns "hypergradient".
func (Hypergradient) Kind() string { return "hypergradient" }

// Validate reports all that is wrong with r.
func (r Hypergradient) Validate() error {
	var c check
	c.needed("beta", r.Beta)
	return c.err()
}

// Slots returns the last update.
func (Hypergradient) Slots(elastic.Variable) []Slot { return []Slot{{Name: "last_update"}} }

// Shared returns the factor of the schedule's rate.
func (Hypergradient) Shared() []Slot { return []Slot{{Name: "rate_factor", Start: 1}} }

// Apply moves the rate.
func (r Hypergradient) Apply(s *Step) {
	factor := s.Shared("rate_factor")
	h := s.total(func(i int) *Node { return dot(s.Gradients[i], s.Slot("last_update", i)) })
	if r.Multiplicative {
		root := func(f func(i int) *Node) *Node {
			return Sqrt(s.total(func(i int) *Node { return elastic.SumAll(Square(f(i))) }))
		}
		lengths := Mul(root(func(i int) *Node { return s.Gradients[i] }), root(func(i int) *Node { return s.Slot("last_update", i) }))
		factor = Mul(factor, AddScalar(MulScalar(Div(h, MaxScalar(lengths, 1e-30)), r.Beta), 1))
	} else {
		rate := as(s.Rate, factor)
		moved := Add(factor, Div(MulScalar(h, r.Beta), rate))
		factor = Where(GreaterThan(rate, ZerosLike(rate)), moved, factor)
	}
	s.SetShared("rate_factor", factor)
	for i, u := range s.Updates {
		s.SetSlot("last_update", i, u)
	}
	s.scale(factor)
}

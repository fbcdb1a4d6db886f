package optim

import (
	"errors"
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

var errMomentum = errors.New("nesterov or dampening is set, but momentum is 0")

// moments are the options that rules with two moments have.
type moments struct {
	// Beta1 and Beta2 are the decay rates of the moments.
	Beta1 float64 `json:"beta1,omitempty"`
	Beta2 float64 `json:"beta2,omitempty"`
	// Epsilon is added to the root of the second moment.
	Epsilon float64 `json:"epsilon,omitempty"`
}

func (m moments) check() check {
	var c check
	c.beta("beta1", m.Beta1)
	c.beta("beta2", m.Beta2)
	c.positive("epsilon", m.Epsilon)
	return c
}

func (m moments) or(beta1, beta2, epsilon float64) (float64, float64, float64) {
	return or(m.Beta1, beta1), or(m.Beta2, beta2), or(m.Epsilon, epsilon)
}

// Adam divides the mean of gradients by the root of their mean square:
//
//	m ← β₁m + (1−β₁)g             v ← β₂v + (1−β₂)g²
//	u = m/(1−β₁ᵗ) / (√v/√(1−β₂ᵗ) + ε)
//
// AMSGrad takes the largest v so far in place of v. Nesterov takes β₁·m/(1−β₁ᵗ⁺¹) + (1−β₁)·g/(1−β₁ᵗ)
// in place of m/(1−β₁ᵗ).
//
// Source: Kingma, Ba 2015, "Adam", algorithm 1; Reddi et al. 2018, "On the convergence of Adam and
// beyond"; Dozat 2016, "Incorporating Nesterov momentum into Adam", in the form of optax.
type Adam struct {
	Beta1    float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2    float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon  float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	AMSGrad  bool    `json:"amsgrad,omitempty"`
	Nesterov bool    `json:"nesterov,omitempty"`

	plain bool // makes no correction for bias
}

// Kind returns "adam".
func (Adam) Kind() string { return "adam" }

// Validate reports all that is wrong with a.
func (a Adam) Validate() error { return moments{a.Beta1, a.Beta2, a.Epsilon}.check().err() }

// Slots returns the moments.
func (a Adam) Slots(elastic.Variable) []Slot {
	slots := []Slot{{Name: "m"}, {Name: "v"}}
	if a.AMSGrad {
		slots = append(slots, Slot{Name: "v_max"})
	}
	return slots
}

// Apply scales.
func (a Adam) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.9, 0.999, 1e-8)
	first, second := Reciprocal(s.Correction(beta1)), Reciprocal(Sqrt(s.Correction(beta2)))
	if a.plain {
		first, second = OnesLike(first), OnesLike(second)
	}
	for i, g := range s.Updates {
		m := s.Average("m", i, g, beta1)
		v := s.Average("v", i, Square(g), beta2)
		if a.AMSGrad {
			v = Max(s.Slot("v_max", i), v)
			s.SetSlot("v_max", i, v)
		}
		m = times(m, first)
		if a.Nesterov {
			next := OneMinus(MulScalar(s.power(beta1), beta1))
			m = Add(over(MulScalar(s.Slot("m", i), beta1), next), times(MulScalar(g, 1-beta1), first))
		}
		s.Updates[i] = Div(m, AddScalar(times(Sqrt(v), second), epsilon))
	}
}

// AdamW is [Adam] with decoupled weight decay, see [Decay]. Which parameters decay is said by
// elastic.Variable.Decay: matrices and embeddings, not biases and normalisation scales.
//
// Source: Loshchilov, Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
type AdamW struct {
	Beta1    float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2    float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon  float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	AMSGrad  bool    `json:"amsgrad,omitempty"`
	Nesterov bool    `json:"nesterov,omitempty"`
	// WeightDecay is λ; 0 means none.
	WeightDecay float64 `json:"weight_decay,omitempty"`
	// Cautious masks the update, see [Cautious].
	Cautious bool `json:"cautious,omitempty"`
}

// Kind returns "adamw".
func (AdamW) Kind() string { return "adamw" }

// Validate reports all that is wrong with r.
func (r AdamW) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon}.check()
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

// Chain returns the links.
func (r AdamW) Chain() Chain {
	chain := Chain{Adam{Beta1: r.Beta1, Beta2: r.Beta2, Epsilon: r.Epsilon, AMSGrad: r.AMSGrad, Nesterov: r.Nesterov}}
	if r.Cautious {
		chain = append(chain, Cautious{})
	}
	return append(chain, Decay{Weight: r.WeightDecay})
}

// NAdam is Adam with Nesterov's momentum and a schedule of it:
//
//	μₜ = β₁·(1 − ½·0.96^(t·ψ))     Πₜ = μ₁·…·μₜ
//	u = (μₜ₊₁·m/(1−Πₜ₊₁) + (1−μₜ)·g/(1−Πₜ)) / (√(v/(1−β₂ᵗ)) + ε)
//
// Source: Dozat 2016, "Incorporating Nesterov momentum into Adam", as in PyTorch.
type NAdam struct {
	Beta1         float64 `json:"beta1,omitempty"`          // 0 means 0.9
	Beta2         float64 `json:"beta2,omitempty"`          // 0 means 0.999
	Epsilon       float64 `json:"epsilon,omitempty"`        // 0 means 1e-8
	MomentumDecay float64 `json:"momentum_decay,omitempty"` // ψ; 0 means 0.004
}

// Kind returns "nadam".
func (NAdam) Kind() string { return "nadam" }

// Validate reports all that is wrong with a.
func (a NAdam) Validate() error {
	c := moments{a.Beta1, a.Beta2, a.Epsilon}.check()
	c.positive("momentum_decay", a.MomentumDecay)
	return c.err()
}

// Slots returns the moments.
func (NAdam) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Shared returns the product Π.
func (NAdam) Shared() []Slot { return []Slot{{Name: "mu_product", Start: 1}} }

// Apply scales.
func (a NAdam) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.9, 0.999, 1e-8)
	mu := func(t *Node) *Node {
		power := Exp(MulScalar(t, math.Log(0.96)*or(a.MomentumDecay, 0.004)))
		return MulScalar(OneMinus(MulScalar(power, 0.5)), beta1)
	}
	now, next := mu(s.Number), mu(AddScalar(s.Number, 1))
	product := times(s.Shared("mu_product"), now)
	s.SetShared("mu_product", product)
	product = ConvertDType(product, s.Number.DType())
	gradient := Div(OneMinus(now), OneMinus(product))
	moment := Div(next, OneMinus(Mul(product, next)))
	second := Reciprocal(s.Correction(beta2))
	for i, g := range s.Updates {
		m := s.Average("m", i, g, beta1)
		v := s.Average("v", i, Square(g), beta2)
		root := AddScalar(Sqrt(times(v, second)), epsilon)
		s.Updates[i] = Div(Add(times(g, gradient), times(m, moment)), root)
	}
}

// RAdam is Adam whose step is rectified while the second moment rests on few gradients:
//
//	ρ∞ = 2/(1−β₂) − 1     ρ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ)
//	r = √((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ))
//	u = m/(1−β₁ᵗ) · r·√(1−β₂ᵗ)/(√v + ε)     for ρ > 5, else u = m/(1−β₁ᵗ)
//
// Source: Liu et al. 2020, "On the variance of the adaptive learning rate and beyond", as in PyTorch.
type RAdam struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-8
}

// Kind returns "radam".
func (RAdam) Kind() string { return "radam" }

// Validate reports all that is wrong with a.
func (a RAdam) Validate() error { return moments(a).check().err() }

// Slots returns the moments.
func (RAdam) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Apply scales.
func (a RAdam) Apply(s *Step) {
	beta1, beta2, epsilon := moments(a).or(0.9, 0.999, 1e-8)
	rho, r := s.rectification(beta2)
	rectified := GreaterThan(rho, ScalarOf(rho, 5))
	r = Mul(r, Sqrt(s.Correction(beta2)))
	first := Reciprocal(s.Correction(beta1))
	for i, g := range s.Updates {
		m := times(s.Average("m", i, g, beta1), first)
		root := AddScalar(Sqrt(s.Average("v", i, Square(g), beta2)), epsilon)
		s.Updates[i] = Where(rectified, Div(times(m, r), root), m)
	}
}

// rectification returns ρ and r of [RAdam]; r is a number only for ρ > 4.
func (s *Step) rectification(beta2 float64) (rho, r *Node) {
	infinite := 2/(1-beta2) - 1
	power := s.power(beta2)
	rho = AddScalar(Neg(Div(MulScalar(Mul(s.Number, power), 2), OneMinus(power))), infinite)
	square := Div(Mul(AddScalar(rho, -4), AddScalar(rho, -2)), rho)
	square = MulScalar(square, infinite/((infinite-4)*(infinite-2)))
	return rho, Sqrt(MaxScalar(square, 0))
}

// Adamax takes the largest gradient, fading, in place of the second moment:
//
//	n ← max(β₂·n, |g| + ε)     u = m/(1−β₁ᵗ) / n
//
// Source: Kingma, Ba 2015, "Adam", algorithm 2, as in PyTorch.
type Adamax struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-8
}

// Kind returns "adamax".
func (Adamax) Kind() string { return "adamax" }

// Validate reports all that is wrong with a.
func (a Adamax) Validate() error { return moments(a).check().err() }

// Slots returns the moment and the norm.
func (Adamax) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "infinity_norm"}} }

// Apply scales.
func (a Adamax) Apply(s *Step) {
	beta1, beta2, epsilon := moments(a).or(0.9, 0.999, 1e-8)
	first := Reciprocal(s.Correction(beta1))
	for i, g := range s.Updates {
		m := s.Average("m", i, g, beta1)
		n := Max(MulScalar(s.Slot("infinity_norm", i), beta2), AddScalar(Abs(g), epsilon))
		s.SetSlot("infinity_norm", i, n)
		s.Updates[i] = Div(times(m, first), n)
	}
}

// AdaBelief divides by how far gradients lie from their mean:
//
//	v ← β₂v + (1−β₂)(g−m)² + ε     u = m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)
//
// Source: Zhuang et al. 2020, "AdaBelief optimizer", as in optax.
type AdaBelief struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-16
}

// Kind returns "adabelief".
func (AdaBelief) Kind() string { return "adabelief" }

// Validate reports all that is wrong with a.
func (a AdaBelief) Validate() error { return moments(a).check().err() }

// Slots returns the moments.
func (AdaBelief) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Apply scales.
func (a AdaBelief) Apply(s *Step) {
	beta1, beta2, epsilon := moments(a).or(0.9, 0.999, 1e-16)
	first, second := Reciprocal(s.Correction(beta1)), Reciprocal(s.Correction(beta2))
	for i, g := range s.Updates {
		m := s.Average("m", i, g, beta1)
		v := AddScalar(mix(s.Slot("v", i), Square(Sub(g, m)), beta2), epsilon)
		s.SetSlot("v", i, v)
		s.Updates[i] = Div(times(m, first), AddScalar(Sqrt(times(v, second)), epsilon))
	}
}

// Yogi lets the second moment grow and shrink by steps of one size:
//
//	v ← v − (1−β₂)·sign(v − g²)·g²     u = m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)
//
// Both moments begin at 1e-6.
//
// Source: Zaheer et al. 2018, "Adaptive methods for nonconvex optimization", as in optax.
type Yogi struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-3
}

// Kind returns "yogi".
func (Yogi) Kind() string { return "yogi" }

// Validate reports all that is wrong with a.
func (a Yogi) Validate() error { return moments(a).check().err() }

// Slots returns the moments.
func (Yogi) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "m", Start: 1e-6}, {Name: "v", Start: 1e-6}}
}

// Apply scales.
func (a Yogi) Apply(s *Step) {
	beta1, beta2, epsilon := moments(a).or(0.9, 0.999, 1e-3)
	first, second := Reciprocal(s.Correction(beta1)), Reciprocal(s.Correction(beta2))
	for i, g := range s.Updates {
		m := s.Average("m", i, g, beta1)
		v, square := s.Slot("v", i), Square(g)
		v = Sub(v, MulScalar(Mul(Sign(Sub(v, square)), square), 1-beta2))
		s.SetSlot("v", i, v)
		s.Updates[i] = Div(times(m, first), AddScalar(Sqrt(times(v, second)), epsilon))
	}
}

// QHAdam mixes the moments of Adam with the gradient of the moment:
//
//	u = (ν₁·m̂ + (1−ν₁)·g) / (√(ν₂·v̂ + (1−ν₂)·g²) + ε)
//
// with m̂ and v̂ corrected for bias. Source: Ma, Yarats 2019, "Quasi-hyperbolic momentum and Adam".
type QHAdam struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Nu1     float64 `json:"nu1,omitempty"`     // 0 means 0.7
	Nu2     float64 `json:"nu2,omitempty"`     // 0 means 1
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-8
}

// Kind returns "qhadam".
func (QHAdam) Kind() string { return "qhadam" }

// Validate reports all that is wrong with a.
func (a QHAdam) Validate() error {
	c := moments{a.Beta1, a.Beta2, a.Epsilon}.check()
	c.positive("nu1", a.Nu1)
	c.positive("nu2", a.Nu2)
	return c.err()
}

// Slots returns the moments.
func (QHAdam) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Apply scales.
func (a QHAdam) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.9, 0.999, 1e-8)
	first, second := Reciprocal(s.Correction(beta1)), Reciprocal(s.Correction(beta2))
	for i, g := range s.Updates {
		m := times(s.Average("m", i, g, beta1), first)
		v := times(s.Average("v", i, Square(g), beta2), second)
		root := AddScalar(Sqrt(mix(v, Square(g), or(a.Nu2, 1))), epsilon)
		s.Updates[i] = Div(mix(m, g, or(a.Nu1, 0.7)), root)
	}
}

// ADOPT divides a gradient by the second moment of those before it, and only then averages:
//
//	ĝ = clip(g / max(√v, ε), ±t^¼)     m ← β₁m + (1−β₁)ĝ     u = m     v ← β₂v + (1−β₂)g²
//
// The first update only sets v ← g². Source: Taniguchi et al. 2024, "ADOPT: modified Adam can
// converge with any β₂ with the optimal rate".
type ADOPT struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.9999
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-6
}

// Kind returns "adopt".
func (ADOPT) Kind() string { return "adopt" }

// Validate reports all that is wrong with a.
func (a ADOPT) Validate() error { return moments(a).check().err() }

// Slots returns the moments.
func (ADOPT) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Apply scales.
func (a ADOPT) Apply(s *Step) {
	beta1, beta2, epsilon := moments(a).or(0.9, 0.9999, 1e-6)
	first := s.first()
	limit := Sqrt(Sqrt(s.Number))
	for i, g := range s.Updates {
		v := s.Slot("v", i)
		normed := Div(g, MaxScalar(Sqrt(v), epsilon))
		normed = Max(Min(normed, as(limit, g)), as(Neg(limit), g))
		m := s.Slot("m", i)
		m = Where(first, m, mix(m, normed, beta1))
		s.SetSlot("m", i, m)
		s.SetSlot("v", i, Where(first, Square(g), mix(v, Square(g), beta2)))
		s.Updates[i] = Where(first, ZerosLike(m), m)
	}
}

// AdEMAMix adds a slow mean of gradients to Adam's:
//
//	l ← β₃·l + (1−β₃)·g     u = (m/(1−β₁ᵗ) + α·l) / (√v/√(1−β₂ᵗ) + ε)
//
// Over the first Warmup updates α rises from 0 and β₃ from β₁, with the half-life growing evenly.
//
// Source: Pagliardini et al. 2024, "The AdEMAMix optimizer: better, faster, older".
type AdEMAMix struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Beta3   float64 `json:"beta3,omitempty"`   // 0 means 0.9999
	Alpha   float64 `json:"alpha,omitempty"`   // 0 means 5
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	Warmup  int     `json:"warmup,omitempty"`  // updates; 0 means none
}

// Kind returns "ademamix".
func (AdEMAMix) Kind() string { return "ademamix" }

// Validate reports all that is wrong with a.
func (a AdEMAMix) Validate() error {
	c := moments{a.Beta1, a.Beta2, a.Epsilon}.check()
	c.beta("beta3", a.Beta3)
	c.positive("alpha", a.Alpha)
	c.positive("warmup", float64(a.Warmup))
	return c.err()
}

// Slots returns the moments.
func (AdEMAMix) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "m"}, {Name: "v"}, {Name: "m_slow"}}
}

// Apply scales.
func (a AdEMAMix) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.9, 0.999, 1e-8)
	alpha, beta3 := ScalarOf(s.Number, or(a.Alpha, 5)), ScalarOf(s.Number, or(a.Beta3, 0.9999))
	if a.Warmup > 0 {
		part := MulScalar(s.Number, 1/float64(a.Warmup))
		alpha = Min(Mul(part, alpha), alpha)
		log1, log3 := math.Log(beta1), math.Log(or(a.Beta3, 0.9999))
		mixed := Add(MulScalar(OneMinus(part), log3), MulScalar(part, log1))
		beta3 = Where(GreaterOrEqual(part, OnesLike(part)), beta3, Min(Exp(Div(ScalarOf(mixed, log1*log3), mixed)), beta3))
	}
	first, second := Reciprocal(s.Correction(beta1)), Reciprocal(Sqrt(s.Correction(beta2)))
	for i, g := range s.Updates {
		m := times(s.Average("m", i, g, beta1), first)
		v := s.Average("v", i, Square(g), beta2)
		slow := Add(times(s.Slot("m_slow", i), beta3), times(g, OneMinus(beta3)))
		s.SetSlot("m_slow", i, slow)
		s.Updates[i] = Div(Add(m, times(slow, alpha)), AddScalar(times(Sqrt(v), second), epsilon))
	}
}

// Adan adds the mean d of differences of gradients, g − g₋₁:
//
//	n ← β₃n + (1−β₃)(g + k·(g−g₋₁))²     u = (m/(1−β₁ᵗ) + k·d/(1−β₂ᵗ)) / (√(n/(1−β₃ᵗ)) + ε)
//
// with k = β₂. OneMinus takes k = 1−β₂, and ε once more below the root, as optax does, whose β are
// those of the paper's 1−β.
//
// Source: Xie et al. 2022, "Adan: adaptive Nesterov momentum algorithm".
type Adan struct {
	Beta1    float64 `json:"beta1,omitempty"`   // 0 means 0.98
	Beta2    float64 `json:"beta2,omitempty"`   // 0 means 0.92
	Beta3    float64 `json:"beta3,omitempty"`   // 0 means 0.99
	Epsilon  float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	OneMinus bool    `json:"one_minus,omitempty"`
}

// Kind returns "adan".
func (Adan) Kind() string { return "adan" }

// Validate reports all that is wrong with a.
func (a Adan) Validate() error {
	c := moments{a.Beta1, a.Beta2, a.Epsilon}.check()
	c.beta("beta3", a.Beta3)
	return c.err()
}

// Slots returns the moments and the last gradient.
func (Adan) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "m"}, {Name: "m_difference"}, {Name: "v"}, {Name: "last_gradient"}}
}

// Apply scales.
func (a Adan) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.98, 0.92, 1e-8)
	beta3, k, inner := or(a.Beta3, 0.99), beta2, 0.0
	if a.OneMinus {
		k, inner = 1-beta2, epsilon
	}
	first, second, third := Reciprocal(s.Correction(beta1)), Reciprocal(s.Correction(beta2)), Reciprocal(s.Correction(beta3))
	for i, g := range s.Updates {
		difference := Where(s.first(), ZerosLike(g), Sub(g, s.Slot("last_gradient", i)))
		s.SetSlot("last_gradient", i, g)
		m := times(s.Average("m", i, g, beta1), first)
		d := times(s.Average("m_difference", i, difference, beta2), second)
		v := times(s.Average("v", i, Square(Add(g, MulScalar(difference, k))), beta3), third)
		s.Updates[i] = Div(Add(m, MulScalar(d, k)), AddScalar(Sqrt(AddScalar(v, inner)), epsilon))
	}
}

// ProximalDecay is weight decay after the update: θ ← (θ + Δθ)/(1 + η·λ) for parameters that decay.
type ProximalDecay struct {
	stateless
	Weight float64 `json:"weight"`
}

// Kind returns "proximal_decay".
func (ProximalDecay) Kind() string { return "proximal_decay" }

// Validate reports all that is wrong with d.
func (d ProximalDecay) Validate() error { return weight(d.Weight) }

func (ProximalDecay) decays()           {}
func (d ProximalDecay) lambda() float64 { return d.Weight }

// Apply shrinks.
func (d ProximalDecay) Apply(s *Step) {
	for i, next := range s.next() {
		if l := s.decay(i, d.Weight); l != 0 {
			next = over(next, AddScalar(MulScalar(s.rate(i), l), 1))
		}
		s.Updates[i] = Sub(next, s.Values[i])
	}
}

// MARS corrects gradients for their variance before Adam takes them:
//
//	c = g + γ·β₁/(1−β₁)·(g − g₋₁)     c ← c / max(1, ‖c‖)     u = Adam of c
//
// with g₋₁ the last gradient, 0 at first; ε is added to √v before the bias is corrected.
//
// Source: Yuan et al. 2024, "MARS: unleashing the power of variance reduction for training large
// models".
type MARS struct {
	Beta1   float64 `json:"beta1,omitempty"`   // 0 means 0.95
	Beta2   float64 `json:"beta2,omitempty"`   // 0 means 0.99
	Gamma   float64 `json:"gamma,omitempty"`   // 0 means 0.025
	Epsilon float64 `json:"epsilon,omitempty"` // 0 means 1e-8
}

// Kind returns "mars".
func (MARS) Kind() string { return "mars" }

// Validate reports all that is wrong with a.
func (a MARS) Validate() error {
	c := moments{a.Beta1, a.Beta2, a.Epsilon}.check()
	c.positive("gamma", a.Gamma)
	return c.err()
}

// Slots returns the moments and the last gradient.
func (MARS) Slots(elastic.Variable) []Slot {
	return []Slot{{Name: "m"}, {Name: "v"}, {Name: "last_gradient"}}
}

// Apply scales.
func (a MARS) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.95, 0.99, 1e-8)
	for i, g := range s.Updates {
		c := Add(g, MulScalar(Sub(g, s.Slot("last_gradient", i)), or(a.Gamma, 0.025)*beta1/(1-beta1)))
		s.SetSlot("last_gradient", i, g)
		s.Updates[i] = Div(c, MaxScalar(norm(c), 1))
	}
	Adam{Beta1: beta1, Beta2: beta2, Epsilon: epsilon}.uncorrected(s)
}

// AdamP takes from the update of matrices what would only change the norm of their rows, or of the
// whole, where gradients hardly do:
//
//	u ← u − (θ̂·u)·θ̂     if the largest |cos(g, θ)| < δ/√n, for rows, else for the whole tensor
//
// with θ̂ = θ/(‖θ‖+ε) and n the elements of a row or the tensor. There weight decay is multiplied by
// Ratio. Rows are those of the first axis.
//
// Source: Heo et al. 2021, "AdamP: slowing down the slowdown for momentum optimizers".
type AdamP struct {
	Beta1       float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon     float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	Delta       float64 `json:"delta,omitempty"`   // 0 means 0.1
	Ratio       float64 `json:"ratio,omitempty"`   // 0 means 0.1
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "adamp".
func (AdamP) Kind() string { return "adamp" }

// Validate reports all that is wrong with a.
func (a AdamP) Validate() error {
	c := moments{a.Beta1, a.Beta2, a.Epsilon}.check()
	c.positive("delta", a.Delta)
	c.positive("ratio", a.Ratio)
	c.decay("weight_decay", a.WeightDecay)
	return c.err()
}

func (AdamP) decays()           {}
func (a AdamP) lambda() float64 { return a.WeightDecay }

// Slots returns the moments.
func (AdamP) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Apply scales.
func (a AdamP) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.9, 0.999, 1e-8)
	Adam{Beta1: beta1, Beta2: beta2, Epsilon: epsilon}.uncorrected(s)
	for i, u := range s.Updates {
		keep := ScalarOf(u, 1)
		if u.Rank() > 1 {
			u, keep = a.project(s.Values[i], s.Gradients[i], u, epsilon)
		}
		if l := s.decay(i, a.WeightDecay); l != 0 {
			u = Add(u, Mul(MulScalar(s.Values[i], l), keep))
		}
		s.Updates[i] = u
	}
}

// uncorrected is Adam's update with ε added to √v before the bias is corrected.
func (a Adam) uncorrected(s *Step) {
	scale := Div(Sqrt(s.Correction(a.Beta2)), s.Correction(a.Beta1))
	for i, g := range s.Updates {
		m := s.Average("m", i, g, a.Beta1)
		v := s.Average("v", i, Square(g), a.Beta2)
		s.Updates[i] = times(Div(m, AddScalar(Sqrt(v), a.Epsilon)), scale)
	}
}

func (a AdamP) project(value, gradient, u *Node, epsilon float64) (projected, keep *Node) {
	project := func(rows int) (small, projected *Node) {
		flat := func(x *Node) *Node { return Reshape(x, rows, -1) }
		v, g, flatU := flat(value), flat(gradient), flat(u)
		length := func(x *Node) *Node { return Sqrt(ReduceAndKeep(Square(x), ReduceSum, -1)) }
		cosine := Abs(Div(ReduceAndKeep(Mul(v, g), ReduceSum, -1), Mul(MaxScalar(length(v), epsilon), MaxScalar(length(g), epsilon))))
		bound := or(a.Delta, 0.1) / math.Sqrt(float64(v.Shape().Dimensions[1]))
		small = LessThan(ReduceAllMax(cosine), ScalarOf(cosine, bound))
		unit := Div(v, AddScalar(length(v), epsilon))
		radial := ReduceAndKeep(Mul(unit, flatU), ReduceSum, -1)
		return small, Reshape(Sub(flatU, Mul(unit, radial)), u.Shape().Dimensions...)
	}
	byRow, rows := project(value.Shape().Dimensions[0])
	byTensor, whole := project(1)
	ratio := ScalarOf(u, or(a.Ratio, 0.1))
	one := OnesLike(ratio)
	return Where(byRow, rows, Where(byTensor, whole, u)), Where(byRow, ratio, Where(byTensor, ratio, one))
}

// StableAdamW is AdamW whose step shrinks where gradients are larger than the second moment knows:
//
//	β̂ = (βᵗ − β)/(βᵗ − 1)     m, v with β̂₁, β̂₂ in place of a correction of bias
//	u = m/(√v + ε)            Δθ = −η/max(1, rms(g/max(√v, ε)))·(u + λ·θ)
//
// Source: Wortsman et al. 2023, "Stable and low-precision training for large-scale vision-language
// models".
type StableAdamW struct {
	Beta1       float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"`   // 0 means 0.99
	Epsilon     float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "stable_adamw".
func (StableAdamW) Kind() string { return "stable_adamw" }

// Validate reports all that is wrong with a.
func (a StableAdamW) Validate() error {
	c := moments{a.Beta1, a.Beta2, a.Epsilon}.check()
	c.decay("weight_decay", a.WeightDecay)
	return c.err()
}

func (StableAdamW) decays()           {}
func (a StableAdamW) lambda() float64 { return a.WeightDecay }

// Slots returns the moments.
func (StableAdamW) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}, {Name: "v"}} }

// Apply scales.
func (a StableAdamW) Apply(s *Step) {
	beta1, beta2, epsilon := moments{a.Beta1, a.Beta2, a.Epsilon}.or(0.9, 0.99, 1e-8)
	hat := func(beta float64) *Node {
		power := s.power(beta)
		return Div(AddScalar(power, -beta), AddScalar(power, -1))
	}
	towards := func(name string, i int, x, beta *Node) *Node {
		m := Add(times(s.Slot(name, i), beta), times(x, OneMinus(beta)))
		s.SetSlot(name, i, m)
		return m
	}
	hat1, hat2 := hat(beta1), hat(beta2)
	for i, g := range s.Updates {
		m := towards("m", i, g, hat1)
		v := towards("v", i, Square(g), hat2)
		size := MaxScalar(Sqrt(MulScalar(elastic.SumAll(Div(Square(g), MaxScalar(v, epsilon*epsilon))), 1/float64(g.Shape().Size()))), 1)
		u := Div(m, AddScalar(Sqrt(v), epsilon))
		if l := s.decay(i, a.WeightDecay); l != 0 {
			u = Add(u, MulScalar(s.Values[i], l))
		}
		s.Updates[i] = Div(u, size)
	}
}

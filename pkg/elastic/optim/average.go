package optim

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// EMA keeps a moving average of the parameters, by which models are evaluated and saved:
//
//	a ← β·a + (1−β)·θ     after each update, from the first parameters on
//
// Source: Polyak, Juditsky 1992, "Acceleration of stochastic approximation by averaging".
type EMA struct {
	Beta float64 `json:"beta,omitempty"` // 0 means 0.999
}

// Kind returns "ema".
func (EMA) Kind() string { return "ema" }

// Validate reports all that is wrong with e.
func (e EMA) Validate() error {
	var c check
	c.beta("beta", e.Beta)
	return c.err()
}

// Slots returns the average.
func (EMA) Slots(elastic.Variable) []Slot { return []Slot{{Name: "average", Copy: true}} }

// Apply averages.
func (e EMA) Apply(s *Step) {
	for i, next := range s.next() {
		s.Average("average", i, next, or(e.Beta, 0.999))
	}
}

// Average returns the average.
func (EMA) Average(s *Step) []*Node { return s.all("average") }

func (s *Step) all(name string) []*Node {
	list := make([]*Node, len(s.Parameters))
	for i := range list {
		list[i] = s.Slot(name, i)
	}
	return list
}

// SWA is stochastic weight averaging: it keeps the mean of the parameters of every Every-th update from
// update Start on; before, it is the parameters themselves.
//
// Source: Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization".
type SWA struct {
	Start int `json:"start"`
	Every int `json:"every,omitempty"` // 0 means 1
}

// Kind returns "swa".
func (SWA) Kind() string { return "swa" }

func (SWA) joint() {}

// Validate reports all that is wrong with w.
func (w SWA) Validate() error {
	var c check
	c.positive("start", float64(w.Start))
	c.positive("every", float64(w.Every))
	return c.err()
}

// Slots returns the mean.
func (SWA) Slots(elastic.Variable) []Slot { return []Slot{{Name: "average", Copy: true}} }

// Apply averages.
func (w SWA) Apply(s *Step) {
	every := or(float64(w.Every), 1)
	since := AddScalar(s.Number, -float64(max(w.Start, 1)))
	models := MulScalar(since, 1/every)
	due := whole(models)
	count := AddScalar(Round(models), 1) // with this one, where it is due
	before := LessThan(since, ZerosLike(since))
	for i, next := range s.next() {
		a := s.Slot("average", i)
		mean := Add(a, over(Sub(next, a), MaxScalar(count, 1)))
		s.SetSlot("average", i, Where(before, next, Where(due, mean, a)))
	}
}

// whole returns whether x, a quotient of whole numbers, is one but for rounding: 49·(1/49) is less than 1.
func whole(x *Node) *Node { return LessThan(Abs(Sub(x, Round(x))), ScalarOf(x, 1e-6)) }

// Average returns the mean.
func (SWA) Average(s *Step) []*Node { return s.all("average") }

// Lookahead lets the rules before it run for Every updates, then goes back most of the way:
//
//	φ ← φ + α·(θ − φ)     θ ← φ     every Every-th update
//
// Models are evaluated with φ, the slow parameters.
//
// Source: Zhang et al. 2019, "Lookahead optimizer: k steps forward, 1 step back".
type Lookahead struct {
	Every int     `json:"every,omitempty"` // k; 0 means 5
	Alpha float64 `json:"alpha,omitempty"` // 0 means 0.5
}

// Kind returns "lookahead".
func (Lookahead) Kind() string { return "lookahead" }

func (Lookahead) joint() {}

// Validate reports all that is wrong with l.
func (l Lookahead) Validate() error {
	var c check
	c.positive("every", float64(l.Every))
	c.positive("alpha", l.Alpha)
	return c.err()
}

// Slots returns the slow parameters.
func (Lookahead) Slots(elastic.Variable) []Slot { return []Slot{{Name: "slow", Copy: true}} }

// Apply goes back when it is time.
func (l Lookahead) Apply(s *Step) {
	due := whole(MulScalar(s.Number, 1/or(float64(l.Every), 5)))
	for i, next := range s.next() {
		slow := s.Slot("slow", i)
		moved := Add(slow, MulScalar(Sub(next, slow), or(l.Alpha, 0.5)))
		s.SetSlot("slow", i, Where(due, moved, slow))
		s.Updates[i] = Where(due, Sub(moved, s.Values[i]), s.Updates[i])
	}
}

// Average returns the slow parameters.
func (Lookahead) Average(s *Step) []*Node { return s.all("slow") }

// ScheduleFree needs no schedule that knows when training ends. Gradients are taken at y, which is
// what is trained, between a fast sequence z and its average x, by which models are evaluated:
//
//	w = ηmax²     c = w/Σw     u ← u + λ·y
//	y ← (1−c)·y + c·z + η·(β·(1−c) − 1)·u     z ← z − η·u     x = y + (1 − 1/β)·(z − y)
//
// with u the update so far (Adam's without its first moment, or the gradient), ηmax the largest rate
// until now. The rate is constant, after a warm-up.
//
// Source: Defazio et al. 2024, "The road less scheduled".
type ScheduleFree struct {
	Beta        float64 `json:"beta,omitempty"` // 0 means 0.9
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "schedule_free".
func (ScheduleFree) Kind() string { return "schedule_free" }

// Validate reports all that is wrong with r.
func (r ScheduleFree) Validate() error {
	var c check
	c.beta("beta", r.Beta)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (ScheduleFree) decays()           {}
func (r ScheduleFree) lambda() float64 { return r.WeightDecay }

// Slots returns z.
func (ScheduleFree) Slots(elastic.Variable) []Slot { return []Slot{{Name: "z", Copy: true}} }

// Shared returns ηmax and Σw.
func (ScheduleFree) Shared() []Slot { return []Slot{{Name: "rate_max"}, {Name: "weight_sum"}} }

// Apply moves y and z.
func (r ScheduleFree) Apply(s *Step) {
	s.pull(r.WeightDecay)
	beta := or(r.Beta, 0.9)
	most, sum := s.Shared("rate_max"), s.Shared("weight_sum")
	most = Max(most, as(s.Rate, most))
	weight := Square(most)
	sum = Add(sum, weight)
	s.SetShared("rate_max", most)
	s.SetShared("weight_sum", sum)
	c := Where(GreaterThan(sum, ZerosLike(sum)), Div(weight, sum), ZerosLike(sum))
	for i, u := range s.Updates {
		y, z := s.Values[i], s.Slot("z", i)
		step := times(u, s.rate(i))
		s.SetSlot("z", i, Sub(z, step))
		back := AddScalar(MulScalar(OneMinus(c), beta), -1)
		s.Updates[i] = Add(times(Sub(z, y), c), times(step, back))
	}
	s.descended = true
}

// Average returns x.
func (r ScheduleFree) Average(s *Step) []*Node {
	list := make([]*Node, len(s.Parameters))
	for i, y := range s.Values {
		list[i] = Add(y, MulScalar(Sub(s.Slot("z", i), y), 1-1/or(r.Beta, 0.9)))
	}
	return list
}

// ScheduleFreeAdamW is [ScheduleFree] over Adam's second moment.
type ScheduleFreeAdamW struct {
	Beta1       float64 `json:"beta1,omitempty"`   // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"`   // 0 means 0.999
	Epsilon     float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	WeightDecay float64 `json:"weight_decay,omitempty"`
	// Rectified scales the rate as [RAdam] does, so that no warm-up is needed.
	Rectified bool `json:"rectified,omitempty"`
}

// Kind returns "schedule_free_adamw".
func (ScheduleFreeAdamW) Kind() string { return "schedule_free_adamw" }

// Validate reports all that is wrong with r.
func (r ScheduleFreeAdamW) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon}.check()
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

// Chain returns the links.
func (r ScheduleFreeAdamW) Chain() Chain {
	return Chain{
		SecondMoment{Beta: or(r.Beta2, 0.999), Epsilon: r.Epsilon, Rectified: r.Rectified},
		ScheduleFree{Beta: r.Beta1, WeightDecay: r.WeightDecay},
	}
}

// ScheduleFreeSGD is [ScheduleFree] over gradients.
type ScheduleFreeSGD struct {
	Momentum    float64 `json:"momentum,omitempty"` // β; 0 means 0.9
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "schedule_free_sgd".
func (ScheduleFreeSGD) Kind() string { return "schedule_free_sgd" }

// Validate reports all that is wrong with r.
func (r ScheduleFreeSGD) Validate() error {
	var c check
	c.beta("momentum", r.Momentum)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

// Chain returns the links.
func (r ScheduleFreeSGD) Chain() Chain {
	return Chain{ScheduleFree{Beta: r.Momentum, WeightDecay: r.WeightDecay}}
}

// SecondMoment divides updates by the root of their mean square: v ← βv + (1−β)u², u ← u/(√(v/(1−βᵗ)) + ε).
//
// Rectified multiplies the learning rate by r of [RAdam] for ρ > 4, and before that makes no move but
// lets the second moment grow.
type SecondMoment struct {
	Beta      float64 `json:"beta"`
	Epsilon   float64 `json:"epsilon,omitempty"` // 0 means 1e-8
	Rectified bool    `json:"rectified,omitempty"`
}

// Kind returns "second_moment".
func (SecondMoment) Kind() string { return "second_moment" }

// Validate reports all that is wrong with m.
func (m SecondMoment) Validate() error {
	var c check
	c.beta("beta", m.Beta)
	c.positive("epsilon", m.Epsilon)
	return c.err()
}

// Slots returns the moment.
func (SecondMoment) Slots(elastic.Variable) []Slot { return []Slot{{Name: "v"}} }

// Apply scales.
func (m SecondMoment) Apply(s *Step) {
	second := Reciprocal(s.Correction(m.Beta))
	for i, g := range s.Updates {
		v := times(s.Average("v", i, Square(g), m.Beta), second)
		s.Updates[i] = Div(g, AddScalar(Sqrt(v), or(m.Epsilon, 1e-8)))
	}
	if m.Rectified {
		rho, r := s.rectification(m.Beta)
		s.Rate = Mul(s.Rate, Where(GreaterThan(rho, ScalarOf(rho, 4)), r, ZerosLike(r)))
		s.Used = s.Rate
	}
}

// SAM takes gradients where the loss is highest nearby:
//
//	θ̂ = θ + ρ·g/‖g‖     or, if Adaptive, θ + ρ·θ²·g/‖θ·g‖
//
// so each update costs two. It stands first in a chain and does nothing itself.
//
// Source: Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization";
// Kwon et al. 2021, "ASAM".
type SAM struct {
	stateless
	Rho      float64 `json:"rho,omitempty"` // 0 means 0.05, or 0.5 if Adaptive
	Adaptive bool    `json:"adaptive,omitempty"`
}

// Kind returns "sam".
func (SAM) Kind() string { return "sam" }

// Validate reports all that is wrong with m.
func (m SAM) Validate() error {
	var c check
	c.positive("rho", m.Rho)
	return c.err()
}

// Apply does nothing.
func (SAM) Apply(*Step) {}

// Perturb returns θ̂.
func (m SAM) Perturb(s *Step) []*Node {
	rho := or(m.Rho, 0.05)
	if m.Adaptive {
		rho = or(m.Rho, 0.5)
	}
	n := AddScalar(Sqrt(s.total(func(i int) *Node { return elastic.SumAll(Square(m.scaled(s, i))) })), 1e-12)
	values := make([]*Node, len(s.Values))
	for i, v := range s.Values {
		direction := m.scaled(s, i)
		if m.Adaptive {
			direction = Mul(Abs(v), direction)
		}
		values[i] = Add(v, MulScalar(Div(direction, n), rho))
	}
	return values
}

// scaled returns the gradient, times |θ| if adaptive.
func (m SAM) scaled(s *Step, i int) *Node {
	if m.Adaptive {
		return Mul(Abs(s.Values[i]), s.Gradients[i])
	}
	return s.Gradients[i]
}

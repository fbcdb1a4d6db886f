// Package optim has update rules as plain data: transforms of gradients, chained.
//
// A [Transform] takes the updates that the links before it made, at first the gradients, and its
// own state, and gives new ones. A [Chain] of them is a rule; presets such as [AdamW] are chains
// with a name. A [Config] is a rule with parameter groups:
//
//	config := optim.Config{
//		Rule: optim.AdamW{WeightDecay: 0.01},
//		Groups: []optim.Group{{Variables: []string{"/head/*"}, Rate: 10}},
//	}
//	optimizer, err := optim.New(config, parameters)
//
// In JSON the same is
//
//	{"kind": "adamw", "weight_decay": 0.01, "groups": [{"variables": ["/head/*"], "rate": 10}]}
//
// [Optimizer.Update] builds the graph of one update. The learning rate and the number of the
// update are inputs of it, float64 scalars, so that no schedule and no controller causes a
// compilation, and bias corrections are exact at any step. All state is in [Optimizer.Slots].
//
// Symbols in formulas: g gradient, u update as the chain has it, θ parameter, η learning rate, t
// number of the update from 1, β decay rates of moving averages, ε what keeps a denominator from 0,
// λ weight decay. A parameter changes by θ ← θ − η·u. Zero options mean their defaults.
package optim

import (
	"errors"
	"fmt"
	"math"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Rule is an update rule as plain data: a [Transform], a [Preset] or a [Chain].
type Rule interface {
	// Kind is the rule's name in JSON.
	Kind() string
	// Validate reports all that is wrong with the rule, each problem with its field.
	Validate() error
}

// Preset is a rule that is a chain of others.
type Preset interface {
	Rule
	Chain() Chain
}

// Transform is one link of a chain.
type Transform interface {
	Rule
	// Slots lists the state that it keeps for a parameter.
	Slots(p elastic.Variable) []Slot
	// Apply replaces the updates of a step.
	Apply(s *Step)
}

// Sharer is a [Transform] with state that all parameters of its chain share.
type Sharer interface{ Shared() []Slot }

// Averager is a [Transform] by which models are evaluated with other weights than those that are
// trained.
type Averager interface {
	// Average returns these weights after the update that led to s.
	Average(s *Step) []*Node
}

// Perturber is a [Transform] for gradients that are taken at other weights than those that are
// trained.
type Perturber interface {
	// Perturb returns these weights, from the gradients at those that are trained.
	Perturb(s *Step) []*Node
}

// setting is what holds for one parameter.
type setting struct {
	rate  float64  // factor of the learning rate
	decay *float64 // weight decay in place of the rule's
}

// Slot is a tensor of state.
type Slot struct {
	Name string
	// Shape is its dimensions; nil means those of the parameter, or a scalar if it is shared.
	Shape []int
	// Start is the value of all elements before the first update.
	Start float64
	// Copy says that the slot begins as a copy of the parameter.
	Copy bool
}

// Step is one update of some parameters while its graph is built. Lists have an entry a parameter.
type Step struct {
	Parameters []elastic.Variable
	Values     []*Node // before the update
	Gradients  []*Node // as they came into the chain
	Updates    []*Node // as the chain has them so far
	Number     *Node   // t, float64 scalar
	Rate       *Node   // η, float64 scalar
	Loss       *Node   // mean loss at Values, scalar
	Key        *Node   // for random numbers, uint32[2], the same for all parameters of the update
	// Used is the learning rate that is used in the end, where a transform finds it, float64 scalar.
	Used *Node

	since     []*Node // see [Input]
	settings  []setting
	descended bool // Updates are changes of the parameters now
	slots     map[string]*Node
	shared    string // end of the names of shared slots
}

func slotKey(name, path string) string { return name + path }

// Slot returns the state of parameter i.
func (s *Step) Slot(name string, i int) *Node {
	return s.find(slotKey(name, s.Parameters[i].Path))
}

// SetSlot replaces the state of parameter i.
func (s *Step) SetSlot(name string, i int, value *Node) {
	s.slots[slotKey(name, s.Parameters[i].Path)] = value
}

// Shared returns shared state.
func (s *Step) Shared(name string) *Node { return s.find(slotKey(name, s.shared)) }

// SetShared replaces shared state.
func (s *Step) SetShared(name string, value *Node) { s.slots[slotKey(name, s.shared)] = value }

func (s *Step) find(key string) *Node {
	n, ok := s.slots[key]
	if !ok {
		exceptions.Panicf("optimizer has no slot %s", key)
	}
	return n
}

// Average moves a slot of parameter i towards x and returns it: m ← β·m + (1−β)·x.
func (s *Step) Average(name string, i int, x *Node, beta float64) *Node {
	m := mix(s.Slot(name, i), x, beta)
	s.SetSlot(name, i, m)
	return m
}

// Correction returns 1 − βᵗ, a float64 scalar.
func (s *Step) Correction(beta float64) *Node {
	return OneMinus(s.power(beta))
}

// power returns βᵗ.
func (s *Step) power(beta float64) *Node {
	return Exp(MulScalar(s.Number, math.Log(beta)))
}

// first returns whether this is the first update.
func (s *Step) first() *Node { return LessOrEqual(s.Number, OnesLike(s.Number)) }

// rate returns the learning rate of parameter i.
func (s *Step) rate(i int) *Node {
	if f := s.settings[i].rate; f != 1 {
		return MulScalar(s.Rate, f)
	}
	return s.Rate
}

// decay returns the weight decay of parameter i under a rule's λ.
func (s *Step) decay(i int, lambda float64) float64 {
	switch own := s.settings[i].decay; {
	case own != nil:
		return *own
	case s.Parameters[i].Decay:
		return lambda
	}
	return 0
}

// descend makes changes of parameters out of updates, if nothing has yet: Δθ = −η·u.
func (s *Step) descend() {
	if s.descended {
		return
	}
	for i, u := range s.Updates {
		s.Updates[i] = times(u, Neg(s.rate(i)))
	}
	s.descended = true
}

// joint is a transform that looks at all parameters of its chain together, or that counts the updates of
// the run, though it has no shared state.
type joint interface{ joint() }

// apply applies a link. Where parameters begin to change at different times, it does so for those of
// one time after the other, with their own number of updates.
func (s *Step) apply(t Transform) {
	_, shares := t.(Sharer)
	_, joins := t.(joint)
	if s.since == nil || shares || joins {
		t.Apply(s)
		return
	}
	var times []*Node
	for _, since := range s.since {
		if !slices.Contains(times, since) {
			times = append(times, since)
		}
	}
	var lead *Step
	for _, since := range times {
		part, index := s.only(func(i int) bool { return s.since[i] == since })
		if since != nil {
			part.Number = MaxScalar(Sub(s.Number, since), 1)
		}
		t.Apply(part)
		for i, u := range part.Updates {
			if since != nil { // links that look at all parameters see no update
				u = keptUntil(s.Number, since, u, ZerosLike(u))
			}
			s.Updates[index[i]] = u
		}
		if lead == nil || since == nil {
			lead = part
		}
	}
	// What a link makes of the rate is one for all: that of parameters that change from the start.
	s.Rate, s.Used, s.descended = lead.Rate, lead.Used, lead.descended
}

// keptUntil returns after, and before in updates up to the number since; nil is none.
func keptUntil(number, since, after, before *Node) *Node {
	if since == nil {
		return after
	}
	return Where(GreaterThan(number, since), after, before)
}

// next returns the parameters after the update.
func (s *Step) next() []*Node {
	s.descend()
	next := make([]*Node, len(s.Values))
	for i, v := range s.Values {
		next[i] = Add(v, s.Updates[i])
	}
	return next
}

// only returns the step of the parameters that keep says, with the same state.
func (s *Step) only(keep func(i int) bool) (part *Step, index []int) {
	copied := *s
	part = &copied
	part.Parameters, part.Values, part.Gradients, part.Updates, part.settings, part.since = nil, nil, nil, nil, nil, nil
	for i := range s.Parameters {
		if keep(i) {
			part.Parameters = append(part.Parameters, s.Parameters[i])
			part.Values = append(part.Values, s.Values[i])
			part.Gradients = append(part.Gradients, s.Gradients[i])
			part.Updates = append(part.Updates, s.Updates[i])
			part.settings = append(part.settings, s.settings[i])
			index = append(index, i)
		}
	}
	return part, index
}

// mix returns β·x + (1−β)·y.
func mix(x, y *Node, beta float64) *Node {
	return Add(MulScalar(x, beta), MulScalar(y, 1-beta))
}

// as converts a scalar to the type of x.
func as(scalar, x *Node) *Node { return ConvertDType(scalar, x.DType()) }

// times multiplies x by a scalar of any type.
func times(x, scalar *Node) *Node { return Mul(x, as(scalar, x)) }

// over divides x by a scalar of any type.
func over(x, scalar *Node) *Node { return Div(x, as(scalar, x)) }

// total sums f over all parameters.
func (s *Step) total(f func(i int) *Node) *Node {
	var sum *Node
	for i := range s.Parameters {
		if x := f(i); sum == nil {
			sum = x
		} else {
			sum = Add(sum, x)
		}
	}
	return sum
}

// dot returns the sum of products of x and y.
func dot(x, y *Node) *Node { return elastic.SumAll(Mul(x, y)) }

// norm returns the Euclidean norm of x.
func norm(x *Node) *Node { return Sqrt(elastic.SumAll(Square(x))) }

// rms returns the root of the mean square of x.
func rms(x *Node) *Node {
	return Sqrt(MulScalar(elastic.SumAll(Square(x)), 1/float64(x.Shape().Size())))
}

// or returns x, or its default if it is 0.
func or(x, missing float64) float64 {
	if x == 0 {
		return missing
	}
	return x
}

// check gathers problems of options.
type check []error

// beta wants a decay rate, 0 ≤ β < 1.
func (c *check) beta(name string, x float64) {
	if !(x >= 0 && x < 1) {
		*c = append(*c, fmt.Errorf("%s is %g, want 0 ≤ β < 1", name, x))
	}
}

// positive wants 0, for the default, or a positive number.
func (c *check) positive(name string, x float64) {
	if !(x >= 0) || math.IsInf(x, 0) {
		*c = append(*c, fmt.Errorf("%s is %g, want a positive number", name, x))
	}
}

// needed wants a positive number.
func (c *check) needed(name string, x float64) {
	if !(x > 0) || math.IsInf(x, 0) {
		*c = append(*c, fmt.Errorf("%s is %g, want a positive number", name, x))
	}
}

// decay wants a weight decay, 0 or more.
func (c *check) decay(name string, x float64) {
	if !(x >= 0) || math.IsInf(x, 0) {
		*c = append(*c, fmt.Errorf("%s is %g, want 0 or more", name, x))
	}
}

func (c check) err() error { return errors.Join(c...) }

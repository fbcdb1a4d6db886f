package optim

import (
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Momentum accumulates gradients:
//
//	b ← g                   at first
//	b ← μ·b + (1−d)·g       then
//	u = b                   or g + μ·b by Nesterov's rule
//
// Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning";
// dampening d as in PyTorch.
type Momentum struct {
	Beta      float64 `json:"beta"`
	Dampening float64 `json:"dampening,omitempty"`
	Nesterov  bool    `json:"nesterov,omitempty"`
}

// Kind returns "momentum".
func (Momentum) Kind() string { return "momentum" }

// Validate reports all that is wrong with m.
func (m Momentum) Validate() error {
	var c check
	c.beta("beta", m.Beta)
	c.beta("dampening", m.Dampening)
	return c.err()
}

// Slots returns the accumulator.
func (Momentum) Slots(elastic.Variable) []Slot { return []Slot{{Name: "momentum"}} }

// Apply accumulates.
func (m Momentum) Apply(s *Step) {
	for i, g := range s.Updates {
		scaled := MulScalar(g, 1-m.Dampening)
		if m.Dampening != 0 {
			scaled = Where(s.first(), g, scaled)
		}
		b := Add(MulScalar(s.Slot("momentum", i), m.Beta), scaled)
		s.SetSlot("momentum", i, b)
		s.Updates[i] = b
		if m.Nesterov {
			s.Updates[i] = Add(g, MulScalar(b, m.Beta))
		}
	}
}

// SGD is stochastic gradient descent, with [Momentum] and L2 if they are set.
type SGD struct {
	Momentum  float64 `json:"momentum,omitempty"`
	Dampening float64 `json:"dampening,omitempty"`
	Nesterov  bool    `json:"nesterov,omitempty"`
	// L2 adds λ·θ to the gradient.
	L2 float64 `json:"l2,omitempty"`
}

// Kind returns "sgd".
func (SGD) Kind() string { return "sgd" }

// Validate reports all that is wrong with r.
func (r SGD) Validate() error {
	var c check
	c.beta("momentum", r.Momentum)
	c.beta("dampening", r.Dampening)
	c.decay("l2", r.L2)
	if r.Momentum == 0 && (r.Nesterov || r.Dampening != 0) {
		c = append(c, errMomentum)
	}
	return c.err()
}

// Chain returns the links.
func (r SGD) Chain() Chain {
	chain := Chain{L2{Weight: r.L2}}
	if r.Momentum != 0 {
		chain = append(chain, Momentum{Beta: r.Momentum, Dampening: r.Dampening, Nesterov: r.Nesterov})
	}
	return chain
}

// SignOf replaces each element of an update by its sign.
type SignOf struct{ stateless }

// Kind returns "sign".
func (SignOf) Kind() string { return "sign" }

// Validate finds nothing.
func (SignOf) Validate() error { return nil }

// Apply takes signs.
func (SignOf) Apply(s *Step) {
	for i, u := range s.Updates {
		s.Updates[i] = Sign(u)
	}
}

// Mean replaces gradients by their moving average, m ← β·m + (1−β)·g.
type Mean struct {
	Beta float64 `json:"beta"`
}

// Kind returns "mean".
func (Mean) Kind() string { return "mean" }

// Validate reports all that is wrong with m.
func (m Mean) Validate() error {
	var c check
	c.beta("beta", m.Beta)
	return c.err()
}

// Slots returns the average.
func (Mean) Slots(elastic.Variable) []Slot { return []Slot{{Name: "mean"}} }

// Apply averages.
func (m Mean) Apply(s *Step) {
	for i, g := range s.Updates {
		s.Updates[i] = s.Average("mean", i, g, m.Beta)
	}
}

// Signum is the sign of the moving average of gradients. With Beta 0.965 it is Tiger.
//
// Source: Bernstein et al. 2018, "signSGD".
type Signum struct {
	Beta        float64 `json:"beta,omitempty"` // 0 means 0.9
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "signum".
func (Signum) Kind() string { return "signum" }

// Validate reports all that is wrong with r.
func (r Signum) Validate() error {
	var c check
	c.beta("beta", r.Beta)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

// Chain returns the links.
func (r Signum) Chain() Chain {
	return Chain{Mean{Beta: or(r.Beta, 0.9)}, SignOf{}, Decay{Weight: r.WeightDecay}}
}

// Lion keeps one moment and moves by signs, half the state of Adam:
//
//	u = sign(β₁·m + (1−β₁)·g)     m ← β₂·m + (1−β₂)·g
//
// Rates are about a tenth of AdamW's, decays ten times as large.
//
// Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms".
type Lion struct {
	Beta1       float64 `json:"beta1,omitempty"` // 0 means 0.9
	Beta2       float64 `json:"beta2,omitempty"` // 0 means 0.99
	WeightDecay float64 `json:"weight_decay,omitempty"`
	// Cautious masks the update, see [Cautious].
	Cautious bool `json:"cautious,omitempty"`
}

// Kind returns "lion".
func (Lion) Kind() string { return "lion" }

// Validate reports all that is wrong with r.
func (r Lion) Validate() error {
	var c check
	c.beta("beta1", r.Beta1)
	c.beta("beta2", r.Beta2)
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

// Chain returns the links.
func (r Lion) Chain() Chain {
	chain := Chain{signOfMoment{r.Beta1, r.Beta2}}
	if r.Cautious {
		chain = append(chain, Cautious{})
	}
	return append(chain, Decay{Weight: r.WeightDecay})
}

// signOfMoment is the transform of [Lion].
type signOfMoment struct{ beta1, beta2 float64 }

func (signOfMoment) Kind() string                  { return "lion" }
func (signOfMoment) Validate() error               { return nil }
func (signOfMoment) Slots(elastic.Variable) []Slot { return []Slot{{Name: "m"}} }

func (r signOfMoment) Apply(s *Step) {
	for i, g := range s.Updates {
		s.Updates[i] = Sign(mix(s.Slot("m", i), g, or(r.beta1, 0.9)))
		s.Average("m", i, g, or(r.beta2, 0.99))
	}
}

package optim

import (
	"fmt"
	"math"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Muon makes the update of hidden matrices orthogonal, so that all directions of it have the same
// length; all else is trained by Adam, at AdamRate times the learning rate:
//
//	m ← μ·m + (1−μ)·g     n = μ·m/(1−μᵗ⁺¹) + (1−μ)·g/(1−μᵗ)
//	X₀ = n/‖n‖            Xₖ₊₁ = a·Xₖ + (b·A + c·A²)·Xₖ with A = XₖXₖᵀ     (5 times)
//	u = √max(1, outputs/inputs)·X₅, or RMS·√max(inputs, outputs)·X₅ if RMS is set
//
// for matrices [inputs, outputs]. The second scale gives updates the mean square of Adam's, so that
// rates of AdamW can be kept. Clipping by norm has no effect on the length of updates.
//
// Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al.
// 2025, "Muon is scalable for LLM training"; as in optax.
type Muon struct {
	Momentum    float64 `json:"momentum,omitempty"` // μ; 0 means 0.95
	RMS         float64 `json:"rms,omitempty"`      // 0.2 is usual
	WeightDecay float64 `json:"weight_decay,omitempty"`
	// Exclude are patterns of matrices that Adam trains; nil means those of embeddings and heads.
	Exclude []string `json:"exclude,omitempty"`
	// AdamRate multiplies the learning rate of what Adam trains; 0 means 1.
	AdamRate float64 `json:"adam_rate,omitempty"`
	// AdamDecay is the weight decay of what Adam trains.
	AdamDecay float64 `json:"adam_decay,omitempty"`
	// Adam is the rule for all else.
	Adam Adam `json:"adam,omitzero"`
}

// Kind returns "muon".
func (Muon) Kind() string { return "muon" }

// Validate reports all that is wrong with r.
func (r Muon) Validate() error {
	var c check
	c.beta("momentum", r.Momentum)
	c.positive("rms", r.RMS)
	c.decay("weight_decay", r.WeightDecay)
	c.positive("adam_rate", r.AdamRate)
	c.decay("adam_decay", r.AdamDecay)
	if err := r.Adam.Validate(); err != nil {
		c = append(c, fmt.Errorf("adam.%w", err))
	}
	return c.err()
}

func (Muon) decays()           {}
func (r Muon) lambda() float64 { return r.WeightDecay }

// matrix reports whether p is made orthogonal.
func (r Muon) matrix(p elastic.Variable) bool {
	exclude := r.Exclude
	if exclude == nil {
		exclude = []string{"*embeddings*", "/head*", "*/head/*"}
	}
	return len(p.Shape) == 2 && !anyMatches(exclude, p.Path)
}

func (r Muon) other(p elastic.Variable) (kind string, rate, decay float64) {
	if r.matrix(p) {
		return "", 0, 0
	}
	return r.Adam.Kind(), or(r.AdamRate, 1), r.AdamDecay
}

// Slots returns the momentum, or Adam's moments.
func (r Muon) Slots(p elastic.Variable) []Slot {
	if r.matrix(p) {
		return []Slot{{Name: "momentum"}}
	}
	return r.Adam.Slots(p)
}

// newtonSchulz are the coefficients a, b and c.
var newtonSchulz = [3]float64{3.4445, -4.7750, 2.0315}

const schulzSteps = 5

// Apply makes orthogonal.
func (r Muon) Apply(s *Step) {
	mu := or(r.Momentum, 0.95)
	power := s.power(mu)
	now, next := Reciprocal(OneMinus(power)), Reciprocal(OneMinus(MulScalar(power, mu)))
	rest, index := s.only(func(i int) bool { return !r.matrix(s.Parameters[i]) })
	r.Adam.Apply(rest)
	rest.pull(r.AdamDecay)
	for k, i := range index {
		s.Updates[i] = MulScalar(rest.Updates[k], or(r.AdamRate, 1))
	}
	for i, g := range s.Updates {
		if slices.Contains(index, i) {
			continue
		}
		m := s.Average("momentum", i, g, mu)
		u := orthogonal(Add(times(MulScalar(m, mu), next), times(MulScalar(g, 1-mu), now)))
		in, out := float64(g.Shape().Dimensions[0]), float64(g.Shape().Dimensions[1])
		scale := math.Sqrt(max(1, out/in))
		if r.RMS != 0 {
			scale = r.RMS * math.Sqrt(max(in, out))
		}
		u = MulScalar(u, scale)
		if l := s.decay(i, r.WeightDecay); l != 0 {
			u = Add(u, MulScalar(s.Values[i], l))
		}
		s.Updates[i] = u
	}
}

// orthogonal returns about U·Vᵀ for x = U·S·Vᵀ, by five steps of Newton and Schulz.
func orthogonal(x *Node) *Node {
	turned := x.Shape().Dimensions[0] > x.Shape().Dimensions[1]
	if turned {
		x = Transpose(x, 0, 1)
	}
	x = Div(x, AddScalar(norm(x), 1e-8))
	if dims := x.Shape().Dimensions; dims[1] >= 2*dims[0] {
		x = MatMul(schulz(DotGeneral(x, []int{1}, nil, x, []int{1}, nil)), x)
	} else {
		for range schulzSteps {
			a := DotGeneral(x, []int{1}, nil, x, []int{1}, nil)
			b := Add(MulScalar(a, newtonSchulz[1]), MulScalar(MatMul(a, a), newtonSchulz[2]))
			x = Add(MulScalar(x, newtonSchulz[0]), MatMul(b, x))
		}
	}
	if turned {
		x = Transpose(x, 0, 1)
	}
	return x
}

// schulz returns the product of the factors a·I + b·A + c·A² of all steps, from A = X·Xᵀ of the first: then A of the next step is
// B·A·B. For an X [m, n] it takes 17·m³ + 2·m²·n multiplications where the steps take 5·m³ + 10·m²·n.
func schulz(a *Node) *Node {
	var product *Node
	for step := range schulzSteps {
		b := Add(MulScalar(a, newtonSchulz[1]), MulScalar(MatMul(a, a), newtonSchulz[2]))
		b = Add(b, MulScalar(identity(a, a.Shape().Dimensions[0]), newtonSchulz[0]))
		if step == 0 {
			product = b
		} else {
			product = MatMul(b, product)
		}
		if step < schulzSteps-1 {
			a = MatMul(MatMul(b, a), b)
		}
	}
	return product
}

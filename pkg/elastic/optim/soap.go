package optim

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// SOAP is Adam in the eigenvectors of [Shampoo]'s matrices. Of a matrix g [inputs, outputs]:
//
//	m ← β₁·m + (1−β₁)·g     v ← β₂·v + (1−β₂)·(Qᴸᵀ·g·Qᴿ)²
//	u = Qᴸ·(Qᴸᵀ·m·Qᴿ / (√v + ε))·Qᴿᵀ·√(1−β₂ᵗ⁻¹)/(1−β₁ᵗ⁻¹)     θ ← (1 − η·λ)·(θ − η·u)
//	L ← β·L + (1−β)·g·gᵀ     R ← β·R + (1−β)·gᵀ·g
//
// Every few updates Q becomes the orthogonal factor of L·Q, and so of R, its columns in the order of their qᵀ·L·q. The first update
// only takes up L and R, and Q begins with ten such rounds from I in place of eigenvectors. Tensors of one axis and axes longer
// than Limit have no Q. A round takes about 14·d³ operations for an axis of size d; state is 2·d² numbers for each beside Adam's.
//
// Source: Vyas et al. 2024, "SOAP: improving and stabilizing Shampoo using Adam"; as in pytorch-optimizer.
type SOAP struct {
	Beta1       float64 `json:"beta1,omitempty"`      // 0 means 0.95
	Beta2       float64 `json:"beta2,omitempty"`      // 0 means 0.95
	BasisBeta   float64 `json:"basis_beta,omitempty"` // β; 0 means β₂
	Epsilon     float64 `json:"epsilon,omitempty"`    // 0 means 1e-8
	Every       int     `json:"every,omitempty"`      // updates from one Q to the next; 0 means 10
	Limit       int     `json:"limit,omitempty"`      // 0 means 10000
	WeightDecay float64 `json:"weight_decay,omitempty"`
}

// Kind returns "soap".
func (SOAP) Kind() string { return "soap" }

// Validate reports all that is wrong with r.
func (r SOAP) Validate() error {
	c := moments{r.Beta1, r.Beta2, r.Epsilon}.check()
	c.beta("basis_beta", r.BasisBeta)
	c.positive("every", float64(r.Every))
	c.positive("limit", float64(r.Limit))
	c.decay("weight_decay", r.WeightDecay)
	return c.err()
}

func (SOAP) decays()           {}
func (r SOAP) lambda() float64 { return r.WeightDecay }

func (r SOAP) axes(p elastic.Variable) []int {
	if len(p.Shape) < 2 {
		return nil
	}
	return axes(p.Shape, r.Limit)
}

// Slots returns the moments, the means of products, and their bases.
func (r SOAP) Slots(p elastic.Variable) []Slot {
	slots := []Slot{{Name: "m"}, {Name: "v"}}
	for _, a := range r.axes(p) {
		shape := []int{p.Shape[a], p.Shape[a]}
		slots = append(slots, Slot{Name: axisSlot("gram", a), Shape: shape}, Slot{Name: axisSlot("basis", a), Shape: shape})
	}
	return slots
}

// startRounds is how many rounds of orthogonal iteration make the first basis.
const startRounds = 10

// Apply scales.
func (r SOAP) Apply(s *Step) {
	beta1, beta2, epsilon := moments{r.Beta1, r.Beta2, r.Epsilon}.or(0.95, 0.95, 1e-8)
	first := s.first()
	adam := *s // whose updates begin after the first
	adam.Number = MaxScalar(SubScalar(s.Number, 1), 1)
	correction := Div(Sqrt(adam.Correction(beta2)), adam.Correction(beta1))
	var groups bySize[int]
	for i, g := range s.Updates {
		list := r.axes(s.Parameters[i])
		basis := func(a int) *Node { return s.Slot(axisSlot("basis", a), i) }
		turned := func(a int) *Node { return Transpose(basis(a), 0, 1) }
		keep := func(name string, x *Node, beta float64) *Node {
			x = Where(first, s.Slot(name, i), mix(s.Slot(name, i), x, beta))
			s.SetSlot(name, i, x)
			return x
		}
		m := keep("m", g, beta1)
		v := keep("v", Square(s.through(g, basis, list)), beta2)
		u := s.through(Div(s.through(m, basis, list), AddScalar(Sqrt(v), epsilon)), turned, list)
		u = times(u, correction)
		if l := s.decay(i, r.WeightDecay); l != 0 { // after the move
			u = Add(u, MulScalar(Sub(s.Values[i], times(u, s.rate(i))), l))
		}
		s.Updates[i] = Where(first, ZerosLike(u), u)
		for _, a := range list {
			s.Average(axisSlot("gram", a), i, gram(g, a), or(r.BasisBeta, beta2))
			groups.add(g.Shape().Dimensions[a], place{i, a})
		}
	}
	due := Where(first, Const(s.Number.Graph(), int32(0)), every(adam.Number, int(or(float64(r.Every), 10)), 1))
	rounds := Where(first, Const(s.Number.Graph(), int32(startRounds)), due)
	for _, n := range groups.keys {
		places := groups.of[n]
		means, bases := s.stacked("gram", places), s.stacked("basis", places)
		bases = Where(first, BroadcastToShape(InsertAxes(identity(bases, n), 0), bases.Shape()), bases)
		bases, order := sorted(means, bases, due)
		s.unstack("basis", places, orthogonalIteration(means, bases, rounds))
		for k, p := range places { // v is of the directions of a basis
			index := InsertAxes(ConvertDType(Squeeze(Slice(order, AxisElem(k)), 0), dtypes.Int32), -1)
			v := s.Slot("v", p.parameter)
			if p.axis > 0 {
				v = Transpose(v, 0, p.axis)
			}
			v = Gather(v, index)
			if p.axis > 0 {
				v = Transpose(v, 0, p.axis)
			}
			s.SetSlot("v", p.parameter, v)
		}
	}
}

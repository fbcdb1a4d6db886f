package optim

import (
	"hash/fnv"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Noise adds normal noise to updates, less as training goes on:
//
//	u ← u + ε     ε ~ N(0, σ²)     σ² = η/(1+k)^γ
//
// with k = t−1, the updates before. At the start of a chain it is noise of the gradients. The noise is a hash of
// [Input].Key, the parameter's path and the element, so a run that resumes has the noise of one that was let be. It
// is the same for the same path in any chain, and so a chain has one use for it only.
//
// Source: Neelakantan et al. 2015, "Adding gradient noise improves learning for very deep networks", equation 1.
type Noise struct {
	stateless
	Eta   float64 `json:"eta"`             // η: 0.01, 0.3 and 1 in the paper
	Gamma float64 `json:"gamma,omitempty"` // γ; 0 means 0.55
}

// Kind returns "noise".
func (Noise) Kind() string { return "noise" }

// Validate reports all that is wrong with n.
func (n Noise) Validate() error {
	var c check
	c.needed("eta", n.Eta)
	c.positive("gamma", n.Gamma)
	return c.err()
}

// Apply adds noise.
func (n Noise) Apply(s *Step) {
	if s.Key == nil {
		exceptions.Panicf("optimizer rule %q needs the key of the update", n.Kind())
	}
	deviation := MulScalar(Exp(MulScalar(Log(s.Number), -or(n.Gamma, 0.55)/2)), math.Sqrt(n.Eta))
	for i, u := range s.Updates {
		s.Updates[i] = Add(u, times(s.normal(i), deviation))
	}
}

// normal returns standard normal noise for parameter i, by the method of Box and Muller.
func (s *Step) normal(i int) *Node {
	path := fnv.New64a()
	path.Write([]byte(s.Parameters[i].Path))
	hash := path.Sum64()
	own := Const(s.Key.Graph(), []uint32{uint32(hash), uint32(hash >> 32)})
	source := dropout.NewSource(BitwiseXor(s.Key, own))
	shape := s.Values[i].Shape()
	radius := Sqrt(MulScalar(Log(source.Uniform(shape)), -2))
	return Mul(radius, Cos(MulScalar(source.Uniform(shape), 2*math.Pi)))
}

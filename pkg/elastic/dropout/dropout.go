// Package dropout zeroes random elements while a model is trained.
//
// Its randomness is a hash of (key, place in the model, element), not a stream
// that is carried from step to step. So a run that resumes at step n drops what
// the uninterrupted run dropped, the pure-Go backend drops what XLA drops, and XLA
// may compute the mask again in the backward pass in place of storing it.
package dropout

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Source gives each place in a model its own mask. A nil Source drops nothing,
// which is how a model is evaluated.
type Source struct {
	key   *Node
	sites uint32
}

// NewSource returns the source for one graph. Its key is a uint32 pair, shape [2],
// that must be different at every step; see [Key].
func NewSource(key *Node) *Source {
	if key.DType() != dtypes.Uint32 || key.Rank() != 1 || key.Shape().Dimensions[0] != 2 {
		exceptions.Panicf("dropout key must be uint32[2], got %s", key.Shape())
	}
	return &Source{key: key}
}

// Key returns the key of one step of a run: two words that a 64-bit mix of seed
// and step gives.
//
// Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
// generators" (SplitMix64 finaliser).
func Key(seed, step uint64) []uint32 {
	z := mix64(mix64(seed) + step)
	return []uint32{uint32(z), uint32(z >> 32)}
}

func mix64(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Apply returns x with each element zeroed with probability rate and the others
// divided by 1−rate. It returns x itself when the source is nil or the rate is 0.
// The rate must lie in [0, 1); it is rounded to a multiple of 2⁻³².
//
// Source: Srivastava et al. 2014, "Dropout", in the inverted form that needs no
// change at test time.
func (s *Source) Apply(x *Node, rate float64) *Node {
	if s == nil || rate == 0 {
		return x
	}
	if !(rate > 0 && rate < 1) {
		exceptions.Panicf("dropout rate %g is outside [0, 1)", rate)
	}
	threshold := uint32(math.Round(rate * (1 << 32)))
	keep := GreaterOrEqual(s.bits(x.Shape()), Scalar(x.Graph(), dtypes.Uint32, threshold))
	return Where(keep, MulScalar(x, 1/(1-rate)), ZerosLike(x))
}

// Uniform returns random numbers of a shape, strictly between 0 and 1, for parts of a model
// that need noise while training. It returns nil when the source is nil.
func (s *Source) Uniform(shape shapes.Shape) *Node {
	if s == nil {
		return nil
	}
	high := BitwiseShiftRightLogicalScalar(s.bits(shape), uint32(9)) // 23 bits, which float32 holds exactly
	return MulScalar(AddScalar(ConvertDType(high, shape.DType), 0.5), 1.0/(1<<23))
}

// bits returns 32 random bits for each element of a shape, for one more place in the model.
func (s *Source) bits(shape shapes.Shape) *Node {
	s.sites++
	// Two words of key per site: with one only, the masks of two sites would be the
	// same sequence shifted.
	low := Reshape(Slice(s.key, AxisElem(0)))
	high := Reshape(Slice(s.key, AxisElem(1)))
	low = mix32(AddScalar(low, s.sites*0x9e3779b1))
	high = mix32(AddScalar(high, s.sites*0x85ebca77))

	shape = shape.Clone()
	shape.DType = dtypes.Uint32
	bits := IotaFull(s.key.Graph(), shape)
	bits = BitwiseXor(MulScalar(bits, uint32(0x9e3779b1)), low)
	bits = MulScalar(xorShift(bits, 16), uint32(0x85ebca6b))
	bits = Add(bits, high)
	bits = MulScalar(xorShift(bits, 15), uint32(0xc2b2ae35))
	return xorShift(bits, 16)
}

// mix32 is the finaliser of MurmurHash3 (Appleby, public domain).
func mix32(h *Node) *Node {
	h = MulScalar(xorShift(h, 16), uint32(0x85ebca6b))
	h = MulScalar(xorShift(h, 13), uint32(0xc2b2ae35))
	return xorShift(h, 16)
}

func xorShift(h *Node, by uint32) *Node {
	return BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, by))
}

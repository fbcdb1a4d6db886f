package search

import (
	"fmt"
	"math/bits"
)

// Sobol takes the points of a Sobol sequence, which fill a space more evenly than random ones, scrambled by the seed.
//
// Point n has, in each dimension, the digits ⊕ v_j over the bits j that are set in the Gray code of n, where the direction
// numbers v_j follow from a primitive polynomial. Owen's scrambling flips each binary digit by a coin that depends on
// the digits before it: any 2^m points still have one in each elementary interval.
//
// Source: Sobol 1967; direction numbers of Joe and Kuo 2008, "Constructing Sobol sequences with better
// two-dimensional projections", SIAM J. Sci. Comput. 30; Owen 1995, "Randomly permuted (t,m,s)-nets".
type Sobol struct{}

// Kind returns "sobol".
func (Sobol) Kind() string { return "sobol" }

// Validate reports a space of more than [SobolDimensions] parameters.
func (Sobol) Validate(space Space) error {
	if len(space) > SobolDimensions {
		return fmt.Errorf("sampler: sobol has %d dimensions, the space %d parameters; take another sampler", SobolDimensions, len(space))
	}
	return nil
}

// Sample returns point h.Number.
func (Sobol) Sample(h History) Params { return h.Space.params(sobolPoint(h)) }

// sobolPoint returns the scrambled point of a trial.
func sobolPoint(h History) []float64 {
	places := make([]float64, len(h.Space))
	for i := range places {
		digits := scramble(sobol(i, uint32(h.Number)), mix(h.Seed+uint64(i)*0x9e3779b97f4a7c15))
		places[i] = (float64(digits) + 0.5) / (1 << 32)
	}
	return places
}

// SobolDimensions is how many parameters [Sobol] can have.
const SobolDimensions = 21

// direction holds, for each dimension behind the first, the primitive polynomial
// x^s + a_1·x^(s−1) + … + a_(s−1)·x + 1, its inner coefficients as the bits of a, and the first numbers m_1 … m_s.
var directions = [SobolDimensions - 1]struct {
	a uint32
	m []uint32
}{
	{0, []uint32{1}},
	{1, []uint32{1, 3}},
	{1, []uint32{1, 3, 1}},
	{2, []uint32{1, 1, 1}},
	{1, []uint32{1, 1, 3, 3}},
	{4, []uint32{1, 3, 5, 13}},
	{2, []uint32{1, 1, 5, 5, 17}},
	{4, []uint32{1, 1, 5, 5, 5}},
	{7, []uint32{1, 1, 7, 11, 19}},
	{11, []uint32{1, 1, 5, 1, 1}},
	{13, []uint32{1, 1, 1, 3, 11}},
	{14, []uint32{1, 3, 5, 5, 31}},
	{1, []uint32{1, 3, 3, 9, 7, 49}},
	{13, []uint32{1, 1, 1, 15, 21, 21}},
	{16, []uint32{1, 3, 1, 13, 27, 49}},
	{19, []uint32{1, 1, 1, 15, 7, 5}},
	{22, []uint32{1, 3, 1, 15, 13, 25}},
	{25, []uint32{1, 1, 5, 5, 19, 61}},
	{1, []uint32{1, 3, 7, 11, 23, 15, 103}},
	{4, []uint32{1, 3, 7, 13, 13, 15, 69}},
}

// sobol returns the binary digits of coordinate d of point n, the first digit highest.
func sobol(d int, n uint32) uint32 {
	gray := n ^ n>>1
	if d == 0 {
		return bits.Reverse32(gray)
	}
	var v [32]uint32 // direction numbers as digits: m_j / 2^j
	m, a := directions[d-1].m, directions[d-1].a
	s := len(m)
	for j := range v {
		if j < s {
			v[j] = m[j] << (31 - j)
			continue
		}
		// m_j = 2·a_1·m_(j−1) ⊕ … ⊕ 2^s·m_(j−s) ⊕ m_(j−s)
		v[j] = v[j-s] ^ v[j-s]>>s
		for k := 1; k < s; k++ {
			if a>>(s-1-k)&1 == 1 {
				v[j] ^= v[j-k]
			}
		}
	}
	var digits uint32
	for j := range v {
		if gray>>j&1 == 1 {
			digits ^= v[j]
		}
	}
	return digits
}

// scramble flips each digit by a coin that the digits before it choose.
func scramble(digits uint32, seed uint64) uint32 {
	out := digits
	for level := range 32 {
		before := uint64(digits) >> (32 - level)
		out ^= uint32(mix(seed^mix(before|1<<level))&1) << (31 - level)
	}
	return out
}

// mix hashes a number: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

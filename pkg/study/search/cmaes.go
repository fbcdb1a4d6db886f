package search

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// CMAES draws from a normal distribution whose mean, step size and covariance follow the best points so far: covariance
// matrix adaptation, with the default constants of its tutorial. It is for five or more numbers and some hundred trials;
// categorical parameters, and those with a When, are drawn at random.
//
// The distribution is computed anew from the trials that have a value, in their order, so that there is no state to keep
// and workers need not wait for each other. Points beyond the bounds are drawn again, and set to the bound after a
// hundred times.
//
// Source: Hansen 2016, "The CMA evolution strategy: a tutorial", arXiv 1604.00772, appendix A.
type CMAES struct {
	// Sigma is the first step size as a share of each range; 0 means a sixth.
	Sigma float64 `json:"sigma,omitempty"`
	// Size of the population; 0 means 4+⌊3·ln n⌋ for n numbers.
	Size int `json:"size,omitempty"`
}

// Kind returns "cmaes".
func (CMAES) Kind() string { return "cmaes" }

// Validate reports a step size or a population that cannot be, and a space without numbers.
func (c CMAES) Validate(space Space) error {
	var problems []error
	if !(c.Sigma >= 0 && c.Sigma <= 1) {
		problems = append(problems, fmt.Errorf("sampler.sigma is %g, want it in (0, 1], or 0 for the default", c.Sigma))
	}
	if c.Size != 0 && (c.Size < 4 || c.Size > 10_000) {
		problems = append(problems, fmt.Errorf("sampler.size is %d, want it from 4 to 10000, or 0 for the default", c.Size))
	}
	if len(numbers(space)) == 0 {
		problems = append(problems, errors.New("sampler: cmaes needs a number that always exists; take another sampler"))
	}
	return errors.Join(problems...)
}

// numbers returns the places of the parameters that the distribution is over.
func numbers(space Space) []int {
	var all []int
	for i, p := range space {
		if p.Kind != Categorical && len(p.When) == 0 {
			all = append(all, i)
		}
	}
	return all
}

// Sample draws.
func (c CMAES) Sample(h History) Params {
	over := numbers(h.Space)
	n := len(over)
	size, sigma := c.Size, c.Sigma
	if size == 0 {
		size = 4 + int(3*math.Log(float64(n)))
	}
	if sigma == 0 {
		sigma = 1.0 / 6
	}
	e := newEvolution(n, size, sigma)
	var generation []candidate
	var points [][]float64
	for _, t := range h.Trials {
		value, ok := quality(t)
		if !ok {
			continue
		}
		point := make([]float64, n)
		for j, i := range over {
			point[j] = h.Space[i].at(t.Params[h.Space[i].Name])
		}
		generation, points = append(generation, candidate{len(points), value}), append(points, point)
		if len(generation) == size {
			e.learn(points, best(generation, size))
			generation, points = nil, nil
		}
	}
	random := h.random()
	places := make([]float64, len(h.Space))
	for i := range places {
		places[i] = random.Float64()
	}
	for try := range 100 {
		inside := true
		for j, place := range e.draw(random.NormFloat64) {
			places[over[j]] = place
			inside = inside && place >= 0 && place <= 1
		}
		if inside || try == 99 {
			break
		}
	}
	return h.Space.params(places)
}

// evolution is the state of the strategy, with the names of the tutorial.
type evolution struct {
	n                  int
	mu                 int
	weights            []float64
	muEff              float64
	cs, ds, cc, c1, cm float64 // cm is the tutorial's c_μ
	expected           float64 // E‖N(0, I)‖

	mean, ps, pc []float64
	sigma        float64
	cov          *mat.SymDense
	axes         mat.Dense // B, the eigenvectors of cov
	lengths      []float64 // D, the roots of its eigenvalues
	generations  int
}

func newEvolution(n, size int, sigma float64) *evolution {
	e := &evolution{n: n, mu: size / 2, sigma: sigma, mean: make([]float64, n), ps: make([]float64, n), pc: make([]float64, n), cov: mat.NewSymDense(n, nil)}
	sum, squares := 0.0, 0.0
	for i := range e.mu {
		w := math.Log(float64(size+1)/2) - math.Log(float64(i+1))
		e.weights, sum = append(e.weights, w), sum+w
	}
	for i := range e.weights {
		e.weights[i] /= sum
		squares += e.weights[i] * e.weights[i]
	}
	e.muEff = 1 / squares
	d := float64(n)
	e.cs = (e.muEff + 2) / (d + e.muEff + 5)
	e.ds = 1 + 2*max(0, math.Sqrt((e.muEff-1)/(d+1))-1) + e.cs
	e.cc = (4 + e.muEff/d) / (d + 4 + 2*e.muEff/d)
	e.c1 = 2 / ((d+1.3)*(d+1.3) + e.muEff)
	e.cm = min(1-e.c1, 2*(e.muEff-2+1/e.muEff)/((d+2)*(d+2)+e.muEff))
	e.expected = math.Sqrt(d) * (1 - 1/(4*d) + 1/(21*d*d))
	for i := range n {
		e.mean[i] = 0.5
		e.cov.SetSym(i, i, 1)
	}
	e.decompose()
	return e
}

func (e *evolution) decompose() {
	var eigen mat.EigenSym
	if !eigen.Factorize(e.cov, true) {
		return // keeps the axes of before
	}
	e.lengths = eigen.Values(nil)
	for i, v := range e.lengths {
		e.lengths[i] = math.Sqrt(max(v, 1e-20))
	}
	eigen.VectorsTo(&e.axes)
}

// draw returns m + σ·B·D·z.
func (e *evolution) draw(normal func() float64) []float64 {
	z := mat.NewVecDense(e.n, nil)
	for i := range e.n {
		z.SetVec(i, e.lengths[i]*normal())
	}
	var y mat.VecDense
	y.MulVec(&e.axes, z)
	point := make([]float64, e.n)
	for i := range point {
		point[i] = e.mean[i] + e.sigma*y.AtVec(i)
	}
	return point
}

// learn updates the distribution from a generation whose best come first.
func (e *evolution) learn(points [][]float64, ranked []candidate) {
	e.generations++
	steps := make([][]float64, e.mu) // (x − m)/σ
	step := make([]float64, e.n)
	for k := range e.mu {
		steps[k] = make([]float64, e.n)
		for i := range e.n {
			steps[k][i] = (points[ranked[k].at][i] - e.mean[i]) / e.sigma
			step[i] += e.weights[k] * steps[k][i]
		}
	}
	var inner, white mat.VecDense // C^(−1/2)·step = B·D⁻¹·Bᵀ·step
	inner.MulVec(e.axes.T(), mat.NewVecDense(e.n, step))
	for i := range e.n {
		inner.SetVec(i, inner.AtVec(i)/e.lengths[i])
	}
	white.MulVec(&e.axes, &inner)
	norm := 0.0
	for i := range e.n {
		e.mean[i] += e.sigma * step[i]
		e.ps[i] = (1-e.cs)*e.ps[i] + math.Sqrt(e.cs*(2-e.cs)*e.muEff)*white.AtVec(i)
		norm += e.ps[i] * e.ps[i]
	}
	norm = math.Sqrt(norm)
	stall := 0.0 // 1 − h_σ
	if norm/math.Sqrt(1-math.Pow(1-e.cs, 2*float64(e.generations+1))) >= (1.4+2/float64(e.n+1))*e.expected {
		stall = 1
	}
	for i := range e.n {
		e.pc[i] = (1-e.cc)*e.pc[i] + (1-stall)*math.Sqrt(e.cc*(2-e.cc)*e.muEff)*step[i]
	}
	for i := range e.n {
		for j := range i + 1 {
			v := (1 - e.c1 - e.cm + stall*e.c1*e.cc*(2-e.cc)) * e.cov.At(i, j)
			v += e.c1 * e.pc[i] * e.pc[j]
			for k := range e.mu {
				v += e.cm * e.weights[k] * steps[k][i] * steps[k][j]
			}
			e.cov.SetSym(i, j, v)
		}
	}
	e.sigma *= math.Exp(min(1, e.cs/e.ds*(norm/e.expected-1)))
	e.decompose()
}

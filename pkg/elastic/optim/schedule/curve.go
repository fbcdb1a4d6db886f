package schedule

import "math"

// Curve is the form of a descent: how much of the way is left, from 1 to 0, when the
// share p of the time is over. It is one of [Line], [HalfCosine], [Root], [Rational],
// [HyperbolicTangent], [Power] and [KDecay].
type Curve interface {
	left(p number) number
}

// Line falls evenly: 1 − p.
type Line struct{}

func (Line) left(p number) number { return sub(1.0, p) }

// HalfCosine is (1 + cos πp)/2.
//
// Source: Loshchilov, Hutter 2017, "SGDR: Stochastic gradient descent with warm restarts", equation 5.
type HalfCosine struct{}

func (HalfCosine) left(p number) number {
	return mul(0.5, add(1.0, cos(mul(math.Pi, p))))
}

// Root is 1 − √p, "1-sqrt" in Transformers: steep at first.
//
// Source: Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training durations".
type Root struct{}

func (Root) left(p number) number { return sub(1.0, sqrt(p)) }

// Rational is (1 − p)/(1 − p/2), known as REX: nearly even at first, steep at the end.
//
// Source: Chen, Wolfe, Kyrillidis 2022, "REX: Revisiting budgeted training with an improved schedule".
type Rational struct{}

func (Rational) left(p number) number {
	return div(sub(1.0, p), sub(1.0, div(p, 2.0)))
}

// HyperbolicTangent is (1 − tanh(Low·(1−p) + High·p))/2. It does not quite reach 1 and 0, so the
// rate jumps a little at the end. Low and High are −7 and 3 if both are 0.
//
// Source: Hsueh, Li, Wu 2019, "Stochastic gradient descent with hyperbolic-tangent decay".
type HyperbolicTangent struct{ Low, High float64 }

func (t HyperbolicTangent) left(p number) number {
	if t == (HyperbolicTangent{}) {
		t = HyperbolicTangent{Low: -7, High: 3}
	}
	x := add(mul(t.Low, sub(1.0, p)), mul(t.High, p))
	return mul(0.5, sub(1.0, tanh(x)))
}

// Power is another curve to the power of Exponent. That of a [Line] is polynomial decay.
type Power struct {
	Of       Curve // nil means Line
	Exponent float64
}

func (c Power) left(p number) number { return pow(orLine(c.Of).left(p), c.Exponent) }

// KDecay is another curve at pᴷ instead of p: K > 1 stays high for longer.
//
// Source: Zhang, Li 2020, "k-decay: A new method for learning rate schedule".
type KDecay struct {
	Of Curve // nil means Line
	K  float64
}

func (c KDecay) left(p number) number { return orLine(c.Of).left(pow(p, c.K)) }

func orLine(c Curve) Curve {
	if c == nil {
		return Line{}
	}
	return c
}

// along goes from one rate to another along a curve.
func along(curve Curve, from, to, p number) number {
	return add(to, mul(sub(from, to), orLine(curve).left(p)))
}

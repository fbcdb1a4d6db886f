package search

import (
	"math"
	"math/rand/v2"
	"slices"
)

// parzen is a density over some parameters: a mixture of kernels, one for each trial that it was made of and one
// that covers all, the prior. In a number a kernel is a normal distribution cut off at 0 and 1, in a categorical
// parameter it favours its trial's choice; over several parameters it is the product of these.
type parzen struct {
	parameters []Parameter
	kernels    [][]factor // equally probable
}

// factor is a kernel's part for one parameter.
type factor struct {
	mean, width float64   // of a number
	mass        float64   // of the normal distribution between 0 and 1
	scale       float64   // logarithm of what the exponential is multiplied by
	choices     []float64 // probabilities, of a categorical parameter
}

func numeric(mean, width float64) factor {
	mass := normal((1-mean)/width) - normal(-mean/width)
	return factor{mean: mean, width: width, mass: mass, scale: -math.Log(math.Sqrt(2*math.Pi) * width * mass)}
}

// normal is the distribution function of the standard normal distribution.
func normal(x float64) float64 { return 0.5 * math.Erfc(-x/math.Sqrt2) }

// newParzen makes the density of trials, which all have the parameters.
func newParzen(parameters []Parameter, trials []Params) parzen {
	d := parzen{parameters: parameters}
	n := len(trials)
	for i := range n + 1 { // the last is the prior
		kernel := make([]factor, len(parameters))
		for j, p := range parameters {
			switch {
			case p.Kind == Categorical:
				kernel[j].choices = make([]float64, len(p.Choices))
				for k := range kernel[j].choices {
					same := 0.0
					if i < n && p.Choices[k] == trials[i][p.Name] {
						same = 1
					}
					share := 1 / float64(n+1)
					kernel[j].choices[k] = (same + share) / (share*float64(len(p.Choices)) + 1)
					if i == n {
						kernel[j].choices[k] = 1 / float64(len(p.Choices))
					}
				}
			case i == n:
				kernel[j] = numeric(0.5, 1)
			default:
				kernel[j] = numeric(p.at(trials[i][p.Name]), bandwidth(n, len(parameters)))
			}
		}
		d.kernels = append(d.kernels, kernel)
	}
	return d
}

// bandwidth is the width of a kernel in [0, 1]: narrower with more trials, and wider in more dimensions, as Scott's rule
// has it. The factor is smaller than that of a density that is to be shown: it was chosen on Hartmann6, Branin and
// a mixed space, under other seeds than those that the benchmarks use.
func bandwidth(trials, dimensions int) float64 {
	return max(0.12*math.Pow(float64(max(trials, 1)), -1/float64(dimensions+4)), 0.02)
}

// sample draws the values of all parameters.
func (d parzen) sample(random *rand.Rand) Params {
	kernel := d.kernels[random.IntN(len(d.kernels))]
	params := Params{}
	for j, p := range d.parameters {
		f := kernel[j]
		if p.Kind == Categorical {
			params[p.Name] = p.Choices[len(p.Choices)-1]
			for k, at := 0, random.Float64(); k < len(f.choices); k++ {
				if at -= f.choices[k]; at < 0 {
					params[p.Name] = p.Choices[k]
					break
				}
			}
			continue
		}
		below := normal(-f.mean / f.width)
		params[p.Name] = p.value(f.mean + f.width*math.Sqrt2*math.Erfinv(2*(below+f.mass*random.Float64())-1))
	}
	return params
}

// log returns the logarithm of the density, of a discrete parameter of the probability.
func (d parzen) log(params Params) float64 {
	logs := make([]float64, len(d.kernels))
	for j, p := range d.parameters {
		value := params[p.Name]
		from, to := p.cell(value)
		name, _ := value.(string)
		choice := slices.Index(p.Choices, name)
		for i, kernel := range d.kernels {
			if f := kernel[j]; choice >= 0 {
				logs[i] += math.Log(f.choices[choice])
			} else {
				logs[i] += f.log(from, to)
			}
		}
	}
	return logSum(logs) - math.Log(float64(len(d.kernels)))
}

// log returns the logarithm of a number's density at a point, or of its probability between two.
func (f factor) log(from, to float64) float64 {
	a, b := (from-f.mean)/f.width, (to-f.mean)/f.width
	if a == b {
		return f.scale - a*a/2
	}
	if a > 0 { // where both are near 1, their difference would lose its digits
		a, b = -b, -a
	}
	return math.Log((normal(b) - normal(a)) / f.mass)
}

func logSum(logs []float64) float64 {
	high := math.Inf(-1)
	for _, v := range logs {
		high = max(high, v)
	}
	if math.IsInf(high, -1) {
		return high
	}
	sum := 0.0
	for _, v := range logs {
		sum += math.Exp(v - high)
	}
	return high + math.Log(sum)
}

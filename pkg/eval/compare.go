package eval

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Bootstrap says how intervals are made. The zero value of a field means its default; equal
// values give equal numbers on every machine.
type Bootstrap struct {
	// Resamples is how often it is drawn; 0 means 2000.
	Resamples int `json:"resamples,omitempty"`
	// Seed of what is drawn.
	Seed uint64 `json:"seed,omitempty"`
	// Level is the probability that an interval is to cover; 0 means 0.95.
	Level float64 `json:"level,omitempty"`
}

func (b Bootstrap) withDefaults() Bootstrap {
	if b.Resamples == 0 {
		b.Resamples = 2000
	}
	if b.Level == 0 {
		b.Level = 0.95
	}
	return b
}

// Validate reports all that is wrong with b.
func (b Bootstrap) Validate() error {
	b = b.withDefaults()
	var problems []error
	if b.Resamples < 1 {
		problems = append(problems, fmt.Errorf("resamples is %d, want at least 1", b.Resamples))
	}
	if !(b.Level > 0 && b.Level < 1) {
		problems = append(problems, fmt.Errorf("level is %g, want a number between 0 and 1", b.Level))
	}
	return errors.Join(problems...)
}

// Difference is how much better one system is than another.
type Difference struct {
	// From and To are the mean F1 of the two over the seeds, and Difference is To − From.
	From       float64 `json:"from"`
	To         float64 `json:"to"`
	Difference float64 `json:"difference"`
	// Low and High are the ends of the percentile interval.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// P is the two-sided p-value of no difference: 2·min(#{d* ≤ 0} + 1, #{d* ≥ 0} + 1) / (resamples + 1),
	// at most 1.
	P float64 `json:"p"`
	// Effect is Cohen's d_z: the mean of the seeds' differences over their standard deviation
	// (with n − 1). 0 if there are fewer than two seeds, or no deviation.
	Effect float64 `json:"effect"`
	// Least is the least difference of a seed.
	Least    float64 `json:"least"`
	Seeds    int     `json:"seeds"`
	Examples int     `json:"examples"`
}

// Compare tells how much better a system is than another when both were run under the same seeds
// on the same examples: from[s] and to[s] are their outcomes under seed s.
//
// The interval is that of the paired bootstrap, in two stages that are drawn independently: as
// many examples as there are, with replacement, the same ones for both systems and all seeds; and
// as many seeds as there are, with replacement, the same ones for both. The percentile method takes
// the quantiles of the resampled differences. Few seeds are drawn from
// themselves, which understates how much they vary by a factor of √((n−1)/n): with five, intervals
// are up to 11 % too short.
//
// Source: Efron, Tibshirani 1993, "An introduction to the bootstrap", chapters 13 and 16; for
// systems on the same examples Koehn 2004, "Statistical significance tests for machine translation
// evaluation".
func Compare(from, to []Outcomes, b Bootstrap) (Difference, error) {
	if err := b.Validate(); err != nil {
		return Difference{}, fmt.Errorf("bootstrap: %w", err)
	}
	b = b.withDefaults()
	if err := paired(from, to); err != nil {
		return Difference{}, err
	}
	seeds, examples := len(from), from[0].Len()
	d := Difference{Seeds: seeds, Examples: examples, Least: math.Inf(1)}
	own := make([]float64, seeds)
	for s := range seeds {
		x, y := from[s].F1(), to[s].F1()
		own[s] = y - x
		d.From, d.To = d.From+x/float64(seeds), d.To+y/float64(seeds)
		d.Least = min(d.Least, own[s])
	}
	d.Difference, d.Effect = d.To-d.From, effect(own)

	random := rand.New(rand.NewPCG(b.Seed, 0))
	drawn := make([]float64, b.Resamples)
	times := make([]int, examples)
	low, high := 1, 1
	for r := range drawn {
		clear(times)
		for range examples {
			times[random.IntN(examples)]++
		}
		for s := range own {
			own[s] = weighted(to[s], times) - weighted(from[s], times)
		}
		for range seeds {
			drawn[r] += own[random.IntN(seeds)] / float64(seeds)
		}
		if drawn[r] <= 0 {
			low++
		}
		if drawn[r] >= 0 {
			high++
		}
	}
	slices.Sort(drawn)
	d.Low, d.High = quantile(drawn, (1-b.Level)/2), quantile(drawn, (1+b.Level)/2)
	d.P = min(1, 2*float64(min(low, high))/float64(b.Resamples+1))
	return d, nil
}

// paired reports outcomes that cannot be compared.
func paired(from, to []Outcomes) error {
	if len(from) == 0 || len(from) != len(to) {
		return fmt.Errorf("outcomes of %d and of %d seeds, want equally many, and at least one", len(from), len(to))
	}
	for s := range from {
		for _, o := range []Outcomes{from[s], to[s]} {
			if err := o.Validate(); err != nil {
				return fmt.Errorf("seed %d: %w", s, err)
			}
			if o.Len() != from[0].Len() || o.Len() == 0 {
				return fmt.Errorf("seed %d: outcomes of %d examples, want %d, and at least one", s, o.Len(), from[0].Len())
			}
		}
	}
	return nil
}

// weighted is F1 with each example counted so many times.
func weighted(o Outcomes, times []int) float64 {
	tp, wrong := 0, 0
	for i, n := range times {
		tp += n * o.TP[i]
		wrong += n * (o.FP[i] + o.FN[i])
	}
	return f1(tp, wrong)
}

// effect is Cohen's d_z.
func effect(differences []float64) float64 {
	n := float64(len(differences))
	mean, square := 0.0, 0.0
	for _, d := range differences {
		mean += d / n
	}
	for _, d := range differences {
		square += (d - mean) * (d - mean)
	}
	if n < 2 || square < 1e-24 { // differences that are equal but for rounding
		return 0
	}
	return mean / math.Sqrt(square/(n-1))
}

// quantile interpolates linearly between sorted values, as numpy does by default.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Holm adjusts the p-values of a family of tests, so that the probability of one or more false
// discoveries stays below the level that an adjusted value is held against:
//
//	p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1)·p₍ⱼ₎),  p₍₁₎ ≤ … ≤ p₍ₘ₎
//
// Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	adjusted, most := make([]float64, len(p)), 0.0
	for rank, i := range order {
		most = max(most, min(1, float64(len(p)-rank)*p[i]))
		adjusted[i] = most
	}
	return adjusted
}

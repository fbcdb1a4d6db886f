package search

import (
	"math"
	"math/rand/v2"
	"testing"
)

var mixedSpace = Space{
	{Name: "x", Kind: Float, Low: -2, High: 3},
	{Name: "n", Kind: Int, Low: 1, High: 9, Log: true},
	{Name: "c", Kind: Categorical, Choices: []string{"a", "b", "c"}},
}

var mixedTrials = []Params{
	{"x": -2.0, "n": 1, "c": "a"}, {"x": 0.1, "n": 3, "c": "a"}, {"x": 3.0, "n": 9, "c": "b"},
}

// TestDensityIsOne: the density sums to one over all values, and draws come as it says.
func TestDensityIsOne(t *testing.T) {
	for _, trials := range [][]Params{nil, mixedTrials} {
		d := newParzen(mixedSpace, trials)
		const cells = 400
		sum := 0.0
		byChoice, byNumber, below := map[string]float64{}, map[int]float64{}, 0.0
		for i := range cells {
			x := mixedSpace[0].value((float64(i) + 0.5) / cells)
			for n := 1; n <= 9; n++ {
				for _, c := range mixedSpace[2].Choices {
					p := math.Exp(d.log(Params{"x": x, "n": n, "c": c})) / cells
					sum += p
					byChoice[c] += p
					byNumber[n] += p
					if x.(float64) < 0.1 {
						below += p
					}
				}
			}
		}
		if math.Abs(sum-1) > 1e-4 {
			t.Errorf("%d trials: the density sums to %.6f", len(trials), sum)
		}
		random := rand.New(rand.NewPCG(1, 2))
		const draws = 20000
		choices, numbers, lower := map[string]float64{}, map[int]float64{}, 0.0
		for range draws {
			p := d.sample(random)
			choices[p["c"].(string)] += 1.0 / draws
			numbers[p["n"].(int)] += 1.0 / draws
			if p["x"].(float64) < 0.1 {
				lower += 1.0 / draws
			}
		}
		if math.Abs(lower-below) > 0.015 {
			t.Errorf("%d trials: %.3f of the draws of x are below 0.1, want %.3f", len(trials), lower, below)
		}
		for c, want := range byChoice {
			if math.Abs(choices[c]-want) > 0.015 {
				t.Errorf("%d trials: c = %s in %.3f of the draws, want %.3f", len(trials), c, choices[c], want)
			}
		}
		for n, want := range byNumber {
			if math.Abs(numbers[n]-want) > 0.015 {
				t.Errorf("%d trials: n = %d in %.3f of the draws, want %.3f", len(trials), n, numbers[n], want)
			}
		}
	}
}

// TestFarFromAKernel: probabilities far out are small and positive, on both sides alike.
func TestFarFromAKernel(t *testing.T) {
	f := numeric(0.5, 0.02)
	left, right := f.log(0, 0.1), f.log(0.9, 1)
	if math.IsInf(left, 0) || math.Abs(left-right) > 1e-6*math.Abs(left) {
		t.Errorf("log probabilities are %g and %g", left, right)
	}
	if lower := f.log(0.2, 0.2); math.IsInf(lower, 0) || math.IsNaN(lower) {
		t.Errorf("log density is %g", lower)
	}
}

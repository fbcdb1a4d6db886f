package interpret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Curves say what a model makes of an input of which units (words, say) are removed. Each
// has units+1 values: after 0, 1, … all units.
type Curves struct {
	// Deletion begins with the whole and removes the unit of the greatest attribution first:
	// the faster it falls, the better the attribution.
	Deletion []float64 `json:"deletion"`
	// Insertion begins with nothing and puts the units back in the same order: the faster it
	// rises, the better.
	Insertion []float64 `json:"insertion"`
	// Random removes units in random orders; it is their mean. Read from its end it is also
	// what insertion in random orders gives, on the average.
	Random []float64 `json:"random"`
}

// Faithful tests an attribution, one value a unit, on the model: value computes what was
// attributed for several inputs, of each of which only the units are kept that keep names,
// [inputs][units]. Orders is the number of random orders, drawn under seed.
//
// Source: Petsiuk, Das, Saenko 2018, "RISE: randomized input sampling for explanation of
// black-box models", section 3.2 (deletion and insertion); for words DeYoung et al. 2020, "ERASER".
func Faithful(ctx context.Context, values []float64, orders int, seed uint64, value func(ctx context.Context, keep [][]bool) ([]float64, error)) (Curves, error) {
	if len(values) == 0 || orders < 1 {
		return Curves{}, fmt.Errorf("testing an attribution of %d units against %d random orders: want at least 1 of both", len(values), orders)
	}
	for i, v := range values {
		if math.IsNaN(v) {
			return Curves{}, fmt.Errorf("testing an attribution: the value of unit %d is NaN", i)
		}
	}
	best := make([]int, len(values))
	for i := range best {
		best[i] = i
	}
	slices.SortStableFunc(best, func(i, j int) int { return cmp.Compare(values[j], values[i]) })
	random := rand.New(rand.NewPCG(seed, 0))
	all := [][]int{best}
	for range orders {
		all = append(all, random.Perm(len(values)))
	}
	units := len(values)
	keep := [][]bool{slices.Repeat([]bool{true}, units), make([]bool, units)} // the ends of all curves
	for _, order := range all {
		keep = append(keep, removing(order)...)
	}
	for _, kept := range removing(best) { // put back in the same order: the opposite is kept
		for i := range kept {
			kept[i] = !kept[i]
		}
		keep = append(keep, kept)
	}
	got, err := value(ctx, keep)
	if err != nil {
		return Curves{}, err
	}
	if len(got) != len(keep) {
		return Curves{}, fmt.Errorf("testing an attribution: %d values for %d inputs", len(got), len(keep))
	}
	for _, v := range got {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return Curves{}, errors.New("testing an attribution: the model's values are not finite")
		}
	}
	whole, nothing, got := got[0], got[1], got[2:]
	curve := func(first float64, n int, last float64) []float64 {
		return slices.Concat([]float64{first}, got[n*(units-1):(n+1)*(units-1)], []float64{last})
	}
	c := Curves{Deletion: curve(whole, 0, nothing), Insertion: curve(nothing, orders+1, whole), Random: make([]float64, units+1)}
	for n := range orders {
		for i, v := range curve(whole, 1+n, nothing) {
			c.Random[i] += v / float64(orders)
		}
	}
	return c, nil
}

// removing returns what is kept after 1, 2, … all but one units of an order were removed.
func removing(order []int) [][]bool {
	keep := make([][]bool, len(order)-1)
	for i := range keep {
		keep[i] = make([]bool, len(order))
		for _, unit := range order[i+1:] {
			keep[i][unit] = true
		}
	}
	return keep
}

// Area is the area under a curve over the share of its units, from 0 to 1, by the trapezoid
// rule. Divided by the curve's height, values of different inputs can be compared.
func Area(curve []float64) float64 {
	if len(curve) == 1 {
		return curve[0]
	}
	sum := 0.0
	for i := range len(curve) - 1 {
		sum += (curve[i] + curve[i+1]) / 2
	}
	return sum / float64(len(curve)-1)
}

// Faithfulness sums up what [Faithful] found of many attributions. Areas are those of [Area].
type Faithfulness struct {
	// Completeness is the [CompletenessError] of each [Attribution]; nil if contributions need not add up.
	Completeness *Spread `json:"completeness_error,omitempty"`
	// Deletion and Insertion are mean areas in the order of the attributions; Random is that
	// of random orders, the same for both.
	Deletion  float64 `json:"deletion_area"`
	Insertion float64 `json:"insertion_area"`
	Random    float64 `json:"random_area"`
	// DeletionBetter and InsertionBetter are the shares of attributions whose area is strictly
	// better than their own random one: less when units are removed, more when they are put back.
	DeletionBetter  float64 `json:"deletion_better"`
	InsertionBetter float64 `json:"insertion_better"`
	// Shares are those of units removed (or put back), in tenths; Curves are means of the
	// model's values there.
	Shares []float64 `json:"shares"`
	Curves Curves    `json:"curves"`
}

// SumUp sums up curves of two and more units each. It is the zero value, with shares, for none.
func SumUp(list []Curves) Faithfulness {
	const points = 11
	sum := Faithfulness{Shares: make([]float64, points), Curves: Curves{Deletion: make([]float64, points), Insertion: make([]float64, points), Random: make([]float64, points)}}
	for i := range sum.Shares {
		sum.Shares[i] = float64(i) / (points - 1)
	}
	n := float64(len(list))
	deleted, inserted := 0, 0
	for _, c := range list {
		deletion, insertion, random := Area(c.Deletion), Area(c.Insertion), Area(c.Random)
		sum.Deletion, sum.Insertion, sum.Random = sum.Deletion+deletion/n, sum.Insertion+insertion/n, sum.Random+random/n
		if deletion < random {
			deleted++
		}
		if insertion > random {
			inserted++
		}
		for j, share := range sum.Shares {
			sum.Curves.Deletion[j] += at(c.Deletion, share) / n
			sum.Curves.Insertion[j] += at(c.Insertion, share) / n
			sum.Curves.Random[j] += at(c.Random, share) / n
		}
	}
	if len(list) > 0 {
		sum.DeletionBetter, sum.InsertionBetter = float64(deleted)/n, float64(inserted)/n
	}
	return sum
}

// at reads a curve at a share of its units, in a straight line between its points.
func at(curve []float64, share float64) float64 {
	place := share * float64(len(curve)-1)
	i := min(int(place), len(curve)-2)
	return curve[i] + (place-float64(i))*(curve[i+1]-curve[i])
}

// CompletenessError is |open| / |difference|: how much of the difference that contributions should add up to they leave open. Where
// there is no difference, what is open counts as a share of the contributions' sizes, Σ |v|; nothing open of nothing is 0.
func CompletenessError(open, difference float64, contributions []float64) float64 {
	open, whole := math.Abs(open), math.Abs(difference)
	if whole == 0 {
		for _, v := range contributions {
			whole += math.Abs(v)
		}
	}
	switch {
	case open == 0:
		return 0
	case whole == 0:
		return 1
	}
	return open / whole
}

// Spread sums numbers up.
type Spread struct {
	Mean     float64 `json:"mean"`
	Median   float64 `json:"median"`
	P95      float64 `json:"p95"`
	Greatest float64 `json:"greatest"`
}

// SpreadOf sums up values, of which there must be one at least. Median and P95 are values of their own, the upper of two.
func SpreadOf(values []float64) Spread {
	values = slices.Sorted(slices.Values(values))
	s := Spread{Median: values[len(values)/2], P95: values[min(len(values)*95/100, len(values)-1)], Greatest: values[len(values)-1]}
	for _, v := range values {
		s.Mean += v / float64(len(values))
	}
	return s
}

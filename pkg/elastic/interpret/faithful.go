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
	var keep [][]bool
	for _, order := range all {
		keep = append(keep, removing(order)...)
	}
	inserted := removing(best) // put back in the same order: the opposite is kept
	for _, kept := range inserted {
		for i := range kept {
			kept[i] = !kept[i]
		}
	}
	keep = append(keep, inserted...)
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
	points := len(values) + 1
	c := Curves{Deletion: got[:points], Insertion: got[len(got)-points:], Random: make([]float64, points)}
	for i, v := range got[points : len(got)-points] {
		c.Random[i%points] += v / float64(orders)
	}
	return c, nil
}

// removing returns what is kept after 0, 1, … all units of an order were removed.
func removing(order []int) [][]bool {
	keep := make([][]bool, len(order)+1)
	for removed := range keep {
		keep[removed] = make([]bool, len(order))
		for _, unit := range order[removed:] {
			keep[removed][unit] = true
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

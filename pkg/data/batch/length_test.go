package batch_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/data/batch"
)

func TestLengths(t *testing.T) {
	for _, test := range []struct {
		name            string
		lengths         []int
		count, multiple int
		want            []int
	}{
		{"none", nil, 3, 8, nil},
		{"one bucket holds the longest", []int{3, 20, 9}, 1, 8, []int{24}},
		{"a multiple itself is not rounded up", []int{8, 16}, 2, 8, []int{8, 16}},
		{"fewer lengths than buckets", []int{5, 5, 7}, 4, 8, []int{8}},
		{"the many short ones get a bucket of their own", []int{1, 1, 1, 1, 1, 9, 10}, 2, 1, []int{1, 10}},
		{"the few long ones do not stretch the others", []int{8, 9, 9, 9, 9, 30}, 2, 1, []int{9, 30}},
		{"an empty example still needs a position", []int{0}, 1, 8, []int{8}},
		{"numbers below one count as one", []int{2, 5}, 0, -3, []int{5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, batch.Lengths(test.lengths, test.count, test.multiple)); diff != "" {
				t.Errorf("wrong lengths (-want +got):\n%s", diff)
			}
		})
	}
}

// Every choice of boundaries is tried: none may be better.
func TestLengthsAreOptimal(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for trial := range 300 {
		lengths := make([]int, 1+random.IntN(30))
		for i := range lengths {
			lengths[i] = 1 + random.IntN(40)
		}
		count, multiple := 1+random.IntN(4), 1+random.IntN(5)
		got := batch.Lengths(lengths, count, multiple)
		if len(got) > count || !slices.IsSorted(got) || got[len(got)-1] < slices.Max(lengths) {
			t.Fatalf("trial %d: %v for at most %d buckets up to %d", trial, got, count, slices.Max(lengths))
		}
		if got, want := positions(lengths, got), fewest(lengths, count, multiple); got != want {
			t.Errorf("trial %d: %d positions, want %d", trial, got, want)
		}
	}
}

func positions(lengths, buckets []int) int {
	sum := 0
	for _, length := range lengths {
		b, _ := slices.BinarySearch(buckets, length)
		if b == len(buckets) {
			return math.MaxInt
		}
		sum += buckets[b]
	}
	return sum
}

// fewest tries every set of at most count multiples.
func fewest(lengths []int, count, multiple int) int {
	var all []int
	for m := multiple; m < slices.Max(lengths)+multiple; m += multiple {
		all = append(all, m)
	}
	best := math.MaxInt
	var try func(chosen []int, from int)
	try = func(chosen []int, from int) {
		if len(chosen) > 0 {
			best = min(best, positions(lengths, chosen))
		}
		if len(chosen) == count {
			return
		}
		for i := from; i < len(all); i++ {
			try(append(slices.Clone(chosen), all[i]), i+1)
		}
	}
	try(nil, 0)
	return best
}

// Three shapes for a thousand short and a few long texts.
func ExampleLengths() {
	var lengths []int
	for i := range 1000 {
		lengths = append(lengths, 5+i%40)
	}
	lengths = append(lengths, 180, 200)
	fmt.Println(batch.Lengths(lengths, 3, 8))
	// Output: [24 48 200]
}

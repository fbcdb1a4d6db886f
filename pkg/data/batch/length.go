package batch

import (
	"cmp"
	"math"
	"slices"
)

// Lengths chooses at most count bucket lengths, ascending, such that examples
// of the given lengths, each padded to the smallest bucket that holds it, have
// the fewest padded positions in all:
//
//	minimise Σᵢ min{ b ∈ buckets : b ≥ lengthᵢ }
//
// Each bucket is a multiple of the last parameter, and the last one holds the
// longest example. The answer is exact, by dynamic programming over the
// different lengths (after rounding up to the multiple): time count · n².
// Fewer than count buckets are returned when there are fewer different lengths.
// A count or multiple below 1 counts as 1. No lengths give no buckets.
func Lengths(lengths []int, count, multiple int) []int {
	if len(lengths) == 0 {
		return nil
	}
	count, multiple = max(count, 1), max(multiple, 1)
	sizes, upTo := histogram(lengths, multiple)
	n := len(sizes)
	count = min(count, n)

	// best[k][j]: fewest positions for the examples up to sizes[j] with k+1 buckets, the last being sizes[j].
	// from[k][j]: index of the bucket before it.
	best, from := make([][]int, count), make([][]int, count)
	for k := range count {
		best[k], from[k] = make([]int, n), make([]int, n)
		for j := range n {
			best[k][j], from[k][j] = math.MaxInt, -1
			if k == 0 {
				best[k][j] = sizes[j] * upTo[j]
				continue
			}
			for i := k - 1; i < j; i++ {
				if c := best[k-1][i] + sizes[j]*(upTo[j]-upTo[i]); c < best[k][j] {
					best[k][j], from[k][j] = c, i
				}
			}
		}
	}
	// Each further bucket at a new length saves positions, so all are used.
	buckets := make([]int, count)
	for k, j := count-1, n-1; k >= 0; k-- {
		buckets[k] = sizes[j]
		j = from[k][j]
	}
	return buckets
}

// histogram returns the different lengths, rounded up, ascending, and the
// number of examples that are not longer than each.
func histogram(lengths []int, multiple int) (sizes, upTo []int) {
	counts := map[int]int{}
	for _, length := range lengths {
		counts[max((length+multiple-1)/multiple, 1)*multiple]++
	}
	for size := range counts {
		sizes = append(sizes, size)
	}
	slices.SortFunc(sizes, cmp.Compare)
	total := 0
	for _, size := range sizes {
		total += counts[size]
		upTo = append(upTo, total)
	}
	return sizes, upTo
}

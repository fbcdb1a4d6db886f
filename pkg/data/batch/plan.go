package batch

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// plan is which examples meet in which batch of an epoch.
type plan struct {
	batches []planned
}

type planned struct {
	rows   []int32 // examples, at most Size
	bucket int
}

// plan orders the examples of an epoch into batches.
func (d *Dataset) plan(epoch int) plan {
	order := make([]int32, len(d.examples))
	for i := range order {
		order[i] = int32(i)
	}
	if !d.config.Shuffle {
		slices.SortStableFunc(order, func(a, b int32) int {
			return len(d.examples[b].IDs) - len(d.examples[a].IDs)
		})
		return d.drop(plan{d.chunk(order)})
	}

	random := rand.NewPCG(d.config.Seed, uint64(epoch))
	shuffle(random, order)
	buckets := d.deal(order)
	var batches []planned
	var left []int32 // longest bucket first
	for b, rows := range slices.Backward(buckets) {
		full := len(rows) - len(rows)%d.config.Size
		for chunk := range slices.Chunk(rows[:full], d.config.Size) {
			batches = append(batches, planned{chunk, b})
		}
		left = append(left, rows[full:]...)
	}
	p := d.drop(plan{append(batches, d.chunk(left)...)})
	shuffle(random, p.batches)
	return p
}

// chunk cuts examples, ordered from the longest bucket to the shortest, into
// batches, each in the bucket of its first. The k-th longest of any batches of
// Size is at least as long as this k-th batch, so no other grouping of these
// examples computes fewer positions, and only the last one can be short.
func (d *Dataset) chunk(order []int32) []planned {
	var batches []planned
	for rows := range slices.Chunk(order, d.config.Size) {
		batches = append(batches, planned{rows, int(d.bucketOf[rows[0]])})
	}
	return batches
}

// drop leaves out the short batch, which is the last, where that is wanted.
func (d *Dataset) drop(p plan) plan {
	if last := len(p.batches) - 1; d.config.DropLast && last >= 0 && len(p.batches[last].rows) < d.config.Size {
		p.batches = p.batches[:last]
	}
	return p
}

// deal distributes the examples to their buckets and keeps their order.
func (d *Dataset) deal(order []int32) [][]int32 {
	counts := make([]int, len(d.buckets))
	for _, b := range d.bucketOf {
		counts[b]++
	}
	buckets := make([][]int32, len(d.buckets))
	for b, n := range counts {
		buckets[b] = make([]int32, 0, n)
	}
	for _, i := range order {
		b := d.bucketOf[i]
		buckets[b] = append(buckets[b], i)
	}
	return buckets
}

// shuffle permutes s (Fisher and Yates; Lemire's reduction of 64 random bits to
// an index, whose bias is below 2⁻³²). It is spelled out because the order is
// part of what a resumed run relies on, and rand.Shuffle promises no algorithm.
func shuffle[T any](random *rand.PCG, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j, _ := bits.Mul64(random.Uint64(), uint64(i+1))
		s[i], s[j] = s[j], s[i]
	}
}

// Stats says how much of an epoch's computation is spent on padding.
type Stats struct {
	Examples  int     `json:"examples"`
	Batches   int     `json:"batches"`
	Tokens    int     `json:"tokens"`    // positions that hold a token
	Positions int     `json:"positions"` // Σ Size · Length over the batches
	Padding   float64 `json:"padding"`   // 1 - Tokens / Positions
	Shapes    int     `json:"shapes"`    // different shapes that occur
}

// Stats counts epoch 0. The others differ at most in which batch DropLast leaves out.
func (d *Dataset) Stats() Stats {
	p := d.plan(0)
	s := Stats{Batches: len(p.batches), Shapes: len(d.Shapes())}
	for _, b := range p.batches {
		s.Examples += len(b.rows)
		s.Positions += d.config.Size * d.buckets[b.bucket]
		for _, i := range b.rows {
			s.Tokens += len(d.examples[i].IDs)
		}
	}
	if s.Positions > 0 {
		s.Padding = 1 - float64(s.Tokens)/float64(s.Positions)
	}
	return s
}

// Shapes returns the different shapes [Size, Length] of the batches of an
// epoch, ascending: as many as a compiling backend will compile.
func (d *Dataset) Shapes() [][2]int {
	used := make([]bool, len(d.buckets))
	for _, b := range d.plan(0).batches {
		used[b.bucket] = true
	}
	var shapes [][2]int
	for b, u := range used {
		if u {
			shapes = append(shapes, [2]int{d.config.Size, d.buckets[b]})
		}
	}
	return shapes
}

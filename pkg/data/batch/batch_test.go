package batch_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gomlx/gomlx/core/tensors"
	mltrain "github.com/gomlx/gomlx/ml/train"
	"github.com/google/go-cmp/cmp"
	"github.com/janpfeifer/must"

	"github.com/elastic-attention/workbench/pkg/data/batch"
)

// examples makes n labelled examples of 1 to longest tokens; token t of example i has id 1000·i + t + 1.
func examples(seed uint64, n, longest int) []batch.Example {
	random := rand.New(rand.NewPCG(seed, 0))
	out := make([]batch.Example, n)
	for i := range out {
		e := batch.Example{}
		for t := range 1 + int(float64(longest)*random.Float64()*random.Float64()) {
			e.IDs = append(e.IDs, int32(1000*i+t+1))
			e.TypeIDs = append(e.TypeIDs, int32(t%2))
			label := int32(t % 3)
			if t%3 == 0 {
				label = batch.Ignore
			}
			e.Labels = append(e.Labels, label)
		}
		out[i] = e
	}
	return out
}

func collect(seq iter.Seq[batch.Batch]) []batch.Batch { return slices.Collect(seq) }

// configs are varied enough to reach full, short and merged batches.
func configs() []batch.Config {
	var out []batch.Config
	for _, size := range []int{1, 2, 7, 16} {
		for _, shapes := range []int{1, 3, 6} {
			for _, shuffle := range []bool{false, true} {
				out = append(out, batch.Config{Size: size, MaxShapes: shapes, Shuffle: shuffle, Seed: 5, PadID: 9, Prefetch: len(out)%4 - 1})
			}
		}
	}
	return out
}

func TestEachExampleOncePerEpoch(t *testing.T) {
	for _, n := range []int{1, 2, 15, 16, 17, 100} {
		data := examples(uint64(n), n, 60)
		for _, config := range configs() {
			t.Run(fmt.Sprintf("n=%d size=%d shapes=%d shuffle=%t", n, config.Size, config.MaxShapes, config.Shuffle), func(t *testing.T) {
				d, err := batch.New("train", data, config)
				if err != nil {
					t.Fatal(err)
				}
				for epoch := range 3 {
					seen := make([]int, n)
					steps, short := 0, 0
					for b := range d.Epoch(epoch) {
						checkBatch(t, b, data, config.PadID)
						for _, i := range b.Index {
							seen[i]++
						}
						if b.Step != steps {
							t.Errorf("batch %d has step %d", steps, b.Step)
						}
						if !slices.Contains(d.Shapes(), [2]int{b.Size, b.Length}) {
							t.Errorf("shape [%d, %d] is not one of %v", b.Size, b.Length, d.Shapes())
						}
						if b.Rows < b.Size {
							short++
						}
						steps++
					}
					for i, times := range seen {
						if times != 1 {
							t.Fatalf("epoch %d: example %d occurs %d times", epoch, i, times)
						}
					}
					if want := (n + config.Size - 1) / config.Size; steps != want || d.Steps() != want {
						t.Errorf("epoch %d: %d batches, Steps() = %d, want %d", epoch, steps, d.Steps(), want)
					}
					if short > 1 {
						t.Errorf("epoch %d: %d batches with rows of padding, want at most 1", epoch, short)
					}
				}
			})
		}
	}
}

// checkBatch compares every position of a batch with the example it comes from.
func checkBatch(t *testing.T, b batch.Batch, data []batch.Example, pad int32) {
	t.Helper()
	if b.Rows != len(b.Index) || b.Rows < 1 || b.Rows > b.Size {
		t.Fatalf("%d rows, %d indices, size %d", b.Rows, len(b.Index), b.Size)
	}
	tokens, targets := 0, 0
	for row := range b.Size {
		var e batch.Example
		if row < b.Rows {
			e = data[b.Index[row]]
		}
		if len(e.IDs) > b.Length {
			t.Fatalf("example %d of %d tokens in a batch of length %d", b.Index[row], len(e.IDs), b.Length)
		}
		for col := range b.Length {
			at := row*b.Length + col
			want := [4]int32{pad, 0, 0, batch.Ignore}
			if col < len(e.IDs) {
				want = [4]int32{e.IDs[col], e.TypeIDs[col], 1, e.Labels[col]}
				tokens++
			}
			if want[3] != batch.Ignore {
				targets++
			}
			if got := [4]int32{b.IDs[at], b.TypeIDs[at], b.Mask[at], b.Labels[at]}; got != want {
				t.Fatalf("row %d, column %d: id, type, mask, label %v, want %v", row, col, got, want)
			}
		}
	}
	if b.Tokens != tokens || b.Targets != targets {
		t.Errorf("%d tokens and %d targets, want %d and %d", b.Tokens, b.Targets, tokens, targets)
	}
}

func TestSameSeedSameBatches(t *testing.T) {
	data := examples(3, 200, 50)
	config := batch.Config{Shuffle: true, Seed: 7}
	a, b := must.M1(batch.New("a", data, config)), must.M1(batch.New("b", data, config))
	if diff := cmp.Diff(collect(a.Epoch(4)), collect(b.Epoch(4))); diff != "" {
		t.Errorf("two datasets differ:\n%s", diff)
	}
	if cmp.Equal(collect(a.Epoch(4)), collect(a.Epoch(5))) {
		t.Error("two epochs are alike")
	}
	config.Seed = 8
	if c := must.M1(batch.New("c", data, config)); cmp.Equal(collect(a.Epoch(4)), collect(c.Epoch(4))) {
		t.Error("two seeds are alike")
	}
}

// The order is part of what a resumed run relies on; this one was printed once.
// If it changes, older runs cannot be continued any more.
func TestOrderIsStable(t *testing.T) {
	d := must.M1(batch.New("train", examples(3, 12, 50), batch.Config{Size: 4, MaxShapes: 2, Shuffle: true, Seed: 42}))
	var got [][]int
	for b := range d.Epoch(1) {
		got = append(got, append([]int{b.Length}, b.Index...))
	}
	want := [][]int{{8, 4, 3, 8, 11}, {32, 1, 0, 9, 6}, {32, 2, 10, 7, 5}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("length and examples of each batch (-want +got):\n%s", diff)
	}
}

func TestEpochFromContinuesExactly(t *testing.T) {
	for _, shuffle := range []bool{false, true} {
		d := must.M1(batch.New("train", examples(1, 90, 40), batch.Config{Size: 8, Shuffle: shuffle}))
		all := collect(d.Epoch(2))
		for skip := range len(all) + 2 {
			want := all[min(skip, len(all)):]
			if got := collect(d.EpochFrom(2, skip)); len(got) != len(want) || len(got) > 0 && !cmp.Equal(got, want) {
				t.Errorf("shuffle %t: skipping %d of %d batches gives %d other ones", shuffle, skip, len(all), len(got))
			}
		}
		if got := collect(d.EpochFrom(2, -1)); !cmp.Equal(got, all) {
			t.Errorf("shuffle %t: a negative skip differs from none", shuffle)
		}
	}
}

func TestSortedWithoutShuffle(t *testing.T) {
	data := examples(1, 100, 40)
	d := must.M1(batch.New("dev", data, batch.Config{Size: 8}))
	last := 1 << 30
	for b := range d.Epoch(0) {
		for _, i := range b.Index {
			if len(data[i].IDs) > last {
				t.Fatalf("example %d of %d tokens comes after one of %d", i, len(data[i].IDs), last)
			}
			last = len(data[i].IDs)
		}
	}
}

// Over many epochs an example meets every other one of its bucket, and comes
// early as often as late.
func TestCompositionIsRandom(t *testing.T) {
	data := make([]batch.Example, 64)
	for i := range data {
		data[i].IDs = make([]int32, 8+8*(i%2))
	}
	d := must.M1(batch.New("train", data, batch.Config{Size: 8, MaxShapes: 2, Shuffle: true}))
	const epochs = 2000
	var met, first, long int
	for epoch := range epochs {
		for b := range d.Epoch(epoch) {
			if slices.Contains(b.Index, 0) && slices.Contains(b.Index, 2) {
				met++
			}
			if b.Step == 0 && slices.Contains(b.Index, 0) {
				first++
			}
			if b.Step == 0 && b.Length == 16 {
				long++
			}
		}
	}
	for _, test := range []struct {
		name string
		got  int
		want float64
	}{
		{"examples 0 and 2 of 32 in one batch of 8", met, 7. / 31},
		{"example 0 in the first of 8 batches", first, 1. / 8},
		{"the first batch is a long one", long, 1. / 2},
	} {
		// Five standard deviations of a binomial are at most 2.5·√epochs.
		if got := float64(test.got) / epochs; got < test.want-0.056 || got > test.want+0.056 {
			t.Errorf("%s: in %.3f of the epochs, want about %.3f", test.name, got, test.want)
		}
	}
}

func TestDropLast(t *testing.T) {
	for _, shuffle := range []bool{false, true} {
		for n, want := range map[int]int{5: 0, 8: 1, 20: 2, 24: 3} {
			d := must.M1(batch.New("train", examples(1, n, 40), batch.Config{Size: 8, Shuffle: shuffle, DropLast: true}))
			got := collect(d.Epoch(0))
			if len(got) != want || d.Steps() != want || d.Stats().Batches != want {
				t.Errorf("shuffle %t, %d examples: %d batches, Steps() = %d, want %d", shuffle, n, len(got), d.Steps(), want)
			}
			for _, b := range got {
				if b.Rows != b.Size {
					t.Errorf("batch %d has %d of %d rows", b.Step, b.Rows, b.Size)
				}
			}
		}
	}
}

func TestUnlabelled(t *testing.T) {
	d := must.M1(batch.New("text", []batch.Example{{IDs: []int32{1, 2, 3}}}, batch.Config{Size: 2, Multiple: 4}))
	got := collect(d.Epoch(0))
	want := []batch.Batch{{
		IDs: []int32{1, 2, 3, 0, 0, 0, 0, 0}, TypeIDs: make([]int32, 8), Mask: []int32{1, 1, 1, 0, 0, 0, 0, 0},
		Index: []int{0}, Size: 2, Length: 4, Rows: 1, Tokens: 3,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wrong batch (-want +got):\n%s", diff)
	}
}

func TestMaxLengthBoundsTheLastBucket(t *testing.T) {
	data := []batch.Example{{IDs: make([]int32, 3)}, {IDs: make([]int32, 17)}}
	d := must.M1(batch.New("train", data, batch.Config{MaxLength: 20}))
	if diff := cmp.Diff([]int{8, 20}, d.Config().Lengths); diff != "" {
		t.Errorf("wrong lengths (-want +got):\n%s", diff)
	}
}

func TestNewErrors(t *testing.T) {
	ok := batch.Example{IDs: []int32{1, 2}, Labels: []int32{0, batch.Ignore}}
	for _, test := range []struct {
		name     string
		examples []batch.Example
		config   batch.Config
		want     string
	}{
		{"no examples", nil, batch.Config{}, "dataset train: no examples"},
		{"no tokens", []batch.Example{ok, {Labels: []int32{}}}, batch.Config{}, "example 1: no tokens"},
		{"labels", []batch.Example{{IDs: []int32{1, 2}, Labels: []int32{0}}}, batch.Config{}, "example 0: 1 labels for 2 tokens"},
		{"type ids", []batch.Example{{IDs: []int32{1, 2}, TypeIDs: []int32{0, 0, 0}}}, batch.Config{}, "example 0: 3 type ids for 2 tokens"},
		{"mixed", []batch.Example{ok, {IDs: []int32{1}}}, batch.Config{}, "example 1: either all examples"},
		{"id", []batch.Example{{IDs: []int32{1, -2}}}, batch.Config{}, "example 0: token 1 has id -2"},
		{"label", []batch.Example{{IDs: []int32{1}, Labels: []int32{-1}}}, batch.Config{}, "example 0: token 0 has label -1, want 0 or more, or -100"},
		{"too long", []batch.Example{ok, {IDs: make([]int32, 5), Labels: make([]int32, 5)}}, batch.Config{Lengths: []int{2, 4}},
			"example 1 has 5 tokens, want at most 4"},
		{"over the maximum", []batch.Example{ok, {IDs: make([]int32, 5), Labels: make([]int32, 5)}}, batch.Config{MaxLength: 4},
			"example 1 has 5 tokens, want at most 4"},
		{"size", []batch.Example{ok}, batch.Config{Size: -1}, "config: size: got -1, want 0 (the default) or more"},
		{"all problems", []batch.Example{ok}, batch.Config{Multiple: -1, Prefetch: -2}, "multiple: got -1, want 0 (the default) or more\nprefetch: got -2"},
		{"order", []batch.Example{ok}, batch.Config{Lengths: []int{8, 8}}, "lengths: got [8 8], want positive lengths in ascending order"},
		{"lengths over the maximum", []batch.Example{ok}, batch.Config{Lengths: []int{8, 16}, MaxLength: 12}, "want at most max_length, 12"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := batch.New("train", test.examples, test.config)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v, want an error with %q", d, err, test.want)
			}
		})
	}
}

func TestStats(t *testing.T) {
	data := examples(2, 101, 60)
	for _, shuffle := range []bool{false, true} {
		d := must.M1(batch.New("train", data, batch.Config{Size: 8, Shuffle: shuffle}))
		for epoch := range 2 {
			want := batch.Stats{Examples: 101, Batches: 13, Shapes: len(d.Shapes())}
			for b := range d.Epoch(epoch) {
				want.Tokens += b.Tokens
				want.Positions += len(b.IDs)
			}
			want.Padding = 1 - float64(want.Tokens)/float64(want.Positions)
			if diff := cmp.Diff(want, d.Stats()); diff != "" {
				t.Errorf("shuffle %t, epoch %d (-want +got):\n%s", shuffle, epoch, diff)
			}
		}
	}
}

// A bubble of synctest fails when a goroutine is left behind.
func TestNoGoroutineIsLeftBehind(t *testing.T) {
	data := examples(1, 100, 20)
	for _, ahead := range []int{-1, 1, 2, 50} {
		d := must.M1(batch.New("train", data, batch.Config{Size: 4, Prefetch: ahead}))
		for _, stop := range []int{1, 3, 1000} {
			t.Run(fmt.Sprintf("ahead=%d stop=%d", ahead, stop), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := 0
					for range d.Epoch(0) {
						if n++; n == stop {
							break
						}
					}
					if want := min(stop, d.Steps()); n != want {
						t.Errorf("%d batches, want %d", n, want)
					}
				})
				synctest.Test(t, func(t *testing.T) {
					defer func() { _ = recover() }()
					for range d.Epoch(0) {
						panic("the loop's body fails")
					}
				})
			})
		}
	}
}

func TestGoMLX(t *testing.T) {
	data := examples(1, 30, 20)
	d := must.M1(batch.New("train", data, batch.Config{Size: 4, Shuffle: true, Seed: 1}))
	var dataset mltrain.Dataset = d.GoMLX(3, 2)
	if dataset.Name() != "train" {
		t.Errorf("name %q", dataset.Name())
	}
	for _, want := range [][]batch.Batch{collect(d.EpochFrom(3, 2)), collect(d.Epoch(4)), collect(d.Epoch(5))} {
		step := 0
		for got, err := range dataset.Iter() {
			if err != nil {
				t.Fatal(err)
			}
			w := want[step]
			for i, flat := range [][]int32{w.IDs, w.TypeIDs, w.Mask, w.Labels} {
				tensor := append(slices.Clone(got.Inputs), got.Labels...)[i]
				if diff := cmp.Diff([]int{w.Size, w.Length}, tensor.Shape().Dimensions); diff != "" {
					t.Fatalf("step %d, tensor %d, shape:\n%s", step, i, diff)
				}
				if diff := cmp.Diff(flat, tensors.MustCopyFlatData[int32](tensor)); diff != "" {
					t.Fatalf("step %d, tensor %d:\n%s", step, i, diff)
				}
			}
			must.M(got.Finalize())
			step++
		}
		if step != len(want) {
			t.Errorf("%d batches, want %d", step, len(want))
		}
	}
}

func BenchmarkEpoch(b *testing.B) {
	// Synthetic lengths, many short and few long, up to 200 tokens.
	random := rand.New(rand.NewPCG(1, 1))
	data := make([]batch.Example, 12_543)
	for i := range data {
		n := min(3+int(random.ExpFloat64()*19), 200)
		data[i] = batch.Example{IDs: make([]int32, n), Labels: make([]int32, n)}
	}
	for _, shapes := range []int{1, 2, 3, 4} {
		b.Run(fmt.Sprintf("shapes=%d", shapes), func(b *testing.B) {
			d := must.M1(batch.New("train", data, batch.Config{MaxShapes: shapes, Shuffle: true}))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for range d.Epoch(n) {
				}
				n++
			}
			b.ReportMetric(float64(n*d.Steps())/b.Elapsed().Seconds(), "batches/s")
			b.ReportMetric(d.Stats().Padding, "padding")
		})
	}
}

func ExampleDataset() {
	data := []batch.Example{
		{IDs: []int32{101, 7, 102}},
		{IDs: []int32{101, 5, 6, 7, 8, 102}},
		{IDs: []int32{101, 9, 102}},
	}
	d, err := batch.New("demo", data, batch.Config{Size: 2, MaxShapes: 2, Multiple: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("shapes", d.Shapes())
	for b := range d.Epoch(0) {
		fmt.Printf("[%d, %d] examples %v: %v\n", b.Size, b.Length, b.Index, b.IDs)
	}
	// Output:
	// shapes [[2 4] [2 6]]
	// [2, 6] examples [1 0]: [101 5 6 7 8 102 101 7 102 0 0 0]
	// [2, 4] examples [2]: [101 9 102 0 0 0 0 0]
}

func TestTargets(t *testing.T) {
	examples := []batch.Example{{Labels: []int32{batch.Ignore, 2, 0, 2}}, {Labels: nil}, {Labels: []int32{2, batch.Ignore}}}
	if diff := cmp.Diff([]int{1, 0, 3, 0}, batch.Targets(examples, 4)); diff != "" {
		t.Error(diff)
	}
}

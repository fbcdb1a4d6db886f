package dropout_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// apply drops ones at two places of a model under the key of a step.
func apply(t *testing.T, step uint64, rate float64, size int) (first, second []float32) {
	t.Helper()
	out, err := graph.CallOnceN(gxtest.Backend(t), func(key *graph.Node) (*graph.Node, *graph.Node) {
		source := dropout.NewSource(key)
		ones := graph.Ones(key.Graph(), shapes.Make(dtypes.Float32, size/4, 4))
		return source.Apply(ones, rate), source.Apply(ones, rate)
	}, dropout.Key(1, step))
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
}

func TestRateScaleAndIndependence(t *testing.T) {
	const size = 40000
	for _, rate := range []float64{0.1, 0.5, 0.9} {
		a, b := apply(t, 3, rate, size)
		next, _ := apply(t, 4, rate, size)
		kept, both, again, pairs := 0, 0, 0, 0
		for i := range a {
			if a[i] == 0 {
				continue
			}
			kept++
			if math.Abs(float64(a[i])-1/(1-rate)) > 1e-5 {
				t.Fatalf("kept element is %g, want %g", a[i], 1/(1-rate))
			}
			if b[i] != 0 {
				both++
			}
			if next[i] != 0 {
				again++
			}
			if i+1 < size && a[i+1] != 0 {
				pairs++
			}
		}
		keep := 1 - rate
		for what, got := range map[string]struct {
			count int
			want  float64
		}{"one place": {kept, keep}, "two places": {both, keep * keep}, "two steps": {again, keep * keep}, "two neighbours": {pairs, keep * keep}} {
			deviation := 5 * math.Sqrt(got.want*(1-got.want)/size) // 5 standard deviations
			if share := float64(got.count) / size; math.Abs(share-got.want) > deviation {
				t.Errorf("rate %g, kept at %s: %.4f, want %.4f ± %.4f", rate, what, share, got.want, deviation)
			}
		}
	}
}

func TestSameKeySameMask(t *testing.T) {
	a, _ := apply(t, 5, 0.3, 400)
	b, _ := apply(t, 5, 0.3, 400)
	if !slices.Equal(a, b) {
		t.Error("two graphs with the same key differ")
	}
}

// TestMaskIsTheSameOnEveryBackend pins the mask, so that a run on one backend can be
// compared with one on another: both must give these positions.
func TestMaskIsTheSameOnEveryBackend(t *testing.T) {
	a, b := apply(t, 0, 0.25, 64)
	var dropped []int
	for i, v := range append(a, b...) {
		if v == 0 {
			dropped = append(dropped, i)
		}
	}
	want := reference(dropout.Key(1, 0), 0.25, 64)
	if !slices.Equal(dropped, want) {
		t.Errorf("dropped %v, want %v", dropped, want)
	}
}

// reference computes the mask of two places with Go's own arithmetic.
func reference(key []uint32, rate float64, size int) (dropped []int) {
	mix := func(h uint32) uint32 {
		h ^= h >> 16
		h *= 0x85ebca6b
		h ^= h >> 13
		h *= 0xc2b2ae35
		return h ^ h>>16
	}
	for site := uint32(1); site <= 2; site++ {
		low, high := mix(key[0]+site*0x9e3779b1), mix(key[1]+site*0x85ebca77)
		for i := range uint32(size) {
			h := i*0x9e3779b1 ^ low
			h = (h ^ h>>16) * 0x85ebca6b
			h += high
			h = (h ^ h>>15) * 0xc2b2ae35
			h ^= h >> 16
			if h < uint32(rate*(1<<32)) {
				dropped = append(dropped, int(site-1)*size+int(i))
			}
		}
	}
	return dropped
}

func TestNilSourceAndRateZeroChangeNothing(t *testing.T) {
	out, err := graph.CallOnceN(gxtest.Backend(t), func(key, x *graph.Node) (*graph.Node, *graph.Node) {
		var none *dropout.Source
		return none.Apply(x, 0.5), dropout.NewSource(key).Apply(x, 0)
	}, dropout.Key(1, 1), []float32{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range out {
		gxtest.Close(t, got, []float32{1, 2, 3}, 0)
	}
}

func TestGradientIsTheMask(t *testing.T) {
	out, err := graph.CallOnceN(gxtest.Backend(t), func(key, x *graph.Node) (*graph.Node, *graph.Node) {
		y := dropout.NewSource(key).Apply(x, 0.5)
		return y, graph.Gradient(graph.ReduceAllSum(y), x)[0]
	}, dropout.Key(1, 1), []float32{1, 1, 1, 1, 1, 1, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[1], tensors.MustCopyFlatData[float32](out[0]), 0)
}

func TestBadRatePanicsWithTheRate(t *testing.T) {
	_, err := graph.CallOnce(gxtest.Backend(t), func(key *graph.Node) *graph.Node {
		return dropout.NewSource(key).Apply(graph.Ones(key.Graph(), shapes.Make(dtypes.Float32, 4)), 1)
	}, dropout.Key(1, 1))
	if err == nil {
		t.Error("rate 1 was accepted")
	}
}

func ExampleKey() {
	fmt.Println(dropout.Key(42, 0))
	fmt.Println(dropout.Key(42, 1))
	// Output:
	// [1695576580 1474427578]
	// [2583233866 4199519317]
}

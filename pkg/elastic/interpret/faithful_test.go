package interpret_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
)

// sumOf is a model whose value is the sum of the units that are kept, each worth its weight.
func sumOf(worth []float64) func(context.Context, [][]bool) ([]float64, error) {
	return func(_ context.Context, keep [][]bool) ([]float64, error) {
		out := make([]float64, len(keep))
		for i, kept := range keep {
			for unit, k := range kept {
				if k {
					out[i] += worth[unit]
				}
			}
		}
		return out, nil
	}
}

func TestCompletenessError(t *testing.T) {
	for _, c := range []struct{ open, difference, want float64 }{{-1, 4, 0.25}, {1, -4, 0.25}, {0, 0, 0}, {0.5, 0, 0.1}} {
		if got := interpret.CompletenessError(c.open, c.difference, []float64{2, -3}); got != c.want {
			t.Errorf("%g open of %g: %g, want %g", c.open, c.difference, got, c.want)
		}
	}
	if got := interpret.CompletenessError(2, 0, nil); got != 1 {
		t.Errorf("all open: %g", got)
	}
}

func TestFaithful(t *testing.T) {
	worth := []float64{1, 4, -2, 0}
	c, err := interpret.Faithful(t.Context(), worth, 200, 1, sumOf(worth))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, c.Deletion, []float64{3, -1, -2, -2, 0}, 1e-12)
	gxtest.Close(t, c.Insertion, []float64{0, 4, 5, 5, 3}, 1e-12)
	gxtest.Close(t, c.Random, []float64{3, 2.25, 1.5, 0.75, 0}, 0.4) // a straight line in the limit
	gxtest.Close(t, []float64{c.Random[0], c.Random[4]}, []float64{3, 0}, 1e-9)
	if d, r, i := interpret.Area(c.Deletion), interpret.Area(c.Random), interpret.Area(c.Insertion); d != -0.875 || !(d < r && r < i) {
		t.Errorf("areas of deletion %g, random %g, insertion %g", d, r, i)
	}
	if one, err := interpret.Faithful(t.Context(), []float64{3}, 2, 1, sumOf([]float64{3})); err != nil || !slices.Equal(one.Deletion, []float64{3, 0}) || !slices.Equal(one.Random, []float64{3, 0}) || !slices.Equal(one.Insertion, []float64{0, 3}) {
		t.Errorf("of one unit: %+v, %v", one, err)
	}
	again, err := interpret.Faithful(t.Context(), worth, 200, 1, sumOf(worth))
	if err != nil || !slices.Equal(again.Random, c.Random) {
		t.Errorf("the same seed gives other random orders (%v)", err)
	}
}

// TestSumUp by hand: curves of two and of four units, of which the second is better than random only when words are put back.
func TestSumUp(t *testing.T) {
	f := interpret.SumUp([]interpret.Curves{
		{Deletion: []float64{4, 0, 0}, Insertion: []float64{0, 4, 4}, Random: []float64{4, 2, 0}},
		{Deletion: []float64{2, 1, 1, 1, 0}, Insertion: []float64{0, 2, 2, 2, 2}, Random: []float64{2, 1, 1, 1, 0}},
	})
	gxtest.Close(t, []float64{f.Deletion, f.Insertion, f.Random}, []float64{(1 + 1) / 2.0, (3 + 1.75) / 2, (2 + 1) / 2.0}, 1e-12)
	gxtest.Close(t, []float64{f.DeletionBetter, f.InsertionBetter}, []float64{0.5, 1}, 0)
	gxtest.Close(t, f.Shares, []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1}, 1e-12)
	gxtest.Close(t, []float64{f.Curves.Deletion[0], f.Curves.Deletion[1], f.Curves.Deletion[5], f.Curves.Deletion[10]}, []float64{3, (3.2 + 1.6) / 2, 0.5, 0}, 1e-12)
	gxtest.Close(t, []float64{f.Curves.Random[5], f.Curves.Insertion[1]}, []float64{1.5, (0.8 + 0.8) / 2}, 1e-12)
	if none := interpret.SumUp(nil); none.Completeness != nil || none.DeletionBetter != 0 || len(none.Shares) != 11 {
		t.Errorf("of nothing it is %+v", none)
	}
	values := []float64{4, 1, 3, 2}
	if s := interpret.SpreadOf(values); s != (interpret.Spread{Mean: 2.5, Median: 3, P95: 4, Greatest: 4}) || values[0] != 4 {
		t.Errorf("spread %+v of %v", s, values)
	}
}

func TestFaithfulRefuses(t *testing.T) {
	failed := errors.New("failed")
	nan := func(_ context.Context, keep [][]bool) ([]float64, error) {
		return slices.Repeat([]float64{math.NaN()}, len(keep)), nil
	}
	for _, test := range []struct {
		values []float64
		orders int
		model  func(context.Context, [][]bool) ([]float64, error)
		want   string
	}{
		{nil, 1, nil, "0 units"}, {[]float64{1}, 0, nil, "0 random orders"}, {[]float64{1, math.NaN()}, 1, nil, "unit 1 is NaN"},
		{[]float64{1}, 1, nan, "not finite"},
		{[]float64{1}, 1, func(context.Context, [][]bool) ([]float64, error) { return nil, nil }, "0 values for"},
		{[]float64{1}, 1, func(context.Context, [][]bool) ([]float64, error) { return nil, failed }, "failed"},
	} {
		if _, err := interpret.Faithful(t.Context(), test.values, test.orders, 1, test.model); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error is %v, want %q", err, test.want)
		}
	}
}

func TestRankCorrelation(t *testing.T) {
	for _, test := range []struct {
		x, y []float64
		want float64
	}{
		{[]float64{1, 2, 3}, []float64{10, 20, 400}, 1},
		{[]float64{1, 2, 3}, []float64{3, 2, 1}, -1},
		// By scipy.stats.spearmanr, with ties.
		{[]float64{1, 2, 2, 4, 5}, []float64{2, 1, 3, 3, 9}, 0.763157894736842},
	} {
		gxtest.Close(t, interpret.RankCorrelation(test.x, test.y), test.want, 1e-12)
	}
	if got := interpret.RankCorrelation([]float64{1, 1}, []float64{1, 2}); got != 0 {
		t.Errorf("of a constant it is %g", got)
	}
}

// TestRandomise: the explanation of a linear model are its weights; what is left of them
// goes stage by stage, and comes back.
func TestRandomise(t *testing.T) {
	variables := []elastic.Variable{
		{Path: "/embeddings/word", Shape: []int{3}, Init: elastic.Init{Values: []float64{1, 2, 3}}},
		{Path: "/layer_0/norm/scale", Shape: []int{3}, Init: elastic.Init{Normal: 1}},
		{Path: "/layer_0/norm/bias", Shape: []int{3}, Init: elastic.Init{Normal: 1}},
		{Path: "/head/bias", Shape: []int{3}, Init: elastic.Init{Value: 0}},
	}
	stages := interpret.Cascade(variables)
	var names []string
	for _, s := range stages {
		names = append(names, fmt.Sprint(s.Name, len(s.Variables)))
	}
	if want := []string{"head1", "layer_02", "embeddings1"}; !slices.Equal(names, want) {
		t.Fatalf("stages %v, want %v", names, want)
	}
	store, err := elastic.NewStore(variables, 1)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) []float32 {
		return tensors.MustCopyFlatData[float32](store.GetVariable(path).MustValue())
	}
	before := read("/layer_0/norm/scale")
	calls := 0
	explain := func() ([]float64, error) { // scale alone counts
		calls++
		var values []float64
		for _, v := range read("/layer_0/norm/scale") {
			values = append(values, float64(v))
		}
		return values, nil
	}
	list, err := interpret.Randomise(store, stages, 5, explain)
	if err != nil {
		t.Fatal(err)
	}
	fresh := variables[1].Tensor(5)
	var first, second []float64
	for i := range before {
		first, second = append(first, float64(before[i])), append(second, float64(tensors.MustCopyFlatData[float32](fresh)[i]))
	}
	after := interpret.RankCorrelation(first, second)
	if len(list) != 3 || calls != 4 || list[0].Rank != 1 || list[1].Rank != after || list[2].Rank != after || list[1].Stage != "layer_0" {
		t.Errorf("similarities %v after %d calls, want 1, %g, %g", list, calls, after, after)
	}
	if got := read("/layer_0/norm/scale"); !slices.Equal(got, before) {
		t.Errorf("the model has %v, had %v", got, before)
	}
	failed := errors.New("failed")
	if _, err := interpret.Randomise(store, stages, 5, func() ([]float64, error) {
		if slices.Equal(read("/layer_0/norm/scale"), before) {
			return []float64{1}, nil
		}
		return nil, failed
	}); !errors.Is(err, failed) {
		t.Errorf("error is %v", err)
	}
	if got := read("/layer_0/norm/scale"); !slices.Equal(got, before) {
		t.Errorf("after an error the model has %v, had %v", got, before)
	}
}

// TestProfile by hand: one head looks at itself, one at the first token and its predecessor.
func TestProfile(t *testing.T) {
	weights := [][][][]float32{{
		{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
		{{1, 0, 0}, {0.5, 0.5, 0}, {0.25, 0.75, 0}},
	}}
	out, err := CallOnceN(gxtest.Backend(t), func(a *Node) (*Node, *Node) {
		return interpret.Profile(a, Const(a.Graph(), [][]int32{{1, 1, 1}})), interpret.Profile(a, Const(a.Graph(), [][]int32{{1, 1, 0}}))
	}, weights)
	if err != nil {
		t.Fatal(err)
	}
	ln := math.Log
	second := -2*0.5*ln(0.5) - 0.25*ln(0.25) - 0.75*ln(0.75)
	gxtest.Close(t, out[0], [][]float64{
		// entropy, sparsity, greatest, distance, self, previous, next, first, queries
		{0, 2, 3, 0, 3, 0, 0, 1, 3},
		{second, 2.0/3 + 1.0/3 + 1.0/3, 2.25, 0.5 + 0.5 + 0.75, 1.5, 0.5 + 0.75, 0, 1.75, 3},
	}, 1e-6)
	gxtest.Close(t, out[1], [][]float64{
		{0, 1, 2, 0, 2, 0, 0, 1, 2},
		{-2 * 0.5 * ln(0.5), 0.5, 1.5, 0.5, 1.5, 0.5, 0, 1.5, 2},
	}, 1e-6)
	if n := len(interpret.Features); out[0].Shape().Dimensions[1] != n {
		t.Errorf("%s for %d features", out[0].Shape(), n)
	}
}

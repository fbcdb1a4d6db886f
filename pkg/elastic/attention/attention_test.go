package attention_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

const batch, length, hidden = 2, 5, 12

// attend runs self-attention on random input and returns output, weights, and the
// gradient of the summed squared output to the input.
func attend(t *testing.T, spec attention.Spec, mask [][][][]bool) (x, y, weights, gradient []float32) {
	t.Helper()
	store, err := elastic.NewStore(spec.Variables(hidden, 0.5), 3)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	x = make([]float32, batch*length*hidden)
	for i := range x {
		x[i] = float32(random.NormFloat64())
	}
	args := []any{tensors.FromFlatDataAndDimensions(x, batch, length, hidden)}
	if mask != nil {
		args = append(args, mask)
	}
	out, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		var allowed *graph.Node
		if len(in) > 1 {
			allowed = in[1]
		}
		out := attention.Self(spec, elastic.WeightsOf(scope.Store(), in[0].Graph()), in[0], attention.Inputs{Mask: allowed})
		y, weights := out.Output, out.Weights
		return []*graph.Node{y, weights, graph.Gradient(graph.ReduceAllSum(graph.Square(y)), in[0])[0]}
	}, args...)
	if err != nil {
		t.Fatal(err)
	}
	flat := func(i int) []float32 { return tensors.MustCopyFlatData[float32](out[i]) }
	return x, flat(0), flat(1), flat(2)
}

func TestWeightsAreADistribution(t *testing.T) {
	for _, heads := range []int{1, 3, 12} {
		_, _, weights, _ := attend(t, attention.Spec{Heads: heads}, nil)
		if len(weights) != batch*heads*length*length {
			t.Fatalf("%d weights", len(weights))
		}
		for row := 0; row < len(weights); row += length {
			sum := 0.0
			for _, w := range weights[row : row+length] {
				sum += float64(w)
			}
			if math.Abs(sum-1) > 1e-5 {
				t.Fatalf("row %d sums to %g", row/length, sum)
			}
		}
	}
}

// TestMask masks one key everywhere and all keys of one query.
func TestMask(t *testing.T) {
	const heads, maskedKey, lostQuery = 2, 1, 3
	mask := make([][][][]bool, batch)
	for b := range mask {
		mask[b] = [][][]bool{make([][]bool, length)}
		for q := range length {
			mask[b][0][q] = make([]bool, length)
			for k := range length {
				mask[b][0][q][k] = k != maskedKey && q != lostQuery
			}
		}
	}
	_, y, weights, gradient := attend(t, attention.Spec{Heads: heads}, mask)
	for i, w := range weights {
		q, k := i/length%length, i%length
		if (k == maskedKey || q == lostQuery) && w != 0 {
			t.Fatalf("query %d gives masked key %d the weight %g", q, k, w)
		}
		if math.IsNaN(float64(w)) {
			t.Fatal("NaN weight")
		}
	}
	for i := range hidden {
		if y[lostQuery*hidden+i] != 0 { // values sum to nothing, and the output's bias is 0 at first
			t.Fatalf("a query without keys gives %g, want 0", y[lostQuery*hidden+i])
		}
	}
	for i, v := range gradient {
		if math.IsNaN(float64(v)) {
			t.Fatalf("gradient %d is NaN", i)
		}
	}
}

// TestMaskOfFewerAxes: a mask [queries, keys] is one for all texts and heads, also where there are as many of those.
func TestMaskOfFewerAxes(t *testing.T) {
	s := attention.Spec{Heads: 3, HeadDim: 4}
	store, err := elastic.NewStore(elastic.Under("", s.Variables(hidden, 0.3)), 7)
	if err != nil {
		t.Fatal(err)
	}
	x := tensors.FromFlatDataAndDimensions(ramp(2*3*hidden), 2, 3, hidden)
	results, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, x *graph.Node) []*graph.Node {
		w := elastic.WeightsOf(scope.Store(), x.Graph())
		mask := graph.Const(x.Graph(), [][]bool{{true, false, false}, {true, true, false}, {false, true, true}})
		few := attention.Self(s, w, x, attention.Inputs{Mask: mask})
		whole := attention.Self(s, w, x, attention.Inputs{Mask: graph.InsertAxes(mask, 0, 0)})
		return []*graph.Node{few.Weights, whole.Weights}
	}, x)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, results[0], results[1], 0)
}

// TestPermutingTokensPermutesOutputs: without positions, attention does not see order.
func TestPermutingTokensPermutesOutputs(t *testing.T) {
	spec := attention.Spec{Heads: 3}
	store, err := elastic.NewStore(spec.Variables(hidden, 0.5), 3)
	if err != nil {
		t.Fatal(err)
	}
	out, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, x *graph.Node) (*graph.Node, *graph.Node) {
		w := elastic.WeightsOf(scope.Store(), x.Graph())
		straight := attention.Self(spec, w, x, attention.Inputs{}).Output
		reversed := attention.Self(spec, w, graph.Reverse(x, 1), attention.Inputs{}).Output
		return straight, graph.Reverse(reversed, 1)
	}, tensors.FromFlatDataAndDimensions(ramp(batch*length*hidden), batch, length, hidden))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], out[1], 1e-5)
}

func ramp(n int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	return values
}

// TestHugeLogits: the softmax neither overflows nor loses its gradient.
func TestHugeLogits(t *testing.T) {
	spec := attention.Spec{Heads: 1}
	store, err := elastic.NewStore(spec.Variables(hidden, 30), 3)
	if err != nil {
		t.Fatal(err)
	}
	out, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, x *graph.Node) (*graph.Node, *graph.Node) {
		out := attention.Self(spec, elastic.WeightsOf(scope.Store(), x.Graph()), x, attention.Inputs{})
		y, weights := out.Output, out.Weights
		return weights, graph.Gradient(graph.ReduceAllSum(y), x)[0]
	}, tensors.FromFlatDataAndDimensions(ramp(batch*length*hidden), batch, length, hidden))
	if err != nil {
		t.Fatal(err)
	}
	for _, tensor := range out {
		for _, v := range tensors.MustCopyFlatData[float32](tensor) {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("result has %g", v)
			}
		}
	}
}

func TestInputRankIsChecked(t *testing.T) {
	spec := attention.Spec{Heads: 1}
	store, err := elastic.NewStore(spec.Variables(hidden, 1), 3)
	if err != nil {
		t.Fatal(err)
	}
	_, err = model.CallOnce(gxtest.Backend(t), store, func(scope *model.Scope, x *graph.Node) *graph.Node {
		y := attention.Self(spec, elastic.WeightsOf(scope.Store(), x.Graph()), x, attention.Inputs{}).Output
		return y
	}, [][]float32{{1, 2}})
	if err == nil || !strings.Contains(err.Error(), "[batch, length, hidden]") {
		t.Errorf("error is %v", err)
	}
}

func ExampleSelf() {
	spec := attention.Spec{Heads: 2}
	store, err := elastic.NewStore(spec.Variables(4, 0.02), 42)
	if err != nil {
		panic(err)
	}
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	// One sequence of three tokens; the third is padding.
	x := tensors.FromFlatDataAndDimensions([]float32{1, 0, 0, 0, 0, 1, 0, 0, 9, 9, 9, 9}, 1, 3, 4)
	mask := [][][][]bool{{{{true, true, false}}}} // [batch, heads, queries, keys], the middle two broadcast
	out, err := model.CallOnceN(engine, store, func(scope *model.Scope, x, mask *graph.Node) (*graph.Node, *graph.Node) {
		out := attention.Self(spec, elastic.WeightsOf(scope.Store(), x.Graph()), x, attention.Inputs{Mask: mask})
		y, weights := out.Output, out.Weights
		return y, graph.ConvertDType(weights, dtypes.Float32)
	}, x, mask)
	if err != nil {
		panic(err)
	}
	fmt.Println(out[0].Shape(), out[1].Shape())
	fmt.Printf("%.1f\n", tensors.MustCopyFlatData[float32](out[1])[:3])
	// Output:
	// (Float32)[1, 3, 4] (Float32)[1, 2, 3, 3]
	// [0.5 0.5 0.0]
}

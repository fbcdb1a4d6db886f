package elastic_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/janpfeifer/must"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
)

func TestInitialValues(t *testing.T) {
	v := elastic.Variable{Path: "/a/weights", Shape: []int{200, 100}, Init: elastic.Init{Normal: 0.02}}
	values := tensors.MustCopyFlatData[float32](v.Tensor(1))
	mean, square := 0.0, 0.0
	for _, x := range values {
		mean += float64(x)
		square += float64(x) * float64(x)
	}
	mean /= float64(len(values))
	if deviation := math.Sqrt(square / float64(len(values))); math.Abs(deviation-0.02) > 5e-4 || math.Abs(mean) > 1e-3 {
		t.Errorf("mean %g, deviation %g; want 0 and 0.02", mean, deviation)
	}
	if !slices.Equal(values, tensors.MustCopyFlatData[float32](v.Tensor(1))) {
		t.Error("the same seed and path give other numbers")
	}
	other := v
	other.Path = "/b/weights"
	for name, t2 := range map[string]*tensors.Tensor{"seed": v.Tensor(2), "path": other.Tensor(1)} {
		if slices.Equal(values, tensors.MustCopyFlatData[float32](t2)) {
			t.Errorf("another %s gives the same numbers", name)
		}
	}
	scale := elastic.Variable{Shape: []int{3}, Init: elastic.Init{Value: 1}}
	gxtest.Close(t, scale.Tensor(1), []float32{1, 1, 1}, 0)
}

func TestStoreRefusesTheSamePathTwice(t *testing.T) {
	twice := elastic.DenseVariables(2, 2, 1)
	if _, err := elastic.NewStore(append(twice, twice[0]), 1); err == nil || !strings.Contains(err.Error(), "listed twice") {
		t.Errorf("error is %v", err)
	}
}

// run computes one graph over the weights of a store.
func run(t *testing.T, store *model.Store, fn func(w elastic.Weights, x *graph.Node) *graph.Node, x any) (*tensors.Tensor, error) {
	t.Helper()
	return model.CallOnce(gxtest.Backend(t), store, func(scope *model.Scope, x *graph.Node) *graph.Node {
		return fn(elastic.WeightsOf(scope.Store(), x.Graph()), x)
	}, x)
}

func TestMissingWeightIsNeverMade(t *testing.T) {
	store, err := elastic.NewStore(elastic.Under("/head", elastic.DenseVariables(2, 3, 1)), 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = run(t, store, func(w elastic.Weights, x *graph.Node) *graph.Node { return graph.Mul(x, w.In("haed").At("bias")) }, []float32{1})
	if err == nil || !strings.Contains(err.Error(), "no variable /haed/bias") {
		t.Errorf("error is %v", err)
	}
	if store.NumVariables() != 2 {
		t.Errorf("store has %d variables, want 2", store.NumVariables())
	}
}

func TestLayerNorm(t *testing.T) {
	store, err := elastic.NewStore(elastic.NormVariables(4), 1)
	if err != nil {
		t.Fatal(err)
	}
	must.M(store.GetVariable("/scale").SetValue(tensors.FromValue([]float32{1, 2, 1, 1})))
	must.M(store.GetVariable("/bias").SetValue(tensors.FromValue([]float32{0, 0, 5, 0})))
	got, err := run(t, store, func(w elastic.Weights, x *graph.Node) *graph.Node { return elastic.LayerNorm(w, x, 1e-12) },
		[][]float32{{1, 3, 5, 7}, {2, 2, 2, 2}})
	if err != nil {
		t.Fatal(err)
	}
	r := float32(1 / math.Sqrt(5)) // the variance of 1, 3, 5, 7 is 5
	gxtest.Close(t, got, [][]float32{{-3 * r, -2 * r, 5 + r, 3 * r}, {0, 0, 5, 0}}, 1e-6)
}

// TestSumAll: whatever the axes, the sum is that of all elements, and each has a gradient of 1.
func TestSumAll(t *testing.T) {
	for _, shape := range [][]int{{}, {5}, {3, 4}, {2, 3, 4}, {4, 1}, {1, 4}} {
		x := elastic.Variable{Path: "x", Shape: shape, Init: elastic.Init{Normal: 1}}.Tensor(1)
		out, err := graph.CallOnceN(gxtest.Backend(t), func(x *graph.Node) (sum, gradient *graph.Node) {
			sum = elastic.SumAll(x)
			return sum, graph.Gradient(sum, x)[0]
		}, x)
		if err != nil {
			t.Fatal(err)
		}
		want, ones := 0.0, slices.Repeat([]float32{1}, x.Size())
		for _, v := range tensors.MustCopyFlatData[float32](x) {
			want += float64(v)
		}
		gxtest.Close(t, out[0], []float64{want}, 1e-5)
		gxtest.Close(t, out[1], ones, 0)
	}
}

func TestDenseChecksShapes(t *testing.T) {
	store, err := elastic.NewStore(elastic.Under("/head", elastic.DenseVariables(2, 3, 1)), 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = run(t, store, func(w elastic.Weights, x *graph.Node) *graph.Node { return elastic.Dense(w.In("head"), x) }, [][]float32{{1, 2, 3}})
	if err == nil || !strings.Contains(err.Error(), "/head/weights") {
		t.Errorf("error is %v", err)
	}
}

func Example() {
	variables := elastic.Under("/head", elastic.DenseVariables(2, 2, 0.02))
	store, err := elastic.NewStore(variables, 42)
	if err != nil {
		panic(err)
	}
	must.M(store.GetVariable("/head/weights").SetValue(tensors.FromValue([][]float32{{1, 0}, {0, 2}})))
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	y, err := model.CallOnce(engine, store, func(scope *model.Scope, x *graph.Node) *graph.Node {
		return elastic.Dense(elastic.WeightsOf(scope.Store(), x.Graph()).In("head"), x)
	}, [][]float32{{3, 4}})
	if err != nil {
		panic(err)
	}
	fmt.Println(y.Value())
	// Output: [[3 8]]
}

func ExamplePatterns() {
	fmt.Println(elastic.Patterns([]elastic.Variable{{Path: "/layer_0/norm/scale"}, {Path: "/layer_11/norm/scale"}, {Path: "/head/bias"}}))
	// Output: [/layer_*/norm/scale /head/bias]
}

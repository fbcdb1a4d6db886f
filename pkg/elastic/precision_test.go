package elastic_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
)

// rounded returns x with the 8 bits of mantissa of bfloat16, to the nearest, ties to even.
func rounded(x float32) float64 {
	bits := math.Float32bits(x)
	bits += 0x7fff + bits>>16&1
	return float64(math.Float32frombits(bits &^ 0xffff))
}

// TestComputingInBFloat16: a dense layer rounds its operands to bfloat16, sums in more, and gives float32, with
// gradients of float32 that come from rounded factors.
func TestComputingInBFloat16(t *testing.T) {
	const rows, inputs, outputs = 3, 200, 5
	random := rand.New(rand.NewPCG(5, 6))
	x := make([]float32, rows*inputs)
	for i := range x {
		x[i] = float32(random.NormFloat64())
	}
	store, err := elastic.NewStore(elastic.Under("/d", elastic.DenseVariables(inputs, outputs, 0.5)), 1)
	if err != nil {
		t.Fatal(err)
	}
	out, err := model.CallOnceN(gxtest.Backend(t), store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph()).In("d")
		low := elastic.Dense(w.Computing(dtypes.BFloat16), in[0])
		gradients := graph.Gradient(graph.ReduceAllSum(low), in[0], w.At("weights"))
		return append([]*graph.Node{low, elastic.Dense(w, in[0])}, gradients...)
	}, tensors.FromFlatDataAndDimensions(x, rows, inputs))
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		if o.DType() != dtypes.Float32 {
			t.Errorf("output %d is %s", i, o.DType())
		}
	}
	flat := func(i int) []float32 { return tensors.MustCopyFlatData[float32](out[i]) }
	weights := tensors.MustCopyFlatData[float32](store.GetVariable("/d/weights").MustValue())
	low, high, byInput, byWeight := flat(0), flat(1), flat(2), flat(3)
	differ := false
	for r := range rows {
		for o := range outputs {
			want := 0.0
			for i := range inputs {
				want += rounded(x[r*inputs+i]) * rounded(weights[i*outputs+o])
			}
			// The sum is rounded once, by at most 2⁻⁸ of it; sums that are kept in bfloat16 would be off by more.
			if got := float64(low[r*outputs+o]); math.Abs(got-want) > math.Abs(want)/256+1e-4 {
				t.Errorf("product %d, %d is %g, want %g", r, o, got, want)
			}
			differ = differ || low[r*outputs+o] != high[r*outputs+o]
		}
	}
	if !differ {
		t.Error("bfloat16 gives what float32 gives")
	}
	for i := range inputs { // of a sum: Σ over outputs of weights, Σ over rows of inputs
		want := 0.0
		for o := range outputs {
			want += rounded(weights[i*outputs+o])
		}
		if got := float64(byInput[i]); math.Abs(got-want) > math.Abs(want)/256+1e-4 {
			t.Errorf("gradient of input %d is %g, want %g", i, got, want)
		}
		want = rounded(x[i]) + rounded(x[inputs+i]) + rounded(x[2*inputs+i])
		if got := float64(byWeight[i*outputs]); math.Abs(got-want) > math.Abs(want)/256+1e-4 {
			t.Errorf("gradient of weight %d is %g, want %g", i, got, want)
		}
	}
}

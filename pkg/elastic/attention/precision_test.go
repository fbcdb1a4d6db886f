package attention_test

import (
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// TestExecutionsInBFloat16: products in bfloat16 change outputs and gradients of each execution, and by no more than such products
// of the whole matrix do.
func TestExecutionsInBFloat16(t *testing.T) {
	const length, heads, width = 24, 2, 8
	spec := attention.Spec{Heads: heads, Mask: attention.Window{Size: 8}}
	results, err := model.CallOnceN(gxtest.Backend(t), model.NewStore(), func(scope *model.Scope, x *Node) []*Node {
		part := func(i int) *Node { return Squeeze(Slice(x, AxisElem(i)), 0) }
		q, k, v := part(0), part(1), part(2)
		var all []*Node
		for _, dtype := range []dtypes.DType{dtypes.InvalidDType, dtypes.BFloat16} {
			w := elastic.WeightsOf(scope.Store(), x.Graph()).Computing(dtype)
			for _, kind := range []string{attention.Naive, attention.Blockwise, attention.Chunked, attention.Windowed} {
				spec.Execution = attention.Execution{Kind: kind, Block: 8}
				y := attention.Attend(spec, w, q, k, v, attention.Inputs{}).Output
				all = append(append(all, y), Gradient(ReduceAllSum(Mul(y, Sin(y))), q, k, v)...)
			}
		}
		return all
	}, tensors.FromFlatDataAndDimensions(ramp(3*length*heads*width), 3, 1, length, heads, width))
	if err != nil {
		t.Fatal(err)
	}
	far := func(a, b *tensors.Tensor) float64 { // root mean square of the difference
		x, y := tensors.MustCopyFlatData[float32](a), tensors.MustCopyFlatData[float32](b)
		sum := 0.0
		for i := range x {
			sum += math.Pow(float64(x[i]-y[i]), 2)
		}
		return math.Sqrt(sum / float64(len(x)))
	}
	high, low := results[:16], results[16:]
	for i, what := range []string{"output", "queries", "keys", "values"} {
		matrix := far(low[i], high[i])
		for k, kind := range []string{attention.Blockwise, attention.Chunked, attention.Windowed} {
			if got := far(low[4*(k+1)+i], high[i]); !(got > 0) || got > 2*matrix {
				t.Errorf("%s of %s: off by %g, the matrix in bfloat16 by %g", what, kind, got, matrix)
			}
		}
	}
}

// TestStatisticsStayInFloat32: a softmax over more equal keys than bfloat16 can count has the mean of the values and the logarithm of
// their number.
func TestStatisticsStayInFloat32(t *testing.T) {
	const length = 600
	spec := attention.Spec{Heads: 1, Execution: attention.Execution{Kind: attention.Blockwise, Block: 100}}
	results, err := model.CallOnceN(gxtest.Backend(t), model.NewStore(), func(scope *model.Scope, v *Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), v.Graph()).Computing(dtypes.BFloat16)
		result := attention.Attend(spec, w, ZerosLike(v), ZerosLike(v), v, attention.Inputs{})
		return []*Node{result.Output, result.LogSum}
	}, tensors.FromFlatDataAndDimensions(ones(length), 1, length, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	mean, sum := ones(length), ones(length)
	for i := range sum {
		sum[i] = float32(math.Log(length))
	}
	gxtest.Close(t, results[0], mean, 1e-6)
	gxtest.Close(t, results[1], sum, 1e-6)
}

func ones(n int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = 1
	}
	return values
}

package optim_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// TestNoise: what is added is normal with variance η/(1+k)^γ, another for each variable, update and key, and
// the same again for the same.
func TestNoise(t *testing.T) {
	const size = 40000
	list := []elastic.Variable{{Path: "/a", Shape: []int{200, 200}}, {Path: "/b", Shape: []int{200, 200}}}
	o, err := optim.New(optim.Config{Rule: optim.Chain{optim.Noise{Eta: 0.3}, optim.SGD{}}}, list)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := graph.NewExec(gxtest.Backend(t), func(in []*graph.Node) []*graph.Node {
		values := []*graph.Node{in[2], graph.AddScalar(in[2], 0)}
		zeros := []*graph.Node{graph.ZerosLike(in[2]), graph.ZerosLike(in[2])}
		out, _, _ := o.Update(optim.Input{
			Values: values, Gradients: zeros, Number: in[0], Rate: graph.OnesLike(in[0]), Loss: graph.Scalar(in[0].Graph(), values[0].DType(), 0.0), Key: in[1],
		})
		return out
	})
	if err != nil {
		t.Fatal(err)
	}
	noise := func(update int, seed uint64) [2][]float32 {
		out, err := exec.Call(float64(update), dropout.Key(seed, uint64(update)), filled([]int{200, 200}, func(int) float32 { return 0 }))
		if err != nil {
			t.Fatal(err)
		}
		return [2][]float32{tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])}
	}
	var seen [][]float32
	for _, update := range []int{1, 2, 1000} {
		both := noise(update, 7)
		want := 0.3 / math.Pow(float64(update), 0.55) // 1+k is the update, counted from 1
		for _, values := range both {
			var moments [5]float64
			for _, x := range values {
				for k := range moments {
					moments[k] += math.Pow(float64(x)/math.Sqrt(want), float64(k)) / size
				}
			}
			// Standard errors of the four moments: √(1, 2, 15, 96)/√40000; five of them.
			for k, m := range []struct{ want, error float64 }{{0, 1}, {1, 2}, {0, 15}, {3, 96}} {
				if got := moments[k+1]; math.Abs(got-m.want) > 5*math.Sqrt(m.error/size) {
					t.Errorf("update %d: moment %d of the noise is %.4f, want %g", update, k+1, got, m.want)
				}
			}
			for _, other := range seen {
				dot := 0.0
				for i, x := range values {
					dot += float64(x) * float64(other[i])
				}
				if r := dot / (size * math.Sqrt(want)); math.Abs(r) > 0.03 {
					t.Errorf("update %d: noise depends on other noise: %g", update, r)
				}
			}
			seen = append(seen, values)
		}
	}
	if again := noise(2, 7); !slices.Equal(again[0], seen[2]) || !slices.Equal(again[1], seen[3]) {
		t.Error("the same update has other noise")
	}
	if other := noise(2, 8); slices.Equal(other[0], seen[2]) {
		t.Error("another seed has the same noise")
	}
	if err := exceptions.TryCatch[error](func() { optim.Noise{Eta: 1}.Apply(&optim.Step{}) }); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("without a key: %v", err)
	}
	if err := (optim.Noise{Gamma: -1}).Validate(); err == nil || !strings.Contains(err.Error(), "eta is 0") || !strings.Contains(err.Error(), "gamma is -1") {
		t.Errorf("error is %v", err)
	}
}

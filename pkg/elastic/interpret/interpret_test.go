package interpret_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/pooling"
)

type goldenCase struct {
	Name   string             `json:"name"`
	File   string             `json:"file"`
	Params map[string]float64 `json:"params"`
	Atol   struct {
		Out  float64 `json:"out"`
		Grad float64 `json:"grad"`
	} `json:"atol"`
}

func load(t *testing.T, name string) (goldenCase, func(string) *tensors.Tensor) {
	t.Helper()
	dir := golden.Dir(t, "attention")
	for _, c := range golden.Cases[goldenCase](t, dir) {
		if c.Name != name {
			continue
		}
		file, err := safetensors.Open(filepath.Join(dir, c.File))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return c, func(name string) *tensors.Tensor {
			value, err := file.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("%s has no case %s", dir, name)
	return goldenCase{}, nil
}

// TestGoldenRollout compares rollout and entropy of several layers, values and gradient.
func TestGoldenRollout(t *testing.T) {
	c, value := load(t, "rollout_entropy")
	out, err := CallOnceN(gxtest.Backend(t), func(in []*Node) []*Node {
		logits := in[0] // [layers, b, h, l, l]
		var weights, entropies []*Node
		for i := range logits.Shape().Dimensions[0] {
			a := simplex.Softmax(Squeeze(Slice(logits, AxisElem(i)), 0), nil)
			weights, entropies = append(weights, a), append(entropies, interpret.Entropy(a))
		}
		rollout, entropy := interpret.Rollout(weights), Stack(entropies, 0)
		loss := Add(ReduceAllSum(Mul(rollout, in[1])), ReduceAllSum(Mul(entropy, in[2])))
		return []*Node{rollout, entropy, Gradient(loss, logits)[0]}
	}, value("in.logits"), value("ct.rollout"), value("ct.entropy"))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], value("out.rollout"), c.Atol.Out)
	gxtest.Close(t, out[1], value("out.entropy"), c.Atol.Out)
	gxtest.Close(t, out[2], value("grad.logits"), c.Atol.Grad)
}

// TestGoldenIntegratedGradients explains the pooling of the recorded case.
func TestGoldenIntegratedGradients(t *testing.T) {
	c, value := load(t, "integrated_gradients_pooling")
	f := func(_ elastic.Weights, u *Node, in []*Node) *Node {
		y, _ := pooling.ByTokens(in[0], u, nil)
		return Einsum("bm,m->b", Tanh(y), in[1])
	}
	u := value("in.u")
	zero := tensors.FromShape(u.Shape())
	perToken := func(a interpret.Attribution) []float64 {
		dims := a.Values.Shape().Dimensions
		flat := tensors.MustCopyFlatData[float32](a.Values)
		sums := make([]float64, dims[0]*dims[1])
		for i, v := range flat {
			sums[i/dims[2]] += float64(v)
		}
		return sums
	}
	attributor, err := interpret.NewAttributor(gxtest.Backend(t), model.NewStore(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer attributor.Finalize()
	ig, err := attributor.IntegratedGradients(t.Context(), u, zero, int(c.Params["steps"]), value("in.w"), value("in.head"))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, perToken(ig), tensors.MustCopyFlatData[float32](value("out.ig")), c.Atol.Out)
	gxtest.Close(t, ig.Error, tensors.MustCopyFlatData[float32](value("out.completeness")), c.Atol.Out)
	gi, err := attributor.GradientTimesInput(t.Context(), u, zero, value("in.w"), value("in.head"))
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, perToken(gi), tensors.MustCopyFlatData[float32](value("out.gradxinput")), c.Atol.Out)
}

// TestRolloutRowsSumToOne, whatever the weights sum to, and a layer that attends to itself
// alone changes nothing.
func TestRolloutRowsSumToOne(t *testing.T) {
	identity := [][][][]float32{{{{1, 0}, {0, 1}}, {{1, 0}, {0, 1}}}}
	half := [][][][]float32{{{{0.2, 0.2}, {0, 0}}, {{0.4, 0}, {0.1, 0.9}}}}
	out, err := CallOnceN(gxtest.Backend(t), func(a, b *Node) (*Node, *Node) {
		return interpret.Rollout([]*Node{a, b}), interpret.Rollout([]*Node{b})
	}, identity, half)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], out[1], 1e-6)
	rows := tensors.MustCopyFlatData[float32](out[0])
	for i := 0; i < len(rows); i += 2 {
		if sum := rows[i] + rows[i+1]; math.Abs(float64(sum)-1) > 1e-6 {
			t.Errorf("row sums to %g", sum)
		}
	}
}

func TestAttributionRefuses(t *testing.T) {
	x := tensors.FromFlatDataAndDimensions([]float32{1, 2}, 1, 2)
	of := func(f interpret.Explained) *interpret.Attributor {
		a, err := interpret.NewAttributor(gxtest.Backend(t), model.NewStore(), f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Finalize)
		return a
	}
	sum := of(func(_ elastic.Weights, x *Node, _ []*Node) *Node { return ReduceSum(x, -1) })
	if _, err := sum.IntegratedGradients(t.Context(), x, x, 0); err == nil || !strings.Contains(err.Error(), "0 steps") {
		t.Errorf("no steps: %v", err)
	}
	if _, err := sum.GradientTimesInput(t.Context(), x, tensors.FromFlatDataAndDimensions([]float32{1}, 1, 1)); err == nil || !strings.Contains(err.Error(), "of one shape") {
		t.Errorf("baseline of another shape: %v", err)
	}
	whole := of(func(_ elastic.Weights, x *Node, _ []*Node) *Node { return x })
	if _, err := whole.GradientTimesInput(t.Context(), x, x); err == nil || !strings.Contains(err.Error(), "one value a row") {
		t.Errorf("function of another shape: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sum.GradientTimesInput(ctx, x, x); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// f(x) = x₁·x₂ at (3, 2): each factor gets half of the product.
func ExampleAttributor() {
	engine, _, err := backend.Open(context.Background(), backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	product := func(_ elastic.Weights, x *Node, _ []*Node) *Node {
		return Mul(Squeeze(Slice(x, AxisRange(), AxisElem(0)), 1), Squeeze(Slice(x, AxisRange(), AxisElem(1)), 1))
	}
	x := tensors.FromFlatDataAndDimensions([]float32{3, 2}, 1, 2)
	zero := tensors.FromFlatDataAndDimensions([]float32{0, 0}, 1, 2)
	attributor, err := interpret.NewAttributor(engine, model.NewStore(), product)
	if err != nil {
		panic(err)
	}
	defer attributor.Finalize()
	ig, err := attributor.IntegratedGradients(context.Background(), x, zero, 32)
	if err != nil {
		panic(err)
	}
	gi, err := attributor.GradientTimesInput(context.Background(), x, zero)
	if err != nil {
		panic(err)
	}
	fmt.Printf("integrated gradients %.2f, left open %.3f\n", tensors.MustCopyFlatData[float32](ig.Values), ig.Error)
	fmt.Printf("gradient times input %.2f, left open %.3f\n", tensors.MustCopyFlatData[float32](gi.Values), gi.Error)
	// Output:
	// integrated gradients [3.00 3.00], left open [0.000]
	// gradient times input [6.00 6.00], left open [-6.000]
}

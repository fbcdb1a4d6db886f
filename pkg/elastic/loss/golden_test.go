package loss_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
)

type array[T any] struct {
	Shape  []int
	Values []T
}

type goldenCase struct {
	Kind    string
	Options struct {
		Smoothing, Focus, Temperature float64
		RDrop                         float64 `json:"r_drop"`
		Weights                       []float64
	}
	Labels     *array[int32]
	Where      *array[bool]
	Inputs     map[string]array[float32]
	Sum, Count float64
	Gradients  map[string][]float64
}

// TestGoldenLosses compares sums, counts and gradients with those of torch and torchvision.
func TestGoldenLosses(t *testing.T) {
	const tolerance = 2e-6 // of float32, relative to 1 or the number itself
	for i, c := range golden.Cases[goldenCase](t, golden.Dir(t, "losses")) {
		t.Run(fmt.Sprintf("%02d_%s", i, c.Kind), func(t *testing.T) {
			names := slices.Sorted(maps.Keys(c.Inputs))
			var args []any
			for _, name := range names {
				args = append(args, tensors.FromFlatDataAndDimensions(c.Inputs[name].Values, c.Inputs[name].Shape...))
			}
			if c.Labels != nil {
				args = append(args, tensors.FromFlatDataAndDimensions(c.Labels.Values, c.Labels.Shape...))
			}
			if c.Where != nil {
				args = append(args, tensors.FromFlatDataAndDimensions(c.Where.Values, c.Where.Shape...))
			}
			gradients := slices.Sorted(maps.Keys(c.Gradients))
			exec := MustNewExec(gxtest.Backend(t), func(in []*Node) []*Node {
				inputs := map[string]*Node{}
				for i, name := range names {
					inputs[name] = in[i]
				}
				sum, count := c.build(inputs, in[len(names):])
				var by []*Node
				for _, name := range gradients {
					by = append(by, inputs[name])
				}
				return append([]*Node{sum, count}, Gradient(Div(sum, count), by...)...)
			})
			out, err := exec.Call(args...)
			if err != nil {
				t.Fatal(err)
			}
			near := func(what string, got []float32, want []float64) {
				t.Helper()
				for i := range want {
					if diff := math.Abs(float64(got[i]) - want[i]); !(diff <= tolerance*max(1, math.Abs(want[i]))) {
						t.Errorf("%s[%d] is %g, want %g", what, i, got[i], want[i])
					}
				}
			}
			near("sum", tensors.MustCopyFlatData[float32](out[0]), []float64{c.Sum})
			near("count", tensors.MustCopyFlatData[float32](out[1]), []float64{c.Count})
			for i, name := range gradients {
				near("gradient of "+name, tensors.MustCopyFlatData[float32](out[2+i]), c.Gradients[name])
			}
		})
	}
}

// build computes a case; beside has its labels or positions.
func (c goldenCase) build(in map[string]*Node, beside []*Node) (sum, count *Node) {
	classes := loss.Classes{Smoothing: c.Options.Smoothing, Focus: c.Options.Focus, Weights: c.Options.Weights}
	var where *Node
	if c.Where != nil {
		where = beside[0]
	}
	switch c.Kind {
	case "classes":
		return classes.CrossEntropy(in["logits"], beside[0])
	case "focal_binary":
		z := in["z"]
		return classes.CrossEntropy(Stack([]*Node{ZerosLike(z), z}, -1), beside[0])
	case "r_drop":
		criterion := loss.Criterion{Classes: classes, RDrop: c.Options.RDrop}
		return criterion.Loss(loss.Targets{Labels: beside[0]}, in["first"], in["second"])
	case "distill":
		return loss.Distill(in["student"], in["teacher"], where, c.Options.Temperature)
	case "hidden_squares":
		return loss.HiddenSquares(in["student"], in["teacher"], where)
	case "hidden_cosine":
		return loss.HiddenCosine(in["student"], in["teacher"], where)
	}
	panic(fmt.Sprintf("golden case of unknown kind %q", c.Kind))
}

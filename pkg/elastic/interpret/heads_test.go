package interpret_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
)

// small is the model that tools/golden/interpret.py describes, and what torch and networkx
// find in it.
type small struct {
	X          [][][]float32              `json:"x"` // [batch, length, width]
	Layers     []map[string][][][]float32 `json:"layers"`
	Readout    []float32                  `json:"readout"`
	Target     []float32                  `json:"target"`
	Relevance  [][][]float32              `json:"relevance"`
	Importance [][]float64                `json:"importance"`
	Removal    [][]float64                `json:"removal"`
	Mixed      [][][]float64              `json:"mixed"`
	Flow       [][]float64                `json:"flow"`
}

func readSmall(t *testing.T) small {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "heads.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s small
	if err := json.Unmarshal(content, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// build computes the target [batch] for gates [batch, layers, heads], and the weights.
func (s small) build(x, gates *Node) (target *Node, weights []*Node) {
	g := x.Graph()
	dims := x.Shape().Dimensions
	for layer, w := range s.Layers {
		of := func(name string) *Node { return Einsum("blm,hmd->bhld", x, Const(g, w[name])) }
		q, k, v := of("q"), of("k"), of("v")
		logits := MulScalar(Einsum("bhqd,bhkd->bhqk", q, k), 1/math.Sqrt(float64(q.Shape().Dimensions[3])))
		a := simplex.Softmax(logits, nil)
		weights = append(weights, a)
		gate := InsertAxes(Squeeze(Slice(gates, AxisRange(), AxisElem(layer)), 1), -1, -1) // [b, h, 1, 1]
		y := Mul(Einsum("bhqk,bhkd->bhqd", a, v), gate)
		x = Add(x, Tanh(Reshape(TransposeAllDims(y, 0, 2, 1, 3), dims...)))
	}
	first := Squeeze(Slice(x, AxisRange(), AxisElem(0)), 1)
	return Einsum("bm,m->b", first, Const(g, s.Readout)), weights
}

// heads judges the heads by the squared target.
func (s small) heads(t *testing.T) interpret.Heads {
	return interpret.Heads{
		Backend: gxtest.Backend(t), Store: model.NewStore(), Layers: len(s.Layers), Heads: len(s.Importance[0]),
		Loss: func(_ elastic.Weights, gates *Node, in []*Node) *Node {
			target, _ := s.build(in[0], gates)
			return Square(target)
		},
	}
}

func (s small) batch() []*tensors.Tensor {
	return []*tensors.Tensor{tensors.MustFromAnyValue(s.X)}
}

// near tells whether numbers agree to 1e-5 of the greatest, which float32 leaves.
func near(t *testing.T, what string, got, want [][]float64) {
	t.Helper()
	greatest := 0.0
	for _, row := range want {
		for _, v := range row {
			greatest = max(greatest, math.Abs(v))
		}
	}
	for i := range want {
		for j := range want[i] {
			if d := math.Abs(got[i][j] - want[i][j]); !(d <= 1e-5*greatest) {
				t.Errorf("%s[%d][%d] is %g, want %g", what, i, j, got[i][j], want[i][j])
			}
		}
	}
}

// TestGoldenRelevance compares with torch's autograd.
func TestGoldenRelevance(t *testing.T) {
	s := readSmall(t)
	out, err := CallOnceN(gxtest.Backend(t), func(x *Node) []*Node {
		target, weights := s.build(x, Ones(x.Graph(), shapes.Make(x.DType(), len(s.X), len(s.Layers), len(s.Importance[0]))))
		return []*Node{target, interpret.Relevance(weights, target)}
	}, s.X)
	if err != nil {
		t.Fatal(err)
	}
	gxtest.Close(t, out[0], s.Target, 1e-5)
	gxtest.Close(t, out[1], s.Relevance, 1e-5)
}

// TestGoldenHeads compares importance and removal with torch's, and importance with
// differences of the loss.
func TestGoldenHeads(t *testing.T) {
	s := readSmall(t)
	h := s.heads(t)
	importance, err := h.Importance(t.Context(), slices.Values([][]*tensors.Tensor{s.batch()}))
	if err != nil {
		t.Fatal(err)
	}
	near(t, "importance", importance, s.Importance)
	removal, err := h.Removal(t.Context(), slices.Values([][]*tensors.Tensor{s.batch(), s.batch()}))
	if err != nil {
		t.Fatal(err)
	}
	near(t, "removal", removal, s.Removal)

	const step = 1e-2
	for layer := range h.Layers {
		for head := range h.Heads {
			losses := func(by float32) []float32 {
				var gates []float32
				for range s.X {
					for i := range h.Layers * h.Heads {
						gate := float32(1)
						if i == layer*h.Heads+head {
							gate += by
						}
						gates = append(gates, gate)
					}
				}
				out, err := CallOnce(gxtest.Backend(t), func(x, gates *Node) *Node {
					target, _ := s.build(x, gates)
					return Square(target)
				}, s.X, tensors.FromFlatDataAndDimensions(gates, len(s.X), h.Layers, h.Heads))
				if err != nil {
					t.Fatal(err)
				}
				return tensors.MustCopyFlatData[float32](out)
			}
			up, down, mean := losses(step), losses(-step), 0.0
			for i := range up {
				mean += math.Abs(float64(up[i]-down[i])) / (2 * step) / float64(len(up))
			}
			if d := math.Abs(mean - importance[layer][head]); d > 2e-3*(1+mean) {
				t.Errorf("layer %d, head %d: importance %g, differences give %g", layer, head, importance[layer][head], mean)
			}
		}
	}
}

func TestHeadsRefuse(t *testing.T) {
	s := readSmall(t)
	h := s.heads(t)
	none := slices.Values([][]*tensors.Tensor{})
	if _, err := h.Importance(t.Context(), none); err == nil || !strings.Contains(err.Error(), "there is no batch") {
		t.Errorf("no batch: %v", err)
	}
	if _, err := h.Importance(t.Context(), slices.Values([][]*tensors.Tensor{{}})); err == nil || !strings.Contains(err.Error(), "a batch needs inputs") {
		t.Errorf("empty batch: %v", err)
	}
	h.Loss = func(_ elastic.Weights, gates *Node, _ []*Node) *Node { return ReduceAllSum(gates) }
	if _, err := h.Removal(t.Context(), slices.Values([][]*tensors.Tensor{s.batch()})); err == nil || !strings.Contains(err.Error(), "one loss a row") {
		t.Errorf("one loss in all: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.heads(t).Removal(ctx, slices.Values([][]*tensors.Tensor{s.batch()})); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestGoldenFlow compares with networkx.
func TestGoldenFlow(t *testing.T) {
	s := readSmall(t)
	var got [][]float64
	for output := range s.Flow {
		row, err := interpret.Flow(s.Mixed, output)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, row)
	}
	near(t, "flow", got, s.Flow)
}

// TestFlowByHand: two ways of widths ½ and ¼ through a layer, of which the layer below
// narrows one.
func TestFlowByHand(t *testing.T) {
	layers := [][][]float64{
		{{1, 0, 0}, {0.25, 0.75, 0}, {0, 0.5, 0.5}},
		{{0, 0.5, 0.25}, {0, 1, 0}, {0, 0, 1}},
	}
	got, err := interpret.Flow(layers, 0)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "flow", [][]float64{got}, [][]float64{{0.25, 0.75, 0.25}})
	for _, bad := range []struct {
		layers [][][]float64
		output int
		want   string
	}{
		{nil, 0, "at least one layer"}, {layers, 3, "want 0 to 2"}, {layers, -1, "want 0 to 2"},
		{[][][]float64{{{1, 0}, {1}}}, 0, "row 1 of layer 0 has 1 weights"}, {[][][]float64{{{1, -1}, {0, 1}}}, 0, "is -1"},
		{[][][]float64{{{math.NaN()}}}, 0, "is NaN"}, {[][][]float64{{{1}}, {}}, 0, "layer 1 has 0 rows"},
	} {
		if _, err := interpret.Flow(bad.layers, bad.output); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("error is %v, want %q", err, bad.want)
		}
	}
}

package pretrained_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// The tolerances of float32 results against PyTorch on the CPU, absolute.
const (
	stateTolerance = 1e-4 // hidden states, pooled outputs and logits; measured ≤ 2e-6 on the tiny checkpoints
	lossTolerance  = 1e-5 // relative for losses above 1
	normTolerance  = 1e-3 // gradient norms, relative
)

// TestGoldenCheckpoints loads every checkpoint of the BERT family in the folder and
// compares hidden states, attention weights, logits, loss and gradient norms.
func TestGoldenCheckpoints(t *testing.T) {
	root := golden.Dir(t, "checkpoints")
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	tested := 0
	for _, entry := range entries {
		dir := filepath.Join(root, entry.Name())
		if kind := modelType(t, dir); !slices.Contains(pretrained.Families(), kind) {
			t.Logf("%s: model type %q is not of the BERT family", entry.Name(), kind)
			continue
		}
		tested++
		t.Run(entry.Name(), func(t *testing.T) { testCheckpoint(t, dir) })
	}
	if tested == 0 {
		t.Fatalf("no checkpoint of %v in %s", pretrained.Families(), root)
	}
}

func modelType(t *testing.T, dir string) string {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		ModelType string `json:"model_type"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	return config.ModelType
}

func testCheckpoint(t *testing.T, dir string) {
	m, report, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Fresh) != 0 || report.Loaded != len(m.Config.Variables()) {
		t.Fatalf("loaded %d of %d variables, fresh: %v", report.Loaded, len(m.Config.Variables()), report.Fresh)
	}
	want, err := safetensors.Open(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	var manifest struct {
		GradNorms map[string]float64 `json:"grad_norms"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}

	mask := tensor(t, want, "attention_mask")
	states := encode(t, m, tensor(t, want, "input_ids"), optional(t, want, "token_type_ids"), mask)
	valid := tensors.MustCopyFlatData[int32](mask)
	compared := 0
	for _, name := range want.Names() {
		switch {
		case strings.HasPrefix(name, "hidden_states."), strings.HasPrefix(name, "attentions."), name == "last_hidden_state", name == "logits", name == "pooler_output":
			got, ok := states[name]
			if !ok {
				t.Fatalf("the model computes no %s", name)
			}
			compare(t, name, got, tensor(t, want, name), valid, stateTolerance)
			compared++
		}
	}
	if compared < m.Config.Layers+2 {
		t.Fatalf("compared %d tensors only", compared)
	}

	if labels := optional(t, want, "labels"); labels != nil {
		gotLoss, norms := gradients(t, m, tensor(t, want, "input_ids"), optional(t, want, "token_type_ids"), mask, labels)
		wantLoss := float64(tensors.MustCopyFlatData[float32](tensor(t, want, "loss"))[0])
		if !(math.Abs(gotLoss-wantLoss) <= lossTolerance*math.Max(wantLoss, 1)) {
			t.Errorf("loss is %.7f, want %.7f", gotLoss, wantLoss)
		}
		if len(manifest.GradNorms) == 0 {
			t.Fatal("manifest has no gradient norms")
		}
		for name, want := range manifest.GradNorms {
			got, ok := norms[name]
			if !ok {
				t.Errorf("no gradient for %s", name)
				continue
			}
			// The gradient of a key bias is zero but for rounding: the softmax does not see it.
			if !(math.Abs(got-want) <= normTolerance*math.Max(want, 1e-3)) {
				t.Errorf("gradient norm of %s is %.7g, want %.7g", name, got, want)
			}
		}
	}
}

// encode returns all outputs by the names that transformers gives them.
func encode(t *testing.T, m *transformer.Model, ids, types, mask *tensors.Tensor) map[string]*tensors.Tensor {
	t.Helper()
	var names []string
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		inputs := transformer.Inputs{IDs: in[0], Mask: in[1]}
		if len(in) > 2 {
			inputs.Types = in[2]
		}
		out := m.Config.Encode(w, inputs, nil)
		logits := m.Config.HeadLogits(w, out.Hidden, nil)
		var nodes []*graph.Node
		add := func(name string, node *graph.Node) { names, nodes = append(names, name), append(nodes, node) }
		for i, state := range out.States {
			add(fmt.Sprintf("hidden_states.%d", i), state)
		}
		for i, weights := range out.Attentions {
			add(fmt.Sprintf("attentions.%d", i), weights)
		}
		add("last_hidden_state", out.Hidden)
		if m.Config.Head.Kind == transformer.Pooled {
			add("pooler_output", logits)
		} else {
			add("logits", logits)
		}
		return nodes
	})
	if err != nil {
		t.Fatal(err)
	}
	args := []any{ids, mask}
	if types != nil {
		args = append(args, types)
	}
	outputs, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*tensors.Tensor{}
	for i, name := range names {
		byName[name] = outputs[i]
	}
	return byName
}

// gradients returns the mean loss and the gradient norms by the checkpoint's names.
func gradients(t *testing.T, m *transformer.Model, ids, types, mask, labels *tensors.Tensor) (float64, map[string]float64) {
	t.Helper()
	variables := m.Config.Variables()
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		g := in[0].Graph()
		w := elastic.WeightsOf(scope.Store(), g)
		inputs := transformer.Inputs{IDs: in[0], Mask: in[1]}
		if len(in) > 3 {
			inputs.Types = in[3]
		}
		sum, count := loss.CrossEntropy(m.Config.Logits(w, inputs, nil), in[2])
		mean := graph.Div(sum, count)
		nodes := make([]*graph.Node, len(variables))
		for i, v := range variables {
			nodes[i] = scope.Store().GetVariable(v.Path).NodeValue(g)
		}
		outputs := []*graph.Node{mean}
		for _, gradient := range graph.Gradient(mean, nodes...) {
			outputs = append(outputs, graph.L2Norm(gradient))
		}
		return outputs
	})
	if err != nil {
		t.Fatal(err)
	}
	args := []any{ids, mask, labels}
	if types != nil {
		args = append(args, types)
	}
	outputs, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	norms := map[string]float64{}
	for i, v := range variables {
		name, err := pretrained.TensorName(m.Config, v.Path)
		if err != nil {
			t.Fatal(err)
		}
		norms[name] = float64(tensors.MustCopyFlatData[float32](outputs[i+1])[0])
	}
	return float64(tensors.ToScalar[float32](outputs[0])), norms
}

func tensor(t *testing.T, source safetensors.Source, name string) *tensors.Tensor {
	t.Helper()
	value, err := source.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func optional(t *testing.T, source safetensors.Source, name string) *tensors.Tensor {
	t.Helper()
	if !slices.Contains(source.Names(), name) {
		return nil
	}
	return tensor(t, source, name)
}

// compare holds got against want where the mask is 1: positions of [b, l, …], and
// queries and keys of [b, h, q, k].
func compare(t *testing.T, name string, got, want *tensors.Tensor, mask []int32, tolerance float64) {
	t.Helper()
	if !got.Shape().Equal(want.Shape()) {
		t.Fatalf("%s has shape %s, want %s", name, got.Shape(), want.Shape())
	}
	g, w := tensors.MustCopyFlatData[float32](got), tensors.MustCopyFlatData[float32](want)
	dims := want.Shape().Dimensions
	length := len(mask) / dims[0]
	worst, at := 0.0, -1
	for i := range w {
		switch {
		case len(dims) == 3 && dims[1] == length && mask[i/dims[2]] == 0:
			continue
		case len(dims) == 4 && dims[2] == length:
			b, q, k := i/(dims[1]*dims[2]*dims[3]), i/dims[3]%dims[2], i%dims[3]
			if mask[b*length+q] == 0 || mask[b*length+k] == 0 {
				continue
			}
		}
		if diff := math.Abs(float64(g[i]) - float64(w[i])); !(diff <= worst) {
			worst, at = diff, i
		}
	}
	if !(worst <= tolerance) {
		t.Errorf("%s: element %d is %g, want %g: off by %.3g, tolerance %.3g", name, at, g[at], w[at], worst, tolerance)
	}
	t.Logf("%s: largest difference %.2g", name, worst)
}

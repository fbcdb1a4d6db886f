package pretrained_test

import (
	"encoding/json"
	"fmt"
	"maps"
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

// TestGoldenCheckpoints loads every checkpoint of a known family in the folder and
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
			t.Logf("%s: model type %q is not known", entry.Name(), kind)
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

	given := inputs(t, want)
	states := encode(t, m, given)
	valid := map[bool][]int32{false: tensors.MustCopyFlatData[int32](given["attention_mask"])}
	if m.Config.Decoder != nil { // positions of the decoder count where they have a label
		for _, label := range tensors.MustCopyFlatData[int32](given["labels"]) {
			valid[true] = append(valid[true], int32(min(label+100, 1)))
		}
	}
	compared := 0
	for _, name := range want.Names() {
		switch {
		case strings.Contains(name, "hidden_state"), strings.Contains(name, "attentions."), name == "logits", name == "pooler_output":
			got, ok := states[name]
			if !ok {
				t.Fatalf("the model computes no %s", name)
			}
			ofDecoder := m.Config.Decoder != nil && !strings.HasPrefix(name, "encoder_")
			if strings.HasPrefix(name, "cross_") { // queries of the one, keys of the other
				compareAll(t, name, got, tensor(t, want, name), stateTolerance, func(b, q, k int) bool {
					dims := got.Shape().Dimensions
					return valid[true][b*dims[2]+q] == 1 && valid[false][b*dims[3]+k] == 1
				})
			} else {
				compare(t, name, got, tensor(t, want, name), valid[ofDecoder], stateTolerance)
			}
			compared++
		}
	}
	if compared < m.Config.Layers+2 {
		t.Fatalf("compared %d tensors only", compared)
	}

	if given["labels"] != nil {
		if m.Config.Decoder != nil { // transformers makes the decoder's inputs of the labels
			given["decoder_input_ids"] = shifted(t, dir, given["labels"])
		}
		gotLoss, norms := gradients(t, m, given)
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

// inputs reads what the model reads.
func inputs(t *testing.T, source safetensors.Source) map[string]*tensors.Tensor {
	given := map[string]*tensors.Tensor{}
	for _, name := range []string{"input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "labels"} {
		if value := optional(t, source, name); value != nil {
			given[name] = value
		}
	}
	return given
}

// shifted returns the labels one position later, behind the token that starts a decoder.
func shifted(t *testing.T, dir string, labels *tensors.Tensor) *tensors.Tensor {
	var config struct {
		Start int32 `json:"decoder_start_token_id"`
	}
	content, err := os.ReadFile(filepath.Join(dir, pretrained.ConfigFile))
	if err == nil {
		err = json.Unmarshal(content, &config)
	}
	if err != nil {
		t.Fatal(err)
	}
	flat, dims := tensors.MustCopyFlatData[int32](labels), labels.Shape().Dimensions
	moved := slices.Concat([]int32{config.Start}, flat[:len(flat)-1])
	for row := 0; row < len(moved); row += dims[1] {
		moved[row] = config.Start
	}
	return tensors.FromFlatDataAndDimensions(moved, dims...)
}

// run computes a graph of the model's inputs.
func run(t *testing.T, m *transformer.Model, given map[string]*tensors.Tensor, build func(w elastic.Weights, in map[string]*graph.Node) []*graph.Node) []*tensors.Tensor {
	t.Helper()
	names := slices.Sorted(maps.Keys(given))
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		byName := map[string]*graph.Node{}
		for i, name := range names {
			byName[name] = in[i]
		}
		return build(elastic.WeightsOf(scope.Store(), in[0].Graph()), byName)
	})
	if err != nil {
		t.Fatal(err)
	}
	args := make([]any, len(names))
	for i, name := range names {
		args[i] = given[name]
	}
	outputs, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	return outputs
}

// forward returns the encoder's output, and the decoder's if there is one.
func forward(m *transformer.Model, w elastic.Weights, in map[string]*graph.Node) (encoded transformer.Output, decoded *transformer.Output) {
	encoded = m.Config.Encode(w, transformer.Inputs{IDs: in["input_ids"], Mask: in["attention_mask"], Types: in["token_type_ids"]}, nil)
	if m.Config.Decoder != nil {
		out := m.Config.Decode(w, transformer.Inputs{IDs: in["decoder_input_ids"]}, m.Config.Remember(w, encoded.Hidden, in["attention_mask"]), nil)
		decoded = &out
	}
	return encoded, decoded
}

// encode returns all outputs by the names that transformers gives them.
func encode(t *testing.T, m *transformer.Model, given map[string]*tensors.Tensor) map[string]*tensors.Tensor {
	t.Helper()
	var names []string
	outputs := run(t, m, given, func(w elastic.Weights, in map[string]*graph.Node) (nodes []*graph.Node) {
		add := func(name string, node *graph.Node) { names, nodes = append(names, name), append(nodes, node) }
		list := func(prefix string, out transformer.Output) {
			for i, state := range out.States {
				add(fmt.Sprintf("%shidden_states.%d", prefix, i), state)
			}
			for i, weights := range out.Attentions {
				add(fmt.Sprintf("%sattentions.%d", prefix, i), weights)
			}
			for i, weights := range out.Crosses {
				add(fmt.Sprintf("cross_attentions.%d", i), weights)
			}
		}
		encoded, decoded := forward(m, w, in)
		hidden := encoded.Hidden
		if decoded == nil {
			list("", encoded)
			add("last_hidden_state", hidden)
		} else {
			list("encoder_", encoded)
			list("decoder_", *decoded)
			add("encoder_last_hidden_state", hidden)
			hidden = decoded.Hidden
		}
		if logits := m.Config.HeadLogits(w, hidden, nil); m.Config.Head.Kind == transformer.Pooled {
			add("pooler_output", logits)
		} else {
			add("logits", logits)
		}
		return nodes
	})
	byName := map[string]*tensors.Tensor{}
	for i, name := range names {
		byName[name] = outputs[i]
	}
	return byName
}

// gradients returns the mean loss and the gradient norms by the checkpoint's names.
func gradients(t *testing.T, m *transformer.Model, given map[string]*tensors.Tensor) (float64, map[string]float64) {
	t.Helper()
	variables := m.Config.Variables()
	outputs := run(t, m, given, func(w elastic.Weights, in map[string]*graph.Node) []*graph.Node {
		encoded, decoded := forward(m, w, in)
		hidden, labels := encoded.Hidden, in["labels"]
		if decoded != nil {
			hidden = decoded.Hidden
		}
		logits := m.Config.HeadLogits(w, hidden, nil)
		if m.Config.Head.Kind == transformer.LM && decoded == nil { // each token is to foretell the next
			logits = graph.Slice(logits, graph.AxisRange(), graph.AxisRange(0, -1))
			labels = graph.Slice(labels, graph.AxisRange(), graph.AxisRange(1))
		}
		sum, count := loss.CrossEntropy(logits, labels)
		mean := graph.Div(sum, count)
		nodes := make([]*graph.Node, len(variables))
		for i, v := range variables {
			nodes[i] = w.At(strings.TrimPrefix(v.Path, "/"))
		}
		outputs := []*graph.Node{mean}
		for _, gradient := range graph.Gradient(mean, nodes...) {
			outputs = append(outputs, graph.L2Norm(gradient))
		}
		return outputs
	})
	norms := map[string]float64{}
	for i, v := range variables {
		name, err := pretrained.TensorName(m.Config, v.Path)
		if err != nil {
			t.Fatal(err)
		}
		norms[name] = math.Hypot(norms[name], float64(tensors.MustCopyFlatData[float32](outputs[i+1])[0])) // of parts joined
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
	dims := want.Shape().Dimensions
	length := len(mask) / dims[0]
	compareAll(t, name, got, want, tolerance, func(b, q, k int) bool {
		return len(dims) < 3 || dims[len(dims)-2] != length || mask[b*length+q] == 1 && (len(dims) == 3 || mask[b*length+k] == 1)
	})
}

// compareAll holds got against want, [batch, …, queries, last], where counts says so.
func compareAll(t *testing.T, name string, got, want *tensors.Tensor, tolerance float64, counts func(b, q, last int) bool) {
	t.Helper()
	if !got.Shape().Equal(want.Shape()) {
		t.Fatalf("%s has shape %s, want %s", name, got.Shape(), want.Shape())
	}
	g, w := tensors.MustCopyFlatData[float32](got), tensors.MustCopyFlatData[float32](want)
	dims := want.Shape().Dimensions
	last, queries := dims[len(dims)-1], dims[len(dims)-2]
	worst, at := 0.0, -1
	for i := range w {
		if !counts(i/(len(w)/dims[0]), i/last%queries, i%last) {
			continue
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

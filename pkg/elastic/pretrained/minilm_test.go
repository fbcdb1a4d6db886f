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

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
)

// TestGoldenMiniLM compares every layer of the real MiniLM weights with transformers,
// on every batch of the folder.
func TestGoldenMiniLM(t *testing.T) {
	dir := golden.Shared(t, "golden/minilm")
	m, _, err := pretrained.Load(golden.MiniLM(t), pretrained.Options{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Texts map[string]json.RawMessage `json:"texts"`
	}
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	want, err := safetensors.Open(filepath.Join(dir, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if len(manifest.Texts) == 0 {
		t.Fatal("no texts")
	}
	for name := range manifest.Texts {
		t.Run(name, func(t *testing.T) {
			ids := tensor(t, want, name+".input_ids")
			mask := optional(t, want, name+".attention_mask")
			if mask == nil {
				ones := make([]int32, ids.Size())
				for i := range ones {
					ones[i] = 1
				}
				mask = tensors.FromFlatDataAndDimensions(ones, ids.Shape().Dimensions...)
			}
			given := map[string]*tensors.Tensor{"input_ids": ids, "attention_mask": mask}
			if types := optional(t, want, name+".token_type_ids"); types != nil {
				given["token_type_ids"] = types
			}
			got := encode(t, m, given)
			valid := tensors.MustCopyFlatData[int32](mask)
			compared := 0
			for _, full := range want.Names() {
				short, ok := strings.CutPrefix(full, name+".")
				if !ok {
					continue
				}
				short = strings.Replace(strings.Replace(short, "hidden.", "hidden_states.", 1), "attn.", "attentions.", 1)
				expected := tensor(t, want, full)
				switch {
				case short == "embedding":
					compare(t, full, embedding(got["last_hidden_state"], valid), expected, nil, 1e-5)
				case got[short] != nil:
					compare(t, full, ends(got[short], expected), expected, validFor(expected, valid), stateTolerance)
				case slices.Contains([]string{"input_ids", "attention_mask", "token_type_ids"}, short):
					continue
				default:
					t.Errorf("the model computes no %s", full)
				}
				compared++
			}
			if compared == 0 {
				t.Fatal("nothing to compare")
			}
		})
	}
}

// ends returns the first and last positions of hidden states [b, l, d] where the
// reference [b, 2n, d] has only those.
func ends(got, want *tensors.Tensor) *tensors.Tensor {
	g, w := got.Shape().Dimensions, want.Shape().Dimensions
	if len(w) != 3 || g[1] == w[1] {
		return got
	}
	flat := tensors.MustCopyFlatData[float32](got)
	half, row := w[1]/2, g[2]
	var kept []float32
	for b := range g[0] {
		sequence := flat[b*g[1]*row : (b+1)*g[1]*row]
		kept = append(kept, sequence[:half*row]...)
		kept = append(kept, sequence[(g[1]-half)*row:]...)
	}
	return tensors.FromFlatDataAndDimensions(kept, w...)
}

func validFor(want *tensors.Tensor, mask []int32) []int32 {
	dims := want.Shape().Dimensions
	if len(dims) == 3 && dims[0]*dims[1] != len(mask) { // first and last positions of a full row
		return slices.Repeat([]int32{1}, dims[0]*dims[1])
	}
	return mask
}

// embedding is the mean of the hidden states over the mask, of length 1.
func embedding(hidden *tensors.Tensor, mask []int32) *tensors.Tensor {
	dims, flat := hidden.Shape().Dimensions, tensors.MustCopyFlatData[float32](hidden)
	out := make([]float32, dims[0]*dims[2])
	for b := range dims[0] {
		row := out[b*dims[2] : (b+1)*dims[2]]
		for l := range dims[1] {
			if mask[b*dims[1]+l] == 1 {
				for i := range row {
					row[i] += flat[(b*dims[1]+l)*dims[2]+i]
				}
			}
		}
		norm := 0.0
		for _, v := range row {
			norm += float64(v) * float64(v)
		}
		for i := range row {
			row[i] /= float32(math.Sqrt(norm))
		}
	}
	return tensors.FromFlatDataAndDimensions(out, dims[0], dims[2])
}

// TestLoadExplainsWhatDisagrees changes a good checkpoint in one way at a time.
func TestLoadExplainsWhatDisagrees(t *testing.T) {
	source := "testdata/golden/checkpoints/bert-tokcls" // the wanted errors name its shapes
	config := func(change func(map[string]any)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, "config.json")
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var fields map[string]any
			if err := json.Unmarshal(content, &fields); err != nil {
				t.Fatal(err)
			}
			change(fields)
			if content, err = json.Marshal(fields); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	weights := func(change func(list []safetensors.Named) []safetensors.Named) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, "model.safetensors")
			file, err := safetensors.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			var list []safetensors.Named
			for _, name := range file.Names() {
				list = append(list, safetensors.Named{Name: name, Tensor: tensor(t, file, name)})
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			if err := safetensors.WriteFile(path, change(list), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   []string
	}{
		{"other hidden size", config(func(f map[string]any) { f["hidden_size"] = 40 }), []string{"bert.embeddings.word_embeddings.weight", "[120 32]", "[120 40]", "and "}},
		{"more layers", config(func(f map[string]any) { f["num_hidden_layers"] = 3 }), []string{"bert.encoder.layer.2.attention.self.query.weight is missing"}},
		{"fewer layers", config(func(f map[string]any) { f["num_hidden_layers"] = 1 }), []string{"bert.encoder.layer.1", "not part of the model"}},
		{"no heads", config(func(f map[string]any) { delete(f, "num_attention_heads") }), []string{"config.json", "num_attention_heads is missing"}},
		{"heads that do not divide", config(func(f map[string]any) { f["num_attention_heads"] = 5 }), []string{"config.json", "does not divide"}},
		{"other labels", config(func(f map[string]any) { f["id2label"] = map[string]string{"0": "O", "1": "B-X"} }), []string{"classifier.weight has shape [7 32], want [2 32]"}},
		{"gap in labels", config(func(f map[string]any) { f["id2label"] = map[string]string{"0": "O", "2": "B-X"} }), []string{"none for id 1"}},
		{"foreign family", config(func(f map[string]any) { f["model_type"] = "llama" }), []string{`model_type "llama" is not supported; supported: [bart bert distilbert gpt2 roberta]`}},
		{"foreign head", config(func(f map[string]any) { f["architectures"] = []string{"BertForQuestionAnswering"} }), []string{`"BertForQuestionAnswering" is not supported`}},
		{"relative positions", config(func(f map[string]any) { f["position_embedding_type"] = "relative_key" }), []string{`"relative_key" is not supported`}},
		{"unknown activation", config(func(f map[string]any) { f["hidden_act"] = "swish" }), []string{`hidden_act "swish"`}},
		{"text for a number", config(func(f map[string]any) { f["hidden_size"] = "big" }), []string{`hidden_size is "big"`}},
		{"missing tensor", weights(func(list []safetensors.Named) []safetensors.Named { return list[1:] }), []string{"is missing, want shape"}},
		{"extra tensor", weights(func(list []safetensors.Named) []safetensors.Named {
			return append(list, safetensors.Named{Name: "bert.adapter", Tensor: list[0].Tensor})
		}), []string{"tensor bert.adapter is not part of the model"}},
		{"integer weights", weights(func(list []safetensors.Named) []safetensors.Named {
			list[0].Tensor = tensors.FromFlatDataAndDimensions(make([]int32, list[0].Tensor.Size()), list[0].Tensor.Shape().Dimensions...)
			return list
		}), []string{"has type I32, want F32, F16 or BF16"}},
		{"truncated weights", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "model.safetensors"), 5000); err != nil {
				t.Fatal(err)
			}
		}, []string{"model.safetensors"}},
		{"no weights", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
				t.Fatal(err)
			}
		}, []string{"model.safetensors"}},
		{"no config", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
				t.Fatal(err)
			}
		}, []string{"config.json"}},
		{"broken config", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"config.json"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"config.json", "model.safetensors"} {
				content, err := os.ReadFile(filepath.Join(source, name))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			test.change(t, dir)
			_, _, err := pretrained.Load(dir, pretrained.Options{})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
}

func ExampleLoad() {
	m, report, err := pretrained.Load("testdata/golden/checkpoints/bert-tokcls", pretrained.Options{})
	if err != nil {
		panic(err)
	}
	fmt.Println(report.Family, report.Loaded, "variables loaded,", len(report.Fresh), "fresh")
	fmt.Println(m.Config.Head.Kind, m.Config.Head.Labels)
	// Output:
	// bert 39 variables loaded, 0 fresh
	// tokens [O B-PER I-PER B-ORG I-ORG B-LOC I-LOC]
}

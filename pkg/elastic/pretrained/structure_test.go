package pretrained_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// saved writes a model and reads it again.
func saved(t *testing.T, m *transformer.Model) (string, *transformer.Model, pretrained.Report) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: pretrained.Files(m)}); err != nil {
		t.Fatal(err)
	}
	again, report, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, again, report
}

// TestUpcycling: experts on a published checkpoint begin as its feed-forward part, so the
// model computes what it did; written and read again it is the same to the last bit.
func TestUpcycling(t *testing.T) {
	dense, _, err := pretrained.Load(tinyBERT, pretrained.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m, report, err := pretrained.Load(tinyBERT, pretrained.Options{Experts: &transformer.Experts{Count: 4, Balance: 0.01}, Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Fresh) != m.Config.Layers || !strings.HasSuffix(report.Fresh[0], "/feed_forward/router/weights") {
		t.Errorf("fresh are %v, want the routers", report.Fresh)
	}
	gxtest.Close(t, logits(t, m), logits(t, dense), 1e-5)

	dir, again, report := saved(t, m)
	if len(report.Fresh)+len(report.Unused) > 0 || !reflect.DeepEqual(again.Config.Experts, m.Config.Experts) {
		t.Errorf("fresh %v, unused %v, experts %+v", report.Fresh, report.Unused, again.Config.Experts)
	}
	gxtest.Close(t, logits(t, again), logits(t, m), 0)
	if _, _, err := pretrained.Load(dir, pretrained.Options{Experts: &transformer.Experts{Count: 3}}); err == nil || !strings.Contains(err.Error(), "experts.inner.weights has shape [4 ") {
		t.Errorf("another number of experts: %v", err)
	}
	if _, _, err := pretrained.Load(tinyBERT, pretrained.Options{Experts: &transformer.Experts{Count: 4, Switch: true}}); err == nil || !strings.Contains(err.Error(), "want experts without switch") {
		t.Errorf("experts that are weighed by probability: %v", err)
	}
	if _, _, err := pretrained.Load(tinyBERT, pretrained.Options{Experts: &transformer.Experts{Count: 1}}); err == nil || !strings.Contains(err.Error(), "experts.count is 1") {
		t.Errorf("one expert: %v", err)
	}
}

// TestDepthInACheckpoint: a depth is carried by a checkpoint of its own family name, and its
// exits begin fresh with a new one.
func TestDepthInACheckpoint(t *testing.T) {
	for _, depth := range []transformer.Depth{{Kind: transformer.ACT, Penalty: 0.1}, {Kind: transformer.EarlyExit, Rule: transformer.Patience, Threshold: 2}} {
		t.Run(depth.Kind, func(t *testing.T) {
			m, report, err := pretrained.Load(tinyBERT, pretrained.Options{Depth: &depth, Seed: 5})
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range report.Fresh {
				if !strings.HasPrefix(path, "/depth/") {
					t.Errorf("%s is fresh", path)
				}
			}
			if len(report.Fresh) == 0 {
				t.Error("nothing is fresh")
			}
			dir, again, report := saved(t, m)
			if len(report.Fresh)+len(report.Unused) > 0 || !reflect.DeepEqual(again.Config.Depth, &depth) {
				t.Errorf("fresh %v, unused %v, depth %+v", report.Fresh, report.Unused, again.Config.Depth)
			}
			gxtest.Close(t, logits(t, again), logits(t, m), 0)
			head := &transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "B-NEW", "I-NEW", "B-OLD", "I-OLD", "B-X", "I-X"}}
			if _, _, err := pretrained.Load(dir, pretrained.Options{Head: head}); err != nil {
				t.Errorf("other labels: %v", err)
			}

			config, err := os.ReadFile(filepath.Join(dir, pretrained.ConfigFile))
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range []struct{ old, new, want string }{
				{`"elastic-bert"`, `"bert"`, "a model with one begins with"},
				{`"version": 1`, `"version": 2`, "elastic_structure has version 2"},
				{`"kind"`, `"sort"`, `unknown field "sort"`},
			} {
				changed := bytes.Replace(config, []byte(change.old), []byte(change.new), 1)
				if err := os.WriteFile(filepath.Join(dir, pretrained.ConfigFile), changed, 0o644); err != nil {
					t.Fatal(err)
				}
				if _, _, err := pretrained.Load(dir, pretrained.Options{}); err == nil || !strings.Contains(err.Error(), change.want) {
					t.Errorf("%s: error is %v, want %q", change.new, err, change.want)
				}
			}
		})
	}
}

// TestOddStructureInACheckpoint: models that no family has are written and read too.
func TestOddStructureInACheckpoint(t *testing.T) {
	base := transformer.Config{
		VocabSize: 20, Hidden: 8, Layers: 2, FeedForward: 12, Attention: attention.Spec{Heads: 2}, MaxPositions: 10,
		Activation: "gelu", NormEpsilon: 1e-5, InitStd: 0.3, Head: transformer.Head{Kind: transformer.LM},
	}
	for name, change := range map[string]func(c *transformer.Config){
		"post-norm decoder": func(c *transformer.Config) { c.Attention.Mask = attention.Causal{} },
		"decoder of windows": func(c *transformer.Config) {
			c.Attention.Mask, c.NormOrder = attention.Window{Size: 3}, transformer.PreNorm
		},
		"decoder with a gate": func(c *transformer.Config) {
			c.Attention.Mask, c.Attention.Gates = attention.Causal{}, []attention.Gate{attention.HeadGate{}}
		},
		"decoder with experts": func(c *transformer.Config) {
			c.Attention.Mask, c.Experts = attention.Causal{}, &transformer.Experts{Count: 2}
		},
		"pre-norm encoder": func(c *transformer.Config) {
			c.NormOrder, c.TypeVocab, c.Head = transformer.PreNorm, 2, transformer.Head{}
		},
		"pre-norm encoder-decoder": func(c *transformer.Config) {
			c.NormOrder, c.PadID, c.PositionsFromPad = transformer.PreNorm, 1, true
			c.Decoder = &transformer.Decoder{Layers: 1, FeedForward: 6, Attention: attention.Spec{Heads: 2, Mask: attention.Causal{}}, Cross: attention.Spec{Heads: 4, QKNorm: &attention.QKNorm{Norm: "rms"}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			config := base
			change(&config)
			m, err := transformer.New(config, 1)
			if err != nil {
				t.Fatal(err)
			}
			dir, again, report := saved(t, m)
			if len(report.Fresh)+len(report.Unused) > 0 {
				t.Errorf("fresh %v, unused %v", report.Fresh, report.Unused)
			}
			want, errWant := config.Hash()
			if got, err := again.Config.Hash(); err != nil || errWant != nil || got != want {
				t.Errorf("config is %+v, want %+v (%v, %v)", again.Config, config, err, errWant)
			}
			for _, v := range config.Variables() {
				gxtest.Close(t, again.Store.GetVariable(v.Path).MustValue(), m.Store.GetVariable(v.Path).MustValue(), 0)
			}
			content, err := os.ReadFile(filepath.Join(dir, pretrained.ConfigFile))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(content, []byte(`"model_type": "elastic-`)) {
				t.Errorf("config says that the model is of a published family:\n%s", content)
			}
		})
	}
}

// TestGreedyDecoding: greedy decoding with caches gives the sequences that transformers gives.
func TestGreedyDecoding(t *testing.T) {
	root := golden.Dir(t, "checkpoints")
	for _, name := range []string{"gpt2", "bart"} {
		dir := filepath.Join(root, name)
		content, err := os.ReadFile(filepath.Join(dir, "golden.json"))
		if err != nil {
			t.Fatal(err)
		}
		var cases struct {
			Generate []generated `json:"generate"`
		}
		if err := json.Unmarshal(content, &cases); err != nil {
			t.Fatal(err)
		}
		m, _, err := pretrained.Load(dir, pretrained.Options{})
		if err != nil {
			t.Fatal(err)
		}
		tested := 0
		for _, c := range cases.Generate {
			padded := slices.ContainsFunc(c.Mask, func(row []int32) bool { return slices.Contains(row, 0) })
			if c.Args.Beams > 1 || c.Args.Penalty > 0 || padded && m.Config.Decoder == nil {
				continue // other ways to choose; padding before a text, which steps do not have
			}
			tested++
			t.Run(fmt.Sprintf("%s_%d", name, tested), func(t *testing.T) { greedy(t, m, c) })
		}
		if tested == 0 {
			t.Errorf("%s has no greedy case", name)
		}
	}
}

// generated is a case of generation.
type generated struct {
	IDs       [][]int32 `json:"input_ids"`
	Mask      [][]int32 `json:"attention_mask"`
	Sequences [][]int32 `json:"sequences"`
	Args      struct {
		Beams   int     `json:"num_beams"`
		Penalty float64 `json:"repetition_penalty"`
		End     int32   `json:"eos_token_id"`
	} `json:"args"`
}

func greedy(t *testing.T, m *transformer.Model, c generated) {
	config := m.Config
	text := c.IDs // what is decoded so far
	if config.Decoder != nil {
		text = make([][]int32, len(c.IDs))
		for row := range text {
			text[row] = c.Sequences[row][:1]
		}
	}
	batch, length := len(text), len(c.Sequences[0])
	slots, err := config.Slots(length, len(text[0]))
	if err != nil {
		t.Fatal(err)
	}
	compute := func(build func(w elastic.Weights, in []*graph.Node) []*graph.Node, args ...any) []*tensors.Tensor {
		t.Helper()
		out, err := model.CallOnceN(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
			return build(elastic.WeightsOf(scope.Store(), in[0].Graph()), in)
		}, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	layers := 0
	state := compute(func(w elastic.Weights, in []*graph.Node) (nodes []*graph.Node) {
		caches := config.NewCaches(in[0].Graph(), dtypes.Float32, batch, slots)
		layers = len(caches)
		for _, cache := range caches {
			nodes = append(nodes, cache.Keys, cache.Values, cache.Positions)
		}
		if config.Decoder != nil {
			memory := config.Remember(w, config.Encode(w, transformer.Inputs{IDs: in[0], Mask: in[1]}, nil).Hidden, in[1])
			nodes = slices.Concat(nodes, memory.Keys, memory.Values)
		}
		return nodes
	}, c.IDs, c.Mask)
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		memory := transformer.Memory{Mask: in[2]}
		state := in[3:]
		var caches []attention.Cache
		for i := range layers {
			caches = append(caches, attention.Cache{Keys: state[3*i], Values: state[3*i+1], Positions: state[3*i+2]})
		}
		if config.Decoder != nil {
			memory.Keys, memory.Values = state[3*layers:4*layers], state[4*layers:]
		}
		hidden, caches := config.Step(w, in[0], in[1], caches, memory)
		nodes := []*graph.Node{config.HeadLogits(w, hidden, nil)}
		for _, cache := range caches {
			nodes = append(nodes, cache.Keys, cache.Values, cache.Positions)
		}
		return nodes
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	next, position := slices.Clone(text), 0
	for position+len(next[0]) < length {
		args := []any{next, int32(position), c.Mask}
		for _, tensor := range state {
			args = append(args, tensor)
		}
		out, err := exec.Call(args...)
		if err != nil {
			t.Fatal(err)
		}
		copy(state, out[1:])
		position += len(next[0])
		logits := tensors.MustCopyFlatData[float32](out[0])
		last := make([][]int32, batch)
		for row := range last {
			end := (row + 1) * len(next[0]) * config.VocabSize
			own := logits[end-config.VocabSize : end]
			last[row] = []int32{int32(slices.Index(own, slices.Max(own)))}
			text[row] = append(slices.Clip(text[row]), last[row]...)
		}
		next = last
	}
	for row, want := range c.Sequences {
		if end := slices.Index(want[1:], c.Args.End); end >= 0 { // what follows is filled up; the last may be forced to be the end
			want = want[:min(end+2, length-1)]
		}
		if got := text[row][:len(want)]; !slices.Equal(got, want) {
			t.Errorf("row %d: %v, want %v", row, got, want)
		}
	}
}

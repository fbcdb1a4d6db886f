package pretrained_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

const tinyBERT = "testdata/golden/checkpoints/bert-tokcls"

// elasticSpec has parts with weights, and parts without.
var elasticSpec = attention.Spec{
	Scores: []attention.Score{attention.Temperature{Learned: true}}, Positions: []attention.Score{attention.ALiBi{Learned: true}},
	Normalizer: attention.Entmax{Learned: true}, Span: &attention.Span{Max: 64, Init: 0.5}, Gates: []attention.Gate{attention.HeadGate{}},
}

func logits(t *testing.T, m *transformer.Model) []float32 {
	t.Helper()
	out, err := model.CallOnce(gxtest.Backend(t), m.Store, func(scope *model.Scope, ids *graph.Node) *graph.Node {
		return m.Config.Logits(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids}, nil)
	}, [][]int32{{2, 7, 9, 4, 1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](out)
}

// TestElasticAttentionInACheckpoint: new attention begins fresh on a published checkpoint;
// written and read again the model is the same to the last bit.
func TestElasticAttentionInACheckpoint(t *testing.T) {
	m, report, err := pretrained.Load(tinyBERT, pretrained.Options{Attention: &elasticSpec, Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	if want := 5 * m.Config.Layers; len(report.Fresh) != want {
		t.Errorf("fresh are %v, want %d of the new parts", report.Fresh, want)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: pretrained.Files(m)}); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, pretrained.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(config, []byte(`"model_type": "elastic-bert"`)) {
		t.Errorf("config does not say that the model is no BERT:\n%s", config)
	}
	again, report, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Fresh) > 0 {
		t.Errorf("fresh variables %v", report.Fresh)
	}
	if changes, err := attention.Diff(m.Config.Attention, again.Config.Attention); err != nil || len(changes) > 0 {
		t.Errorf("attention differs: %v, %v", changes, err)
	}
	gxtest.Close(t, logits(t, again), logits(t, m), 0)

	// Another attention on top: what the checkpoint has of it is kept, what it has more is dropped.
	less, err := again.Config.Attention.Without("span")
	if err != nil {
		t.Fatal(err)
	}
	ablated, report, err := pretrained.Load(dir, pretrained.Options{Attention: &less})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Fresh) > 0 || len(report.Unused) != m.Config.Layers {
		t.Errorf("without span: fresh %v, unused %v", report.Fresh, report.Unused)
	}
	logits(t, ablated)

	for _, test := range []struct{ name, old, new, want string }{
		{"of a newer version", `"version": 1`, `"version": 2`, "elastic_attention has version 2, this program reads version 1"},
		{"that says it is BERT", `"elastic-bert"`, `"bert"`, "model_type and elastic_attention, elastic_structure or elastic_pooling do not fit"},
		{"with an unknown part", `"head_gate"`, `"head_gates"`, `gates[0]: kind "head_gates" is unknown`},
		{"with a part less", `"head_gate"`, `"output_gate"`, "tensor elastic.layer.0.attention.output_gate.weights is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := bytes.Replace(config, []byte(test.old), []byte(test.new), 1)
			if bytes.Equal(changed, config) {
				t.Fatalf("config has no %s:\n%s", test.old, config)
			}
			bad := t.TempDir()
			weights, err := os.ReadFile(filepath.Join(dir, pretrained.WeightsFile))
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string][]byte{pretrained.ConfigFile: changed, pretrained.WeightsFile: weights} {
				if err := os.WriteFile(filepath.Join(bad, name), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := pretrained.Load(bad, pretrained.Options{}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

// TestNewAttentionMustFit: a spec that asks for projections of other shapes is refused
// with names and shapes.
func TestNewAttentionMustFit(t *testing.T) {
	for _, test := range []struct {
		spec attention.Spec
		want string
	}{
		{attention.Spec{Normalizer: attention.TopKeys{}}, "attention.normalizer.keys is 0"},
		{attention.Spec{KVHeads: 1}, "has shape"},
	} {
		if _, _, err := pretrained.Load(tinyBERT, pretrained.Options{Attention: &test.spec}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error is %v, want %q", err, test.want)
		}
	}
}

// TestPoolingInACheckpoint: a head with a pooling that BERT does not have is written so that
// nobody takes it for BERT's, and read again to the last bit; with BERT's pooling nothing is
// said.
func TestPoolingInACheckpoint(t *testing.T) {
	for _, kind := range transformer.Poolings() {
		head := &transformer.Head{Kind: transformer.Sequence, Labels: []string{"no", "yes"}, Pooling: kind}
		m, report, err := pretrained.Load(tinyBERT, pretrained.Options{Head: head, Seed: 5})
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(report.Fresh, "/head/pooling/w"); got != (kind == transformer.AttentionPooling) {
			t.Errorf("%s: fresh are %v", kind, report.Fresh)
		}
		if kind == transformer.AttentionPooling {
			w := make([]float32, m.Config.Hidden)
			for i := range w {
				w[i] = float32(i%3) - 1
			}
			if err := m.Store.GetVariable("/head/pooling/w").SetValue(tensors.FromFlatDataAndDimensions(w, len(w))); err != nil {
				t.Fatal(err)
			}
		}
		dir := filepath.Join(t.TempDir(), "model")
		if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: pretrained.Files(m)}); err != nil {
			t.Fatal(err)
		}
		config, err := os.ReadFile(filepath.Join(dir, pretrained.ConfigFile))
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(config, []byte(`"model_type": "elastic-bert"`)); got != (kind != transformer.FirstPooling) {
			t.Errorf("%s: config says:\n%s", kind, config)
		}
		again, _, err := pretrained.Load(dir, pretrained.Options{})
		if err != nil {
			t.Fatal(err)
		}
		gxtest.Close(t, logits(t, again), logits(t, m), 0)
		read, err := pretrained.ReadHead(dir)
		if err != nil || read.Kind != transformer.Sequence || !slices.Equal(read.Labels, head.Labels) {
			t.Errorf("%s: head is %+v, %v", kind, read, err)
		}
		// A new head on top drops the pooling with the rest of the old one.
		if _, report, err = pretrained.Load(dir, pretrained.Options{Head: &transformer.Head{Kind: transformer.Tokens, Labels: []string{"O"}}}); err != nil {
			t.Errorf("%s: new head: %v", kind, err)
		} else if got := slices.Contains(report.Unused, "elastic.head.pooling.w"); got != (kind == transformer.AttentionPooling) {
			t.Errorf("%s: unused are %v", kind, report.Unused)
		}
		unknown := bytes.Replace(config, []byte(`"elastic_pooling": "`), []byte(`"elastic_pooling": "x`), 1)
		if err := os.WriteFile(filepath.Join(dir, pretrained.ConfigFile), unknown, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := pretrained.Load(dir, pretrained.Options{}); (err != nil) != (kind != transformer.FirstPooling) {
			t.Errorf("%s: with an unknown pooling: %v", kind, err)
		}
	}
	head := &transformer.Head{Kind: transformer.Sequence, Labels: []string{"no", "yes"}}
	if _, _, err := pretrained.Load("testdata/golden/checkpoints/roberta-mlm", pretrained.Options{Head: head}); err == nil || !strings.Contains(err.Error(), `not supported for model_type "roberta"`) {
		t.Errorf("a sequence head for RoBERTa: %v", err)
	}
}

package pretrained_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// TestFilesGiveBackTheCheckpoint writes every checkpoint again: the same names, shapes,
// types and bytes, and a config that means the same.
func TestFilesGiveBackTheCheckpoint(t *testing.T) {
	root := golden.Dir(t, "checkpoints")
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		source := filepath.Join(root, entry.Name())
		if !slices.Contains(pretrained.Families(), modelType(t, source)) {
			continue
		}
		t.Run(entry.Name(), func(t *testing.T) {
			m, _, err := pretrained.Load(source, pretrained.Options{})
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "copy")
			if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: pretrained.Files(m)}); err != nil {
				t.Fatal(err)
			}
			again, report, err := pretrained.Load(dir, pretrained.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Fresh)+len(report.Unused) > 0 {
				t.Errorf("fresh %v, unused %v", report.Fresh, report.Unused)
			}
			if a, b := again.Config, m.Config; !slices.Equal(a.Head.Labels, b.Head.Labels) {
				t.Errorf("labels %v, want %v", a.Head.Labels, b.Head.Labels)
			} else {
				a.Head.Labels, b.Head.Labels = nil, nil
				if !equal(a, b) {
					t.Errorf("config %+v, want %+v", a, b)
				}
			}
			sameTensors(t, filepath.Join(dir, pretrained.WeightsFile), filepath.Join(source, pretrained.WeightsFile))
		})
	}
}

func equal(a, b transformer.Config) bool {
	a.Head.Labels, b.Head.Labels = nil, nil
	return a.Attention == b.Attention && a.Head.Kind == b.Head.Kind && a.Head.Dropout == b.Head.Dropout &&
		a.VocabSize == b.VocabSize && a.Hidden == b.Hidden && a.Layers == b.Layers && a.FeedForward == b.FeedForward &&
		a.MaxPositions == b.MaxPositions && a.PositionsFromPad == b.PositionsFromPad && a.PadID == b.PadID && a.TypeVocab == b.TypeVocab &&
		a.Activation == b.Activation && a.NormEpsilon == b.NormEpsilon && a.Dropout == b.Dropout && a.InitStd == b.InitStd
}

func sameTensors(t *testing.T, gotPath, wantPath string) {
	t.Helper()
	got, err := safetensors.Open(gotPath)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	want, err := safetensors.Open(wantPath)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if !slices.Equal(got.Names(), want.Names()) {
		t.Fatalf("tensors are %v, want %v", got.Names(), want.Names())
	}
	for _, name := range want.Names() {
		g, err := got.Bytes(name)
		if err != nil {
			t.Fatal(err)
		}
		w, err := want.Bytes(name)
		if err != nil {
			t.Fatal(err)
		}
		gi, _ := got.Info(name)
		wi, _ := want.Info(name)
		if gi.Format != wi.Format || !slices.Equal(gi.Shape, wi.Shape) || !bytes.Equal(g, w) {
			t.Errorf("%s is %s%v, want %s%v with the same bytes", name, gi.Format, gi.Shape, wi.Format, wi.Shape)
		}
	}
}

// TestEncoderWithoutPooler writes a model that has no head, which transformers calls the
// same as one with a pooler, and reads it.
func TestEncoderWithoutPooler(t *testing.T) {
	m, _, err := pretrained.Load("testdata/golden/checkpoints/bert-tokcls", pretrained.Options{Head: &transformer.Head{}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bare")
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: pretrained.Files(m)}); err != nil {
		t.Fatal(err)
	}
	again, report, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Config.Head.Kind != transformer.NoHead || len(report.Fresh)+len(report.Unused) > 0 || report.Loaded != len(m.Config.Variables()) {
		t.Errorf("head %q, %+v; want none, and all variables loaded", again.Config.Head.Kind, report)
	}
}

func TestNewHeadIsFreshAndNothingElse(t *testing.T) {
	head := &transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "B-X", "I-X"}}
	for _, name := range []string{"bert", "bert-mlm", "bert-seqcls", "bert-tokcls", "distilbert-tokcls", "roberta-mlm"} {
		m, report, err := pretrained.Load(filepath.Join("testdata/golden/checkpoints", name), pretrained.Options{Head: head, Seed: 1})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := []string{"/head/classifier/weights", "/head/classifier/bias"}; !slices.Equal(report.Fresh, want) || report.Loaded != len(m.Config.Variables())-2 {
			t.Errorf("%s: fresh are %v, want %v; loaded %d", name, report.Fresh, want, report.Loaded)
		}
	}
}

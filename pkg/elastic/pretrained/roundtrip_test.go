package pretrained_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
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
			m, report, err := pretrained.Load(source, pretrained.Options{})
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "copy")
			if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: pretrained.Files(m)}); err != nil {
				t.Fatal(err)
			}
			unused := report.Unused // of the source: an untied decoder's second bias
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
				if !reflect.DeepEqual(a, b) {
					t.Errorf("config %+v, want %+v", a, b)
				}
			}
			sameTensors(t, filepath.Join(dir, pretrained.WeightsFile), filepath.Join(source, pretrained.WeightsFile), unused)
		})
	}
}

func sameTensors(t *testing.T, gotPath, wantPath string, without []string) {
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
	names := slices.DeleteFunc(slices.Clone(want.Names()), func(name string) bool { return slices.Contains(without, name) })
	if !slices.Equal(got.Names(), names) {
		t.Fatalf("tensors are %v, want %v", got.Names(), names)
	}
	for _, name := range names {
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

// TestNewerManifestIsRefused: a model that a later version saved is not read as if it were of this one.
func TestNewerManifestIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, checkpoint.ManifestName), []byte(`{"schema": 99}`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err := pretrained.Load(dir, pretrained.Options{})
	for _, err := range []error{err, checkpoint.CheckSchema(dir)} {
		if !errors.Is(err, checkpoint.ErrNewerSchema) || !strings.Contains(err.Error(), "manifest.json: its schema is 99") {
			t.Errorf("error is %v", err)
		}
	}
	if err := checkpoint.CheckSchema(t.TempDir()); err != nil {
		t.Errorf("a folder without a manifest: %v", err)
	}
}

func TestNewHeadIsFreshAndNothingElse(t *testing.T) {
	head := &transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "B-X", "I-X"}}
	for _, name := range []string{"bert", "bert-mlm", "bert-seqcls", "bert-tokcls", "distilbert-tokcls", "roberta-mlm", "bert-mlm-untied", "distilbert-mlm-untied", "roberta-mlm-untied"} {
		m, report, err := pretrained.Load(filepath.Join("testdata/golden/checkpoints", name), pretrained.Options{Head: head, Seed: 1})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := []string{"/head/classifier/weights", "/head/classifier/bias"}; !slices.Equal(report.Fresh, want) || report.Loaded != len(m.Config.Variables())-2 {
			t.Errorf("%s: fresh are %v, want %v; loaded %d", name, report.Fresh, want, report.Loaded)
		}
	}
}

// TestMissingPadID: RoBERTa's padding is token 1 if the config does not say, and positions
// are counted from it.
func TestMissingPadID(t *testing.T) {
	source, dir := "testdata/golden/checkpoints/roberta-mlm", t.TempDir()
	weights, err := os.ReadFile(filepath.Join(source, pretrained.WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(source, pretrained.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.Replace(config, []byte(`"pad_token_id"`), []byte(`"left_out"`), 1)
	for name, content := range map[string][]byte{pretrained.WeightsFile: weights, pretrained.ConfigFile: config} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, _, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil || m.Config.PadID != 1 {
		t.Errorf("got %+v, %v, want pad id 1", m, err)
	}
}

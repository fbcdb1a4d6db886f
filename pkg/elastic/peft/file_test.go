package peft_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// loadBase reads the model of a family that the adapters of the collection are for.
func loadBase(t testing.TB, dir string) *transformer.Model {
	t.Helper()
	m, _, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// modelLogits computes the logits of a model, through an adapter if there is one.
func modelLogits(t testing.TB, m *transformer.Model, a *peft.Adapter, ids, mask *tensors.Tensor) []float32 {
	t.Helper()
	exec, err := model.NewExec(gxtest.Backend(t), m.Store, func(scope *model.Scope, ids, mask *Node) *Node {
		w := elastic.WeightsOf(scope.Store(), ids.Graph())
		if a != nil {
			w = a.Weights(w, nil)
		}
		return m.Config.Logits(w, transformer.Inputs{IDs: ids, Mask: mask}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call(ids, mask)
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](out[0])
}

func open(t testing.TB, path string) *safetensors.File {
	t.Helper()
	file, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func tensorOf(t testing.TB, file *safetensors.File, name string) *tensors.Tensor {
	t.Helper()
	value, err := file.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestGoldenAdapterFiles reads adapters that Python's peft saved, computes the logits that it
// computed, writes them, and finds the same tensors, bit by bit.
func TestGoldenAdapterFiles(t *testing.T) {
	dir := golden.Dir(t, "adapters")
	for _, name := range golden.Cases[string](t, dir) {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(dir, filepath.FromSlash(name))
			m := loadBase(t, filepath.Join(filepath.Dir(folder), "base"))
			recorded := open(t, folder+".safetensors")
			ids, mask := tensorOf(t, recorded, "ids"), tensorOf(t, recorded, "mask")
			a, err := peft.Load(folder, m)
			if err != nil {
				t.Fatal(err)
			}
			want := tensorOf(t, recorded, "logits")
			real := tensors.MustCopyFlatData[int32](mask) // rows of padding are nobody's
			got := modelLogits(t, m, a, ids, mask)
			labels := want.Shape().Dimensions[2]
			flat := tensors.MustCopyFlatData[float32](want)
			for i, used := range real {
				if used != 0 {
					gxtest.Close(t, got[i*labels:(i+1)*labels], flat[i*labels:(i+1)*labels], 1e-5)
				}
			}

			base, err := peft.Base(folder)
			if err != nil {
				t.Fatal(err)
			}
			again := filepath.Join(t.TempDir(), "adapter")
			if err := checkpoint.Save(again, checkpoint.Checkpoint{Files: peft.Files(m, a, base)}); err != nil {
				t.Fatal(err)
			}
			sameTensors(t, filepath.Join(again, peft.WeightsFile), filepath.Join(folder, peft.WeightsFile))
			fresh := loadBase(t, filepath.Join(filepath.Dir(folder), "base"))
			read, err := peft.Load(again, fresh)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range a.Trained() {
				got, want := fresh.Store.GetVariable(v.Path).MustValue(), m.Store.GetVariable(v.Path).MustValue()
				if !slices.Equal(tensors.MustCopyFlatData[float32](got), tensors.MustCopyFlatData[float32](want)) {
					t.Errorf("%s came back as something else", v.Path)
				}
			}
			if a.Config().Mergeable() == nil {
				if _, err := read.Merge(gxtest.Backend(t), fresh.Store); err != nil {
					t.Fatal(err)
				}
				gxtest.Close(t, modelLogits(t, fresh, nil, ids, mask), got, 1e-5)
			}
		})
	}
}

// sameTensors wants two files to hold the same tensors.
func sameTensors(t *testing.T, got, want string) {
	t.Helper()
	g, w := open(t, got), open(t, want)
	names := w.Names()
	if a, b := slices.Sorted(slices.Values(g.Names())), slices.Sorted(slices.Values(names)); !slices.Equal(a, b) {
		t.Fatalf("tensors are\n%s\nwant\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	for _, name := range names {
		a, errA := g.Bytes(name)
		b, errB := w.Bytes(name)
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v %v", name, errA, errB)
		}
	}
}

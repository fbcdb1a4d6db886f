package safetensors_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

// saved writes a small file and returns its path.
func saved(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	err := safetensors.WriteFile(path, []safetensors.Named{
		{Name: "weights", Tensor: tensors.FromValue([][]float32{{1, 2, 3}, {4, 5, 6}})},
		{Name: "bias", Tensor: tensors.FromValue([]float32{7, 8})},
		{Name: "count", Tensor: tensors.FromScalar(int64(9))},
	}, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, path string) *safetensors.File {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestFile(t *testing.T) {
	f := open(t, saved(t))
	if diff := cmp.Diff([]string{"bias", "count", "weights"}, f.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt"}, f.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	f.Metadata()["format"] = "changed"
	if got := f.Metadata()["format"]; got != "pt" {
		t.Errorf("changing the returned map changed the file's: got %q", got)
	}
	info, err := f.Info("weights")
	if err != nil {
		t.Fatal(err)
	}
	want := safetensors.Info{Name: "weights", Format: "F32", DType: types["F32"], Shape: []int{2, 3}, Start: 16, End: 40}
	if diff := cmp.Diff(want, info); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
	if info.Bytes() != 24 {
		t.Errorf("got %d bytes, want 24", info.Bytes())
	}
	info.Shape[0] = 99
	if again, _ := f.Info("weights"); again.Shape[0] != 2 {
		t.Errorf("changing the returned shape changed the file's: got %v", again.Shape)
	}
	tensor, err := f.Tensor("weights")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float32{{1, 2, 3}, {4, 5, 6}}, tensor.Value()); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	data, err := f.Bytes("bias")
	if err != nil || !bytes.Equal(data, []byte{0, 0, 0xe0, 0x40, 0, 0, 0, 0x41}) || cap(data) != 8 {
		t.Errorf("got % x, %v, want 7 and 8 as float32", data, err)
	}
}

func TestUnknownTensor(t *testing.T) {
	f := open(t, saved(t))
	_, infoErr := f.Info("no")
	_, tensorErr := f.Tensor("no")
	_, bytesErr := f.Bytes("no")
	for _, err := range []error{infoErr, tensorErr, bytesErr} {
		if !errors.Is(err, safetensors.ErrNoTensor) || !strings.Contains(err.Error(), `model.safetensors: tensor "no": no such tensor (the file has 3)`) {
			t.Errorf("got %v", err)
		}
	}
}

func TestClose(t *testing.T) {
	f := open(t, saved(t))
	tensor, err := f.Tensor("bias")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Bytes("bias"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]float32{7, 8}, tensor.Value()); diff != "" {
		t.Errorf("a tensor changed when its file was closed (-want +got):\n%s", diff)
	}
	if _, err := f.Tensor("bias"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Tensor: got %v, want %v", err, fs.ErrClosed)
	}
	if _, err := f.Bytes("bias"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Bytes: got %v, want %v", err, fs.ErrClosed)
	}
	if len(f.Names()) != 3 {
		t.Errorf("got names %q, want them to stay", f.Names())
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                          "it is no regular file (d",
		filepath.Join(dir, "absent"): "no such file",
	} {
		_, err := safetensors.Open(path)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: got %v, want %s and the path once", path, err, want)
		}
	}
	if _, err := safetensors.Open(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}

// TestFileCutWhileOpen: what was checked at opening may be gone when it is read.
func TestFileCutWhileOpen(t *testing.T) {
	path := saved(t)
	f := open(t, path)
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, stat.Size()-1); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tensor("count"); err != nil {
		t.Errorf("a tensor that is still there: %v", err)
	}
	if _, err := f.Tensor("weights"); err == nil || !strings.Contains(err.Error(), `tensor "weights": got 23 bytes, want 24: the file was cut while it was open`) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	f := open(t, saved(t))
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 50 {
				for _, name := range f.Names() {
					tensor, err := f.Tensor(name)
					if err != nil {
						t.Error(err)
						return
					}
					data, err := f.Bytes(name)
					if err != nil || !bytes.Equal(data, dataOf(t, tensor)) {
						t.Errorf("%s: got % x, %v, want % x", name, data, err, dataOf(t, tensor))
					}
				}
			}
		})
	}
	wait.Wait()
}

// TestEveryTruncationIsRefused: a download that stopped early is never taken for a whole file.
func TestEveryTruncationIsRefused(t *testing.T) {
	content, err := os.ReadFile(saved(t))
	if err != nil {
		t.Fatal(err)
	}
	for n := range content {
		if _, err := safetensors.FromBytes("x", content[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(content))
		}
	}
	if _, err := safetensors.FromBytes("x", append(bytes.Clone(content), 0)); err == nil {
		t.Error("a byte too many was accepted")
	}
}

// TestRawTypes: types that GoMLX has not can be listed and had as bytes.
func TestRawTypes(t *testing.T) {
	content := append(file(entry("F8_E4M3", "[2, 2]", "[0, 4]"), 0), 1, 2, 3, 4)
	f, err := safetensors.FromBytes("x", content)
	if err != nil {
		t.Fatal(err)
	}
	data, err := f.Bytes("a")
	if err != nil || !bytes.Equal(data, []byte{1, 2, 3, 4}) {
		t.Errorf("got % x, %v", data, err)
	}
}

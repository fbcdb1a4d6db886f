package safetensors_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

// TestGoldenFilesWrittenAgain reads every file of the golden vectors and wants
// the same bytes when it is written again.
func TestGoldenFilesWrittenAgain(t *testing.T) {
	for _, folder := range []string{"golden/attention", "golden/checkpoints", "golden/optim"} {
		t.Run(folder, func(t *testing.T) {
			count := 0
			err := filepath.WalkDir(golden.Shared(t, folder), func(path string, entry fs.DirEntry, err error) error {
				if err != nil || filepath.Ext(path) != ".safetensors" {
					return err
				}
				count++
				writtenAgain(t, path)
				return nil
			})
			if err != nil || count == 0 {
				t.Errorf("got %d files, %v", count, err)
			}
			t.Logf("%d files", count)
		})
	}
}

func writtenAgain(t *testing.T, path string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := open(t, path)
	if len(f.Metadata()) > 1 {
		t.Logf("%s: the reference writes metadata in a random order", path)
		return
	}
	var list []safetensors.Named
	for _, name := range f.Names() {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, safetensors.Named{Name: name, Tensor: tensor})
	}
	var got bytes.Buffer
	if err := safetensors.Write(&got, list, f.Metadata()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s: got other bytes: header %.200q, want %.200q", path, got.Bytes(), want)
	}
}

package safetensors_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

// FuzzOpen wants no panic, little memory, and of what is accepted that writing
// it again gives the same tensors.
func FuzzOpen(f *testing.F) {
	for _, c := range corpus() {
		if len(c.content) < 1<<16 {
			f.Add(c.content)
		}
	}
	files, err := filepath.Glob("testdata/*.safetensors")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		var source *safetensors.File
		var err error
		got := allocated(func() { source, err = safetensors.FromBytes("fuzz", content) })
		if limit := memoryLimit(len(content)); got > limit {
			t.Errorf("a file of %d bytes made us allocate %d, want at most %d", len(content), got, limit)
		}
		if err != nil {
			return
		}
		var list []safetensors.Named
		total := int64(0)
		for _, name := range source.Names() {
			info, err := source.Info(name)
			if err != nil {
				t.Fatal(err)
			}
			if !utf8.ValidString(name) {
				t.Errorf("name %q is not UTF-8", name)
			}
			total += info.Bytes()
			data, err := source.Bytes(name)
			if err != nil || int64(len(data)) != info.Bytes() {
				t.Errorf("tensor %q: got %d bytes, %v, want %d", name, len(data), err, info.Bytes())
			}
			if tensor, err := source.Tensor(name); err == nil {
				list = append(list, safetensors.Named{Name: name, Tensor: tensor})
			}
		}
		if total > int64(len(content)) {
			t.Errorf("the tensors have %d bytes, the file has only %d", total, len(content))
		}
		var again bytes.Buffer
		if err := safetensors.Write(&again, list, source.Metadata()); err != nil {
			t.Fatal(err)
		}
		copied, err := safetensors.FromBytes("written", again.Bytes())
		if err != nil {
			t.Fatalf("%q: %v", again.Bytes(), err)
		}
		for _, named := range list {
			tensor, err := copied.Tensor(named.Name)
			if err != nil || !tensor.Shape().Equal(named.Tensor.Shape()) || !bytes.Equal(dataOf(t, tensor), dataOf(t, named.Tensor)) {
				t.Errorf("tensor %q: got %v, %v, want %v", named.Name, tensor, err, named.Tensor)
			}
		}
	})
}

// FuzzIndex wants no panic and no file read outside the folder.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(twoShards))
	f.Add([]byte(`{"weight_map": {"a": "../one.safetensors"}}`))
	f.Add([]byte(`{"metadata": [[[{}]]], "weight_map": {}}`))
	f.Fuzz(func(t *testing.T, index []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, safetensors.IndexName), index, 0o666); err != nil {
			t.Fatal(err)
		}
		model, err := safetensors.OpenSharded(dir)
		if err == nil && len(model.Names()) > 0 {
			t.Errorf("got tensors %q, but there are no shards", model.Names())
		}
	})
}

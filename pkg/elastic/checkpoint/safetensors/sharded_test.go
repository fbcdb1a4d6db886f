package safetensors_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

const twoShards = `{"metadata": {"total_size": 12}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}`

// sharded makes a model of two shards: a and "extra" in the one, b in the other.
func sharded(t *testing.T, index string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, metadata map[string]string, list ...safetensors.Named) {
		if err := safetensors.WriteFile(filepath.Join(dir, name), list, metadata); err != nil {
			t.Fatal(err)
		}
	}
	write("one.safetensors", map[string]string{"format": "pt", "who": "one"},
		safetensors.Named{Name: "a", Tensor: tensors.FromScalar(float32(1))},
		safetensors.Named{Name: "extra", Tensor: tensors.FromScalar(float32(0))})
	write("two.safetensors", map[string]string{"format": "pt", "who": "two"},
		safetensors.Named{Name: "b", Tensor: tensors.FromValue([]float32{2, 3})})
	if err := os.WriteFile(filepath.Join(dir, safetensors.IndexName), []byte(index), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSharded(t *testing.T) {
	model, err := safetensors.OpenSharded(sharded(t, twoShards))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, model.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt", "who": "one"}, model.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	tensor, err := model.Tensor("b")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float32{2, 3}, tensor.Value()); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if info, err := model.Info("a"); err != nil || info.Format != "F32" {
		t.Errorf("got %+v, %v", info, err)
	}
	if data, err := model.Bytes("a"); err != nil || len(data) != 4 {
		t.Errorf("got % x, %v", data, err)
	}
	for _, name := range []string{"no", "extra"} {
		_, infoErr := model.Info(name)
		_, tensorErr := model.Tensor(name)
		_, bytesErr := model.Bytes(name)
		for _, err := range []error{infoErr, tensorErr, bytesErr} {
			if !errors.Is(err, safetensors.ErrNoTensor) {
				t.Errorf("%s: got %v, want %v", name, err, safetensors.ErrNoTensor)
			}
		}
	}
	if err := model.Close(); err != nil {
		t.Error(err)
	}
	if _, err := model.Tensor("b"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want %v", err, fs.ErrClosed)
	}
}

func TestShardedOfOneFile(t *testing.T) {
	model, err := safetensors.OpenSharded(filepath.Dir(saved(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	if diff := cmp.Diff([]string{"bias", "count", "weights"}, model.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt"}, model.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

// TestShardedPrefersOneFile: as in the transformers library.
func TestShardedPrefersOneFile(t *testing.T) {
	dir := sharded(t, "broken")
	err := safetensors.WriteFile(filepath.Join(dir, safetensors.SingleName), []safetensors.Named{{Name: "x", Tensor: tensors.FromScalar(float32(1))}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	model, err := safetensors.OpenSharded(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	if diff := cmp.Diff([]string{"x"}, model.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestShardedRefuses(t *testing.T) {
	shard := func(name string) string { return `{"weight_map": {"a": ` + name + `}}` }
	cases := []struct{ name, index, want string }{
		{"empty", "", "unexpected EOF"},
		{"not JSON", "{", "EOF"},
		{"array", "[]", "got [, want {"},
		{"not UTF-8", "{\"\xff\": 1}", "byte 2: got 0xff, want UTF-8"},
		{"no map", `{"metadata": {}}`, "weight_map is missing"},
		{"map twice", `{"weight_map": {}, "weight_map": {}}`, "weight_map occurs twice"},
		{"map is null", `{"weight_map": null}`, "weight_map: byte 19: got <nil>, want {"},
		{"name twice", `{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}`, `weight_map: tensor "a" occurs twice`},
		{"shard is a number", shard("1"), `tensor "a": got 1, want the name of a file`},
		{"shard is a list", shard(`["one.safetensors"]`), `tensor "a": got [, want the name of a file`},
		{"more behind", twoShards + "{}", "want nothing after the last '}'"},
		{"deep", `{"metadata": ` + strings.Repeat("[", 200000) + strings.Repeat("]", 200000) + "}", "exceeded max depth"},
		{"parent", shard(`"../one.safetensors"`), "want the name of a .safetensors file in the same folder"},
		{"absolute", shard(`"/one.safetensors"`), "want the name of a .safetensors file in the same folder"},
		{"backslash", shard(`"..\\one.safetensors"`), "want the name of a .safetensors file in the same folder"},
		{"subfolder", shard(`"x/one.safetensors"`), "want the name of a .safetensors file in the same folder"},
		{"other kind", shard(`"one.bin"`), "want the name of a .safetensors file in the same folder"},
		{"NUL", shard(`"a\u0000.safetensors"`), "want the name of a .safetensors file in the same folder"},
		{"absent shard", shard(`"three.safetensors"`), `tensor "a" of model.safetensors.index.json: reading `},
		{"absent tensor", `{"weight_map": {"c": "one.safetensors"}}`, `says that tensor "c" is in one.safetensors: `},
		{"tensor in another shard", shard(`"two.safetensors"`), `says that tensor "a" is in two.safetensors: `},
	}
	for _, c := range cases {
		dir := sharded(t, c.index)
		model, err := safetensors.OpenSharded(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want %s and the folder", c.name, err, c.want)
		}
		if model != nil {
			t.Errorf("%s: got a model and an error", c.name)
		}
	}
	dir := t.TempDir()
	if _, err := safetensors.OpenSharded(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "neither model.safetensors nor model.safetensors.index.json is there") {
		t.Errorf("empty folder: got %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, safetensors.IndexName), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := safetensors.OpenSharded(dir); err == nil || !strings.Contains(err.Error(), "it is no regular file") {
		t.Errorf("folder in place of the index: got %v", err)
	}
}

// TestShardedDamaged: a broken single file is not silently passed over for the shards.
func TestShardedDamaged(t *testing.T) {
	dir := sharded(t, twoShards)
	path := filepath.Join(dir, safetensors.SingleName)
	if err := os.WriteFile(path, []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := safetensors.OpenSharded(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names %s", err, path)
	}
}

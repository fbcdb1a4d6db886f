package checkpoint_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
)

// noise is content that differs for each seed.
func noise(seed, n int) []byte {
	random := rand.New(rand.NewPCG(uint64(seed), 7))
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	return content
}

// sample is a small checkpoint whose content depends on its step.
func sample(step int) checkpoint.Checkpoint {
	return checkpoint.Checkpoint{
		Step: step,
		Files: []checkpoint.File{
			{Name: "model.safetensors", Write: func(w io.Writer) error {
				for i := range 5 {
					if _, err := w.Write(noise(step*10+i, 40<<10)); err != nil {
						return err
					}
				}
				return nil
			}},
			checkpoint.FromBytes("config.json", fmt.Appendf(nil, `{"step": %d}`, step)),
			checkpoint.FromBytes("state/optimizer.json", noise(step, 100)),
			checkpoint.FromBytes("empty", nil),
		},
		Versions: map[string]string{"data": "v7"},
	}
}

// checkSample wants the checkpoint that sample makes.
func checkSample(t *testing.T, f *checkpoint.Folder, step int) {
	t.Helper()
	if f.Manifest.Step != step {
		t.Fatalf("%s: got step %d, want %d", f.Dir, f.Manifest.Step, step)
	}
	want := sample(step)
	if len(f.Manifest.Files) != len(want.Files) {
		t.Errorf("%s: got %d files, want %d", f.Dir, len(f.Manifest.Files), len(want.Files))
	}
	for _, file := range want.Files {
		var content bytes.Buffer
		if err := file.Write(&content); err != nil {
			t.Fatal(err)
		}
		got, err := f.ReadFile(file.Name)
		if err != nil || !bytes.Equal(got, content.Bytes()) {
			t.Errorf("%s: file %s: got %d bytes, %v, want those of step %d", f.Dir, file.Name, len(got), err, step)
		}
	}
}

// save saves sample in a new folder.
func save(t *testing.T, step int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "checkpoint")
	if err := checkpoint.Save(dir, sample(step)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string) *checkpoint.Folder {
	t.Helper()
	f, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// entries lists a folder.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}

func TestSaveAndOpen(t *testing.T) {
	dir := save(t, 5)
	f := open(t, dir)
	checkSample(t, f, 5)
	var names []string
	for _, record := range f.Manifest.Files {
		names = append(names, record.Name)
	}
	if diff := cmp.Diff([]string{"config.json", "empty", "model.safetensors", "state/optimizer.json"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if f.Manifest.Schema != checkpoint.Schema || f.Manifest.Versions["data"] != "v7" || !strings.HasPrefix(f.Manifest.Versions["go"], "go1") {
		t.Errorf("got manifest %+v", f.Manifest)
	}
	path, err := f.Path("state/optimizer.json")
	if err != nil || path != filepath.Join(dir, "state", "optimizer.json") {
		t.Errorf("got %s, %v", path, err)
	}
	content, err := os.ReadFile(filepath.Join(dir, checkpoint.ManifestName))
	if err != nil || !json.Valid(content) {
		t.Errorf("got a manifest that is not JSON: %s, %v", content, err)
	}
}

func TestSaveReplacesAsAWhole(t *testing.T) {
	dir := save(t, 1)
	if err := checkpoint.Save(dir, checkpoint.Checkpoint{Step: 2, Files: []checkpoint.File{checkpoint.FromBytes("only", []byte("x"))}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{checkpoint.ManifestName, "only"}, entries(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if f := open(t, dir); f.Manifest.Step != 2 {
		t.Errorf("got step %d, want 2", f.Manifest.Step)
	}
}

func TestSaveIsDeterministic(t *testing.T) {
	a, b := save(t, 3), save(t, 3)
	for _, name := range []string{checkpoint.ManifestName, "model.safetensors"} {
		x, errX := os.ReadFile(filepath.Join(a, name))
		y, errY := os.ReadFile(filepath.Join(b, name))
		if err := errors.Join(errX, errY); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs between two saves, %v", name, err)
		}
	}
}

func TestSaveRefuses(t *testing.T) {
	write := func(io.Writer) error { return nil }
	file := func(names ...string) (c checkpoint.Checkpoint) {
		for _, name := range names {
			c.Files = append(c.Files, checkpoint.File{Name: name, Write: write})
		}
		return c
	}
	cases := []struct {
		name string
		c    checkpoint.Checkpoint
		want string
	}{
		{"negative step", checkpoint.Checkpoint{Step: -1}, "step is -1, want 0 or more"},
		{"no writer", checkpoint.Checkpoint{Files: []checkpoint.File{{Name: "a"}}}, `file "a" has no Write`},
		{"empty name", file(""), `file name "": want a path inside of the folder`},
		{"parent", file("../a"), `file name "../a": want a path inside of the folder`},
		{"absolute", file("/a"), `file name "/a": want a path inside of the folder`},
		{"dot", file("."), `file name ".": want a path inside of the folder`},
		{"backslash", file(`..\a`), `want a path inside of the folder`},
		{"drive", file(`c:a`), `want a path inside of the folder`},
		{"NUL", file("a\x00"), `want a path inside of the folder`},
		{"not UTF-8", file("a\xff"), `want a path inside of the folder`},
		{"reserved", file("manifest.json"), `file name "manifest.json" is reserved`},
		{"reserved in capitals", file("Manifest.JSON"), `file name "Manifest.JSON" is reserved`},
		{"twice", file("a", "b", "a"), `file name "a" occurs twice`},
		{"twice but for case", file("a", "A"), `file name "A" occurs twice`},
	}
	for _, c := range cases {
		parent := t.TempDir()
		dir := filepath.Join(parent, "x")
		if err := checkpoint.Save(dir, c.c); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want %s and the folder", c.name, err, c.want)
		}
		if got := entries(t, parent); len(got) > 0 {
			t.Errorf("%s: got %q, want nothing", c.name, got)
		}
	}
	err := checkpoint.Save(t.TempDir(), checkpoint.Checkpoint{Step: -1, Files: []checkpoint.File{{Name: "a"}, {Name: "manifest.json", Write: write}}})
	for _, want := range []string{"step is", "has no Write", "is reserved"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want all problems at once, with %s", err, want)
		}
	}
}

// TestFlippedBits flips bits all over a checkpoint, one at a time.
func TestFlippedBits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "checkpoint")
	err := checkpoint.Save(dir, checkpoint.Checkpoint{Step: 1, Files: []checkpoint.File{
		checkpoint.FromBytes("model.safetensors", noise(1, 2000)),
		checkpoint.FromBytes("config.json", []byte(`{"layers": 6}`)),
		checkpoint.FromBytes("state/data.json", noise(2, 300)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	var starts []int
	total := 0
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		paths, starts = append(paths, path), append(starts, total)
		total += int(info.Size())
		return err
	})
	if err != nil || len(paths) != 4 {
		t.Fatal(paths, err)
	}
	flip := func(t *testing.T, bit int) {
		t.Helper()
		i := 0
		for i+1 < len(paths) && starts[i+1] <= bit/8 {
			i++
		}
		content, err := os.ReadFile(paths[i])
		if err != nil {
			t.Fatal(err)
		}
		content[bit/8-starts[i]] ^= 1 << (bit % 8)
		if err := os.WriteFile(paths[i], content, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err = checkpoint.Open(dir)
		name, _ := filepath.Rel(dir, paths[i])
		if err == nil || !strings.Contains(err.Error(), "file "+filepath.ToSlash(name)+" ") && !strings.Contains(err.Error(), "file "+name+": ") {
			t.Errorf("bit %d, in %s: got %v, want an error that names the file", bit, name, err)
		} else if !errors.Is(err, checkpoint.ErrDamaged) {
			t.Errorf("bit %d, in %s: %v does not wrap %v", bit, name, err, checkpoint.ErrDamaged)
		}
		content[bit/8-starts[i]] ^= 1 << (bit % 8)
		if err := os.WriteFile(paths[i], content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		flip(t, random.IntN(total*8))
	}
	for i, path := range paths { // and all bits of the manifest, where most of the meaning is
		if filepath.Base(path) == checkpoint.ManifestName {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			for bit := range 8 * int(info.Size()) {
				flip(t, 8*starts[i]+bit)
			}
		}
	}
	open(t, dir)
}

func TestDamage(t *testing.T) {
	manifest := func(dir string) string { return filepath.Join(dir, checkpoint.ManifestName) }
	model := func(dir string) string { return filepath.Join(dir, "model.safetensors") }
	cases := []struct {
		name   string
		damage func(dir string) error
		want   string
	}{
		{"file missing", func(dir string) error { return os.Remove(model(dir)) }, "file model.safetensors is missing"},
		{"file cut", func(dir string) error { return os.Truncate(model(dir), 1000) }, "file model.safetensors has 1000 bytes, want 204800"},
		{"file longer", func(dir string) error { return os.Truncate(model(dir), 204801) }, "file model.safetensors has 204801 bytes, want 204800"},
		{"file is a folder", func(dir string) error { return errors.Join(os.Remove(model(dir)), os.Mkdir(model(dir), 0o777)) }, "file model.safetensors is no regular file"},
		{"manifest missing", func(dir string) error { return os.Remove(manifest(dir)) }, "file manifest.json is missing, so this is no checkpoint"},
		{"manifest empty", func(dir string) error { return os.Truncate(manifest(dir), 0) }, "file manifest.json: it does not end with its checksum"},
		{"manifest cut", func(dir string) error { return os.Truncate(manifest(dir), 200) }, "file manifest.json: it does not end with its checksum"},
		{"manifest huge", func(dir string) error { return os.Truncate(manifest(dir), 1<<30) }, "file manifest.json has more than"},
		{"manifest edited", func(dir string) error {
			content, err := os.ReadFile(manifest(dir))
			return errors.Join(err, os.WriteFile(manifest(dir), bytes.Replace(content, []byte(`"v7"`), []byte(`"v8"`), 1), 0o666))
		}, "file manifest.json: its SHA-256 is"},
	}
	for _, c := range cases {
		dir := save(t, 1)
		if err := c.damage(dir); err != nil {
			t.Fatal(err)
		}
		_, err := checkpoint.Open(dir)
		if !errors.Is(err, checkpoint.ErrDamaged) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
		if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v wraps fs.ErrNotExist, which means that there is none", c.name, err)
		}
	}
	if _, err := checkpoint.Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	file := filepath.Join(save(t, 1), "config.json")
	if _, err := checkpoint.Open(file); err == nil || !strings.Contains(err.Error(), "it is no folder") {
		t.Errorf("got %v", err)
	}
}

// TestOddManifests: a right checksum does not make a manifest right.
func TestOddManifests(t *testing.T) {
	cases := []struct {
		name     string
		manifest checkpoint.Manifest
		is       error
		want     string
	}{
		{"newer", checkpoint.Manifest{Schema: checkpoint.Schema + 1}, checkpoint.ErrNewerSchema, "its schema is 2, this program knows up to 1, use the version that wrote it or a later one"},
		{"no schema", checkpoint.Manifest{}, checkpoint.ErrDamaged, "its schema is 0, want at least 1"},
		{"path", checkpoint.Manifest{Schema: 1, Files: []checkpoint.Record{{Name: "../x"}}}, checkpoint.ErrDamaged, `file name "../x": want a path inside`},
		{"twice", checkpoint.Manifest{Schema: 1, Files: []checkpoint.Record{{Name: "x"}, {Name: "x"}}}, checkpoint.ErrDamaged, `file name "x" occurs twice`},
		{"negative size", checkpoint.Manifest{Schema: 1, Files: []checkpoint.Record{{Name: "config.json", Size: -1}}}, checkpoint.ErrDamaged, `has 11 bytes, want -1`},
	}
	for _, c := range cases {
		dir := save(t, 1)
		content, err := checkpoint.EncodeManifest(c.manifest)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, checkpoint.ManifestName), content, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := checkpoint.Open(dir); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestSkipAbove(t *testing.T) {
	dir := save(t, 1)
	path := filepath.Join(dir, "model.safetensors")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[7] ^= 1
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Open(dir); !errors.Is(err, checkpoint.ErrDamaged) {
		t.Errorf("got %v, want %v", err, checkpoint.ErrDamaged)
	}
	f, err := checkpoint.Options{SkipAbove: 1000}.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify("config.json"); err != nil {
		t.Error(err)
	}
	if err := f.Verify("model.safetensors"); !errors.Is(err, checkpoint.ErrDamaged) || !strings.Contains(err.Error(), "file model.safetensors has SHA-256") {
		t.Errorf("got %v, want %v", err, checkpoint.ErrDamaged)
	}
	if _, err := f.ReadFile("model.safetensors"); !errors.Is(err, checkpoint.ErrDamaged) {
		t.Errorf("got %v, want %v", err, checkpoint.ErrDamaged)
	}
	for _, err := range []error{
		f.Verify("no"),
		func() error { _, err := f.Path("no"); return err }(),
		func() error { _, err := f.ReadFile(checkpoint.ManifestName); return err }(),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %v", err, fs.ErrNotExist)
		}
	}
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := (checkpoint.Options{SkipAbove: 1000}).Open(dir); !errors.Is(err, checkpoint.ErrDamaged) {
		t.Errorf("a file that was cut: got %v, want %v", err, checkpoint.ErrDamaged)
	}
}

// TestExtraFiles: what somebody adds is not part of the checkpoint and does no harm.
func TestExtraFiles(t *testing.T) {
	dir := save(t, 1)
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir).Path("README.md"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}

// BenchmarkSaveAndOpen is what a checkpoint of 90 MB costs, on the disk and with all checksums.
func BenchmarkSaveAndOpen(b *testing.B) {
	content := noise(1, 90<<20)
	dir := filepath.Join(b.TempDir(), "checkpoint")
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		if err := checkpoint.Save(dir, checkpoint.Checkpoint{Files: []checkpoint.File{checkpoint.FromBytes("model.safetensors", content)}}); err != nil {
			b.Fatal(err)
		}
		if _, err := checkpoint.Open(dir); err != nil {
			b.Fatal(err)
		}
	}
}

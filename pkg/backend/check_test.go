package backend_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/backend"
)

// A plugin that cannot be used is an error that says which file, what is wrong and what to do; nothing crashes.
func TestBadPlugins(t *testing.T) {
	good := goodLibrary(t)
	plugin := good.bytes(t)
	with := func(change func(*library)) []byte {
		l := good
		change(&l)
		return l.bytes(t)
	}
	patched := func(at int, value any) []byte {
		content := bytes.Clone(plugin)
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, value); err != nil {
			t.Fatal(err)
		}
		copy(content[at:], b.Bytes())
		return content
	}
	other := elf.EM_AARCH64
	if good.machine == other {
		other = elf.EM_X86_64
	}
	// A copy of the file as a download leaves it that stopped half-way, at several places.
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "is empty"},
		{"text", []byte("<html>404 not found</html>"), `is not a shared library: it begins with "<html>40"`},
		{"short text", []byte("no"), "is not a shared library"},
		{"zeros", make([]byte, 4096), "is not a shared library"},
		{"header cut", plugin[:40], "is truncated"},
		{"half", plugin[:len(plugin)/2], "is truncated"},
		{"last byte missing", plugin[:len(plugin)-1], "is truncated"},
		{"other machine", with(func(l *library) { l.machine = other }), "is made for another kind of machine: " + other.String()},
		{"32 bit", with(func(l *library) { l.class = elf.ELFCLASS32 }), "ELFCLASS32, want"},
		{"program", with(func(l *library) { l.kind = elf.ET_EXEC }), "is not a shared library but ET_EXEC"},
		{"object file", with(func(l *library) { l.kind = elf.ET_REL }), "is not a shared library but ET_REL"},
		{"other library", with(func(l *library) { l.symbol = "sqlite3_open" }), "does not export GetPjrtApi"},
		{"future libc", with(func(l *library) { l.glibc = "9.99" }), "needs glibc 9.99, but this system has"},
		{"segment beyond the end", patched(64+32, uint64(1<<40)), "is truncated: its headers describe"},
		{"segment overflow", patched(64+8, []uint64{1 << 63, 0, 0, 1 << 63}), "plugin"},
		{"section table beyond the end", patched(40, uint64(1<<40)), "is truncated or damaged"},
		{"many sections", patched(60, uint16(0xfff0)), "is truncated or damaged"},
		{"name table index", patched(62, uint16(77)), "is truncated or damaged"},
		{"passes all checks", with(func(l *library) { l.glibc = "2.2.5" }), "does not load on this machine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pjrt_c_api_cpu_plugin.so")
			if err := os.WriteFile(path, test.content, 0o666); err != nil {
				t.Fatal(err)
			}
			engine, _, err := backend.Open(t.Context(), backend.Options{Config: "xla:" + path})
			if err == nil || engine != nil {
				t.Fatalf("got backend %v, want an error", engine)
			}
			text := err.Error()
			if !strings.Contains(text, test.want) || !strings.Contains(text, path) {
				t.Errorf("error is\n%s\nwant the path and %q", text, test.want)
			}
			if strings.Count(text, "; ") == 0 {
				t.Errorf("error says nothing about what to do: %s", text)
			}
			if strings.ContainsAny(text, "\n") {
				t.Errorf("error has several lines: %q", text)
			}
		})
	}
}

func TestPluginPathIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ name, path, want string }{
		{"missing", filepath.Join(dir, "none.so"), "does not exist; get one with `elastic backend install`"},
		{"folder", dir, "is not a file"},
		{"dangling link", link(t, filepath.Join(dir, "gone"), filepath.Join(dir, "link.so")), "does not exist"},
		{"device", "/dev/zero", "is not a file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := backend.Open(t.Context(), backend.Options{Config: "xla:" + test.path})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

func link(t *testing.T, target, name string) string {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
	return name
}

// FuzzPlugin feeds damaged libraries to the checks that are made before loading.
func FuzzPlugin(f *testing.F) {
	var t testing.T
	l := goodLibrary(&t)
	f.Add(l.bytes(&t))
	l.glibc = "2.17"
	f.Add(l.bytes(&t))
	path := filepath.Join(f.TempDir(), "plugin.so")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := backend.CheckPlugin(t.Context(), path); err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("error does not name the file: %v", err)
		}
	})
}

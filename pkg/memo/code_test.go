package memo

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// workspace is a program in a module of its own that sees another one through go.work, as the cells of a notebook do.
var workspace = map[string]string{
	"go.work":                 "go 1.26\nuse ./cell\nuse ./lib\n",
	"cell/go.mod":             "module cell\n\ngo 1.26\n",
	"lib/go.mod":              "module example.org/lib\n\ngo 1.26\n\nrequire github.com/gofrs/flock v0.0.1\n",
	"lib/net/net.go":          "package net\n\nimport (\n\"example.org/lib/deep\"\n_ \"github.com/gofrs/flock\"\n)\n\nfunc Train() { deep.Dig() }\n",
	"lib/net/x_test.go":       "package net\n",
	"lib/deep/deep.go":        "package deep\n\nimport _ \"embed\"\n\n//go:embed presets\nvar presets string\n\nfunc Dig() {}\n",
	"lib/deep/presets/a.json": "{}",
	"lib/deep/fast.cc":        "int fast() { return 1; }\n",
	"lib/deep/fast.syso":      "\x7fELF 1",
	"cell/more.cpp":           "int more() { return 1; }\n",
	"lib/other/other.go":      "package other\n\nfunc Draw() {}\n",
	"cell/main.go": `package main

import (
	"example.org/lib/net"
	"example.org/lib/other"
)

const steps = 3 // of training

type config struct{ rate float64 }

func (c config) scaled() float64 { return factor * c.rate }

var factor = 2.0

var unrelated = 1

func train() float64 {
	net.Train()
	return config{rate: steps}.scaled()
}

func draw() { other.Draw() }

func main() {
	memo(func() { train() })
	draw()
}
`,
}

// write writes files that are older than the program, and returns the folder, whose name is no pattern.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "[1]*")
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// codeOf returns the parts of the function literal in main.
func codeOf(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	t.Setenv("GOWORK", "")
	dir := write(t, files)
	before, _, found := strings.Cut(files["cell/main.go"], "memo(")
	if !found {
		t.Fatal("no call")
	}
	s := &source{parts: map[string]string{}, built: time.Now().Add(time.Hour), seen: map[string]bool{}}
	if err := s.function(filepath.Join(dir, "cell", "main.go"), strings.Count(before, "\n")+1); err != nil {
		t.Fatal(err)
	}
	return s.parts
}

func TestCodeParts(t *testing.T) {
	got := slices.Sorted(maps.Keys(codeOf(t, workspace)))
	want := []string{"const steps", "func config.scaled", "func train", "function literal", "go.mod",
		"package example.org/lib/deep", "package example.org/lib/net", "sources that are not in Go", "type config", "var factor"}
	if !slices.Equal(got, want) {
		t.Errorf("parts %q,\nwant %q", got, want)
	}
}

func TestCodeChanges(t *testing.T) {
	was := codeOf(t, workspace)
	for _, test := range []struct {
		file, old, new string
		want           string // the parts that differ
	}{
		{"cell/main.go", "steps = 3", "steps = 4", "const steps"},
		{"cell/main.go", "factor * c.rate", "c.rate", "func config.scaled, var factor (gone)"},
		{"cell/main.go", "factor = 2.0", "factor = 3.0", "var factor"},
		{"cell/main.go", "struct{ rate float64 }", "struct{ rate, decay float64 }", "type config"},
		{"cell/main.go", "{ train() }", "{ train(); train() }", "function literal"},
		{"lib/net/net.go", "deep.Dig()", "deep.Dig(); deep.Dig()", "package example.org/lib/net"},
		{"lib/deep/deep.go", "Dig() {}", "Dig() { println() }", "package example.org/lib/deep"},
		{"lib/deep/presets/a.json", "{}", "{} ", "package example.org/lib/deep"},
		{"lib/deep/fast.cc", "return 1", "return 2", "package example.org/lib/deep"},
		{"lib/deep/fast.syso", "ELF 1", "ELF 2", "package example.org/lib/deep"},
		{"cell/more.cpp", "return 1", "return 2", "sources that are not in Go"},
		{"lib/go.mod", "v0.0.1", "v0.0.2", "go.mod"},
		{"cell/go.mod", "go 1.26", "go 1.26\nrequire example.org/more v1.0.0", "go.mod"},
		// What does not count.
		{"cell/go.mod", "module cell", "module cell_of_another_kernel", ""},
		{"cell/main.go", "	\"example.org/lib/other\"\n", "	\"example.org/lib/other\"\n	\"example.org/more\"\n", ""},
		{"cell/main.go", "// of training", "// updates\n\n\n", ""},
		{"cell/main.go", "unrelated = 1", "unrelated = 2", ""},
		{"cell/main.go", "{ other.Draw() }", "{ other.Draw(); other.Draw() }", ""},
		{"cell/main.go", "	draw()\n}", "	draw()\n	draw()\n}", ""},
		{"cell/main.go", "	net.Train()\n", "\n	// learns\n	net.Train()\n", ""},
		{"lib/other/other.go", "Draw() {}", "Draw() { println() }", ""},
		{"lib/net/x_test.go", "package net", "package net // tests", ""},
	} {
		files := maps.Clone(workspace)
		files[test.file] = strings.Replace(files[test.file], test.old, test.new, 1)
		if files[test.file] == workspace[test.file] {
			t.Fatalf("%q is not in %s", test.old, test.file)
		}
		if got := differing(was, codeOf(t, files)); got != test.want {
			t.Errorf("%s: %q in place of %q changes %q, want %q", test.file, test.new, test.old, got, test.want)
		}
	}
}

func TestSourceThatIsNewer(t *testing.T) {
	dir := write(t, workspace)
	s := &source{parts: map[string]string{}, built: time.Now().Add(-time.Hour), seen: map[string]bool{}}
	if err := s.function(filepath.Join(dir, "cell", "main.go"), 27); err != errNoSource {
		t.Errorf("error %v, want that there is no source of this program", err)
	}
}

func named() (int, error) { return steps(), nil }

func steps() int { return 3 }

func TestIdentifyOwn(t *testing.T) {
	parts, err := identify(named)
	if err != nil {
		t.Fatal(err)
	}
	if parts[executable] == "" { // else the test program was built without its sources
		for _, want := range []string{"func named", "func steps", "go"} {
			if parts[want] == "" {
				t.Errorf("no %s in %v", want, parts)
			}
		}
	}
	if parts, err = identify(strings.ToUpper); err != nil || parts["go"]+parts[executable] == "" {
		t.Errorf("%v, %v", parts, err)
	}
}

package export_test

import (
	"bytes"
	"fmt"
	"go/format"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/export"
)

const notebooks = "../../../notebooks"

// build exports a notebook and builds the program.
func build(t *testing.T, n *nb.Notebook, file string) (program string) {
	t.Helper()
	text, err := export.Program(n, filepath.Join(notebooks, file))
	if err != nil {
		t.Fatal(err)
	}
	if formatted, err := format.Source(text); err != nil || !bytes.Equal(formatted, text) {
		t.Errorf("the program is not formatted: %v", err)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, text, 0o644); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "program")
	if out, err := exec.Command("go", "build", "-ldflags=-s", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, text)
	}
	return program
}

// run runs a program in the folder of the notebooks.
func run(program string, args ...string) (string, error) {
	command := exec.Command(program, args...)
	command.Dir = notebooks
	command.Env = append(os.Environ(), "GOMLX_BACKEND=go")
	out, err := command.CombinedOutput()
	return string(out), err
}

// TestNumbers: the program of the notebook on the theory prints the numbers of the notebook's saved outputs, which were
// computed on the same backend, and others for another seed.
func TestNumbers(t *testing.T) {
	const file = "02-attention-pooling.ipynb"
	n, err := nb.ReadFile(filepath.Join(notebooks, file))
	if err != nil {
		t.Fatal(err)
	}
	program := build(t, n, file)
	out, err := run(program)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, got := n.Results(), nb.ParseResults(out)
	if len(want) == 0 || len(got) != len(want) {
		t.Errorf("%d results, want %d\n%s", len(got), len(want), out)
	}
	for name, value := range want {
		if !(math.Abs(got[name]-value) <= 1e-6) {
			t.Errorf("%s = %g, want %g", name, got[name], value)
		}
	}
	other, err := run(program, "-seed", "2")
	if err != nil || nb.ParseResults(other)["loss_after"] == want["loss_after"] {
		t.Errorf("another seed: error %v\n%s", err, other)
	}
}

// TestProgram has what the notebooks of the house do not have.
func TestProgram(t *testing.T) {
	n := &nb.Notebook{Cells: []*nb.Cell{
		{Kind: nb.Markdown, Source: "# Title\n\ntext */ with // signs"},
		{Kind: nb.Code, Source: "%noautoget\nimport \"strings\"\nfunc init_once() { fmt.Println(\"once\") }\nvar _ = 1\nvar _ = 2"},
		{Kind: nb.Code, Metadata: map[string]any{"tags": []any{"parameters"}}, Source: `var (
	depth = must.M1(nb.Param("MAX_DEPTH", 3)); rate = must.M1(nb.Param("RATE", 0.5)) // of learning
	name = must.M1(nb.Param("NAME", "a\"b"))
	deep = depth * 2
)`},
		{Kind: nb.Code, Source: "%%\nfmt.Println(strings.ToUpper(name), depth, rate, deep)"},
		{Kind: nb.Code, Source: "%%\npanic(1)", Metadata: map[string]any{"tags": []any{"raises-exception"}}},
		{Kind: nb.Code, Source: "import m \"math\"\nfunc main() { fmt.Println(\"result: pi=\", m.Pi) }"},
		{Kind: nb.Code, Source: "func cell03() {}\nfunc TestDepth(t *testing.T) { if depth > 5 { t.Error(\"too deep\") } }\n%test"},
		{Kind: nb.Code, Source: ""},
		{Kind: nb.Raw, Source: "left out"},
	}}
	program := build(t, n, "x.ipynb")
	for _, test := range []struct {
		args []string
		want string
		fail bool
	}{
		{nil, "once\nA\"B 3 0.5 6\nresult: pi= 3.141592653589793\nPASS\n", false},
		{[]string{"-max-depth", "4", "-rate=1", "-name", "z"}, "once\nZ 4 1 8\n", false},
		{[]string{"-max-depth", "6"}, "too deep", true},
		{[]string{"-max-depth", "x"}, "invalid value", true},
		{[]string{"-h"}, "of learning", false},
	} {
		out, err := run(program, test.args...)
		if (err != nil) != test.fail || !strings.Contains(out, test.want) {
			t.Errorf("%v: error %v, output %q, want %q", test.args, err, out, test.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for source, want := range map[string]string{
		"%%bash\nls":              "cell 1: %%bash is for another program",
		"%env A=1":                "cell 1: %env is a command to the kernel",
		"%% -flag\nf()":           "its main part has arguments (-flag)",
		"func f() { println(1) }": "cell 1: declares f again, which cell 0 declares differently",
		"func (":                  "cell 1: line 1:",
		`var w = must.M1(nb.Param("W", time.Second))`: "parameter W has a default that is no plain number",
	} {
		n := &nb.Notebook{Cells: []*nb.Cell{{Kind: nb.Code, Source: "func f() {}"}, {Kind: nb.Code, Source: source}}}
		if _, err := export.Program(n, "x.ipynb"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", source, err, want)
		}
	}
}

func ExampleProgram() {
	n := &nb.Notebook{Cells: []*nb.Cell{
		{Kind: nb.Markdown, Source: "# Doubling"},
		{Kind: nb.Code, Source: "%noautoget\nfunc double(x int) int { return 2 * x }"},
		{Kind: nb.Code, Source: "%%\nfmt.Println(double(21))"},
	}}
	program, err := export.Program(n, "01-doubling.ipynb")
	if err != nil {
		panic(err)
	}
	fmt.Print(string(program))
	// Output:
	// // Command doubling is the notebook 01-doubling.ipynb as a program: its cells in their order, its parameters as flags.
	// // Run it in the notebook's folder, where it finds what the notebook finds. Made by "elastic nb export".
	// package main
	//
	// import "fmt"
	//
	// // # Doubling
	//
	// func double(x int) int { return 2 * x }
	//
	// func cell02() {
	// 	fmt.Println(double(21))
	// }
	//
	// func main() {
	// 	cell02()
	// }
}

package nb_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/elastic-attention/workbench/pkg/nb"
)

func TestProgram(t *testing.T) {
	cell := nb.Cell{Kind: nb.Code, Source: `%noautoget
!*test -e go.work || \
  go work init
import (
	"fmt"
	m "math"
)

// a is first.
var a, b = 1, 2 // and b

// T has a method.
type T[X any] struct{}

func (t *T[X]) Do() {}

%% --steps 3
// Says it.
fmt.Println(a, m.Pi)
%env X=1`}
	got, err := cell.Program()
	if err != nil {
		t.Fatal(err)
	}
	main := "// Says it.\nfmt.Println(a, m.Pi)"
	want := &nb.Program{
		Commands: []nb.Command{{1, "%noautoget"}, {2, "!*test -e go.work ||    go work init"}, {20, "%env X=1"}},
		Imports:  []nb.Import{{5, "", "fmt"}, {6, "m", "math"}},
		Decls: []nb.Decl{
			{Line: 10, Names: []string{"a", "b"}, Text: "// a is first.\nvar a, b = 1, 2 // and b"},
			{Line: 13, Names: []string{"T"}, Text: "// T has a method.\ntype T[X any] struct{}"},
			{Line: 15, Names: []string{"T.Do"}, Text: "func (t *T[X]) Do() {}"},
		},
		Main: &main, MainLine: 18, Args: "--steps 3",
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(nb.Decl{}, "Node", "start")); diff != "" {
		t.Errorf("program (-want +got):\n%s", diff)
	}
}

func TestProgramKinds(t *testing.T) {
	for _, test := range []struct {
		source string
		check  func(*nb.Program) bool
	}{
		{"%%bash\nls", func(p *nb.Program) bool { return p.Magic == "%%bash" && p.Main == nil }},
		{"func TestX(t *testing.T) {}\n%test", func(p *nb.Program) bool { return p.Test && p.Decls[0].Names[0] == "TestX" }},
		{"func main() { println(1) }", func(p *nb.Program) bool { return *p.Main == " println(1) " && len(p.Decls) == 0 }},
		{"//gonb:%%\nprintln(1)", func(p *nb.Program) bool { return *p.Main == "println(1)" }},
		{"%%", func(p *nb.Program) bool { return *p.Main == "" }},
		{"import \"fmt\"", func(p *nb.Program) bool { return p.Main == nil && len(p.Imports) == 1 }},
		{"", func(p *nb.Program) bool { return p.Main == nil }},
	} {
		p, err := (&nb.Cell{Kind: nb.Code, Source: test.source}).Program()
		if err != nil || !test.check(p) {
			t.Errorf("%q: %+v, error %v", test.source, p, err)
		}
	}
	for _, test := range []struct{ source, want string }{
		{"var = 3", "line 1:5: "}, {"%noautoget\n\nfunc f( {}", "line 3:9: "}, {"%%\nx := ", "line 3:1: "},
	} {
		if _, err := (&nb.Cell{Kind: nb.Code, Source: test.source}).Program(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: error %v, want %q", test.source, err, test.want)
		}
	}
}

func goNotebook(cells ...*nb.Cell) *nb.Notebook {
	return &nb.Notebook{Cells: cells, Minor: 5, Metadata: map[string]any{"kernelspec": map[string]any{"name": "gonb", "language": "go", "display_name": "Go (gonb)"}}}
}

func parameters(source string) *nb.Cell {
	return &nb.Cell{Kind: nb.Code, ID: "p", Source: source, Metadata: map[string]any{"tags": []any{"parameters"}}}
}

func TestParams(t *testing.T) {
	notebook := goNotebook(parameters(`var (
	steps = must.M1(nb.Param("STEPS", 160))      // updates
	seed  = must.M1(nb.Param("SEED", uint64(1)))
	rate  = must.M1(nb.Param("RATE", -2e-4))
	name  = must.M1(nb.Param("NAME", "a"))
	on    = must.M1(nb.Param("ON", true))
	wait  = must.M1(nb.Param("WAIT", time.Second))
	other = 3
)`))
	got, err := notebook.Params()
	if err != nil {
		t.Fatal(err)
	}
	want := []nb.Param{
		{Name: "STEPS", Variable: "steps", Type: "int", Default: "160", Comment: "updates"}, {Name: "SEED", Variable: "seed", Type: "uint64", Default: "1"},
		{Name: "RATE", Variable: "rate", Type: "float64", Default: "-2e-4"}, {Name: "NAME", Variable: "name", Type: "string", Default: `"a"`},
		{Name: "ON", Variable: "on", Type: "bool", Default: "true"}, {Name: "WAIT", Variable: "wait"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(nb.Param{}, "Value")); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	if err := notebook.CheckParams(map[string]string{"STEPS": "20", "SEED": "", "RATE": "1", "NAME": "1.5", "ON": "false", "WAIT": "x"}); err != nil {
		t.Error(err)
	}
	for name, test := range map[string]struct{ value, want string }{
		"STEPS": {"1.5", `parameter STEPS is "1.5", want a value like 160 (int)`},
		"SEED":  {"-1", "want a value like 1 (uint64)"},
		"ON":    {"yes", "(bool)"},
		"STEP":  {"1", "no parameter STEP; there are STEPS, SEED"},
	} {
		if err := notebook.CheckParams(map[string]string{name: test.value}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s=%s: error %v, want %q", name, test.value, err, test.want)
		}
	}
	if err := goNotebook().CheckParams(map[string]string{"A": "1"}); err == nil || !strings.Contains(err.Error(), "no cell with the tag") {
		t.Errorf("error %v", err)
	}
}

func ExampleNotebook_Params() {
	notebook, err := nb.ReadFile("../../notebooks/02-attention-pooling.ipynb")
	if err != nil {
		panic(err)
	}
	params, err := notebook.Params()
	if err != nil {
		panic(err)
	}
	for _, p := range params {
		fmt.Printf("%s %s = %s: %s\n", nb.ParamEnv(p.Name), p.Type, p.Default, p.Comment)
	}
	// Output: NB_SEED uint64 = 1: of weights and features
}

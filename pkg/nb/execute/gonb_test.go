//go:build selftest

package execute_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/execute"
	"github.com/elastic-attention/workbench/pkg/nb/export"
)

// first is the first code cell; the kernel sees this module.
const first = "%noautoget\nimport \"fmt\""

// goNotebook writes a notebook for the real kernel.
func goNotebook(t *testing.T, house map[string]any, cells ...string) string {
	t.Helper()
	n := &nb.Notebook{Minor: 5, Metadata: map[string]any{"kernelspec": map[string]any{"name": "gonb", "language": "go", "display_name": "Go (gonb)"}}}
	n.Metadata["workbench"] = map[string]any{"cell_timeout": 60}
	for name, value := range house {
		n.Metadata["workbench"].(map[string]any)[name] = value
	}
	for i, source := range append([]string{first}, cells...) {
		c := &nb.Cell{Kind: nb.Code, ID: fmt.Sprint("c", i), Source: source}
		for _, tag := range []string{nb.RaisesTag, nb.ParametersTag} {
			if source, ok := strings.CutPrefix(c.Source, tag+" "); ok {
				c.Source, c.Metadata = source, map[string]any{"tags": []any{tag}}
			}
		}
		n.Cells = append(n.Cells, c)
	}
	path := filepath.Join(t.TempDir(), "case.ipynb")
	if err := n.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// inPython runs a notebook by nbclient.
func inPython(t *testing.T, path string, params map[string]string) execute.Report {
	t.Helper()
	args := []string{"../../../tools/nbrun.py", "--out", t.TempDir(), path}
	for name, value := range params {
		args = append(args, "-p", name+"="+value)
	}
	python := os.Getenv("NBRUN_PYTHON")
	if python == "" {
		t.Fatal("NBRUN_PYTHON is not set; run tools/notebooks.sh --selftest")
	}
	out, err := exec.Command(python, args...).Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	var report struct {
		execute.Report
		Results map[string]any
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("nbrun.py said %q: %v", out, err)
	}
	report.Report.Results = map[string]float64{}
	for name, value := range report.Results {
		number, err := strconv.ParseFloat(fmt.Sprint(value), 64)
		if err != nil {
			t.Fatal(err)
		}
		report.Report.Results[name] = number
	}
	return report.Report
}

// inBoth runs a notebook here and in Python, which must agree.
func inBoth(t *testing.T, path string, params map[string]string) (*nb.Notebook, execute.Report) {
	t.Helper()
	n, report, err := execute.Run(t.Context(), path, execute.Options{Params: params})
	if err != nil {
		t.Fatal(err)
	}
	python := inPython(t, path, params)
	if python.OK != report.OK {
		t.Errorf("passed: %v here, %v in Python\n%q\n%q", report.OK, python.OK, report.Errors, python.Errors)
	}
	same := cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })
	if diff := cmp.Diff(python.Results, report.Results, same); diff != "" {
		t.Errorf("results (-Python +here):\n%s", diff)
	}
	return n, report
}

func TestGoNBGood(t *testing.T) {
	n, report := inBoth(t, goNotebook(t, map[string]any{"expect": map[string]any{"half": []any{0.5, 0}, "count": []any{3.2, 0.25}}},
		"%%\nfmt.Println(\"result: half=0.5\")\nfmt.Println(\"result: count=3\")",
		`import "github.com/elastic-attention/workbench/pkg/viz"
%%
svg, err := viz.Curves("t", "x", "y", viz.Series{Name: "a", X: []float64{0, 1}, Y: []float64{1, 2}})
fmt.Println(len(svg) > 0, err)`,
		"import \"testing\"\nfunc TestFine(t *testing.T) {}\n%test",
		`import "github.com/elastic-attention/workbench/pkg/viz/nb"
%%
nb.Markdown("**bold**")
live := nb.NewLive()
for i := range 3 { live.Update(func() string { return fmt.Sprint("step ", i) }) }
live.Done(func() string { return "<p>final</p>" })`,
		"raises-exception %%\npanic(\"shown on purpose\")"), nil)
	if !report.OK || !report.Compared {
		t.Fatalf("report %+v", report)
	}
	var shown []any
	for _, o := range n.Cells[4].Outputs {
		for _, value := range o.Data {
			shown = append(shown, value)
		}
	}
	if diff := cmp.Diff([]any{"**bold**", "<p>final</p>"}, shown); diff != "" { // headless: the final picture only
		t.Errorf("displays (-want +got):\n%s", diff)
	}
	for i, c := range n.Cells {
		if c.Count != i+1 {
			t.Errorf("cell %d has the count %d", i, c.Count)
		}
	}
}

func TestGoNBFailures(t *testing.T) {
	for name, test := range map[string]struct {
		house map[string]any
		cells []string
		want  []string
	}{
		"panic":          {nil, []string{"%%\npanic(\"boom\")", "%%\nfmt.Println(\"later\")"}, []string{"cell 1: exit status 2", "boom"}},
		"exit":           {nil, []string{"%%\nfmt.Fprint(os.Stderr, \"last words\")\nos.Exit(3)"}, []string{"cell 1: ", "exit status 3", "last words"}},
		"signal":         {nil, []string{"%%\nsyscall.Kill(os.Getpid(), syscall.SIGKILL)\nselect {}"}, []string{"cell 1: ", "signal: killed"}},
		"test":           {nil, []string{"import \"testing\"\nfunc TestWrong(t *testing.T) { t.Error(\"one is not two\") }\n%test"}, []string{"cell 1: exit status 1", "one is not two"}},
		"missing import": {nil, []string{"import \"example.invalid/nothing\"\n%%\nnothing.Do()"}, []string{"cell 1: ", "example.invalid/nothing"}},
		"compile error":  {nil, []string{"%%\nvar x int = \"text\"\nfmt.Println(x)"}, []string{"cell 1: does not compile", "cannot use"}},
		"no raise":       {nil, []string{"raises-exception %%\nfmt.Println(1)"}, []string{"cell 1: was expected to fail"}},
		"moved":          {map[string]any{"expect": map[string]any{"f1": []any{0.75, 0.01}}}, []string{"%%\nfmt.Println(\"result: f1=0.70\")"}, []string{"f1 = 0.7, want 0.75 within 0.01"}},
		"not a number":   {map[string]any{"expect": map[string]any{"f1": []any{0.75, 1}}}, []string{"%%\nfmt.Println(\"result: f1=NaN\")"}, []string{"f1 = NaN"}},
		"not printed":    {map[string]any{"expect": map[string]any{"f1": []any{0.75, 1}}}, []string{"%%\nfmt.Println(1)"}, []string{`"f1" was not printed`}},
		"budget":         {map[string]any{"budget": 3}, []string{"%%\ntime.Sleep(4 * time.Second)", "%%\nfmt.Println(1)"}, []string{"budget of 3 s is spent"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, report := inBoth(t, goNotebook(t, test.house, test.cells...), nil)
			if report.OK {
				t.Fatalf("report %+v", report)
			}
			for _, want := range test.want {
				if !strings.Contains(strings.Join(report.Errors, "\n"), want) {
					t.Errorf("errors %q, want %q", report.Errors, want)
				}
			}
		})
	}
}

// TestGoNBHang: a cell that hangs is interrupted, one that ignores that is killed, and neither program is left.
func TestGoNBHang(t *testing.T) {
	for name, test := range map[string]struct{ before, want string }{
		"hang":     {"", "the cell was interrupted"},
		"stubborn": {"signal.Ignore(os.Interrupt)\n", "no end after 12 s"},
	} {
		t.Run(name, func(t *testing.T) {
			pid := filepath.Join(t.TempDir(), "pid")
			path := goNotebook(t, map[string]any{"cell_timeout": 12}, "%%\nfmt.Println(\"warm\")",
				fmt.Sprintf("%%%%\n%sos.WriteFile(%q, []byte(fmt.Sprint(os.Getpid())), 0o600)\nfor { time.Sleep(time.Second) }", test.before, pid))
			_, report := inBoth(t, path, nil)
			if report.OK || !strings.Contains(report.Errors[0], "cell 2: no end after 12 s") || !strings.Contains(report.Errors[0], test.want) {
				t.Errorf("report %+v", report)
			}
			text, err := os.ReadFile(pid)
			if err != nil {
				t.Fatal(err)
			}
			if id, err := strconv.Atoi(string(text)); err != nil || alive(id) {
				t.Errorf("program %q outlives its notebook (%v)", text, err)
			}
		})
	}
}

// alive reports whether a process runs. One that ended and that nobody has waited for does not.
func alive(pid int) bool {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		_, state, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(state, "Z")
	}
	if _, err := os.Stat("/proc/self"); err == nil {
		return false
	}
	return syscall.Kill(pid, 0) == nil
}

func TestGoNBParameters(t *testing.T) {
	path := goNotebook(t, map[string]any{"expect": map[string]any{"steps": []any{300, 0}}},
		`parameters import (
	"github.com/elastic-attention/workbench/pkg/viz/nb"
	"github.com/janpfeifer/must"
)
var steps = must.M1(nb.Param("STEPS", 300))`,
		"%%\nfmt.Printf(\"result: steps=%d\\n\", steps)")
	_, report := inBoth(t, path, map[string]string{"STEPS": "7"})
	if !report.OK || report.Compared || report.Results["steps"] != 7 {
		t.Errorf("report %+v", report)
	}
	if _, report := inBoth(t, path, nil); !report.OK {
		t.Errorf("report %+v", report)
	}
	if _, _, err := execute.Run(t.Context(), path, execute.Options{Params: map[string]string{"STEP": "7"}}); err == nil || !strings.Contains(err.Error(), "there are STEPS") {
		t.Errorf("error %v", err)
	}
}

// TestGoNBWhole: the template passes the check before and after it was executed, two executions have the same outputs, and
// the program made of it prints the same numbers.
func TestGoNBWhole(t *testing.T) {
	dir, err := os.MkdirTemp("../../../notebooks", ".selftest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "a.ipynb")
	if err := nb.New("a.ipynb", "A question").WriteFile(path); err != nil {
		t.Fatal(err)
	}
	once, report := inBoth(t, path, nil)
	if !report.OK {
		t.Fatalf("report %+v", report)
	}
	twice, _, err := execute.Run(t.Context(), path, execute.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range nb.Diff(once, twice, true) {
		t.Errorf("executed twice: %v", change)
	}
	if err := once.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	for _, err := range nb.Check(path) {
		t.Error(err)
	}
	program, err := export.Program(once, path)
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(source, program, 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("go", "run", source)
	command.Dir = dir
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(report.Results, nb.ParseResults(string(out))); diff != "" {
		t.Errorf("results (-notebook +program):\n%s", diff)
	}
}

package execute_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/fakekernel"
	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/execute"
)

func TestMain(m *testing.M) {
	fakekernel.Main()
	os.Exit(m.Run())
}

// write writes a notebook of cells in the language of package fakekernel.
func write(t *testing.T, house map[string]any, cells ...string) string {
	t.Helper()
	n := &nb.Notebook{Minor: 5, Metadata: map[string]any{"kernelspec": map[string]any{"name": "fake", "language": "fake", "display_name": "fake"}}}
	if house != nil {
		n.Metadata["workbench"] = house
	}
	for i, source := range cells {
		c := &nb.Cell{Kind: nb.Code, ID: fmt.Sprint("c", i), Source: source}
		if source, ok := strings.CutPrefix(source, "RAISES "); ok {
			c.Source, c.Metadata = source, map[string]any{"tags": []any{"raises-exception"}}
		}
		n.Cells = append(n.Cells, c)
	}
	path := filepath.Join(t.TempDir(), "case.ipynb")
	if err := n.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t *testing.T, ctx context.Context, o execute.Options, path string) (*nb.Notebook, execute.Report) {
	t.Helper()
	spec := fakekernel.Spec()
	if o.Spec = &spec; o.Grace == 0 {
		o.Grace = time.Minute // however slow the machine is
	}
	n, report, err := execute.Run(ctx, path, o)
	if err != nil {
		t.Fatal(err)
	}
	return n, report
}

func TestGood(t *testing.T) {
	path := write(t, map[string]any{"expect": map[string]any{"half": []any{0.5, 0.0}}}, "print result: half=0.5\nprint result: count=3\nprint 10%\r20%\r30%", "", "RAISES exit 2", "RAISES error on purpose")
	n, report := run(t, t.Context(), execute.Options{}, path)
	if !report.OK || !report.Compared || len(report.Cells) != 3 {
		t.Errorf("report %+v", report)
	}
	if diff := cmp.Diff(map[string]float64{"half": 0.5, "count": 3}, report.Results); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if got := n.Cells[0].Text("stdout"); got != "result: half=0.5\nresult: count=3\n30%\n" {
		t.Errorf("output %q", got)
	}
	if n.Cells[0].Count != 1 || n.Cells[2].Count != 2 {
		t.Errorf("counts %d and %d", n.Cells[0].Count, n.Cells[2].Count)
	}
}

func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		house map[string]any
		cells []string
		want  []string
	}{
		"exit":      {nil, []string{"print words", "print more\nwarn last\nexit 3", "print later"}, []string{"cell 1: exit status 3", "    more", "    last"}},
		"error":     {nil, []string{"error no such package"}, []string{"cell 0: does not compile", "no such package"}},
		"dead":      {nil, []string{"die"}, []string{"cell 0: the kernel died"}},
		"hang":      {map[string]any{"cell_timeout": 0.3}, []string{"hang", "print a"}, []string{"cell 0: no end after 0.3 s", "interrupted"}},
		"stubborn":  {map[string]any{"cell_timeout": 0.3}, []string{"stubborn"}, []string{"cell 0: no end after 0.3 s", "ignored the interrupt"}},
		"budget":    {map[string]any{"budget": 5.0}, []string{"hang"}, []string{"cell 0: the notebook's budget of 5 s is spent"}}, // of which the kernel's start is a part
		"no raise":  {nil, []string{"RAISES print fine"}, []string{"cell 0: was expected to fail"}},
		"moved":     {map[string]any{"expect": map[string]any{"f1": []any{0.75, 0.01}}}, []string{"print result: f1=0.70"}, []string{"f1 = 0.7, want 0.75 within 0.01"}},
		"not found": {map[string]any{"expect": map[string]any{"f1": []any{0.75, 0.01}}}, []string{"print x"}, []string{`"f1" was not printed`}},
		"nan":       {map[string]any{"expect": map[string]any{"f1": []any{0.75, 9.0}}}, []string{"print result: f1=NaN"}, []string{"f1 = NaN"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var o execute.Options
			if name == "stubborn" { // for which nobody waits longer
				o.Grace = 300 * time.Millisecond
			}
			_, report := run(t, t.Context(), o, write(t, test.house, test.cells...))
			if report.OK || len(report.Errors) != 1 {
				t.Fatalf("report %+v", report)
			}
			for _, want := range test.want {
				if !strings.Contains(report.Errors[0], want) {
					t.Errorf("error %q, want %q", report.Errors[0], want)
				}
			}
			if text, err := json.Marshal(report); err != nil || !json.Valid(text) || !strings.Contains(string(text), `"results":{`) {
				t.Errorf("JSON %s, %v", text, err)
			}
		})
	}
}

// TestCancelled: what there is when the context ends is kept.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := execute.Options{Cell: func(index int) {
		if index == 1 {
			time.AfterFunc(200*time.Millisecond, cancel)
		}
	}}
	n, report := run(t, ctx, o, write(t, nil, "print one", "print two\nhang", "print three"))
	if report.OK || !strings.Contains(report.Errors[0], "cell 1: context canceled; the cell was interrupted") {
		t.Errorf("report %+v", report)
	}
	if got := n.Cells[0].Text("stdout") + n.Cells[1].Text("stdout") + n.Cells[1].Text("stderr") + n.Cells[2].Text("stdout"); got != "one\ntwo\nsignal: interrupt\n" {
		t.Errorf("outputs %q", got)
	}
}

func TestParameters(t *testing.T) {
	path := write(t, map[string]any{"expect": map[string]any{"steps": []any{300, 0}}}, "print steps:\nenv NB_STEPS\nenv NB_HEADLESS")
	n, report := run(t, t.Context(), execute.Options{Params: map[string]string{"STEPS": "7"}}, path)
	if !report.OK || report.Compared || n.Cells[0].Text("stdout") != "steps:\n7\n1\n" {
		t.Errorf("report %+v, output %q", report, n.Cells[0].Text("stdout"))
	}
}

// TestLineEnds: a notebook that came from Windows runs as it does in a browser, which has one kind of line ends.
func TestLineEnds(t *testing.T) {
	n, report := run(t, t.Context(), execute.Options{}, write(t, nil, "print one\r\nprint two\r\n"))
	if got := n.Cells[0].Text("stdout"); !report.OK || got != "one\ntwo\n" || n.Cells[0].Source != "print one\r\nprint two\r\n" {
		t.Errorf("output %q, source %q", got, n.Cells[0].Source)
	}
}

func TestDisplays(t *testing.T) {
	n, _ := run(t, t.Context(), execute.Options{}, write(t, nil, "print gone\nclear\nshow a first\nshow b \nshow a second"))
	var got []any
	for _, o := range n.Cells[0].Outputs {
		got = append(got, o.Data["text/plain"])
	}
	if diff := cmp.Diff([]any{"second"}, got); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

func ExampleRun() {
	n, report, err := execute.Run(context.Background(), "notebooks/02-attention-pooling.ipynb", execute.Options{Params: map[string]string{"SEED": "2"}})
	if err != nil {
		return // no such notebook here, or no kernel
	}
	fmt.Println(report.OK, report.Results["loss_after"])
	_ = n.WriteFile("executed.ipynb")
}

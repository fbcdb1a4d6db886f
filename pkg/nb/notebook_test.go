package nb_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/nb"
)

// house returns the notebooks of this repository.
func house(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../../notebooks/*.ipynb")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no notebooks: %v", err)
	}
	return paths
}

// TestUnchanged: what Jupyter wrote, and what is in odd.ipynb, which Python's nbformat 5.11.1 wrote, comes back the same.
func TestUnchanged(t *testing.T) {
	for _, path := range append(house(t), "testdata/odd.ipynb") {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		notebook, err := nb.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := notebook.Write(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestOdd(t *testing.T) {
	notebook, err := nb.ReadFile("testdata/odd.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	code := notebook.Cells[0]
	if got, want := code.Source, "a\r\nb\vc\u2028d\n"; got != want {
		t.Errorf("source %q, want %q", got, want)
	}
	if got, want := code.Text("stdout"), "é\t\"\\\x01\x7f\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if !code.Tagged("parameters") || code.Tagged("other") {
		t.Errorf("tags %v", code.Metadata)
	}
	if got := code.Outputs[1].Data["image/svg+xml"]; got != "<svg>\n</svg>" {
		t.Errorf("picture %q", got)
	}
}

func TestBadNotebooks(t *testing.T) {
	const file = `{"cells": [%s], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}`
	for _, test := range []struct{ text, want string }{
		{`[`, "no JSON object"},
		{" \n", "it is empty, want a notebook"},
		{`{} {}`, "something follows"},
		{`{"nbformat": 3}`, "nbformat is 3, want 4"},
		{`{"nbformat": 4, "nbformat_minor": 5, "cells": []}`, "metadata is missing, want an object"},
		{`{"nbformat": 4.5, "nbformat_minor": 5, "cells": [], "metadata": {}}`, "nbformat is 4.5, want an integer"},
		{fmt.Sprintf(file, `3`), "cells[0] is number 3, want an object"},
		{fmt.Sprintf(file, `{"cell_type": "code"}`), "cells[0]: metadata is missing"},
		{fmt.Sprintf(file, `{"cell_type": "prose", "metadata": {}, "source": ""}`), `cells[0]: cell_type is "prose"`},
		{fmt.Sprintf(file, `{"cell_type": "markdown", "metadata": {}, "source": ["a", 1]}`), "cells[0]: source is a list, want a text"},
		{fmt.Sprintf(file, `{"cell_type": "code", "metadata": {}, "source": "", "execution_count": null, "outputs": [{"output_type": "stream", "name": 1}]}`),
			"cells[0].outputs[0]: name is number 1, want a text"},
		{fmt.Sprintf(file, `{"cell_type": "code", "metadata": {}, "source": "", "execution_count": null, "outputs": [{"output_type": "pyout"}]}`),
			`cells[0].outputs[0]: output_type is "pyout"`},
	} {
		if _, err := nb.Read(strings.NewReader(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.text, err, test.want)
		}
	}
	if _, err := nb.Read(strings.NewReader(`[]`)); err == nil || strings.Contains(err.Error(), "Go") {
		t.Errorf("a list: error %v, want one without types of Go", err)
	}
	if _, err := nb.ReadFile("testdata"); err == nil || !strings.Contains(err.Error(), "testdata is a folder, want a file, such as one of testdata/*.ipynb") {
		t.Errorf("a folder: error %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, path := range []string{"testdata/odd.ipynb"} {
		content, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		notebook, err := nb.Read(bytes.NewReader(content))
		if err != nil {
			return
		}
		var once, twice bytes.Buffer
		if err := notebook.Write(&once); err != nil {
			t.Fatal(err)
		}
		again, err := nb.Read(bytes.NewReader(once.Bytes()))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, once.Bytes())
		}
		if err := again.Write(&twice); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(once.Bytes(), twice.Bytes()) {
			t.Errorf("written twice:\n%s\n%s", once.Bytes(), twice.Bytes())
		}
	})
}

func TestPlan(t *testing.T) {
	read := func(house string) (nb.Plan, error) {
		t.Helper()
		notebook, err := nb.Read(strings.NewReader(`{"cells": [], "metadata": {"workbench": ` + house + `}, "nbformat": 4, "nbformat_minor": 5}`))
		if err != nil {
			t.Fatal(err)
		}
		return notebook.Plan()
	}
	got, err := read(`{"expect": {"f1": [0.5, 0.05]}, "budget": 600, "cell_timeout": 1.5, "measured": {"seconds": 90, "backend": "xla", "cores": 2}}`)
	want := nb.Plan{Expect: map[string][2]float64{"f1": {0.5, 0.05}}, Budget: 600, CellTimeout: 1.5, Measured: &nb.Measured{Seconds: 90, Backend: "xla", Cores: 2}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, plan (-want +got):\n%s", err, diff)
	}
	for _, test := range []struct{ house, want string }{
		{`3`, "metadata.workbench is number 3, want an object"},
		{`{"expects": {}}`, `unknown field "expects"`},
		{`{"expect": {"f1": 0.7}}`, `"f1" is 0.7, want [value, tolerance >= 0]`},
		{`{"expect": {"f1": [0.7, -1]}}`, "want [value, tolerance >= 0]"},
		{`{"expect": {"f1": [0.7, "x"]}}`, "want [value, tolerance >= 0]"},
		{`{"budget": "long"}`, "metadata.workbench.budget: "},
		{`{"budget": -1}`, "metadata.workbench.budget: it is -1, want seconds"},
	} {
		if _, err := read(test.house); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.house, err, test.want)
		}
	}
}

func TestCompare(t *testing.T) {
	plan := nb.Plan{Expect: map[string][2]float64{"f1": {0.75, 0.01}, "loss": {1, 100}, "recall": {1, 1}}}
	found := nb.ParseResults("result: f1=0.70\nresult: loss = NaN\nno result: recall=1\n")
	var got []string
	for _, err := range plan.Compare(found) {
		got = append(got, err.Error())
	}
	want := []string{"f1 = 0.7, want 0.75 within 0.01", "loss = NaN, want 1 within 100",
		`expected number "recall" was not printed; a cell must print "result: recall=<number>"`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("complaints (-want +got):\n%s", diff)
	}
}

func ExamplePlan_Markdown() {
	fmt.Println(nb.Plan{Expect: map[string][2]float64{"loss": {0.1, 0.02}, "f1": {0.5, 0.05}}, Budget: 600}.Markdown())
	// Output:
	// | number | expected | tolerance |
	// |---|---:|---:|
	// | f1 | 0.5 | ± 0.05 |
	// | loss | 0.1 | ± 0.02 |
	//
	// The headless runner stops the notebook after 600 s.
}

func ExampleReadFile() {
	notebook, err := nb.ReadFile("../../notebooks/02-attention-pooling.ipynb")
	if err != nil {
		panic(err)
	}
	plan, err := notebook.Plan()
	if err != nil {
		panic(err)
	}
	fmt.Println(len(plan.Compare(notebook.Results())), "numbers of the saved outputs are not as expected")
	// Output: 0 numbers of the saved outputs are not as expected
}

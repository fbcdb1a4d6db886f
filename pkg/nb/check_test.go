package nb_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/nb"
)

func TestHouseNotebooksPass(t *testing.T) {
	for _, path := range house(t) {
		for _, err := range nb.Check(path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// module makes a folder that is a module, with a folder for notebooks.
func module(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	const gomod = "module github.com/elastic-attention/workbench\n\ngo 1.26\n\nrequire github.com/janpfeifer/must v0.2.0\n"
	if err := os.WriteFile(filepath.Join(root, "go.mod"), []byte(gomod), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"notebooks", "pkg/viz/nb"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(root, "notebooks", "a.ipynb")
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*nb.Notebook)
		want   string
	}{
		{"as it is", func(*nb.Notebook) {}, ""},
		{"old format", func(n *nb.Notebook) { n.Minor = 4 }, "nbformat is 4.4"},
		{"kernel", func(n *nb.Notebook) { n.Metadata["kernelspec"] = map[string]any{"name": "python3"} }, "want name gonb"},
		{"plan", func(n *nb.Notebook) { n.Metadata["workbench"] = map[string]any{"expects": 1} }, `unknown field "expects"`},
		{"no numbers", func(n *nb.Notebook) { delete(n.Metadata, "workbench") }, "declares no number"},
		{"title", func(n *nb.Notebook) { n.Cells[0].Source = "Hello" }, "cell 0: is no text that begins with a title"},
		{"same ID", func(n *nb.Notebook) { n.Cells[3].ID = "c01" }, `cell 3: has the ID "c01", as cell 1`},
		{"bad ID", func(n *nb.Notebook) { n.Cells[3].ID = "a b" }, `has the ID "a b"`},
		{"path", func(n *nb.Notebook) { n.Cells[3].Source = "see /ho" + "me/me/data" }, "cell 3: names /ho" + "me/me/data"},
		{"formula", func(n *nb.Notebook) { n.Cells[3].Source = `a $\foo$` }, `cell 3: formula "\\foo": at byte 0: \foo is not known`},
		{"other plan", func(n *nb.Notebook) { n.Cells[4].Source = strings.Replace(n.Cells[4].Source, "a.ipynb", "b.ipynb", 1) }, `reads the plan of "b.ipynb"`},
		{"autoget", func(n *nb.Notebook) { n.Cells[2].Source = "import \"fmt\"" }, "cell 2: has no line %noautoget"},
		{"syntax", func(n *nb.Notebook) { n.Cells[6].Source = "func (" }, "cell 6: line 1:"},
		{"not pinned", func(n *nb.Notebook) { n.Cells[6].Source = "import \"example.com/x\"" }, "imports example.com/x, which go.mod does not pin"},
		{"no package", func(n *nb.Notebook) {
			n.Cells[6].Source = "import \"github.com/elastic-attention/workbench/pkg/none\""
		}, "no package of this module"},
		{"no parameter", func(n *nb.Notebook) { n.Cells[4].Source = "var x = 1" }, "reads none by nb.Param"},
		{"two cells", func(n *nb.Notebook) { n.Cells[6].Metadata = n.Cells[4].Metadata }, `2 cells have the tag "parameters"`},
		{"no test", func(n *nb.Notebook) { n.Cells[8].Source = "%%\nfmt.Println(1)" }, "cell 8: is the last code cell"},
		{"order", func(n *nb.Notebook) { n.Cells[2].Count, n.Cells[4].Count = 1, 3 }, "cell 4: has the execution count 3, want 2"},
		{"error", func(n *nb.Notebook) { n.Cells[6].Outputs = []*nb.Output{{Kind: nb.Error, Name: "E", Text: "v"}} }, "cell 6: ended with E: v"},
		{"stderr", func(n *nb.Notebook) {
			n.Cells[6].Outputs = []*nb.Output{{Kind: nb.Stream, Name: "stderr", Text: "v"}}
		}, "cell 6: wrote to standard error"},
		{"script", func(n *nb.Notebook) {
			n.Cells[6].Outputs = []*nb.Output{{Kind: nb.Display, Data: map[string]any{"text/html": "<script>x</script>"}}}
		}, "shows text/html with <script"},
		{"load", func(n *nb.Notebook) {
			n.Cells[6].Outputs = []*nb.Output{{Kind: nb.Display, Data: map[string]any{"text/html": `<img src="https://x/y.png">`}}}
		}, "shows text/html with src="},
		{"widget", func(n *nb.Notebook) {
			n.Cells[6].Outputs = []*nb.Output{{Kind: nb.Display, Data: map[string]any{"application/vnd.jupyter.widget-view+json": map[string]any{}}}}
		}, "without a kernel"},
		{"size", func(n *nb.Notebook) {
			n.Cells[6].Outputs = []*nb.Output{{Kind: nb.Stream, Name: "stdout", Text: strings.Repeat("x", 300<<10)}}
		}, "has outputs of 300 kB"},
		{"moved", func(n *nb.Notebook) {
			for i, c := range []int{2, 4, 6, 8} {
				n.Cells[c].Count = i + 1
			}
			n.Cells[8].Outputs = []*nb.Output{{Kind: nb.Stream, Name: "stdout", Text: "result: error=0.5\n"}}
		}, "saved outputs: error = 0.5, want 0 within 0.05"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := module(t)
			n := nb.New("a.ipynb", "A title")
			test.change(n)
			if err := n.WriteFile(path); err != nil {
				t.Fatal(err)
			}
			errs := nb.Check(path)
			if len(errs) == 0 && test.want != "" {
				t.Fatalf("no complaint, want %q", test.want)
			}
			if test.want == "" {
				if len(errs) > 0 {
					t.Errorf("complaints %v", errs)
				}
				return
			}
			if !strings.Contains(errors.Join(errs...).Error(), test.want) {
				t.Errorf("complaints %v, want %q", errs, test.want)
			}
		})
	}
	path := module(t)
	if err := os.WriteFile(path, []byte(`{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if errs := nb.Check(path); len(errs) == 0 || !strings.Contains(errs[0].Error(), "not as Jupyter writes it") {
		t.Errorf("complaints %v", errs)
	}
}

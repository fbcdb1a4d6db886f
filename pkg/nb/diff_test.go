package nb_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/nb"
)

func TestDiff(t *testing.T) {
	n := nb.New("a.ipynb", "A title")
	same := func(change func(*nb.Notebook)) *nb.Notebook {
		t.Helper()
		copied, err := n.Clone()
		if err != nil {
			t.Fatal(err)
		}
		change(copied)
		return copied
	}
	stream := func(text string) []*nb.Output { return []*nb.Output{{Kind: nb.Stream, Name: "stdout", Text: text}} }
	n.Cells[2].Outputs = stream("took 3.2 s, loss 0.5\n")
	for _, test := range []struct {
		name    string
		change  func(*nb.Notebook)
		outputs bool
		want    []string // the lines that begin with @, + or -
	}{
		{"nothing", func(*nb.Notebook) {}, true, nil},
		{"noise", func(n *nb.Notebook) {
			n.Cells[2].ID, n.Cells[2].Count, n.Cells[2].Outputs = "other", 7, stream("took 51.9 s, loss 0.5\n")
			n.Cells[2].Metadata = map[string]any{"execution": map[string]any{}}
			n.SetMeasured(nb.Measured{Seconds: 3})
		}, true, nil},
		{"outputs ignored", func(n *nb.Notebook) { n.Cells[2].Outputs = nil }, false, nil},
		{"outputs", func(n *nb.Notebook) { n.Cells[2].Outputs = stream("took 3.2 s, loss 0.6\n") }, true,
			[]string{"@@ cell 2 (code)", "-took <time>, loss 0.5", "+took <time>, loss 0.6"}},
		{"source", func(n *nb.Notebook) { n.Cells[8].Source += "\n// more" }, false, []string{"@@ cell 8 (code)", "+// more"}},
		{"new cell", func(n *nb.Notebook) {
			n.Cells = append(n.Cells[:1:1], append([]*nb.Cell{{Kind: nb.Markdown, Source: "new"}}, n.Cells[1:]...)...)
		}, false, []string{"@@ cell 1, new (markdown)", "+new"}},
		{"gone", func(n *nb.Notebook) { n.Cells = append(n.Cells[:7:7], n.Cells[8:]...) }, false,
			[]string{"@@ cell 7, gone (markdown)", "-## 4. The answer"}},
		{"tags", func(n *nb.Notebook) { n.Cells[7].Metadata = map[string]any{"tags": []any{"x"}} }, false,
			[]string{"@@ cell 7 (markdown)", "+metadata: {", `+ "tags": [`, `+  "x"`, "+ ]", "+}"}},
		{"plan", func(n *nb.Notebook) { n.Metadata["workbench"].(map[string]any)["budget"] = 3 }, false,
			[]string{"@@ notebook (metadata)", `-  "budget": 120,`, `+  "budget": 3,`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, c := range nb.Diff(n, same(test.change), test.outputs) {
				for line := range strings.Lines(c.String()) {
					if strings.ContainsAny(line[:1], "@+-") {
						got = append(got, strings.TrimSuffix(line, "\n"))
					}
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScrub(t *testing.T) {
	for text, want := range map[string]string{
		"took 3.2 s and 1m20.5s, 12ms, 3 min":      "took <time> and <time>, <time>, <time>",
		"at 2026-01-02T03:04:05Z, 03:04:05":        "at <time>, <time>",
		"1234.5 tokens/s, 3e+02 it/s":              "<rate>, <rate>",
		"goroutine 0xc000012340 in gonb_1a2b3c4d":  "goroutine <address> in gonb_<id>",
		"loss 0.5, 16 sentences, 3 steps, F1 0.75": "loss 0.5, 16 sentences, 3 steps, F1 0.75",
	} {
		if got := nb.Scrub(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func ExampleDiff() {
	a := &nb.Notebook{Cells: []*nb.Cell{{Kind: nb.Code, Source: "%%\nfmt.Println(1)", Count: 1}}}
	b := &nb.Notebook{Cells: []*nb.Cell{{Kind: nb.Code, Source: "%%\nfmt.Println(2)", Count: 9}}}
	for _, change := range nb.Diff(a, b, false) {
		fmt.Print(change)
	}
	// Output:
	// @@ cell 0 (code)
	//  %%
	// -fmt.Println(1)
	// +fmt.Println(2)
}

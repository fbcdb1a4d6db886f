package execute_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/nb/execute"
)

func TestPoints(t *testing.T) {
	got := execute.Points([]execute.Axis{{"A", []string{"1", "2"}}, {"B", []string{"x", "y"}}})
	want := []map[string]string{{"A": "1", "B": "x"}, {"A": "1", "B": "y"}, {"A": "2", "B": "x"}, {"A": "2", "B": "y"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
	if got := execute.Points(nil); len(got) != 1 || len(got[0]) != 0 {
		t.Errorf("points %v", got)
	}
	if got, want := execute.PointFile("a.ipynb", []string{"A", "B"}, map[string]string{"A": "1e-4", "B": "x/y z"}), "a,A=1e-4,B=x_y_z.ipynb"; got != want {
		t.Errorf("file %q, want %q", got, want)
	}
}

func ExampleTable_Markdown() {
	table := execute.Table{Axes: []string{"RATE"}, Rows: []execute.Row{
		{"a,RATE=1.ipynb", execute.Report{OK: true, Params: map[string]string{"RATE": "1"}, Results: map[string]float64{"f1": 0.5, "loss": 0.25}, Seconds: 3}},
		{"a,RATE=2.ipynb", execute.Report{Params: map[string]string{"RATE": "2"}, Results: map[string]float64{"loss": 0.125}, Seconds: 2}},
	}}
	fmt.Print(table.Markdown())
	text, err := table.JSON()
	fmt.Println(json.Valid(text), err)
	// Output:
	// | RATE | f1 | loss | seconds | notebook |
	// |---|---:|---:|---:|---|
	// | 1 | 0.5 | 0.25 | 3.0 | a,RATE=1.ipynb |
	// | 2 |  | 0.125 | 2.0 | a,RATE=2.ipynb, FAILED |
	// true <nil>
}

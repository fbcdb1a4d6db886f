package viz_test

import (
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/viz"
)

// TestManyPoints draws a long curve with one spike: the picture is small and has the spike.
func TestManyPoints(t *testing.T) {
	s := viz.Series{Name: "long"}
	for i := range 200_000 {
		s.X, s.Y = append(s.X, float64(i)), append(s.Y, math.Sin(float64(i)/20_000))
	}
	top := func() (low string, size int) {
		svg, err := viz.Curves("many", "step", "value", s)
		if err != nil {
			t.Fatal(err)
		}
		wellFormed(t, svg)
		longest := ""
		for path := range strings.SplitSeq(svg, "<path") {
			if len(path) > len(longest) {
				longest = path
			}
		}
		return longest, len(svg)
	}
	flat, size := top()
	if size > 100_000 {
		t.Errorf("the picture has %d bytes", size)
	}
	s.Y[123_456] = 1.0001
	if spiked, _ := top(); spiked == flat {
		t.Error("a spike of one point is lost")
	}
}

func TestParallel(t *testing.T) {
	p := viz.Parallel{Title: "what <matters>", Axes: []string{"rate", "rule", "f1"}, Rows: []viz.ParallelRow{
		{"one", []string{"0.1", "adamw", "0.8"}}, {"two", []string{"0.2", "lion", "0.7"}}, {"gap", []string{"0.15", "", "NaN"}}, {"lone", []string{"", "muon", ""}},
	}}
	svg, err := p.SVG()
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, svg)
	for _, want := range []string{"what &lt;matters&gt;", ">adamw</text>", ">0.2</text>", "one: 0.1, adamw, 0.8", `points="70,276`} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in\n%s", want, svg)
		}
	}
	if lines, dots := strings.Count(svg, "<polyline"), strings.Count(svg, "<circle"); lines != 2 || dots != 2 {
		t.Errorf("%d lines and %d dots, want 2 and 2", lines, dots)
	}
	if svg, err := (viz.Parallel{Axes: []string{"a"}}).SVG(); err != nil || !strings.Contains(svg, "of 0 rows") {
		t.Errorf("no rows: %v", err)
	}
	for _, bad := range []viz.Parallel{{}, {Axes: []string{"a"}, Rows: []viz.ParallelRow{{Name: "r"}}}} {
		if _, err := bad.SVG(); err == nil {
			t.Errorf("%+v is drawn", bad)
		}
	}
}

package viz_test

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/viz"
)

// TestSurfaceShadesByArea: of a slope from 0 to 1 with levels at a quarter and a half, the shades take a quarter, a quarter and a half
// of the picture, however coarse the grid is; and the steeper way round too.
func TestSurfaceShadesByArea(t *testing.T) {
	for name, values := range map[string][]float64{"rising": {0, 1}, "falling": {1, 0}} {
		svg, err := viz.Surface{Title: "slope", X: []float64{0, 1}, Y: []float64{0, 1}, Values: [][]float64{values, values}, Levels: []float64{0.25, 0.5}}.SVG()
		if err != nil {
			t.Fatal(err)
		}
		var widths []float64
		total := 0.0
		for _, path := range regexp.MustCompile(`<path d="M([\d.]+),[\d.]+L([\d.]+),[^"]*" style="fill:#(?:[0-9A-E]|F[0-9A-E])`).FindAllStringSubmatch(svg, -1) {
			left, _ := strconv.ParseFloat(path[1], 64)
			right, _ := strconv.ParseFloat(path[2], 64)
			widths = append(widths, right-left)
			total += right - left
		}
		if len(widths) != 3 {
			t.Fatalf("%s: %d shades, want 3", name, len(widths))
		}
		for i, want := range []float64{0.25, 0.25, 0.5} {
			if got := widths[i] / total; math.Abs(got-want) > 1e-3 {
				t.Errorf("%s: shade %d takes %.3f of the width, want %.3f", name, i, got, want)
			}
		}
	}
}

func ExampleSurface() {
	s := viz.Surface{Title: "x² + 4y²", XLabel: "x", YLabel: "y", X: []float64{-1, 0, 1}, Y: []float64{-1, 0, 1}}
	for _, y := range s.Y {
		var row []float64
		for _, x := range s.X {
			row = append(row, x*x+4*y*y)
		}
		s.Values = append(s.Values, row)
	}
	s.Paths = []viz.Series{{Name: "descent", X: []float64{1, 0.5, 0.25}, Y: []float64{1, 0, 0}}}
	svg, err := s.SVG()
	if err != nil {
		fmt.Println(err)
		return
	}
	_, desc, _ := strings.Cut(svg, "<desc>")
	fmt.Println(desc[:strings.Index(desc, "</desc>")])
	// Output:
	// A surface over x from -1 to 1 and y from -1 to 1, lowest 0 at (0, 0). descent: 3 points from (1, 1) to (0.25, 0).
}

package viz_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/viz"
)

func ExampleChart_Text() {
	text, err := viz.Chart{Title: "loss", XLabel: "step", Series: []viz.Series{{Name: "train", X: []float64{1, 2, 3, 4, 5}, Y: []float64{4, 2, 1, 0.5, 0.25}}}}.Text(24, 3)
	if err != nil {
		panic(err)
	}
	fmt.Print(text)
	// Output:
	// loss
	//    4 │⠑⠢⣀
	//      │   ⠑⠢⢄⣀
	// 0.25 │       ⠉⠉⠒⠒⠒⠤⠤⠤⠤⢄⣀⣀
	//      └───────────────────
	//       1                 5  step
	// train: 5 points from (1, 4) to (5, 0.25), lowest 0.25, highest 4.
}

func TestText(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, chart := range map[string]viz.Chart{
		"nothing":    {Title: "t"},
		"no points":  {Series: []viz.Series{{Name: "empty", X: []float64{1}, Y: []float64{nan}}}},
		"one point":  {Series: []viz.Series{{X: []float64{1}, Y: []float64{2}}}},
		"constant":   {Series: []viz.Series{{X: []float64{1, 2}, Y: []float64{3, 3}}}},
		"gaps":       {Series: []viz.Series{{X: []float64{1, 2, 3, 4}, Y: []float64{1, inf, nan, 2}}}},
		"log":        {LogX: true, LogY: true, Series: []viz.Series{{X: []float64{0, 1, 100}, Y: []float64{1, 10, 1000}}}},
		"smooth":     {Series: []viz.Series{{X: []float64{1, 2, 3}, Y: []float64{1, 5, 1}, Smooth: 0.5}}},
		"two series": {Series: []viz.Series{{Name: "a", X: []float64{1}, Y: []float64{2}}, {Name: "b", X: []float64{5}, Y: []float64{-1e9}}}},
	} {
		text, err := chart.Text(0, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if lines := strings.Count(text, "│"); lines > 0 && lines != 10*len(chart.Series) {
			t.Errorf("%s: %d lines\n%s", name, lines, text)
		}
	}
	if _, err := (viz.Chart{Series: []viz.Series{{X: []float64{1}}}}).Text(10, 10); err == nil {
		t.Error("x without y is drawn")
	}
}

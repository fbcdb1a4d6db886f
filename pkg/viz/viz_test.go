package viz_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/viz"
)

func losses(n int) viz.Series {
	s := viz.Series{Name: "train"}
	for i := range n {
		s.X = append(s.X, float64(i))
		s.Y = append(s.Y, 2*math.Exp(-float64(i)/20)+0.1*math.Sin(float64(i)))
	}
	return s
}

// wellFormed fails the test unless the text is XML: what a browser guesses at, an exporter may not.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, text)
		}
	}
}

func TestCurves(t *testing.T) {
	gap := viz.Series{Name: "gap", X: []float64{0, 1, 2, 3, 4}, Y: []float64{1, 2, math.NaN(), math.Inf(1), 3}}
	smooth := losses(50)
	smooth.Smooth = 0.9
	for _, test := range []struct {
		name  string
		chart viz.Chart
		want  []string
	}{
		{"two series", viz.Chart{Title: "training", XLabel: "step", YLabel: "loss (nats)", Series: []viz.Series{losses(50), gap}},
			[]string{"<title>training</title>", "loss (nats) over step.", "train: 50 points from (0, 2)", "gap: 3 points", "2 not drawn", ">gap</text>"}},
		{"empty", viz.Chart{Title: "nothing yet", Series: []viz.Series{{Name: "train"}}}, []string{"train: no points"}},
		{"no series", viz.Chart{Title: "none"}, []string{"<title>none</title>"}},
		{"empty log", viz.Chart{LogX: true, LogY: true}, nil},
		{"one point", viz.Chart{Series: []viz.Series{{X: []float64{3}, Y: []float64{7}}}}, []string{"1 points from (3, 7) to (3, 7)"}},
		{"one point log", viz.Chart{LogX: true, LogY: true, Series: []viz.Series{{X: []float64{3}, Y: []float64{7}}}}, nil},
		{"constant", viz.Chart{Series: []viz.Series{{X: []float64{0, 1}, Y: []float64{0, 0}}}}, []string{"lowest 0, highest 0"}},
		{"log drops what is not positive", viz.Chart{LogY: true, Series: []viz.Series{{X: []float64{0, 1, 2}, Y: []float64{0, 1, 100}}}}, []string{"1 not drawn"}},
		{"small log", viz.Chart{LogY: true, Series: []viz.Series{{X: []float64{0, 1}, Y: []float64{1e-7, 1}}}}, []string{">0.0001<", ">1e-05<"}},
		{"all gaps", viz.Chart{LogY: true, Series: []viz.Series{{X: []float64{0}, Y: []float64{-1}}}}, []string{"no points, 1 not drawn"}},
		{"smooth", viz.Chart{Series: []viz.Series{smooth}}, []string{"train: 50 points"}},
		{"escapes", viz.Chart{Title: `a<b & "c"`, XLabel: "x<y", Series: []viz.Series{{Name: "p&q"}}}, []string{"<title>a&lt;b &amp; &#34;c&#34;</title>"}},
		{"huge", viz.Chart{Series: []viz.Series{{X: []float64{0, 1}, Y: []float64{-1e300, 1e300}}}}, nil},
		{"marks only", viz.Chart{Marks: []viz.Mark{{X: 3, Kind: "stop", Text: "enough"}}}, []string{"Marked: stop at 3, enough.", ">stop</text>"}},
		{"sized", viz.Chart{Width: 320, Height: 200}, []string{`viewBox="0 0 240 150"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			svg, err := test.chart.SVG()
			if err != nil {
				t.Fatal(err)
			}
			wellFormed(t, svg)
			if !strings.HasPrefix(svg, "<svg ") || !strings.Contains(svg, `role="img"`) {
				t.Errorf("no labelled svg element: %.200s", svg)
			}
			for _, bad := range []string{"NaN\"", "Inf\""} {
				if strings.Contains(svg, bad) {
					t.Errorf("svg has coordinates %s", bad)
				}
			}
			for _, want := range test.want {
				if !strings.Contains(svg, want) {
					t.Errorf("svg has no %q:\n%.600s", want, svg)
				}
			}
			again, err := test.chart.SVG()
			if err != nil || again != svg {
				t.Errorf("a second drawing differs (error %v)", err)
			}
		})
	}
}

func TestCurvesErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		chart viz.Chart
		want  []string
	}{
		{"lengths and smoothing", viz.Chart{Title: "t", Series: []viz.Series{{Name: "a", X: []float64{1}}, {Name: "b", Smooth: 1}}},
			[]string{`drawing "t"`, `series 0 "a" has 1 x and 0 y values`, `series 1 "b" has smoothing 1`}},
		{"NaN smoothing", viz.Chart{Series: []viz.Series{{Smooth: math.NaN()}}}, []string{"smoothing NaN"}},
		{"size", viz.Chart{Width: -1}, []string{"size -1 x 0"}},
		{"marks", viz.Chart{LogX: true, Marks: []viz.Mark{{X: 1}, {X: 0, Kind: "k"}, {X: math.Inf(1)}}}, []string{`mark 1 "k" is at 0`, "mark 2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.chart.SVG()
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q in it", err, want)
				}
			}
		})
	}
}

func TestTables(t *testing.T) {
	heat, err := viz.Heat("a<b", []string{"PER", "LOC"}, []string{"P", "R"}, [][]float64{{0, 1}, {0.25, math.NaN()}})
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, heat)
	for _, want := range []string{"a&lt;b", ">PER</th>", "background:#ffffff;color:#000\">0</td>", "background:#2687be;color:#000\">1</td>", ">0.25</td>", `<td style="text-align:right">NaN</td>`} {
		if !strings.Contains(heat, want) {
			t.Errorf("heat table has no %q:\n%s", want, heat)
		}
	}
	bars, err := viz.Bars("step", " s", []string{"fast", "slow", "odd", "down"}, []float64{1, 4, math.Inf(1), -2})
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, bars)
	for _, want := range []string{">1 s</td>", "width:50.0px", "width:200.0px", ">+∞ s</td>", "width:100.0px", ">-2 s</td>"} {
		if !strings.Contains(bars, want) {
			t.Errorf("bar table has no %q:\n%s", want, bars)
		}
	}
	if _, err := viz.Heat("t", []string{"a"}, []string{"x", "y"}, [][]float64{{1}, {1, 2}}); err == nil ||
		!strings.Contains(err.Error(), "2 rows of values for 1 row names") || !strings.Contains(err.Error(), "row 0 has 1 values for 2 columns") {
		t.Errorf("error %v", err)
	}
	if _, err := viz.Bars("t", "", []string{"a"}, nil); err == nil || !strings.Contains(err.Error(), "1 names for 0 values") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkCurves(b *testing.B) {
	s := losses(1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := viz.Curves("training", "step", "loss", s); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleCurves() {
	svg, err := viz.Curves("training", "step", "loss (nats/token)",
		viz.Series{Name: "train", X: []float64{0, 100, 200}, Y: []float64{2.1, 0.9, 0.4}},
		viz.Series{Name: "dev", X: []float64{100, 200}, Y: []float64{1.1, 0.7}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, desc, _ := strings.Cut(svg, "<desc>")
	desc, _, _ = strings.Cut(desc, "</desc>")
	fmt.Println(desc)
	// Output: loss (nats/token) over step. train: 3 points from (0, 2.1) to (200, 0.4), lowest 0.4, highest 2.1. dev: 2 points from (100, 1.1) to (200, 0.7), lowest 0.7, highest 1.1.
}

// TestArea finds the points of a curve in its picture where the area says that they are.
func TestArea(t *testing.T) {
	for _, log := range []bool{false, true} {
		chart := viz.Chart{LogX: log, LogY: log, Series: []viz.Series{{X: []float64{1, 4, 10}, Y: []float64{100, 10, 1000}}}}
		svg, area, err := chart.Draw()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := chart.SVG(); err != nil || again != svg {
			t.Errorf("SVG draws another picture, %v", err)
		}
		var view [4]float64
		if _, err := fmt.Sscanf(svg[strings.Index(svg, "viewBox="):], `viewBox="%f %f %f %f"`, &view[0], &view[1], &view[2], &view[3]); err != nil {
			t.Fatal(err)
		}
		// The curve is the path of three points: Mx,yLx,yLx,y, with y upwards.
		found := regexp.MustCompile(`d="M([\d.]+),([\d.]+)L([\d.]+),([\d.]+)L([\d.]+),([\d.]+)"`).FindStringSubmatch(svg)
		if found == nil {
			t.Fatalf("no curve in %s", svg)
		}
		at := func(i int) float64 {
			v, err := strconv.ParseFloat(found[i], 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		for i, x := range []float64{1, 4, 10} {
			low, high := area.X[0], area.X[1]
			if log {
				x, low, high = math.Log(x), math.Log(low), math.Log(high)
			}
			if got, want := area.Left+(x-low)/(high-low)*(area.Right-area.Left), at(1+2*i); math.Abs(got-want) > 0.02 {
				t.Errorf("log %t: %g lies at %g, want %g", log, x, got, want)
			}
		}
		if top := view[3] - at(6); math.Abs(top-area.Top) > 0.02 || math.Abs(view[3]-at(4)-area.Bottom) > 0.02 || area.Y != [2]float64{10, 1000} {
			t.Errorf("log %t: %+v, but the highest point lies at %g", log, area, top)
		}
	}
}

// TestSmoothed: the mean of equal values is that value, so that its rounding makes no curve, nor an axis without a length.
func TestSmoothed(t *testing.T) {
	for _, y := range []float64{0.3, 1e9, 1e-5} {
		for n := 1; n <= 3; n++ {
			for _, log := range []bool{false, true} {
				c := viz.Chart{LogY: log, Series: []viz.Series{{X: []float64{1, 2, 3}[:n], Y: []float64{y, y, y}[:n], Smooth: 0.9}}}
				svg, area, err := c.Draw()
				if err != nil || strings.Contains(svg, "NaN") || area.Y[1]-area.Y[0] < y/10 {
					t.Errorf("%d times %g, log %t: axis %v, %v", n, y, log, area.Y, err)
				}
			}
		}
	}
}

// TestLogarithmicEdges: values that have no place on a logarithmic axis, alone or in a mean with others, are no panic.
func TestLogarithmicEdges(t *testing.T) {
	for _, c := range []viz.Chart{
		{LogY: true, Series: []viz.Series{{X: []float64{1}, Y: []float64{5e-324}}}},
		{LogY: true, Series: []viz.Series{{X: []float64{1, 2, 3}, Y: []float64{5, -4.9, 6}, Smooth: 0.5}}},
		{LogX: true, LogY: true, Series: []viz.Series{{X: []float64{5e-324, 1}, Y: []float64{1, 1.0000000000000002}}}},
	} {
		if svg, err := c.SVG(); err != nil || strings.Contains(svg, "NaN") {
			t.Errorf("%+v: %v\n%s", c.Series, err, svg)
		}
		if _, err := c.Text(40, 5); err != nil {
			t.Error(err)
		}
	}
}

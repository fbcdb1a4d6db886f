package viz

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// pathHues are those of palette that stand out on blue shades. The last is not quite black, which would be turned on dark pages.
var pathHues = []color.NRGBA{palette[1], palette[2], palette[3], {40, 40, 40, 255}, palette[5]}

// Surface is a picture of a function of two variables from above, shaded from blue where it is least to white, in bands between
// levels, and of paths over it: what optimizers do on a loss. The zero value of a field means its default.
type Surface struct {
	Title string
	// XLabel and YLabel name the variables.
	XLabel, YLabel string
	// X and Y are the coordinates of the grid, rising, at least two each; Values are [len(Y)][len(X)]. Values that are not finite
	// are left bare.
	X, Y   []float64
	Values [][]float64
	// Levels are where one shade ends and the next begins, rising: the contour lines. Nil means nine levels with as many
	// points of the grid between each and the next, so that a valley is as visible as a peak.
	Levels []float64
	// Paths are drawn over the surface, from a ring to a dot; what lies outside of the grid is not drawn. Only their Name, X
	// and Y are used.
	Paths []Series
	// Width and Height are in pixels of 1/96 inch; default 640 and 480.
	Width, Height float64
}

// SVG draws the surface. It returns an error for sizes that disagree, coordinates or levels that do not rise, and a surface
// without a finite value; all problems are in one error.
func (s Surface) SVG() (string, error) {
	if err := s.validate(); err != nil {
		return "", fmt.Errorf("drawing %q: %w", s.Title, err)
	}
	levels := s.Levels
	if levels == nil {
		levels = quantiles(s.Values, 9)
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.Title, s.XLabel, s.YLabel
	for _, style := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font.Variant = "Sans"
	}
	legend := plot.NewLegend() // beside the surface, for its letters could not be read on all shades
	legend.TextStyle.Font.Variant, legend.TextStyle.Font.Size = "Sans", font.Points(10)
	legend.Top, legend.Padding = true, vg.Points(2)
	p.X.Tick.Marker, p.Y.Tick.Marker = roundTicks{}, roundTicks{}
	p.Add(bands{s, levels})

	var words []string
	x0, x1, y0, y1 := s.X[0], s.X[len(s.X)-1], s.Y[0], s.Y[len(s.Y)-1]
	inside := func(x, y float64) bool { return x >= x0 && x <= x1 && y >= y0 && y <= y1 }
	for i, path := range s.Paths {
		hue := pathHues[i%len(pathHues)]
		style := draw.LineStyle{Color: hue, Width: vg.Points(1.6), Dashes: dashes[i%len(dashes)]}
		words = append(words, s.describe(path, inside))
		xs, ys := make([]float64, len(path.X)), make([]float64, len(path.Y))
		for j := range path.X {
			xs[j], ys[j] = path.X[j], path.Y[j]
			if !inside(xs[j], ys[j]) {
				ys[j] = math.NaN() // a gap
			}
		}
		segments, points, _ := Chart{}.segments(xs, ys)
		addSegments(p, segments, style)
		legend.Add(path.Name, &plotter.Line{LineStyle: style})
		if points == 0 {
			continue
		}
		ends := []struct {
			at    int
			glyph draw.GlyphDrawer
		}{{0, draw.RingGlyph{}}, {len(xs) - 1, draw.CircleGlyph{}}}
		for _, end := range ends {
			if finite(ys[end.at]) && finite(xs[end.at]) {
				p.Add(&plotter.Scatter{XYs: plotter.XYs{{X: xs[end.at], Y: ys[end.at]}}, GlyphStyle: draw.GlyphStyle{Color: hue, Radius: vg.Points(3.5), Shape: end.glyph}})
			}
		}
	}
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = x0, x1, y0, y1

	canvas := vgsvg.New(pixels(s.Width, 640), pixels(s.Height, 480))
	margin := vg.Points(6)
	all := draw.Crop(draw.New(canvas), margin, -margin, margin, -margin)
	beside := vg.Length(0)
	if len(s.Paths) > 0 {
		beside = legend.Rectangle(all).Size().X + margin
		legend.Draw(all)
	}
	p.Draw(draw.Crop(all, 0, -beside, 0, 0))
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return "", fmt.Errorf("drawing %q: %w", s.Title, err)
	}
	low, lx, ly := s.lowest()
	return label(buf.String(), s.Title, strings.Join(append([]string{fmt.Sprintf("A surface over %s from %.4g to %.4g and %s from %.4g to %.4g, lowest %.4g at (%.4g, %.4g).",
		s.XLabel, x0, x1, s.YLabel, y0, y1, low, lx, ly)}, words...), " ")), nil
}

// describe puts a path into words.
func (s Surface) describe(path Series, inside func(x, y float64) bool) string {
	n, outside := len(path.X), 0
	for i := range path.X {
		if !inside(path.X[i], path.Y[i]) {
			outside++
		}
	}
	if n == 0 {
		return path.Name + ": no points."
	}
	words := fmt.Sprintf("%s: %d points from (%.4g, %.4g) to (%.4g, %.4g)", path.Name, n, path.X[0], path.Y[0], path.X[n-1], path.Y[n-1])
	if outside > 0 {
		words += fmt.Sprintf(", %d outside", outside)
	}
	return words + "."
}

func (s Surface) lowest() (low, x, y float64) {
	low = math.Inf(1)
	for r, row := range s.Values {
		for c, v := range row {
			if finite(v) && v < low {
				low, x, y = v, s.X[c], s.Y[r]
			}
		}
	}
	return low, x, y
}

func (s Surface) validate() error {
	var errs []error
	if s.Width < 0 || s.Height < 0 || math.IsNaN(s.Width+s.Height) || math.IsInf(s.Width+s.Height, 0) {
		errs = append(errs, fmt.Errorf("size %v x %v, want positive numbers or 0 for the default", s.Width, s.Height))
	}
	for _, axis := range []struct {
		name   string
		least  int
		values []float64
	}{{"x", 2, s.X}, {"y", 2, s.Y}, {"levels", 0, s.Levels}} {
		if len(axis.values) < axis.least {
			errs = append(errs, fmt.Errorf("%d %s values, want at least %d", len(axis.values), axis.name, axis.least))
		}
		for i, v := range axis.values {
			if !finite(v) || i > 0 && v <= axis.values[i-1] {
				errs = append(errs, fmt.Errorf("%s has %v as value %d, want finite numbers that rise", axis.name, v, i))
				break
			}
		}
	}
	if len(s.Values) != len(s.Y) {
		errs = append(errs, fmt.Errorf("%d rows of values for %d y values, want equally many", len(s.Values), len(s.Y)))
	}
	any := false
	for r, row := range s.Values {
		if len(row) != len(s.X) {
			errs = append(errs, fmt.Errorf("row %d has %d values for %d x values, want equally many", r, len(row), len(s.X)))
		}
		any = any || slices.ContainsFunc(row, finite)
	}
	if !any {
		errs = append(errs, errors.New("no finite value"))
	}
	for i, p := range s.Paths {
		if len(p.X) != len(p.Y) {
			errs = append(errs, fmt.Errorf("path %d %q has %d x and %d y values, want equally many", i, p.Name, len(p.X), len(p.Y)))
		}
	}
	return errors.Join(errs...)
}

// quantiles returns at most n rising levels that cut the finite values into parts of equal size.
func quantiles(values [][]float64, n int) (levels []float64) {
	var all []float64
	for _, row := range values {
		for _, v := range row {
			if finite(v) {
				all = append(all, v)
			}
		}
	}
	slices.Sort(all)
	for i := range n {
		if v := all[(i+1)*(len(all)-1)/(n+1)]; len(levels) == 0 || v > levels[len(levels)-1] {
			levels = append(levels, v)
		}
	}
	return levels
}

// bands shades a surface: in each row of the grid runs between the places where the value, interpolated, crosses a level.
// (Contours of gonum/plot come in an order that differs from run to run, and its heat maps have a polygon for each point.)
type bands struct {
	Surface
	levels []float64
}

// Plot implements plot.Plotter.
func (b bands) Plot(c draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&c)
	paths := make([]vg.Path, len(b.levels)+1)
	for r, row := range b.Values {
		low, high := b.Y[r], b.Y[r]
		if r > 0 {
			low = (b.Y[r-1] + b.Y[r]) / 2
		}
		if r+1 < len(b.Y) {
			high = (b.Y[r] + b.Y[r+1]) / 2
		}
		bottom, top := toY(low), toY(high)
		if r+1 < len(b.Y) {
			top += vg.Points(0.4) // below the next row, so that no seam shows
		}
		for _, run := range b.runs(row) {
			left, right := toX(run.from), toX(run.to)
			path := &paths[run.band]
			path.Move(vg.Point{X: left, Y: bottom})
			path.Line(vg.Point{X: right, Y: bottom})
			path.Line(vg.Point{X: right, Y: top})
			path.Line(vg.Point{X: left, Y: top})
			path.Close()
		}
	}
	for i, path := range paths {
		if len(path) > 0 {
			c.SetColor(blend(palette[0], 0.35+0.6*float64(i)/float64(max(1, len(b.levels)))))
			c.Fill(path)
		}
	}
}

// run is a part of a row that lies in one band.
type run struct {
	band     int
	from, to float64
}

func (b bands) runs(row []float64) (runs []run) {
	band := func(v float64) int {
		i, exact := slices.BinarySearch(b.levels, v)
		if exact {
			i++ // a level belongs to the band above it
		}
		return i
	}
	for c := range len(row) - 1 {
		v, w, x0, x1 := row[c], row[c+1], b.X[c], b.X[c+1]
		if !finite(v) || !finite(w) {
			continue
		}
		at, from, to := band(v), x0, band(w)
		for at != to {
			next, level := at+1, 0.0
			if to > at {
				level = b.levels[at]
			} else {
				next, level = at-1, b.levels[at-1]
			}
			x := x0 + (x1-x0)*(level-v)/(w-v)
			runs = extend(runs, run{at, from, x})
			at, from = next, x
		}
		runs = extend(runs, run{at, from, x1})
	}
	return runs
}

// extend appends a run, joined with the last one if that is its beginning.
func extend(runs []run, r run) []run {
	if n := len(runs); n > 0 && runs[n-1].band == r.band && runs[n-1].to == r.from {
		runs[n-1].to = r.to
		return runs
	}
	return append(runs, r)
}

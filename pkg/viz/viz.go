// Package viz draws the pictures of notebooks and reports: curves as SVG, tables as HTML.
//
// What it returns is a string that needs no script, no style sheet and no network, so it looks the same in a
// notebook, in an exported page and on paper. Equal input gives equal bytes. Every picture carries its numbers in
// words too (title and desc of an SVG, the cells of a table), for readers who cannot see it and for tests. SVGs are
// dark where the reader prefers dark pages.
//
//	svg, err := viz.Curves("training", "step", "loss (nats/token)", viz.Series{Name: "train", X: steps, Y: losses})
//	svg, err  = viz.Panels{Charts: []viz.Chart{loss, rate}}.SVG()      // one below the other, with marks where something happened
//	svg, err  = viz.Tokens{Title: "evidence", Rows: rows}.SVG()        // words, shaded by a number
//	svg, err  = viz.Grid{Title: "attention", Values: weights}.SVG()    // a matrix for each layer and head
//	svg, err  = viz.Surface{Title: "loss", X: x, Y: y, Values: losses, Paths: paths}.SVG() // a function of two variables, and paths over it
//	html     := viz.Page("a report", svg)                              // pictures as a file of their own
//
// Package nb, below this one, shows such strings in a notebook.
package viz

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"image/color"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Series is one curve of a [Chart].
type Series struct {
	// Name is shown in the legend. A chart with one unnamed series has no legend.
	Name string
	// X and Y are the points, equally many. NaN, infinities and values beyond ±1e300 are gaps: they are not drawn,
	// and counted in the description of the picture.
	X, Y []float64
	// Smooth, in [0, 1), is the weight of the past in an exponential moving average, corrected for its start as in
	// Adam: m ← Smooth·m + (1−Smooth)·y, drawn m/(1−Smoothⁿ). The points themselves are then drawn pale behind it.
	// Zero draws the points only. Gaps do not enter the average.
	Smooth float64
	// Behind are further curves over the same X, drawn pale behind this one and without an entry in the legend: the
	// heads of a layer whose mean Y is.
	Behind [][]float64
}

// Chart is a picture of curves over common axes. The zero value of a field means its default.
type Chart struct {
	Title string
	// XLabel and YLabel name the quantities and their units: "loss (nats/token)".
	XLabel, YLabel string
	// LogX and LogY make an axis logarithmic. Points below 1e-300 have no place on it and become gaps.
	LogX, LogY bool
	// Width and Height are in pixels of 1/96 inch; default 640 and 360.
	Width, Height float64
	Series        []Series
	// Marks are places on the x axis at which something happened, drawn over the curves.
	Marks []Mark
}

// Mark is a place on the x axis of a [Chart]: a line from top to bottom.
type Mark struct {
	X float64
	// Kind has an entry in the legend, and a colour and pattern that all marks of the kind share.
	Kind string
	// Text says what happened, in the description of the picture.
	Text string
}

// Curves draws series over linear axes in the default size. It is short for [Chart.SVG].
func Curves(title, xLabel, yLabel string, series ...Series) (svg string, err error) {
	return Chart{Title: title, XLabel: xLabel, YLabel: yLabel, Series: series}.SVG()
}

// palette is that of Okabe and Ito (2008), "Color Universal Design": its colours differ for all common kinds of
// colour vision. Line patterns repeat the distinction for print.
var palette = []color.NRGBA{
	{0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255}, {86, 180, 233, 255}, {230, 159, 0, 255}, {0, 0, 0, 255},
}

var dashes = [][]vg.Length{nil, {6, 3}, {2, 2}, {8, 3, 2, 3}}

// SVG draws the chart. A chart without points shows its axes, so that a live picture can begin empty.
//
// It returns an error for a series whose X and Y differ in length, a Smooth outside [0, 1), a mark that is nowhere and
// a negative size; all problems are in one error.
func (c Chart) SVG() (string, error) {
	svg, _, err := c.sheet().svg()
	return svg, err
}

// Draw is [Chart.SVG] that also says where the points are, for a page that tells the values under a pointer.
func (c Chart) Draw() (svg string, area Area, err error) {
	svg, areas, err := c.sheet().svg()
	if err != nil {
		return "", Area{}, err
	}
	return svg, areas[0], nil
}

// Area is the place of the points in the picture of a chart, in the units of its viewBox: x grows to the right and y
// downwards. X and Y are the values at its borders. On a logarithmic axis places follow the logarithms of values.
type Area struct {
	Left, Right, Top, Bottom float64
	X, Y                     [2]float64 // at left and right, at bottom and top
	LogX, LogY               bool
}

func (c Chart) sheet() sheet {
	return sheet{c.Title, pixels(c.Width, 640), pixels(c.Height, 360), []Chart{c}}
}

// Panels are charts one below the other, equally high, over one x axis: several quantities of one thing.
type Panels struct {
	Title string
	// Width, and Height of each chart, are in pixels of 1/96 inch; default 640 and 220. The charts' own sizes and
	// titles do not count.
	Width, Height float64
	Charts        []Chart
}

// SVG draws the charts. It returns an error for no charts, and for what [Chart.SVG] refuses.
func (p Panels) SVG() (string, error) {
	svg, _, err := p.sheet().svg()
	return svg, err
}

func (p Panels) sheet() sheet {
	charts := slices.Clone(p.Charts)
	for i := range charts {
		charts[i].Title = ""
	}
	if len(charts) > 0 {
		charts[0].Title = p.Title
	}
	return sheet{p.Title, pixels(p.Width, 640), pixels(p.Height, 220) * vg.Length(len(charts)), charts}
}

// sheet has charts one below the other.
type sheet struct {
	title         string
	width, height vg.Length
	charts        []Chart
}

// validate must come before there is a canvas, whose size may be nonsense.
func (s sheet) validate() error {
	if len(s.charts) == 0 {
		return fmt.Errorf("drawing %q: no charts", s.title)
	}
	for _, c := range s.charts {
		if err := c.validate(); err != nil {
			return fmt.Errorf("drawing %q: %w", c.Title, err)
		}
	}
	return nil
}

func (s sheet) svg() (svg string, areas []Area, err error) {
	if err := s.validate(); err != nil {
		return "", nil, err
	}
	canvas := vgsvg.New(s.width, s.height)
	words, areas := s.draw(canvas)
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return "", nil, fmt.Errorf("drawing %q: %w", s.title, err)
	}
	return label(buf.String(), s.title, words), areas, nil
}

// draw draws the charts, and returns what they show in words, and where.
func (s sheet) draw(canvas vg.CanvasSizer) (said string, areas []Area) {
	var plots [][]*plot.Plot
	var words []string
	for _, c := range s.charts {
		p, said := c.plot()
		plots = append(plots, []*plot.Plot{p})
		words = append(words, fmt.Sprintf("%s over %s. %s", c.YLabel, c.XLabel, said))
	}
	margin := vg.Points(6)
	whole := draw.Crop(draw.New(canvas), margin, -margin, margin, -margin)
	place := func(chart Chart, p *plot.Plot, canvas draw.Canvas) {
		p.Draw(canvas)
		inner := p.DataCanvas(canvas)
		areas = append(areas, Area{
			Left: inner.Min.X.Points(), Right: inner.Max.X.Points(), Top: (s.height - inner.Max.Y).Points(), Bottom: (s.height - inner.Min.Y).Points(),
			X: [2]float64{p.X.Min, p.X.Max}, Y: [2]float64{p.Y.Min, p.Y.Max}, LogX: chart.LogX, LogY: chart.LogY,
		})
	}
	if len(plots) == 1 {
		place(s.charts[0], plots[0][0], whole)
	} else {
		low, high := plots[0][0].X.Min, plots[0][0].X.Max
		for _, row := range plots {
			low, high = min(low, row[0].X.Min), max(high, row[0].X.Max)
		}
		for _, row := range plots {
			row[0].X.Min, row[0].X.Max = low, high
		}
		tiles := draw.Tiles{Rows: len(plots), Cols: 1, PadY: vg.Points(10)}
		for i, row := range plot.Align(plots, tiles, whole) {
			place(s.charts[i], plots[i][0], row[0])
		}
	}
	return strings.Join(words, " "), areas
}

// plot returns the chart with its axes and curves, and what it shows in words.
func (c Chart) plot() (*plot.Plot, string) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.XLabel, c.YLabel
	for _, s := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		s.Font.Variant = "Sans"
	}
	p.Legend.TextStyle.Font.Size = font.Points(10)
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(2)
	p.X.Tick.Marker, p.Y.Tick.Marker = roundTicks{}, roundTicks{}
	if c.LogX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: 6}
	}
	if c.LogY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: 6}
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	p.Add(grid)

	var words []string
	var lines []*plotter.Line
	drawn := 0
	for i, s := range c.Series {
		segments, points, gaps := c.segments(s.X, s.Y)
		drawn += points
		words = append(words, describe(s, points, gaps))
		hue := palette[i%len(palette)]
		style := draw.LineStyle{Color: hue, Width: vg.Points(1.6), Dashes: dashes[(i/len(palette)+i)%len(dashes)]}
		behindStyle := draw.LineStyle{Color: pale(hue), Width: vg.Points(0.8)}
		for _, ys := range s.Behind {
			behind, _, _ := c.segments(s.X, ys)
			lines = append(lines, addSegments(p, behind, behindStyle)...)
		}
		if s.Smooth > 0 {
			lines = append(lines, addSegments(p, segments, behindStyle)...)
			segments, _, _ = c.segments(s.X, average(s.Y, s.Smooth))
		}
		lines = append(lines, addSegments(p, segments, style)...)
		if s.Name != "" || len(c.Series) > 1 {
			name := s.Name
			if name == "" {
				name = "series " + strconv.Itoa(i+1)
			}
			p.Legend.Add(name, &plotter.Line{LineStyle: style})
		}
	}
	words = append(words, c.mark(p)...)
	frame(&p.X, drawn == 0 && len(c.Marks) == 0, c.LogX)
	frame(&p.Y, drawn == 0, c.LogY)
	for _, line := range lines { // now that the axis is known
		line.XYs = thin(line.XYs, &p.X, int(pixels(c.Width, 640)/vg.Inch*96))
	}

	return p, strings.Join(words, " ")
}

// mark draws the marks, and tells them.
func (c Chart) mark(p *plot.Plot) []string {
	if len(c.Marks) == 0 {
		return nil
	}
	var kinds []string
	var texts []string
	for _, m := range c.Marks {
		if !slices.Contains(kinds, m.Kind) {
			kinds = append(kinds, m.Kind)
		}
		texts = append(texts, fmt.Sprintf("%s at %.4g, %s", m.Kind, m.X, m.Text))
		p.X.Min, p.X.Max = math.Min(p.X.Min, m.X), math.Max(p.X.Max, m.X)
	}
	for k, kind := range kinds {
		at := len(palette) - 2 - k%(len(palette)-1) // from the other end than the curves
		lines := uprights{style: draw.LineStyle{Color: palette[at], Width: vg.Points(1.2), Dashes: dashes[(1+k)%len(dashes)]}}
		for _, m := range c.Marks {
			if m.Kind == kind {
				lines.xs = append(lines.xs, m.X)
			}
		}
		p.Add(lines)
		p.Legend.Add(kind, &plotter.Line{LineStyle: lines.style})
	}
	return []string{fmt.Sprintf("Marked: %s.", strings.Join(texts, "; "))}
}

// uprights are lines from the bottom of a plot to its top.
type uprights struct {
	xs    []float64
	style draw.LineStyle
}

// Plot draws them.
func (u uprights) Plot(canvas draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&canvas)
	for _, at := range u.xs {
		canvas.StrokeLine2(u.style, x(at), canvas.Min.Y, x(at), canvas.Max.Y)
	}
}

func (c Chart) validate() error {
	var errs []error
	if c.Width < 0 || c.Height < 0 || math.IsNaN(c.Width+c.Height) || math.IsInf(c.Width+c.Height, 0) {
		errs = append(errs, fmt.Errorf("size %v x %v, want positive numbers or 0 for the default", c.Width, c.Height))
	}
	for i, m := range c.Marks {
		if !finite(m.X) || c.LogX && m.X < least {
			errs = append(errs, fmt.Errorf("mark %d %q is at %v, want a place on the x axis", i, m.Kind, m.X))
		}
	}
	for i, s := range c.Series {
		if len(s.X) != len(s.Y) {
			errs = append(errs, fmt.Errorf("series %d %q has %d x and %d y values, want equally many", i, s.Name, len(s.X), len(s.Y)))
		}
		for j, ys := range s.Behind {
			if len(ys) != len(s.X) {
				errs = append(errs, fmt.Errorf("series %d %q has %d x and, in curve %d behind it, %d y values, want equally many", i, s.Name, len(s.X), j, len(ys)))
			}
		}
		if !(s.Smooth >= 0 && s.Smooth < 1) {
			errs = append(errs, fmt.Errorf("series %d %q has smoothing %v, want it in [0, 1)", i, s.Name, s.Smooth))
		}
	}
	return errors.Join(errs...)
}

// segments splits a curve at the points that cannot be drawn.
func (c Chart) segments(xs, ys []float64) (segments []plotter.XYs, points, gaps int) {
	var run plotter.XYs
	for i, x := range xs {
		y := ys[i]
		if !finite(x) || !finite(y) || c.LogX && x < least || c.LogY && y < least {
			gaps++
			if run != nil {
				segments, run = append(segments, run), nil
			}
			continue
		}
		points++
		run = append(run, plotter.XY{X: x, Y: y})
	}
	if run != nil {
		segments = append(segments, run)
	}
	return segments, points, gaps
}

// addSegments adds one curve and returns its lines. A lone point is drawn as a dot.
func addSegments(p *plot.Plot, segments []plotter.XYs, style draw.LineStyle) (lines []*plotter.Line) {
	for _, s := range segments {
		if len(s) == 1 {
			p.Add(&plotter.Scatter{XYs: s, GlyphStyle: draw.GlyphStyle{Color: style.Color, Radius: vg.Points(2), Shape: draw.CircleGlyph{}}})
			continue
		}
		line := &plotter.Line{XYs: s, LineStyle: style}
		p.Add(line)
		lines = append(lines, line)
	}
	return lines
}

// frame gives an axis a range that can be drawn where the data has none.
func frame(a *plot.Axis, empty, log bool) {
	switch {
	case empty && log:
		a.Min, a.Max = 1, 10
	case empty:
		a.Min, a.Max = 0, 1
	case a.Max-a.Min > 1e-12*math.Max(math.Abs(a.Min), math.Abs(a.Max)): // else it is rounding, if anything
	case log:
		a.Min, a.Max = a.Min/2, a.Max*2
	default:
		d := math.Max(math.Abs(a.Min)*0.1, 0.5)
		a.Min, a.Max = a.Min-d, a.Max+d
	}
}

// roundTicks puts about six ticks at multiples of 1, 2 or 5 times a power of ten.
type roundTicks struct{}

func (roundTicks) Ticks(low, high float64) []plot.Tick {
	power := math.Pow10(int(math.Floor(math.Log10((high - low) / 6))))
	step := 10 * power
	for _, m := range []float64{1, 2, 5} {
		if m*power*6.5 >= high-low {
			step = m * power
			break
		}
	}
	decimals := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	var ticks []plot.Tick
	for i := math.Ceil(low/step - 1e-9); i*step <= high+1e-9*step && len(ticks) < 20; i++ {
		v := i * step
		format := strconv.FormatFloat(v+0, 'f', decimals, 64) // +0: no "-0"
		if math.Max(math.Abs(low), math.Abs(high)) >= 1e6 || decimals > 4 {
			format = strconv.FormatFloat(v+0, 'g', 5, 64)
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: format})
	}
	return ticks
}

// average is the exponential moving average of the finite values, corrected for its start. It is moved by a share of what it
// is off, so that the average of equal values is that value.
func average(ys []float64, weight float64) []float64 {
	out := make([]float64, len(ys))
	m, left := 0.0, 1.0
	for i, y := range ys {
		if !finite(y) {
			out[i] = y
			continue
		}
		left *= weight
		m += (1 - weight) / (1 - left) * (y - m)
		out[i] = m
	}
	return out
}

// describe puts a series into words.
func describe(s Series, points, gaps int) string {
	name := s.Name
	if name == "" {
		name = "series"
	}
	var b strings.Builder
	if points == 0 {
		fmt.Fprintf(&b, "%s: no points", name)
	} else {
		first, last, low, high := -1, -1, math.Inf(1), math.Inf(-1)
		for i, y := range s.Y {
			if !finite(y) || !finite(s.X[i]) {
				continue
			}
			if first < 0 {
				first = i
			}
			last, low, high = i, math.Min(low, y), math.Max(high, y)
		}
		fmt.Fprintf(&b, "%s: %d points from (%.4g, %.4g) to (%.4g, %.4g), lowest %.4g, highest %.4g",
			name, points, s.X[first], s.Y[first], s.X[last], s.Y[last], low, high)
	}
	if gaps > 0 {
		fmt.Fprintf(&b, ", %d not drawn", gaps)
	}
	if n := len(s.Behind); n > 0 {
		low, high := math.Inf(1), math.Inf(-1)
		for _, ys := range s.Behind {
			for _, y := range ys {
				if finite(y) {
					low, high = math.Min(low, y), math.Max(high, y)
				}
			}
		}
		fmt.Fprintf(&b, "; behind it %d curves between %.4g and %.4g", n, low, high)
	}
	b.WriteByte('.')
	return b.String()
}

// label turns the document that vgsvg writes into an element for a page, with its text alternative.
func label(svg, title, desc string) string {
	if i := strings.Index(svg, "<svg"); i > 0 {
		svg = svg[i:]
	}
	svg = fitted(svg)
	svg = strings.ReplaceAll(svg, "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
	end := strings.IndexByte(svg, '>')
	head := strings.Join(strings.Fields(svg[:end]), " ")
	return head + ` class="` + class + `" role="img" aria-label="` + escape(title) + `">` +
		"\n<title>" + escape(title) + "</title>\n<desc>" + escape(desc) + "</desc>\n" + style + svg[end+1:]
}

// sans is a text of vgsvg in the font that charts are laid out with: what stands before its size, the size, and the text.
var sans = regexp.MustCompile(`<text( [^<>]*font-family:Liberation Sans;[^<>]*font-size:([0-9.]+)px[^<>]*)>([^<]*)</text>`)

// fitted gives texts the length that the layout reckons with: a browser without this font takes another, which may be a fifth wider,
// and names of rows would run into the axis.
func fitted(svg string) string {
	return sans.ReplaceAllStringFunc(svg, func(all string) string {
		found := sans.FindStringSubmatch(all)
		size, err := strconv.ParseFloat(found[2], 64)
		if err != nil || found[3] == "" {
			return all
		}
		face := font.DefaultCache.Lookup(font.Font{Typeface: "Liberation", Variant: "Sans"}, vg.Points(size))
		return fmt.Sprintf(`<text textLength="%.5g" lengthAdjust="spacingAndGlyphs"%s>%s</text>`, face.Width(html.UnescapeString(found[3])).Points(), found[1], found[3])
	})
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}

func pixels(v, def float64) vg.Length {
	if v == 0 {
		v = def
	}
	return vg.Length(v) * vg.Inch / 96
}

// blend mixes a colour with white.
func blend(c color.NRGBA, white float64) color.NRGBA {
	return mix(c, color.NRGBA{255, 255, 255, 255}, white)
}

// mix has a share of another colour.
func mix(c, other color.NRGBA, share float64) color.NRGBA {
	mixed := func(v, w uint8) uint8 { return uint8(math.Round(float64(v)*(1-share) + float64(w)*share)) }
	return color.NRGBA{mixed(c.R, other.R), mixed(c.G, other.G), mixed(c.B, other.B), 255}
}

// least is the smallest value that has a place on a logarithmic axis: the logarithms of smaller ones are not to be had everywhere.
const least = 1e-300

// finite reports whether a value can be drawn: differences of two such values are finite too.
func finite(v float64) bool { return math.Abs(v) <= 1e300 }

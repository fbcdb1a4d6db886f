package viz

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Estimate is a row of a [Forest]: a number with its interval.
type Estimate struct {
	Name             string
	Value, Low, High float64
}

// Forest is a picture of estimates with their intervals, a row each, and a line at zero: the
// differences of many variants at a glance. The zero value of a field means its default.
type Forest struct {
	Title string
	// XLabel names the quantity and its unit.
	XLabel string
	// Width is in pixels of 1/96 inch, default 640; the height follows from the rows.
	Width float64
	Rows  []Estimate
}

// SVG draws the rows from top to bottom. Intervals that do not hold zero are drawn stronger. It
// returns an error for no rows, for numbers that are not finite and intervals that end before they begin.
func (f Forest) SVG() (string, error) {
	if err := f.validate(); err != nil {
		return "", fmt.Errorf("drawing %q: %w", f.Title, err)
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text = f.Title, f.XLabel
	for _, s := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		s.Font.Variant = "Sans"
	}
	p.X.Tick.Marker = roundTicks{}
	var words []string
	var ticks []plot.Tick
	low, high := 0.0, 0.0
	for i, row := range f.Rows {
		y := float64(len(f.Rows) - 1 - i)
		ticks = append(ticks, plot.Tick{Value: y, Label: row.Name})
		words = append(words, fmt.Sprintf("%s: %.4g, from %.4g to %.4g.", row.Name, row.Value, row.Low, row.High))
		low, high = min(low, row.Low), max(high, row.High)
		hue := unsure()
		if row.Low > 0 || row.High < 0 {
			hue = palette[0]
		}
		p.Add(
			&plotter.Line{XYs: plotter.XYs{{X: row.Low, Y: y}, {X: row.High, Y: y}}, LineStyle: draw.LineStyle{Color: hue, Width: vg.Points(1.8)}},
			&plotter.Scatter{XYs: plotter.XYs{{X: row.Value, Y: y}}, GlyphStyle: draw.GlyphStyle{Color: hue, Radius: vg.Points(3), Shape: draw.BoxGlyph{}}})
	}
	p.Y.Tick.Marker = plot.ConstantTicks(ticks)
	p.Y.Min, p.Y.Max = -0.7, float64(len(f.Rows))-0.3
	margin := max((high-low)*0.05, 1e-9)
	p.X.Min, p.X.Max = low-margin, high+margin
	frame(&p.X, false, false)
	p.Add(&plotter.Line{XYs: plotter.XYs{{X: 0, Y: p.Y.Min}, {X: 0, Y: p.Y.Max}}, LineStyle: draw.LineStyle{Color: color.Gray{120}, Width: vg.Points(0.8), Dashes: dashes[2]}})

	canvas := vgsvg.New(pixels(f.Width, 640), pixels(90+22*float64(len(f.Rows)), 0))
	edge := vg.Points(6)
	p.Draw(draw.Crop(draw.New(canvas), edge, -edge, edge, -edge))
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return "", fmt.Errorf("drawing %q: %w", f.Title, err)
	}
	return label(buf.String(), f.Title, f.XLabel+". "+strings.Join(words, " ")), nil
}

func (f Forest) validate() error {
	var errs []error
	if len(f.Rows) == 0 {
		errs = append(errs, errors.New("no rows"))
	}
	if f.Width < 0 || math.IsNaN(f.Width) || math.IsInf(f.Width, 0) {
		errs = append(errs, fmt.Errorf("width %v, want a positive number or 0 for the default", f.Width))
	}
	for i, row := range f.Rows {
		if !finite(row.Low) || !finite(row.High) || !finite(row.Value) || row.Low > row.High {
			errs = append(errs, fmt.Errorf("row %d %q has %v in [%v, %v], want finite numbers, the low end first", i, row.Name, row.Value, row.Low, row.High))
		}
	}
	return errors.Join(errs...)
}

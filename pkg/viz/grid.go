package viz

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Grid is a picture of many square matrices over the same labels: what each head of each layer of a model attends to.
type Grid struct {
	Title string
	// Rows and Columns name the rows and columns of the grid: "layer 1", "head 1".
	Rows, Columns []string
	// Labels name the rows and columns of each matrix: the tokens, queries downwards and keys to the right.
	Labels []string
	// Values are [rows][columns][labels][labels], 0 or more. The greatest of all is the deepest blue; what is below a
	// fortieth of it is left out.
	Values [][][][]float64
	// Cell is the width of a matrix in pixels of 1/96 inch; default 84.
	Cell float64
}

// levels is how many shades there are. Cells of one shade are one path, which keeps the file small.
const levels = 20

// SVG draws the grid. Each matrix has a tooltip, which is also its text alternative, with its three greatest values. It
// returns an error if sizes disagree or a value is negative or not finite; all problems are in one error.
func (g Grid) SVG() (string, error) {
	most, err := g.validate()
	if err != nil {
		return "", fmt.Errorf("drawing %q: %w", g.Title, err)
	}
	cell := g.Cell
	if cell == 0 {
		cell = 84
	}
	const top, gap = 52.0, 6.0
	left := 14.0
	for _, name := range g.Rows {
		left = math.Max(left, 14+7*float64(cells(name)))
	}
	across, down := float64(len(g.Columns)), float64(len(g.Rows))
	var b strings.Builder
	beginSVG(&b, left+across*(cell+gap)+gap, top+down*(cell+gap)+gap, g.Title,
		fmt.Sprintf("%d by %d matrices over %d labels, queries downwards, keys to the right: %s. The greatest value is %.4g.",
			len(g.Rows), len(g.Columns), len(g.Labels), strings.Join(g.Labels, " "), most))
	fmt.Fprintf(&b, `<text class="ink" font-size="16" font-weight="bold" x="12" y="22">%s</text>`+"\n", escape(g.Title))
	for c, name := range g.Columns {
		fmt.Fprintf(&b, `<text class="soft" font-size="11" text-anchor="middle" x="%s" y="%s">%s</text>`+"\n", short(left+float64(c)*(cell+gap)+cell/2), short(top-6), escape(name))
	}
	for r, name := range g.Rows {
		y := top + float64(r)*(cell+gap)
		fmt.Fprintf(&b, `<text class="soft" font-size="11" x="8" y="%s">%s</text>`+"\n", short(y+cell/2), escape(name))
		for c, column := range g.Columns {
			scale := cell / math.Max(float64(len(g.Labels)), 1)
			fmt.Fprintf(&b, `<g transform="translate(%s %s) scale(%.5g)"><title>%s</title>`, short(left+float64(c)*(cell+gap)), short(y), scale,
				escape(name+", "+column+": "+g.strongest(g.Values[r][c])))
			fmt.Fprintf(&b, `<rect class="frame" width="%d" height="%[1]d" stroke-width="%.3g"/>`, len(g.Labels), 0.7/scale)
			b.WriteString(shades(g.Values[r][c], most) + "</g>\n")
		}
	}
	b.WriteString("</svg>")
	return b.String(), nil
}

// validate returns the greatest value.
func (g Grid) validate() (most float64, err error) {
	var errs []error
	if g.Cell < 0 || math.IsNaN(g.Cell) || math.IsInf(g.Cell, 0) {
		errs = append(errs, fmt.Errorf("cells of width %v, want a positive number or 0 for the default", g.Cell))
	}
	if len(g.Values) != len(g.Rows) {
		errs = append(errs, fmt.Errorf("%d rows of matrices for %d names", len(g.Values), len(g.Rows)))
	}
	for r, row := range g.Values {
		if len(row) != len(g.Columns) {
			errs = append(errs, fmt.Errorf("row %d has %d matrices for %d columns", r, len(row), len(g.Columns)))
		}
		for c, matrix := range row {
			fits := len(matrix) == len(g.Labels)
			for _, values := range matrix {
				fits = fits && len(values) == len(g.Labels)
				for _, v := range values {
					if !finite(v) || v < 0 {
						errs = append(errs, fmt.Errorf("the matrix of row %d and column %d has a value %g, want 0 or more, and finite", r, c, v))
					} else {
						most = math.Max(most, v)
					}
				}
			}
			if !fits {
				errs = append(errs, fmt.Errorf("the matrix of row %d and column %d is not %d by %[3]d, as there are labels", r, c, len(g.Labels)))
			}
		}
	}
	return most, errors.Join(errs...)
}

// strongest names the three greatest values of a matrix.
func (g Grid) strongest(matrix [][]float64) string {
	type link struct {
		from, to int
		value    float64
	}
	var links []link
	for i, row := range matrix {
		for j, v := range row {
			links = append(links, link{i, j, v})
		}
	}
	slices.SortStableFunc(links, func(a, b link) int { return cmp.Compare(b.value, a.value) })
	var said []string
	for _, l := range links[:min(3, len(links))] {
		said = append(said, fmt.Sprintf("%s → %s %.3g", g.Labels[l.from], g.Labels[l.to], l.value))
	}
	return strings.Join(said, ", ")
}

// shades draws a matrix in units of its cells.
func shades(matrix [][]float64, most float64) string {
	var paths [levels + 1]strings.Builder
	for i, row := range matrix {
		for j, v := range row {
			level := 0
			if most > 0 {
				level = int(math.Round(v / most * levels))
			}
			fmt.Fprintf(&paths[level], "M%d %dh1v1h-1z", j, i)
		}
	}
	hue := palette[0]
	var b strings.Builder
	for level := 1; level <= levels; level++ {
		if paths[level].Len() > 0 {
			fmt.Fprintf(&b, `<path fill="#%02x%02x%02x" fill-opacity="%s" d="%s"/>`, hue.R, hue.G, hue.B, short(float64(level)/levels), paths[level].String())
		}
	}
	return b.String()
}

package viz

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Heat writes a table whose cells are shaded by value, from white at the least to blue at the greatest: a confusion
// matrix, attention weights, a grid of results.
//
// values[r][c] belongs to rows[r] and columns[c]. NaN and infinities are shown as words, unshaded. The numbers stand
// in the cells, so the colour is never the only carrier. It returns an error if the sizes disagree.
func Heat(title string, rows, columns []string, values [][]float64) (html string, err error) {
	var errs []error
	if len(values) != len(rows) {
		errs = append(errs, fmt.Errorf("%d rows of values for %d row names", len(values), len(rows)))
	}
	low, high := math.Inf(1), math.Inf(-1)
	for r, row := range values {
		if len(row) != len(columns) {
			errs = append(errs, fmt.Errorf("row %d has %d values for %d columns", r, len(row), len(columns)))
		}
		for _, v := range row {
			if finite(v) {
				low, high = math.Min(low, v), math.Max(high, v)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("drawing %q: %w", title, err)
	}

	var b strings.Builder
	begin(&b, title)
	b.WriteString(`<tr><td></td>`)
	for _, c := range columns {
		fmt.Fprintf(&b, `<th scope="col" style="text-align:right">%s</th>`, escape(c))
	}
	b.WriteString("</tr>\n")
	for r, row := range values {
		fmt.Fprintf(&b, `<tr><th scope="row" style="text-align:left">%s</th>`, escape(rows[r]))
		for _, v := range row {
			style := "text-align:right"
			if finite(v) {
				part := 0.0
				if high > low {
					part = v/(high-low) - low/(high-low)
				}
				shade := blend(palette[0], 1-0.85*part)
				style += fmt.Sprintf(";background:#%02x%02x%02x;color:#000", shade.R, shade.G, shade.B) // black has more contrast on the deepest, too
			}
			fmt.Fprintf(&b, `<td style="%s">%s</td>`, style, number(v))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</table>")
	return b.String(), nil
}

// Bars writes a table of one number a row, each with a bar from zero: F1 by entity type, seconds by step.
//
// unit is appended to every number ("", " s", " %"). Bars of negative numbers are drawn in another colour and carry
// their sign in the number. NaN and infinities have no bar. It returns an error if names and values differ in length.
func Bars(title, unit string, names []string, values []float64) (html string, err error) {
	if len(names) != len(values) {
		return "", fmt.Errorf("drawing %q: %d names for %d values", title, len(names), len(values))
	}
	most := 0.0
	for _, v := range values {
		if finite(v) {
			most = math.Max(most, math.Abs(v))
		}
	}
	var b strings.Builder
	begin(&b, title)
	for i, v := range values {
		width, hue := 0.0, palette[0]
		if finite(v) && most > 0 {
			width = math.Abs(v) / most * 200
		}
		if v < 0 {
			hue = palette[1]
		}
		fmt.Fprintf(&b, `<tr><th scope="row" style="text-align:left">%s</th><td style="text-align:right">%s%s</td>`+
			`<td style="text-align:left"><div style="width:%.1fpx;height:0.8em;background:#%02x%02x%02x"></div></td></tr>`+"\n",
			escape(names[i]), number(v), escape(unit), width, hue.R, hue.G, hue.B)
	}
	b.WriteString("</table>")
	return b.String(), nil
}

func begin(b *strings.Builder, title string) {
	fmt.Fprintf(b, `<table style="border-collapse:collapse"><caption style="text-align:left;font-weight:bold">%s</caption>`+"\n", escape(title))
}

func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case math.IsInf(v, 0):
		return strings.Replace(fmt.Sprint(v), "Inf", "∞", 1)
	case v == math.Trunc(v) && math.Abs(v) < 1e9:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

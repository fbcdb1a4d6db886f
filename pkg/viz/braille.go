package viz

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// Text draws the chart for a terminal, in dots of Braille letters: columns wide, with rows lines for the curves and further
// ones for title, axis and legend. One curve at a time can be told from another by eye only, so several are drawn one
// below the other, on common axes. Numbers stand at the ends of the axes; what cannot be drawn is counted. The zero size
// is 72 by 10.
func (c Chart) Text(columns, rows int) (string, error) {
	if err := c.validate(); err != nil {
		return "", fmt.Errorf("drawing %q: %w", c.Title, err)
	}
	if columns <= 0 {
		columns = 72
	}
	if rows <= 0 {
		rows = 10
	}
	var b strings.Builder
	if c.Title != "" {
		fmt.Fprintln(&b, c.Title)
	}
	x, y := span{log: c.LogX}, span{log: c.LogY}
	for _, s := range c.Series {
		segments, _, _ := c.segments(s.X, s.Y)
		if s.Smooth > 0 { // with values that have no place on a logarithmic axis in it, a mean can lie below all that have one
			smooth, _, _ := c.segments(s.X, average(s.Y, s.Smooth))
			segments = append(segments, smooth...)
		}
		for _, segment := range segments {
			for _, p := range segment {
				x.add(p.X)
				y.add(p.Y)
			}
		}
	}
	low, high := y.label(y.low), y.label(y.high)
	margin := max(utf8.RuneCountInString(low), utf8.RuneCountInString(high))
	width := max(columns-margin-1, 8)
	for _, s := range c.Series {
		segments, points, gaps := c.segments(s.X, s.Y)
		words := describe(Series{Name: s.Name, X: s.X, Y: s.Y}, points, gaps)
		if points == 0 {
			fmt.Fprintln(&b, words)
			continue
		}
		if s.Smooth > 0 {
			segments, _, _ = c.segments(s.X, average(s.Y, s.Smooth))
		}
		dots := newDots(width, rows)
		for _, segment := range segments {
			for i, p := range segment {
				column, row := x.place(p.X, 2*width), 4*rows-1-y.place(p.Y, 4*rows)
				if i == 0 {
					dots.set(column, row)
					continue
				}
				dots.line(x.place(segment[i-1].X, 2*width), 4*rows-1-y.place(segment[i-1].Y, 4*rows), column, row)
			}
		}
		for row, line := range dots.lines() {
			mark := ""
			switch { // a constant lies in the middle
			case row == (4*rows-1-y.place(y.high, 4*rows))/4:
				mark = high
			case row == rows-1 && low != high:
				mark = low
			}
			fmt.Fprintf(&b, "%*s │%s\n", margin, mark, strings.TrimRight(line, " "))
		}
		left, right := x.label(x.low), x.label(x.high)
		fmt.Fprintf(&b, "%*s └%s\n", margin, "", strings.Repeat("─", width))
		fmt.Fprintf(&b, "%*s  %s%*s  %s\n%s\n", margin, "", left, max(width-len(left), len(right)+1), right, c.XLabel, words)
	}
	return b.String(), nil
}

// span is the range of an axis.
type span struct {
	low, high float64
	any, log  bool
}

func (s *span) add(v float64) {
	if !s.any {
		s.low, s.high, s.any = v, v, true
	}
	s.low, s.high = min(s.low, v), max(s.high, v)
}

func (s *span) scale(v float64) float64 {
	if s.log {
		return math.Log(v)
	}
	return v
}

// place is which of n places a value has.
func (s *span) place(v float64, n int) int {
	low, high := s.scale(s.low), s.scale(s.high)
	if high == low {
		return n / 2
	}
	return int(math.Round((s.scale(v) - low) / (high - low) * float64(n-1)))
}

func (s *span) label(v float64) string { return fmt.Sprintf("%.4g", v) }

// dots are two columns and four rows of dots a letter.
type dots struct {
	columns, rows int
	cells         []rune
}

func newDots(columns, rows int) *dots {
	return &dots{columns, rows, make([]rune, columns*rows)}
}

// braille has the bit of each dot of a letter, by row and column. Source: Unicode, block U+2800.
var braille = [4][2]rune{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

func (d *dots) set(x, y int) { d.cells[y/4*d.columns+x/2] |= braille[y%4][x%2] }

// line sets the dots between two places.
func (d *dots) line(x0, y0, x1, y1 int) {
	steps := max(abs(x1-x0), abs(y1-y0), 1)
	for i := range steps + 1 {
		at := float64(i) / float64(steps)
		d.set(x0+int(math.Round(at*float64(x1-x0))), y0+int(math.Round(at*float64(y1-y0))))
	}
}

func (d *dots) lines() []string {
	lines := make([]string, d.rows)
	for row := range lines {
		cells := make([]rune, d.columns)
		for i, bits := range d.cells[row*d.columns : (row+1)*d.columns] {
			if cells[i] = ' '; bits != 0 {
				cells[i] = 0x2800 + bits
			}
		}
		lines[row] = string(cells)
	}
	return lines
}

func abs(v int) int { return max(v, -v) }

package viz

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Parallel is a picture of parallel coordinates: an axis for each of several quantities, and a line across them for each of
// several things, so that one sees which settings go with which outcome. Lines are shaded by the last axis, from pale
// at the least to blue at the greatest.
//
// Source: Inselberg 1985, "The plane with parallel coordinates".
type Parallel struct {
	Title string
	// Axes name the quantities. One whose values are all numbers has a scale, any other a place for each word.
	Axes []string
	Rows []ParallelRow
}

// ParallelRow is one line of a [Parallel].
type ParallelRow struct {
	Name string
	// Values has one for each axis: a number or a word, empty where there is none; the line has a gap there.
	Values []string
}

// parallelAxis is an axis with the places of its values, from 0 at the bottom to 1.
type parallelAxis struct {
	name      string
	low, high string // what stands at its ends
	words     []string
	place     func(value string) (float64, bool)
}

func newParallelAxis(name string, values []string) parallelAxis {
	a := parallelAxis{name: name}
	low, high, numbers := math.Inf(1), math.Inf(-1), true
	for _, text := range values {
		if text == "" {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if numbers = numbers && err == nil; err == nil && finite(v) {
			low, high = min(low, v), max(high, v)
		}
	}
	if numbers {
		a.low, a.high = fmt.Sprintf("%.4g", low), fmt.Sprintf("%.4g", high)
		if low > high {
			a.low, a.high = "", ""
		}
		a.place = func(text string) (float64, bool) {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil || !finite(v) {
				return 0, false
			}
			if high == low {
				return 0.5, true
			}
			return (v - low) / (high - low), true
		}
		return a
	}
	a.words = slices.Compact(slices.Sorted(slices.Values(slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" }))))
	a.place = func(text string) (float64, bool) {
		at, ok := slices.BinarySearch(a.words, text)
		return (float64(at) + 0.5) / float64(len(a.words)), ok
	}
	return a
}

// SVG draws the picture. It returns an error if a row has not as many values as there are axes, or there are no axes.
func (p Parallel) SVG() (string, error) {
	var errs []error
	if len(p.Axes) == 0 {
		errs = append(errs, errors.New("no axes"))
	}
	for _, r := range p.Rows {
		if len(r.Values) != len(p.Axes) {
			errs = append(errs, fmt.Errorf("row %q has %d values for %d axes", r.Name, len(r.Values), len(p.Axes)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("drawing %q: %w", p.Title, err)
	}
	axes := make([]parallelAxis, len(p.Axes))
	for i, name := range p.Axes {
		values := make([]string, len(p.Rows))
		for j, r := range p.Rows {
			values[j] = r.Values[i]
		}
		axes[i] = newParallelAxis(name, values)
	}
	const gap, top, height, left = 130.0, 56.0, 220.0, 70.0
	width := 2*left + gap*float64(len(axes)-1)
	x := func(axis int) float64 { return left + gap*float64(axis) }
	y := func(place float64) float64 { return top + height*(1-place) }

	var desc strings.Builder
	fmt.Fprintf(&desc, "Parallel coordinates of %d rows over %s.", len(p.Rows), strings.Join(p.Axes, ", "))
	for _, r := range p.Rows[:min(len(p.Rows), 20)] {
		fmt.Fprintf(&desc, " %s: %s.", r.Name, strings.Join(r.Values, ", "))
	}
	if n := len(p.Rows) - 20; n > 0 {
		fmt.Fprintf(&desc, " And %d more.", n)
	}
	var b strings.Builder
	beginSVG(&b, width, top+height+34, p.Title, desc.String())
	fmt.Fprintf(&b, `<text class="ink" x="8" y="16" font-size="13">%s</text>`+"\n", escape(p.Title))
	for _, r := range p.Rows {
		shade, ok := axes[len(axes)-1].place(r.Values[len(axes)-1])
		ink := ` class="frame"`
		if ok {
			// A share of the paper's colour, light or dark.
			ink = fmt.Sprintf(` fill="none" stroke="%s" stroke-opacity="%s"`, hex(palette[0]), short(0.35+0.65*shade))
		}
		var points []string
		flush := func() {
			if len(points) == 1 { // a dot
				at := strings.Split(points[0], ",")
				fmt.Fprintf(&b, `<circle cx="%s" cy="%s" r="2"%s><title>%s</title></circle>`+"\n", at[0], at[1], ink, escape(r.Name))
			} else if len(points) > 1 {
				fmt.Fprintf(&b, `<polyline points="%s" stroke-width="1.8"%s><title>%s</title></polyline>`+"\n", strings.Join(points, " "), ink, escape(r.Name+": "+strings.Join(r.Values, ", ")))
			}
			points = nil
		}
		for i, a := range axes {
			place, ok := a.place(r.Values[i])
			if !ok {
				flush()
				continue
			}
			points = append(points, short(x(i))+","+short(y(place)))
		}
		flush()
	}
	for i, a := range axes {
		fmt.Fprintf(&b, `<line x1="%[1]s" x2="%[1]s" y1="%[2]s" y2="%[3]s" stroke="#888"/>`+"\n", short(x(i)), short(y(1)), short(y(0)))
		label := func(y float64, text, class string) {
			fmt.Fprintf(&b, `<text class="%s" x="%s" y="%s" font-size="11" text-anchor="middle">%s</text>`+"\n", class, short(x(i)), short(y), escape(clip(text, 21)))
		}
		label(top-20, a.name, "ink")
		if a.words == nil {
			label(top-6, a.high, "soft")
			label(top+height+14, a.low, "soft")
		}
		for _, word := range a.words {
			place, _ := a.place(word)
			label(y(place)-4, word, "ink")
		}
	}
	b.WriteString("</svg>")
	return b.String(), nil
}

// clip shortens a text in its middle to so many letters.
func clip(text string, n int) string {
	letters := []rune(text)
	if len(letters) <= n {
		return text
	}
	return string(letters[:n/2-1]) + "…" + string(letters[len(letters)-n/2:])
}

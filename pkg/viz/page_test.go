package viz

import (
	"fmt"
	"image/color"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// onDark is what dark pages make of the colour of a stroke or fill.
func onDark(t *testing.T, part string, c color.NRGBA) color.NRGBA {
	t.Helper()
	_, dark, found := strings.Cut(style, "prefers-color-scheme:dark")
	if paper := strings.ToLower(hex(darkPaper)); !found || !strings.Contains(dark, "fill:"+paper) {
		t.Fatalf("dark pages are not %s", paper)
	}
	rule := regexp.MustCompile(part + ":" + hex(c) + `"\]\{` + part + `:(#[0-9a-fA-F]{6})!`).FindStringSubmatch(dark)
	if rule == nil {
		return c
	}
	return parsed(t, rule[1])
}

// parsed is a colour that is written as hex writes it.
func parsed(t *testing.T, text string) (c color.NRGBA) {
	t.Helper()
	c.A = 255
	if _, err := fmt.Sscanf(strings.ToUpper(text), "#%02X%02X%02X", &c.R, &c.G, &c.B); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestShadesOnDarkPages: what a forest or parallel coordinates draw pale stands out less than the rest, on light and dark pages alike.
func TestShadesOnDarkPages(t *testing.T) {
	white := color.NRGBA{255, 255, 255, 255}
	check := func(what, page string, strong, weak, paper color.NRGBA) {
		if strong, weak := contrast(strong, paper), contrast(weak, paper); weak < 1.2 || weak > 0.8*strong {
			t.Errorf("%s on a %s page: contrast %.2f of what is strong, %.2f of what is pale", what, page, strong, weak)
		}
	}
	svg, err := Forest{Rows: []Estimate{{"sure", 2, 1, 3}, {"unsure", 0, -1, 1}}}.SVG()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"stroke", "fill"} {
		for _, hue := range []color.NRGBA{palette[0], unsure()} {
			if !strings.Contains(svg, part+":"+hex(hue)) {
				t.Errorf("the forest has no %s of %s", part, hex(hue))
			}
		}
		check("the forest's "+part, "light", palette[0], unsure(), white)
		check("the forest's "+part, "dark", onDark(t, part, palette[0]), onDark(t, part, unsure()), darkPaper)
	}
	svg, err = Parallel{Axes: []string{"a", "b"}, Rows: []ParallelRow{{"least", []string{"1", "1"}}, {"greatest", []string{"1", "2"}}}}.SVG()
	lines := regexp.MustCompile(`<polyline [^>]*stroke="(#[0-9A-F]{6})" stroke-opacity="([0-9.]+)"`).FindAllStringSubmatch(svg, -1)
	if err != nil || len(lines) != 2 {
		t.Fatalf("lines %q, %v", lines, err)
	}
	for page, paper := range map[string]color.NRGBA{"light": white, "dark": darkPaper} {
		var hues [2]color.NRGBA
		for i, line := range lines {
			opacity, err := strconv.ParseFloat(line[2], 64)
			if err != nil {
				t.Fatal(err)
			}
			hues[i] = mix(parsed(t, line[1]), paper, 1-opacity)
		}
		check("parallel coordinates", page, hues[1], hues[0], paper)
	}
}

// TestPaleCurvesOnDarkPages: a curve that stands behind is seen, and less than the one before it, on light and dark pages alike.
func TestPaleCurvesOnDarkPages(t *testing.T) {
	white := color.NRGBA{255, 255, 255, 255}
	// Figures of public checkers of contrast.
	for _, test := range []struct {
		a, b color.NRGBA
		want float64
	}{
		{color.NRGBA{A: 255}, white, 21},
		{color.NRGBA{0x76, 0x76, 0x76, 255}, white, 4.54},
		{color.NRGBA{255, 0, 0, 255}, white, 4.00},
	} {
		if got := contrast(test.a, test.b); math.Abs(got-test.want) > 0.005 {
			t.Errorf("contrast of %v and %v is %.3f, want %.2f", test.a, test.b, got, test.want)
		}
	}
	onDark := func(c color.NRGBA) color.NRGBA { return onDark(t, "stroke", c) }
	for _, hue := range palette {
		chart := Chart{Series: []Series{{X: []float64{1, 2}, Y: []float64{1, 2}, Behind: [][]float64{{2, 1}}}}}
		for len(chart.Series) < len(palette) && palette[len(chart.Series)-1] != hue {
			chart.Series = append(chart.Series, chart.Series[0])
		}
		svg, err := chart.SVG()
		if err != nil || !strings.Contains(svg, "stroke:"+hex(hue)) || !strings.Contains(svg, "stroke:"+hex(pale(hue))) {
			t.Errorf("no curves of %s and %s in the picture, %v", hex(hue), hex(pale(hue)), err)
		}
		for page, test := range map[string]struct{ paper, before, behind color.NRGBA }{
			"light": {white, hue, pale(hue)}, "dark": {darkPaper, onDark(hue), onDark(pale(hue))},
		} {
			before, behind := contrast(test.before, test.paper), contrast(test.behind, test.paper)
			t.Logf("%s on %s: %.2f before, %.2f behind", hex(hue), page, before, behind)
			if behind < 1.2 || behind > 0.8*before {
				t.Errorf("%s on %s: the curve behind has a contrast of %.2f, the one before it %.2f", hex(hue), page, behind, before)
			}
		}
	}
}

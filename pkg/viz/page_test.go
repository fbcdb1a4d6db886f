package viz

import (
	"fmt"
	"image/color"
	"math"
	"regexp"
	"strings"
	"testing"
)

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
	rules := map[string]string{} // what dark pages make of the colour of a line
	_, dark, found := strings.Cut(style, "prefers-color-scheme:dark")
	if !found {
		t.Fatal("no rules for dark pages")
	}
	for _, rule := range regexp.MustCompile(`stroke:(#[0-9A-F]{6})"\]\{stroke:(#[0-9a-fA-F]{6})!`).FindAllStringSubmatch(dark, -1) {
		rules[rule[1]] = strings.ToUpper(rule[2])
	}
	if paper := strings.ToLower(hex(darkPaper)); !strings.Contains(dark, "fill:"+paper) {
		t.Errorf("dark pages are not %s", paper)
	}
	onDark := func(c color.NRGBA) color.NRGBA {
		if to, ok := rules[hex(c)]; ok {
			c = color.NRGBA{A: 255}
			if _, err := fmt.Sscanf(to, "#%02X%02X%02X", &c.R, &c.G, &c.B); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
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

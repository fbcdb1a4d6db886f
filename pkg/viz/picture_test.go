package viz_test

import (
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/viz"
)

var update = flag.Bool("update", false, "write the pictures in testdata anew")

func smallTokens() viz.Tokens {
	return viz.Tokens{Title: "Why PER?", Width: 320, Rows: []viz.TokenRow{
		{Name: "PER Ann", Words: []string{"Ann", "met", "天安", "<b>"}, Values: []float64{3.25, -1.5, 0, 0.001}},
		{Name: "one & two", Words: []string{"a", ""}, Values: []float64{math.NaN(), 1}},
	}}
}

func smallGrid() viz.Grid {
	return viz.Grid{Title: "attention", Rows: []string{"layer 1"}, Columns: []string{"head 1", "head 2"}, Labels: []string{"[CLS]", "a"},
		Values: [][][][]float64{{{{0.75, 0.25}, {0.01, 0.99}}, {{0.5, 0.5}, {1, 0}}}}}
}

// smallRun is a run whose controllers acted.
func smallRun() viz.Panels {
	updates := []float64{1, 10, 20, 30, 40}
	marks := []viz.Mark{
		{X: 12, Kind: "spike: back off", Text: "loss 9 exceeds the median 1.5"},
		{X: 20, Kind: "plateau: reduce", Text: "metric did not improve 3 times in a row"},
		{X: 33, Kind: "spike: back off", Text: "loss 7 exceeds the median 1.1"},
	}
	return viz.Panels{Title: "runs/first", Charts: []viz.Chart{
		{YLabel: "loss", XLabel: "update", Marks: marks, Series: []viz.Series{{X: updates, Y: []float64{2, 1.5, 1.2, 1.1, 1}}}},
		{YLabel: "learning rate", XLabel: "update", Marks: marks, Series: []viz.Series{{X: updates, Y: []float64{1e-4, 1e-4, 5e-5, 5e-5, 2e-5}}}},
	}}
}

// smallSurface is a valley along y = x, bare in a corner, with one path inside of it and one that leaves it.
func smallSurface() viz.Surface {
	s := viz.Surface{Title: "a valley", XLabel: "x", YLabel: "y", X: []float64{0, 1, 2, 3}, Y: []float64{0, 1, 2}, Width: 320, Height: 240, Levels: []float64{0.5, 2}}
	for _, y := range s.Y {
		row := make([]float64, len(s.X))
		for i, x := range s.X {
			row[i] = (x - y) * (x - y)
		}
		s.Values = append(s.Values, row)
	}
	s.Values[2][0] = math.NaN()
	s.Paths = []viz.Series{{Name: "in", X: []float64{0, 1, 2}, Y: []float64{1, 1, 2}}, {Name: "out & back", X: []float64{3, 4, 3}, Y: []float64{0, 1, 2}}}
	return s
}

// TestGoldenPictures: the pictures are, byte by byte, those that were looked at. After a
// change look at them again: go test ./pkg/viz -run Golden -update
func TestGoldenPictures(t *testing.T) {
	for name, draw := range map[string]func() (string, error){"tokens.svg": smallTokens().SVG, "grid.svg": smallGrid().SVG, "run.svg": smallRun().SVG, "surface.svg": smallSurface().SVG} {
		got, err := draw()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got+"\n"); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// read parses XML and returns the text of its elements by their name, and the values of
// their attributes.
func read(t *testing.T, text string) (content map[string][]string, attributes []xml.Attr) {
	t.Helper()
	content = map[string][]string{}
	var open []string
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return content, attributes
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, text)
		}
		switch token := token.(type) {
		case xml.StartElement:
			open = append(open, token.Name.Local)
			attributes = append(attributes, token.Attr...)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				content[open[len(open)-1]] = append(content[open[len(open)-1]], string(token))
			}
		}
	}
}

func TestPicturesHoldTheirNumbers(t *testing.T) {
	curves, err := viz.Curves("deletion", "share of words", "evidence (logits)", viz.Series{Name: "ours", X: []float64{0, 1}, Y: []float64{3, -1.25}, Behind: [][]float64{{4, -2}, {2, 0}}})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := smallTokens().SVG()
	if err != nil {
		t.Fatal(err)
	}
	grid, err := smallGrid().SVG()
	if err != nil {
		t.Fatal(err)
	}
	marked, err := smallRun().SVG()
	if err != nil {
		t.Fatal(err)
	}
	surface, err := smallSurface().SVG()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, svg string
		texts     []string // of text elements
		titles    []string
		desc      string
	}{
		{"tokens", tokens, []string{"Ann", "+3.25", "-1.50", "天安", "+1e-03", "NaN", "␣", "<b>", "one & two"}, []string{"Why PER?"}, "PER Ann: Ann +3.25, met -1.50, 天安 +0.00, <b> +1e-03."},
		{"grid", grid, []string{"layer 1", "head 2"}, []string{"attention", "layer 1, head 1: a → a 0.99, [CLS] → [CLS] 0.75, [CLS] → a 0.25", "layer 1, head 2: a → [CLS] 1, [CLS] → [CLS] 0.5, [CLS] → a 0.5"}, "The greatest value is 1."},
		{"run", marked, []string{"loss", "learning rate", "spike: back off", "plateau: reduce", "runs/first"}, []string{"runs/first"},
			"Marked: spike: back off at 12, loss 9 exceeds the median 1.5; plateau: reduce at 20, metric did not improve 3 times in a row; spike: back off at 33, loss 7 exceeds the median 1.1. learning rate over update."},
		{"surface", surface, []string{"in", "out & back", "x"}, []string{"a valley"}, "lowest 0 at (0, 0). in: 3 points from (0, 1) to (2, 2). out & back: 3 points from (3, 0) to (3, 2), 1 outside."},
		{"curves", curves, []string{"share of words"}, []string{"deletion"}, "ours: 2 points from (0, 3) to (1, -1.25), lowest -1.25, highest 3; behind it 2 curves between -2 and 4."},
	} {
		content, attributes := read(t, test.svg)
		all := func(element string, wants []string) {
			for _, want := range wants {
				found := false
				for _, text := range content[element] {
					found = found || text == want
				}
				if !found {
					t.Errorf("%s has no %s %q: %q", test.name, element, want, content[element])
				}
			}
		}
		all("text", test.texts)
		all("title", test.titles)
		if !strings.Contains(strings.Join(content["desc"], ""), test.desc) {
			t.Errorf("%s is described as %q, want %q in it", test.name, content["desc"], test.desc)
		}
		if !strings.Contains(test.svg, "prefers-color-scheme:dark") || !strings.Contains(test.svg, `role="img"`) {
			t.Errorf("%s has no dark colours or no role", test.name)
		}
		for _, a := range attributes {
			if strings.Contains(a.Value, "://") && a.Name.Local != "xmlns" && a.Name.Space != "xmlns" {
				t.Errorf("%s loads or names %s=%q", test.name, a.Name.Local, a.Value)
			}
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("%s has %s=%q", test.name, a.Name.Local, a.Value)
			}
		}
	}
	page := viz.Page("a < b", tokens, grid)
	content, _ := read(t, strings.TrimPrefix(page, "<!DOCTYPE html>"))
	if len(content["title"]) < 2 || content["title"][0] != "a < b" {
		t.Errorf("the page's titles are %q", content["title"])
	}
}

func TestPictureErrors(t *testing.T) {
	grid := smallGrid()
	grid.Values[0][0][0][0], grid.Values[0][1], grid.Cell = -1, grid.Values[0][1][:1], -5
	tokens := smallTokens()
	tokens.Rows[0].Values, tokens.Width = nil, math.Inf(1)
	for _, test := range []struct {
		draw func() (string, error)
		want []string
	}{
		{grid.SVG, []string{`drawing "attention"`, "width -5", "row 0 and column 0 has a value -1", "row 0 and column 1 is not 2 by 2"}},
		{viz.Surface{}.SVG, []string{"0 x values, want at least 2", "0 y values", "no finite value"}},
		{viz.Surface{X: []float64{0, 0}, Y: []float64{0, 1}, Values: [][]float64{{1}, {1, 2}}, Levels: []float64{1, math.NaN()}, Width: -1, Paths: []viz.Series{{Name: "p", X: []float64{1}}}}.SVG,
			[]string{"x has 0 as value 1", "row 0 has 1 values", "levels has NaN as value 1", "size -1 x 0", `path 0 "p" has 1 x and 0 y`}},
		{viz.Grid{Rows: []string{"a"}}.SVG, []string{"0 rows of matrices for 1 names"}},
		{viz.Grid{Rows: []string{"a"}, Values: [][][][]float64{{nil}}}.SVG, []string{"row 0 has 1 matrices for 0 columns"}},
		{tokens.SVG, []string{"width +Inf", `row 0 "PER Ann" has 4 words and 0 values`}},
		{viz.Chart{Series: []viz.Series{{X: []float64{1}, Y: []float64{1}, Behind: [][]float64{{}}}}}.SVG, []string{"in curve 0 behind it, 0 y values"}},
	} {
		_, err := test.draw()
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q in it", err, want)
			}
		}
	}
	for _, empty := range []func() (string, error){viz.Grid{}.SVG, viz.Tokens{}.SVG} {
		if svg, err := empty(); err != nil {
			t.Error(err)
		} else {
			wellFormed(t, svg)
		}
	}
}

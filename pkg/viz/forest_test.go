package viz_test

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/viz"
)

func TestForest(t *testing.T) {
	f := viz.Forest{Title: "a < b", XLabel: "difference (points)", Rows: []viz.Estimate{{"entmax", 0.4, -0.3, 1.1}, {"sink", -2, -3, -1}}}
	svg, err := f.SVG()
	if err != nil {
		t.Fatal(err)
	}
	var any struct{}
	if err := xml.Unmarshal([]byte(svg), &any); err != nil {
		t.Errorf("no XML: %v", err)
	}
	for _, want := range []string{"a &lt; b", "entmax: 0.4, from -0.3 to 1.1.", "sink: -2, from -3 to -1.", ">entmax<", "difference (points)"} {
		if !strings.Contains(svg, want) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	if !strings.Contains(svg, ">entmax<") || strings.Count(svg, ">sink<") != 1 {
		t.Error("each row has its name once")
	}
	same := viz.Forest{Title: "none", Rows: []viz.Estimate{{"same", 0, 0, 0}}}
	if _, err := same.SVG(); err != nil {
		t.Errorf("an interval of no width: %v", err)
	}
}

// TestTextsFit: names of rows end at the axis, all in one line, whatever font a browser draws them with.
func TestTextsFit(t *testing.T) {
	names := []string{"i", "softmax & labels", "softmax, labels, head, rate x10"}
	var rows []viz.Estimate
	for _, name := range names {
		rows = append(rows, viz.Estimate{Name: name, Value: 1, Low: 0, High: 2})
	}
	svg, err := viz.Forest{Title: "a", XLabel: "b", Rows: rows}.SVG()
	if err != nil {
		t.Fatal(err)
	}
	var picture struct {
		Texts []struct {
			X      float64 `xml:"x,attr"`
			Length float64 `xml:"textLength,attr"`
			Text   string  `xml:",chardata"`
		} `xml:"g>text"`
	}
	if err := xml.Unmarshal([]byte(svg), &picture); err != nil {
		t.Fatal(err)
	}
	ends := map[string]float64{}
	for _, text := range picture.Texts {
		if text.Length <= 0 {
			t.Errorf("%q has no length", text.Text)
		}
		ends[text.Text] = text.X + text.Length
	}
	for _, name := range names {
		if end, ok := ends[name]; !ok || math.Abs(end-ends[names[0]]) > 0.1 {
			t.Errorf("%q ends at %g, %q at %g", name, end, names[0], ends[names[0]])
		}
	}
}

func TestForestRefuses(t *testing.T) {
	for _, f := range []viz.Forest{
		{},
		{Rows: []viz.Estimate{{"a", 0, 1, -1}}},
		{Rows: []viz.Estimate{{"a", 0, math.NaN(), 1}}},
		{Width: -1, Rows: []viz.Estimate{{"a", 0, 0, 1}}},
	} {
		if _, err := f.SVG(); err == nil {
			t.Errorf("%+v: want an error", f)
		}
	}
}

func ExampleForest() {
	svg, err := viz.Forest{Title: "Against softmax", XLabel: "F1 (points)", Rows: []viz.Estimate{{"entmax", 0.4, -0.3, 1.1}}}.SVG()
	fmt.Println(strings.HasPrefix(svg, "<svg"), err)
	// Output: true <nil>
}

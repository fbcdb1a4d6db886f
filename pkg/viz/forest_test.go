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

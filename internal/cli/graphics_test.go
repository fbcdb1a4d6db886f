package cli

import (
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/viz"
)

func TestChartsOnTerminals(t *testing.T) {
	chart := viz.Chart{Title: "loss", XLabel: "step", YLabel: "nats", Series: []viz.Series{{X: []float64{1, 2}, Y: []float64{3, 4}}}}
	for _, test := range []struct{ env, want string }{
		{"sixel", "\x1bP"},
		{"text", "│"},
		{"", "│"}, // not a terminal
	} {
		t.Setenv(graphicsEnv, test.env)
		var out strings.Builder
		if err := (&app{stdout: &out}).charts(chart, chart); err != nil {
			t.Fatal(err)
		}
		if strings.Count(out.String(), "\x1bP") != 2 && test.env == "sixel" || !strings.Contains(out.String(), test.want) {
			t.Errorf("%s=%q: no %q in %q", graphicsEnv, test.env, test.want, out.String()[:40])
		}
	}
	t.Setenv(graphicsEnv, "kitty")
	var out strings.Builder
	if err := (&app{stdout: &out}).charts(chart); err == nil || !strings.Contains(err.Error(), `ELASTIC_GRAPHICS is "kitty", want sixel or text`) || out.Len() > 0 {
		t.Errorf("%s=kitty: %v, %q", graphicsEnv, err, out.String())
	}
}

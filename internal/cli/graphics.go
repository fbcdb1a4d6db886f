package cli

import (
	"fmt"
	"os"

	"github.com/mattn/go-sixel"

	"github.com/elastic-attention/workbench/pkg/viz"
)

// graphicsEnv says what charts are drawn with on a terminal: sixel or text. Unset, the terminal is asked.
const graphicsEnv = "ELASTIC_GRAPHICS"

// charts draws charts on standard output, as pictures if that is a terminal that shows them.
func (a *app) charts(charts ...viz.Chart) error {
	draw := func(c viz.Chart) (string, error) { return c.Text(0, 8) }
	if len(charts) > 0 && a.graphics() {
		draw = viz.Chart.Sixel
	}
	for _, chart := range charts {
		text, err := draw(chart)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "\n%s", text)
	}
	return nil
}

// graphics reports whether standard output shows sixel.
func (a *app) graphics() bool {
	switch os.Getenv(graphicsEnv) {
	case "sixel":
		return true
	case "":
		return isTerminal(a.stdout) && os.Getenv("TERM") != "dumb" && inForeground() && sixel.IsSupported()
	}
	return false
}

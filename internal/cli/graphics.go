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
	if len(charts) == 0 {
		return nil
	}
	pictures, err := a.graphics()
	if err != nil {
		return err
	}
	draw := func(c viz.Chart) (string, error) { return c.Text(0, 8) }
	if pictures {
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

// graphics reports whether charts are drawn as sixel.
func (a *app) graphics() (bool, error) {
	switch value := os.Getenv(graphicsEnv); value {
	case "sixel":
		return true, nil
	case "text":
		return false, nil
	case "":
		return isTerminal(a.stdout) && os.Getenv("TERM") != "dumb" && inForeground() && sixel.IsSupported(), nil
	default:
		return false, usageError{fmt.Errorf("%s is %q, want sixel or text, or leave it out to ask the terminal", graphicsEnv, value)}
	}
}

package cli

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/viz"
)

// curveFlags say what of curves is drawn, and where.
type curveFlags struct {
	Metrics []string `name:"metric" sep:"none" help:"Metric whose curve is drawn. May be repeated. Default: the training loss and the scores on dev." placeholder:"NAME"`
	Plot    string   `help:"Draw the curves into a file, .svg (one metric) or .html." placeholder:"FILE" predictor:"path"`
	Smooth  float64  `help:"Weight of the past in a moving average, below 1." placeholder:"W"`
	Log     bool     `help:"Logarithmic values."`
}

// charts draws the curves of runs, a chart for each metric. It refuses a --plot that cannot hold them.
func (f curveFlags) charts(runs []track.Run) ([]viz.Chart, error) {
	if !(f.Smooth >= 0 && f.Smooth < 1) {
		return nil, usageError{fmt.Errorf("--smooth is %g, want it from 0 to below 1", f.Smooth)}
	}
	if err := checkPlot(f.Plot); err != nil {
		return nil, usageError{err}
	}
	known := map[string][]viz.Series{}
	for _, r := range runs {
		series, err := r.Series()
		if err != nil {
			return nil, err
		}
		for _, s := range series {
			known[s.Name] = append(known[s.Name], curve(r.ID, s, f.Smooth))
		}
	}
	names := f.Metrics
	if len(names) == 0 {
		names = track.Curves(runs...)
	}
	var charts []viz.Chart
	for _, name := range names {
		if known[name] == nil {
			return nil, usageError{fmt.Errorf("--metric: %w", track.CheckName("metric", name, slices.Sorted(maps.Keys(known))))}
		}
		charts = append(charts, viz.Chart{Title: name, XLabel: "step", YLabel: name, LogY: f.Log, Series: known[name]})
	}
	switch svg := strings.EqualFold(filepath.Ext(f.Plot), ".svg"); {
	case f.Plot != "" && len(charts) == 0:
		return nil, errors.New("--plot: there are no curves to draw")
	case svg && len(charts) > 1:
		return nil, usageError{fmt.Errorf("--plot is %q, but there are %d metrics: choose one by --metric, or take a name that ends in .html", f.Plot, len(charts))}
	}
	return charts, nil
}

// curve is a series for a chart.
func curve(name string, s track.Series, smooth float64) viz.Series {
	c := viz.Series{Name: name, Smooth: smooth, X: make([]float64, len(s.Points)), Y: make([]float64, len(s.Points))}
	for i, p := range s.Points {
		c.X[i], c.Y[i] = float64(p.Step), p.Value
	}
	return c
}

// draw writes the curves into the file of --plot or, if there is none, to a terminal.
func (f curveFlags) draw(a *app, title string, charts []viz.Chart) error {
	if f.Plot == "" {
		return a.charts(charts...)
	}
	var draw []func() (string, error)
	for _, chart := range charts {
		draw = append(draw, chart.SVG)
	}
	return a.plot(f.Plot, title, draw...)
}

type runsShowCmd struct {
	storeFlag
	RunName string `arg:"" name:"run" help:"Run: a part of its name, its folder, or latest." default:"latest" predictor:"path"`
	curveFlags
	JSON bool `help:"Print all that is known, as JSON."`
}

// Help is shown below the usage.
func (runsShowCmd) Help() string {
	return `Examples:
  elastic runs show                                    the latest
  elastic runs show ner-quick --metric train/loss --smooth 0.9
  elastic runs show ner-quick --plot curves.html`
}

// Run shows a run.
func (c runsShowCmd) Run(a *app) error {
	runs, err := choice{storeFlag: c.storeFlag, Runs: []string{c.RunName}}.find(a)
	if err != nil {
		return err
	}
	r := runs[0]
	charts, err := c.charts(runs)
	if err != nil {
		return err
	}
	if c.JSON {
		if c.Plot != "" {
			if err := c.draw(a, r.ID, charts); err != nil {
				return err
			}
		}
		return a.printJSON(r)
	}
	about := [][]string{{"run", r.ID}, {"folder", r.Dir}, {"status", strings.TrimSuffix(string(r.Status)+": "+r.Error, ": ")}, {"task", r.Task}, {"seed", r.Field("seed")},
		{"started", began(r, time.DateTime)}, {"time", lasted(r)}, {"from", r.Field("from")}, {"code", r.Field("code")}}
	for i, m := range r.Machines {
		name := "machine"
		if i > 0 {
			name = "resumed on"
		}
		about = append(about, []string{name, fmt.Sprintf("%s, %s, %d CPUs, process %d", m.Host, m.Platform, m.CPUs, m.PID)})
	}
	if r.Notes.Text != "" || len(r.Notes.Tags) > 0 {
		about = append(about, []string{"notes", notes(r.Notes)})
	}
	if r.Damaged > 0 {
		about = append(about, []string{"damaged", fmt.Sprintf("%d lines of the journal are not as they were written", r.Damaged)})
	}
	a.table(slices.DeleteFunc(about, func(row []string) bool { return row[1] == "" }))
	if fields := r.Fields(); len(fields) > 0 {
		fmt.Fprintln(a.stdout, "\nConfig")
		var rows [][]string
		for _, path := range slices.Sorted(maps.Keys(fields)) {
			rows = append(rows, []string{"  " + path, fields[path]})
		}
		a.table(rows)
	}
	if len(r.Metrics) > 0 {
		fmt.Fprintln(a.stdout)
		rows := [][]string{{"metric", "points", "last step", "last", "least", "greatest"}}
		for _, m := range r.Metrics {
			rows = append(rows, []string{m.Name, fmt.Sprint(m.Count), fmt.Sprint(m.Step), number(m.Last), number(m.Min), number(m.Max)})
		}
		a.table(rows)
	}
	if len(r.Artefacts) > 0 {
		fmt.Fprintln(a.stdout)
		rows := [][]string{{"file", "bytes", "SHA-256"}}
		for _, f := range r.Artefacts {
			rows = append(rows, []string{f.Path, fmt.Sprint(f.Bytes), f.SHA256[:min(16, len(f.SHA256))] + "…"})
		}
		a.table(rows)
	}
	return c.draw(a, r.ID, charts)
}

func number(v float64) string {
	if math.IsNaN(v) {
		return "NaN"
	}
	return fmt.Sprintf("%.5g", v)
}

type runsCompareCmd struct {
	choice
	curveFlags
	JSON bool `help:"Print the comparison as JSON."`
}

// Help is shown below the usage.
func (runsCompareCmd) Help() string {
	return `Of a metric whose name says what is better (loss, error, f1, accuracy, …) the best value is marked with *.

Examples:
  elastic runs compare quick-20260101 quick-20260102
  elastic runs compare --where id~study-claim-ner --where config.variant=softmax
  elastic runs compare one two --metric train/loss --plot both.svg`
}

// Run compares runs.
func (c runsCompareCmd) Run(a *app) error {
	runs, err := c.find(a)
	if err != nil {
		return err
	}
	if len(runs) < 2 {
		return usageError{fmt.Errorf("%d runs: there must be two or more to compare", len(runs))}
	}
	comparison := track.Compare(runs...)
	var charts []viz.Chart
	if c.Plot != "" || len(c.Metrics) > 0 {
		if charts, err = c.charts(runs); err != nil {
			return err
		}
	}
	if c.JSON {
		if c.Plot != "" {
			if err := c.draw(a, "comparison", charts); err != nil {
				return err
			}
		}
		return a.printJSON(comparison)
	}
	header := []string{""}
	for _, r := range runs {
		header = append(header, r.ID)
	}
	for _, part := range []struct {
		title string
		rows  []track.Row
	}{{"differs", comparison.Differing}, {"last value", comparison.Metrics}} {
		header[0] = part.title
		table := [][]string{slices.Clone(header)}
		for _, row := range part.rows {
			cells := []string{row.Name}
			for i, value := range row.Values {
				if value = short(value); value == "" {
					value = "-"
				}
				if slices.Contains(row.Best, i) {
					value += " *"
				}
				cells = append(cells, value)
			}
			table = append(table, cells)
		}
		a.table(table)
		fmt.Fprintln(a.stdout)
	}
	return c.draw(a, "comparison", charts)
}

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/execute"
)

type nbSweepCmd struct {
	Notebook    string        `arg:"" help:"Notebook file." predictor:"path"`
	Params      []string      `name:"param" short:"p" sep:"none" required:"" help:"Parameter and its values, NAME=VALUE,VALUE,…; several are combined." placeholder:"NAME=VALUES"`
	CellTimeout time.Duration `help:"Longest time of a cell, where the notebook does not say." default:"5m"`
	Output      string        `short:"o" help:"Folder for the executed notebooks and the table. Default: runs/sweep-NAME." placeholder:"DIR" predictor:"path"`
	JSON        bool          `help:"Print the table as JSON."`
	notifyFlag
}

// Help is shown below the usage.
func (nbSweepCmd) Help() string {
	return `Each combination of values is one executed notebook; the table has the numbers that the notebook prints as
"result: name=number". It is written after each combination (table.md, table.json), so Ctrl-C loses nothing.

  elastic nb sweep notebooks/01-first-run.ipynb -p RATE=1e-4,2e-4 -p SEED=1,2,3`
}

// axes are what -p says.
func (c nbSweepCmd) axes() ([]execute.Axis, error) {
	params, err := parameters(c.Params)
	if err != nil {
		return nil, err
	}
	var axes []execute.Axis
	for _, p := range c.Params {
		name, _, _ := strings.Cut(p, "=")
		axis := execute.Axis{Name: name, Values: strings.Split(params[name], ",")}
		for i, value := range axis.Values {
			if value == "" { // to a notebook, that is its default
				return nil, usageError{fmt.Errorf("-p %s has an empty value, want NAME=VALUE,VALUE,…", p)}
			}
			if slices.Contains(axis.Values[:i], value) {
				return nil, usageError{fmt.Errorf("-p %s has the value %q twice", p, value)}
			}
		}
		axes = append(axes, axis)
	}
	return axes, nil
}

// Run executes the notebook at each point.
func (c nbSweepCmd) Run(a *app) error {
	if err := checkTimeout(c.CellTimeout); err != nil {
		return err
	}
	axes, err := c.axes()
	if err != nil {
		return err
	}
	n, err := nb.ReadFile(c.Notebook)
	if err != nil {
		return err
	}
	points := execute.Points(axes)
	for _, point := range points { // before the first takes its time
		if err := n.CheckParams(point); err != nil {
			return usageError{err}
		}
	}
	base := filepath.Base(c.Notebook)
	table := execute.Table{Notebook: base}
	for _, axis := range axes {
		table.Axes = append(table.Axes, axis.Name)
	}
	dir := c.Output
	if dir == "" {
		dir = filepath.Join("runs", "sweep-"+strings.TrimSuffix(base, ".ipynb"))
	}
	var files []string
	failed := false
	for i, point := range points {
		if a.ctx.Err() != nil {
			break
		}
		file := execute.PointFile(base, table.Axes, point)
		if slices.Contains(files, file) { // values that differ in characters that a file name has not
			file = strings.TrimSuffix(file, ".ipynb") + fmt.Sprintf(",%d.ipynb", i+1)
		}
		files = append(files, file)
		_, report, err := runNotebook(a, c.Notebook, dir, file, execute.Options{Params: point, CellTimeout: c.CellTimeout})
		if err != nil {
			return err
		}
		failed = failed || !report.OK
		table.Rows = append(table.Rows, execute.Row{File: file, Report: report})
		a.ending = ending{dir, map[string]float64{"notebooks": float64(len(table.Rows)), "of": float64(len(points))}}
		fmt.Fprintf(a.stderr, "%d/%d  %s  %s\n", i+1, len(points), file, strings.Join(append([]string{numbers(report.Results)}, report.Errors...), "\n  "))
		if err := writeTable(dir, table); err != nil {
			return err
		}
	}
	if c.JSON {
		err = a.printJSON(table)
	} else {
		_, err = fmt.Fprint(a.stdout, table.Markdown())
	}
	if err != nil {
		return err
	}
	switch {
	case len(table.Rows) < len(points):
		return errors.New("interrupted: the table has what there is")
	case failed:
		return errSilent
	}
	return nil
}

func writeTable(dir string, table execute.Table) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := table.JSON()
	if err != nil {
		return err
	}
	return errors.Join(atomicfile.WriteFile(filepath.Join(dir, "table.json"), text), atomicfile.WriteFile(filepath.Join(dir, "table.md"), []byte(table.Markdown())))
}

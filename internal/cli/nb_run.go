package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/execute"
)

type nbRunCmd struct {
	Notebooks   []string      `arg:"" help:"Notebook files." predictor:"path"`
	Params      []string      `name:"param" short:"p" sep:"none" help:"Parameter NAME=VALUE, as the notebook's parameters cell declares it; expected numbers are not compared then." placeholder:"NAME=VALUE"`
	CellTimeout time.Duration `help:"Longest time of a cell, where the notebook does not say." default:"5m"`
	Output      string        `short:"o" help:"Folder for the executed copies and what the kernel logs." placeholder:"DIR" predictor:"path"`
	Write       bool          `help:"Write the outputs of notebooks that passed back into them."`
	JSON        bool          `help:"Print a line of JSON for each notebook."`
	notifyFlag
}

// Help is shown below the usage.
func (nbRunCmd) Help() string {
	return `A cell fails by a compile error, a panic, an exit, a failing %test, a hang, or the kernel's death. The notebook's
metadata, under "workbench", may say what numbers it must print ("expect"), and how long it ("budget") and each
cell ("cell_timeout") may take. Ctrl-C interrupts the cell; what there is by then is still written.

Examples:
  elastic nb run notebooks/*.ipynb -o executed
  elastic nb run notebooks/02-attention-pooling.ipynb -p SEED=2`
}

// Run executes.
func (c nbRunCmd) Run(a *app) error {
	if err := checkTimeout(c.CellTimeout); err != nil {
		return err
	}
	params, err := parameters(c.Params)
	if err != nil {
		return err
	}
	if c.Write && len(params) > 0 {
		return usageError{errors.New("--write and -p exclude each other: committed outputs belong to the default parameters")}
	}
	for i, path := range c.Notebooks { // whose executed copies would be one file
		same := func(other string) bool { return filepath.Base(other) == filepath.Base(path) }
		if c.Output != "" && slices.ContainsFunc(c.Notebooks[:i], same) {
			return usageError{fmt.Errorf("-o %s: %s has the name of another notebook; execute them into different folders", c.Output, path)}
		}
	}
	passed := 0
	for _, path := range c.Notebooks {
		if a.ctx.Err() != nil {
			break
		}
		ok, err := c.one(a, path, params)
		if err != nil {
			return err
		}
		if ok {
			passed++
		}
	}
	a.ending = ending{strings.Join(c.Notebooks, ", "), map[string]float64{"passed": float64(passed), "of": float64(len(c.Notebooks))}}
	fmt.Fprintf(a.stderr, "%d of %d notebooks passed\n", passed, len(c.Notebooks))
	if passed < len(c.Notebooks) {
		return errSilent
	}
	return nil
}

// one executes one notebook and says whether it passed. The error is for what no other notebook would be spared.
func (c nbRunCmd) one(a *app, path string, params map[string]string) (bool, error) {
	o := execute.Options{Params: params, CellTimeout: c.CellTimeout}
	n, report, err := runNotebook(a, path, c.Output, filepath.Base(path), o)
	if n == nil { // it could not even begin
		report = execute.Report{Notebook: filepath.Base(path), Params: params, Cells: []execute.CellTime{}, Errors: []string{err.Error()}}
	} else if err != nil {
		return false, err
	}
	if c.Write && report.OK {
		n.SetMeasured(report.Measured())
		if err := n.WriteFile(path); err != nil {
			return false, err
		}
	}
	if c.JSON {
		return report.OK, json.NewEncoder(a.stdout).Encode(report)
	}
	word := "ok"
	if !report.OK {
		word = "FAILED"
	}
	fmt.Fprintf(a.stdout, "%-6s %-32s %6.1f s  %s\n", word, report.Notebook, report.Seconds, numbers(report.Results))
	for _, e := range report.Errors {
		fmt.Fprintf(a.stdout, "  %s\n", e)
	}
	return report.OK, nil
}

// runNotebook executes a notebook, with its progress on a terminal, and writes the executed copy under a name and the
// kernel's log into a folder if there is one.
func runNotebook(a *app, path, folder, name string, o execute.Options) (*nb.Notebook, execute.Report, error) {
	if folder != "" {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, execute.Report{}, err
		}
		log, err := os.OpenFile(filepath.Join(folder, "kernel.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, execute.Report{}, err
		}
		defer log.Close()
		o.Log = log
	}
	terminal := isTerminal(a.stderr)
	if terminal {
		o.Cell = func(index int) { fmt.Fprintf(a.stderr, "\r\x1b[K%s: cell %d", name, index) }
	}
	n, report, err := execute.Run(a.ctx, path, o)
	if terminal {
		fmt.Fprint(a.stderr, "\r\x1b[K")
	}
	if err == nil && folder != "" {
		err = n.WriteFile(filepath.Join(folder, name))
	}
	return n, report, err
}

// numbers writes results in one line, sorted by name.
func numbers(results map[string]float64) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(results)) {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s=%g", name, results[name])
	}
	return b.String()
}

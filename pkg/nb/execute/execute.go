// Package execute runs notebooks without anybody watching, and fails when a cell failed or a number moved.
//
// Some versions of GoNB answer "ok" to a cell whose program compiled and then panicked, exited with an error, or whose %test
// failed: all they do is write "exit status N" to the cell's standard error. So tools that only look at the answer pass over
// a training that crashed. [Run] looks for that line, and for everything else that can go wrong:
//
//	errors of cells    compile errors, missing imports, panics, exits, signals, failing tests
//	expected errors    a cell tagged "raises-exception" must fail
//	time               of one cell and of the whole notebook; a cell that takes too long is interrupted, then killed
//	a dead kernel      its process has ended
//	expected numbers   those that [nb.Plan] declares and the notebook prints as "result: name=number"
//
// Parameters reach the notebook as environment variables NB_<name>, which nb.Param of package viz/nb reads; which there are,
// and of what type, [nb.Notebook.Params] tells.
package execute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

// DefaultCellTimeout is the longest time of a cell where neither the notebook nor the caller says another.
const DefaultCellTimeout = 5 * time.Minute

// prologue is executed, uncounted, before the first cell of a GoNB notebook: versions come from go.mod, not from a network.
const prologue = "%noautoget"

// Options say how a notebook is run. The zero value runs it with its own parameters.
type Options struct {
	Params      map[string]string // by name, without NB_
	CellTimeout time.Duration     // of notebooks that do not say; 0 is [DefaultCellTimeout]
	Grace       time.Duration     // how long an interrupted cell may take to end; 0 is 5 seconds
	Log         io.Writer         // what the kernel itself writes; nil throws it away
	Spec        *kernel.Spec      // the kernel; nil finds the one that the notebook names
	Cell        func(index int)   // called before each code cell
}

// Report says how a notebook ran. As JSON it is one line.
type Report struct {
	Notebook string             `json:"notebook"`
	OK       bool               `json:"ok"`
	Seconds  float64            `json:"seconds"`
	Params   map[string]string  `json:"params"`
	Results  map[string]float64 `json:"-"`
	Compared bool               `json:"compared"` // with the expected numbers, which belong to the notebook's own parameters
	Cells    []CellTime         `json:"cells"`
	Errors   []string           `json:"errors"`
}

// CellTime is how long a cell took. Cells are counted from 0, with those of text.
type CellTime struct {
	Cell    int     `json:"cell"`
	Seconds float64 `json:"seconds"`
}

// MarshalJSON writes results too, where NaN and infinities, which JSON has not, are texts.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	results := map[string]any{}
	for name, value := range r.Results {
		if results[name] = value; math.IsNaN(value) || math.IsInf(value, 0) {
			results[name] = fmt.Sprint(value)
		}
	}
	return json.Marshal(struct {
		plain
		Results map[string]any `json:"results"`
	}{plain(r), results})
}

// Run executes the notebook of a file and returns it with its outputs, and how it went. What went wrong in the notebook is
// in the report; the error is for what kept it from running at all. When the context ends, the cell that runs is
// interrupted, and the report says so.
func Run(ctx context.Context, path string, o Options) (*nb.Notebook, Report, error) {
	n, err := nb.ReadFile(path)
	if err != nil {
		return nil, Report{}, err
	}
	plan, err := n.Plan()
	if err != nil {
		return nil, Report{}, fmt.Errorf("notebook %s: %w", path, err)
	}
	if err := n.CheckParams(o.Params); err != nil {
		return nil, Report{}, fmt.Errorf("notebook %s: %w", path, err)
	}
	spec := o.Spec
	if spec == nil {
		found, err := kernel.Find(kernelName(n), kernel.DataDirs())
		if err != nil {
			return nil, Report{}, fmt.Errorf("notebook %s: %w", path, err)
		}
		spec = &found
	}
	env := map[string]string{"NB_HEADLESS": "1"}
	for name, value := range o.Params {
		env[nb.ParamEnv(name)] = value
	}
	r := runner{o: o, plan: plan, began: time.Now(), report: Report{Notebook: filepath.Base(path), Params: o.Params, Errors: []string{}, Cells: []CellTime{}}}
	if r.report.Params == nil {
		r.report.Params = map[string]string{}
	}
	k, err := kernel.Start(ctx, *spec, kernel.Options{Dir: filepath.Dir(path), Env: env, Log: o.Log})
	if err != nil {
		return nil, Report{}, fmt.Errorf("notebook %s: %w", path, err)
	}
	r.kernel = k
	r.notebook(ctx, n)
	k.Close()
	return n, r.finish(n), nil
}

func kernelName(n *nb.Notebook) string {
	spec, _ := n.Metadata["kernelspec"].(map[string]any)
	name, _ := spec["name"].(string)
	return name
}

type runner struct {
	o      Options
	plan   nb.Plan
	kernel *kernel.Kernel
	screen screen
	began  time.Time
	report Report
}

func (r *runner) complain(format string, args ...any) {
	r.report.Errors = append(r.report.Errors, fmt.Sprintf(format, args...))
}

// notebook executes the cells until one fails: what follows would only repeat the failure.
func (r *runner) notebook(ctx context.Context, n *nb.Notebook) {
	n.Strip()
	if budget := seconds(r.plan.Budget); budget > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, r.began.Add(budget), fmt.Errorf("the notebook's budget of %g s is spent", r.plan.Budget))
		defer cancel()
	}
	if kernelName(n) == "gonb" {
		if _, err := r.kernel.Execute(ctx, kernel.Request{Code: prologue, Silent: true}); err != nil {
			r.complain("before the first cell: %v", err)
			return
		}
	}
	for i, cell := range n.Cells {
		if cell.Kind != nb.Code || strings.TrimSpace(cell.Source) == "" {
			continue
		}
		if ctx.Err() != nil {
			r.complain("cell %d: not run, %v", i, context.Cause(ctx))
			return
		}
		if r.o.Cell != nil {
			r.o.Cell(i)
		}
		if err := r.cell(ctx, i, cell); err != nil {
			r.complain("cell %d: %v", i, err)
			return
		}
	}
}

func (r *runner) cell(ctx context.Context, index int, cell *nb.Cell) error {
	limit := r.o.CellTimeout
	if r.plan.CellTimeout > 0 {
		limit = seconds(r.plan.CellTimeout)
	} else if limit == 0 {
		limit = DefaultCellTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end after %g s", limit.Seconds()))
	defer cancel()
	began := time.Now()
	r.screen.begin(cell)
	code := strings.ReplaceAll(cell.Source, "\r\n", "\n") // as front ends do; GoNB does not know its %% before a carriage return
	reply, err := r.kernel.Execute(ctx, kernel.Request{Code: code, Output: r.screen.take, Grace: r.o.Grace})
	r.screen.end()
	cell.Count = reply.Count
	r.report.Cells = append(r.report.Cells, CellTime{Cell: index, Seconds: round(time.Since(began))})
	var stopped *kernel.StoppedError
	switch {
	case errors.As(err, &stopped):
		if stopped.Stuck {
			r.kernel.Kill()
		}
		return err
	case errors.Is(err, kernel.ErrDead):
		return fmt.Errorf("%w while it ran", err)
	case err != nil:
		return err
	}
	if reply.Status == "error" && !r.screen.refused { // said in the reply only
		cell.Outputs = append(cell.Outputs, &nb.Output{Kind: nb.Error, Name: reply.Name, Text: reply.Value, Traceback: reply.Traceback})
	}
	return failure(cell)
}

// finish compares the numbers and ends the report.
func (r *runner) finish(n *nb.Notebook) Report {
	r.report.Seconds = round(time.Since(r.began))
	r.report.Results = n.Results()
	// A notebook that broke off has not printed everything; its own error is the news.
	if len(r.report.Params) == 0 && len(r.report.Errors) == 0 {
		r.report.Compared = true
		for _, err := range r.plan.Compare(r.report.Results) {
			r.complain("%v", err)
		}
	}
	r.report.OK = len(r.report.Errors) == 0
	return r.report
}

// Measured describes the run for the notebook's metadata; see [nb.Notebook.SetMeasured].
func (r Report) Measured() nb.Measured {
	backend, _, _ := strings.Cut(os.Getenv("GOMLX_BACKEND"), ":")
	if backend == "" {
		backend = "the default backend"
	}
	short, _ := strconv.ParseFloat(strconv.FormatFloat(r.Seconds, 'g', 2, 64), 64) // two digits say all that repeats
	return nb.Measured{Seconds: short, Backend: backend, Cores: runtime.NumCPU()}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func round(d time.Duration) float64 { return math.Round(d.Seconds()*100) / 100 }

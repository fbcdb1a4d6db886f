package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
)

type runsCmd struct {
	List    runsListCmd    `cmd:"" name:"ls" help:"List runs."`
	Show    runsShowCmd    `cmd:"" help:"Show a run: what it is, its numbers, its curves."`
	Compare runsCompareCmd `cmd:"" help:"Put runs side by side: in what they differ, and which is best."`
	Note    runsNoteCmd    `cmd:"" help:"Tag a run, or write a note to it."`
	Remove  runsRemoveCmd  `cmd:"" name:"rm" help:"Move runs to the trash."`
	Export  runsExportCmd  `cmd:"" help:"Hand runs on: to TensorBoard, to an MLflow server, as a table of points."`
}

// Help is shown below the usage.
func (runsCmd) Help() string {
	return `A run is the folder that "elastic train" or "elastic study run" leaves below runs/. Name it by any part of its name
that no other run has, by its folder, or as "latest".`
}

// storeFlag names the folder of runs.
type storeFlag struct {
	Dir string `help:"Folder below which the runs lie." default:"runs" predictor:"path"`
}

// open opens the store.
func (f storeFlag) open(a *app) (*track.Store, error) {
	store, err := track.Open(a.ctx, f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no folder %s: train something first, or name the folder of your runs by --dir", f.Dir)
	}
	return store, err
}

// choice says which runs a command is about.
type choice struct {
	storeFlag
	Runs  []string `arg:"" optional:"" help:"Runs: parts of their names, folders, or latest." predictor:"path"`
	Where []string `sep:"none" help:"Condition on the runs: a field, one of = != < <= > >= ~ and a value. May be repeated; all must hold." placeholder:"COND"`
}

// find returns the runs that are named, and those that fit the conditions if none is named.
func (c choice) find(a *app) ([]track.Run, error) {
	if len(c.Runs) == 0 && len(c.Where) == 0 {
		return nil, usageError{errors.New("which runs? name some, or give --where")}
	}
	var runs []track.Run
	var names []string
	for _, name := range c.Runs { // a folder needs no store
		r, err := track.ReadRun(name)
		switch {
		case err == nil:
			runs = append(runs, r)
		case errors.Is(err, fs.ErrNotExist):
			names = append(names, name)
		default:
			return nil, err
		}
	}
	if len(names) == 0 && len(c.Where) == 0 {
		return runs, nil
	}
	store, err := c.open(a)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	for _, name := range names {
		r, err := store.Find(a.ctx, name)
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	if len(c.Where) > 0 {
		fit, err := store.Runs(a.ctx, track.Query{Where: c.Where, Sort: "started"})
		if err != nil {
			return nil, usageError{err}
		}
		for _, r := range fit {
			if len(c.Runs) == 0 || slices.ContainsFunc(runs, func(named track.Run) bool { return named.Dir == r.Dir }) {
				names = append(names, r.Dir)
			}
		}
		if len(c.Runs) == 0 {
			return fit, nil
		}
		runs = slices.DeleteFunc(runs, func(r track.Run) bool { return !slices.Contains(names, r.Dir) })
	}
	return runs, nil
}

type runsListCmd struct {
	storeFlag
	Where  []string `sep:"none" help:"Condition: a field, one of = != < <= > >= ~ and a value. May be repeated; all must hold." placeholder:"COND"`
	Sort   string   `help:"Field to sort by; with - before it, the greatest first. Default: the newest first." placeholder:"FIELD"`
	Limit  int      `help:"Show so many." placeholder:"N"`
	Fields []string `name:"field" sep:"none" help:"Fields to show in place of the usual scores: metrics, config.… . May be repeated." placeholder:"FIELD"`
	JSON   bool     `help:"Print all that is known, as JSON." xor:"form"`
	CSV    bool     `name:"csv" help:"Print a table with all fields of configs and all metrics." xor:"form"`
}

// Help is shown below the usage.
func (runsListCmd) Help() string {
	return `Fields: id, status (running, finished, failed, interrupted, killed), task, seed, started, ended, seconds, host, error, tag, note,
from (the run that it went on from), code (the revision), metrics by their names (their last values), and fields of the config, as in config.train.seed.

Examples:
  elastic runs ls
  elastic runs ls --sort=-final/test/f1 --limit 10
  elastic runs ls --where status=finished --where 'final/test/f1>=0.8' --where tag=good
  elastic runs ls --where id~study-claim --field config.variant --field plain/f1 --sort config.variant
  elastic runs ls --csv > runs.csv`
}

// Run lists runs.
func (c runsListCmd) Run(a *app) error {
	store, err := c.open(a)
	if err != nil {
		return err
	}
	defer store.Close()
	runs, err := store.Runs(a.ctx, track.Query{Where: c.Where, Sort: c.Sort, Limit: c.Limit, Show: c.Fields})
	if err != nil {
		return usageError{err}
	}
	switch {
	case c.JSON:
		if runs == nil {
			runs = []track.Run{}
		}
		return a.printJSON(runs)
	case c.CSV:
		return c.csv(a, runs)
	case len(runs) == 0:
		fmt.Fprintf(a.stderr, "no run below %s fits\n", c.Dir)
		return nil
	}
	fields := c.Fields
	if len(fields) == 0 {
		fields = track.Headlines(runs...)
		if sorted := strings.TrimPrefix(c.Sort, "-"); !slices.Contains(append([]string{"", "id", "status", "started", "seconds"}, fields...), sorted) {
			fields = append([]string{sorted}, fields...)
		}
	}
	table := [][]string{append([]string{"run", "status", "started", "time"}, fields...)}
	for _, r := range runs {
		row := []string{r.ID, string(r.Status), began(r, "2006-01-02 15:04"), lasted(r)}
		for _, field := range fields {
			row = append(row, short(r.Field(field)))
		}
		if len(r.Notes.Tags) > 0 {
			row = append(row, strings.Join(r.Notes.Tags, ","))
			for len(table[0]) < len(row) {
				table[0] = append(table[0], "tags")
			}
		}
		table = append(table, row)
	}
	a.table(table)
	return nil
}

// csv prints runs with all that can be a column.
func (c runsListCmd) csv(a *app, runs []track.Run) error {
	columns := []string{"id", "status", "task", "seed", "started", "ended", "seconds", "host", "code", "from", "tag", "note", "error"}
	if len(c.Fields) > 0 {
		columns = append([]string{"id"}, c.Fields...)
	} else {
		more := map[string]bool{}
		for _, r := range runs {
			for path := range r.Fields() {
				more["config."+path] = true
			}
			for _, m := range r.Metrics {
				more[m.Name] = true
			}
		}
		columns = slices.AppendSeq(columns, slices.Values(slices.Sorted(maps.Keys(more))))
	}
	w := csv.NewWriter(a.stdout)
	if err := w.Write(columns); err != nil {
		return err
	}
	for _, r := range runs {
		row := make([]string, len(columns))
		for i, column := range columns {
			row[i] = r.Field(column)
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// began is when a run began, in a layout of package time, or "" where its record does not say.
func began(r track.Run, layout string) string {
	if r.Started.IsZero() {
		return ""
	}
	return r.Started.Local().Format(layout)
}

// lasted is how long a run took.
func lasted(r track.Run) string {
	switch {
	case !r.Ended.IsZero():
		return r.Took().Round(time.Second).String()
	case r.Status == track.Running:
		return (time.Since(r.Started) - time.Duration(r.PausedSeconds*float64(time.Second))).Round(time.Second).String()
	}
	return ""
}

// short is a number with four digits behind the point where it has more, and any other text as it is.
func short(text string) string {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || len(text) <= 6 || v == float64(int64(v)) {
		return text
	}
	return strconv.FormatFloat(v, 'g', 5, 64)
}

// table prints rows in columns. All rows are made as long as the longest: a column of package tabwriter ends at a row
// without a cell in it, and begins anew below, with another width.
func (a *app) table(rows [][]string) {
	longest := 0
	for _, row := range rows {
		longest = max(longest, len(row))
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t")+strings.Repeat("\t", longest-len(row)))
	}
	_ = w.Flush() // writing to memory does not fail
	for line := range strings.Lines(text.String()) {
		fmt.Fprintln(a.stdout, strings.TrimRight(line, " \n"))
	}
}

type runsNoteCmd struct {
	storeFlag
	RunName string   `arg:"" name:"run" help:"Run." predictor:"path"`
	Text    *string  `arg:"" optional:"" help:"Note; it replaces the one of before. An empty one takes it away."`
	Tags    []string `name:"tag" sep:"none" help:"Add a tag." placeholder:"TAG"`
	Untag   []string `sep:"none" help:"Take a tag away." placeholder:"TAG"`
}

// Run writes notes.
func (c runsNoteCmd) Run(a *app) error {
	runs, err := choice{storeFlag: c.storeFlag, Runs: []string{c.RunName}}.find(a)
	if err != nil {
		return err
	}
	r := runs[0]
	if c.Text != nil {
		r.Notes.Text = *c.Text
	}
	for _, tag := range c.Tags {
		if tag == "" || strings.Contains(tag, ",") {
			return usageError{fmt.Errorf("tag %q: want a word without commas", tag)}
		}
	}
	r.Notes.Tags = slices.DeleteFunc(append(r.Notes.Tags, c.Tags...), func(tag string) bool { return slices.Contains(c.Untag, tag) })
	if c.Text != nil || len(c.Tags) > 0 || len(c.Untag) > 0 {
		if err := track.WriteNotes(r.Dir, r.Notes); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stdout, "%s: %s\n", r.ID, notes(r.Notes))
	return nil
}

// notes are notes in a line.
func notes(n track.Notes) string {
	if len(n.Tags) == 0 && n.Text == "" {
		return "no notes"
	}
	tags := ""
	if len(n.Tags) > 0 {
		tags = "[" + strings.Join(n.Tags, ", ") + "] "
	}
	return strings.TrimSpace(tags + n.Text)
}

type runsRemoveCmd struct {
	storeFlag
	Runs []string `arg:"" help:"Runs." predictor:"path"`
}

// Run moves runs to the trash.
func (c runsRemoveCmd) Run(a *app) error {
	store, err := c.open(a)
	if err != nil {
		return err
	}
	defer store.Close()
	for _, name := range c.Runs {
		trash, err := store.Remove(a.ctx, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s lies in %s now: move it back, or delete it there\n", name, trash)
	}
	return nil
}

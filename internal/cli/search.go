package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/study/search"
	"github.com/elastic-attention/workbench/pkg/study/search/journal"
	trials "github.com/elastic-attention/workbench/pkg/study/search/program"
)

type searchCmd struct {
	Run  searchRunCmd  `cmd:"" help:"Try values of parameters, or go on with it."`
	Show searchShowCmd `cmd:"" help:"Show what a search has found."`
}

type searchRunCmd struct {
	Search string `arg:"" help:"Search that comes with the program (${searches}), or a JSON file that holds one." predictor:"path"`
	Folder string `name:"run" help:"Folder of the search. Default: runs/search-NAME. A folder that holds a part of the search goes on." placeholder:"DIR" predictor:"path"`

	Trials  *int `help:"Number of trials, in place of what the search says; more make a search that has ended go on." placeholder:"N"`
	Workers int  `help:"Trials at once. More processes on the same folder help too, from any shell." default:"1"`
	notifyFlag
}

// Help is shown below the usage.
func (searchRunCmd) Help() string {
	return `Examples:
  elastic search run ner-rate                learning rate and warm-up of a tagger
  elastic search run population-lm           a population of language models that takes over from its best
  elastic search run mine.json --workers 2
  elastic search show runs/search-ner-rate

A search is a JSON file: the space, a sampler (` + strings.Join(search.Samplers(), ", ") + `), perhaps a
scheduler that ends bad trials early (` + strings.Join(search.Schedulers(), ", ") + `), and the command of a
trial:

  {"name": "rate",
   "search": {"space": [{"name": "lr", "kind": "float", "low": 1e-5, "high": 1e-3, "log": true}],
              "trials": 10, "maximize": true},
   "command": ["{elastic}", "train", "classify", "--lr", "{lr}", "--run", "{dir}/run", "--continue", "--json"],
   "result": "dev.accuracy"}

In a population, trials go on from the state of others: "--from={parent}/run" in the command, which is left out where there is
no parent; the search population-lm is an example.

It can be stopped in any way: the same command goes on with what is missing.`
}

func (c searchRunCmd) spec() (trials.Spec, error) {
	read := trials.Preset
	if info, err := os.Stat(c.Search); err == nil && info.Mode().IsRegular() {
		read = trials.ReadSpec
	}
	spec, err := read(c.Search)
	if err == nil && c.Trials != nil {
		spec.Search.Trials = *c.Trials
		err = errors.Join(some(counted{"--trials", c.Trials}), spec.Validate())
	}
	return spec, err
}

// Run works on a search.
func (c searchRunCmd) Run(a *app) error {
	spec, err := c.spec()
	if err != nil {
		return usageError{err}
	}
	if c.Workers < 1 {
		return usageError{fmt.Errorf("--workers is %d, want 1 or more", c.Workers)}
	}
	dir := c.Folder
	if dir == "" {
		dir = filepath.Join("runs", "search-"+spec.Name)
	}
	a.ending.run = dir
	fmt.Fprintf(a.stderr, "search %s in %s\n", spec.Name, dir)
	err = trials.Run(a.ctx, spec, trials.Options{
		Dir: dir, Workers: c.Workers,
		Warn: func(message string) { fmt.Fprintln(a.stderr, message) },
		Done: func(t search.Trial) {
			fmt.Fprintf(a.stderr, "trial %d  %s  %s\n", t.Number, outcome(t), values(spec.Search.Space, t.Params))
			fmt.Fprint(a.stderr, failure(dir, t))
		},
	})
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.stderr, "The search is saved. The same command goes on with it.")
	}
	if _, all, err := journal.Read(dir); err == nil {
		if best, found := search.Best(all, spec.Search.Maximize); found {
			a.ending.results = map[string]float64{"best": best.Value, "trials": float64(len(all))}
		}
	}
	if err == nil {
		err = nothingFinished(dir)
	}
	if err == nil {
		fmt.Fprintf(a.stdout, "Folder: %s\nTry next:\n  %s search show %s\n", dir, program(), quoted(dir))
	}
	return err
}

// nothingFinished is the error of a search all of whose trials failed, which says where the words of the program are.
func nothingFinished(dir string) error {
	_, all, err := journal.Read(dir)
	if err != nil || len(all) == 0 || slices.ContainsFunc(all, func(t search.Trial) bool { return t.State != search.Failed }) {
		return err
	}
	return fmt.Errorf("all trials in %s have failed; what the first printed is in %s", dir, trials.OutputPath(dir, all[0].Number))
}

// outcome says in a few words what became of a trial.
func outcome(t search.Trial) string {
	state := string(t.State)
	if t.State == search.Running {
		state = "not ended" // it runs, or what ran it is gone
	}
	switch {
	case t.State == search.Finished:
		return fmt.Sprintf("%.4g", t.Value)
	case t.State == search.Failed:
		return "failed: " + t.Error
	case len(t.Reports) > 0:
		last := t.Reports[len(t.Reports)-1]
		return fmt.Sprintf("%s at %d: %.4g", state, last.Resource, last.Value)
	}
	return state
}

// failure is where the output of a trial that failed is, and its last lines; empty for any other trial.
func failure(dir string, t search.Trial) string {
	const most = 10
	if t.State != search.Failed {
		return ""
	}
	last, err := trials.Tail(dir, t.Number, most)
	if err != nil || len(last) == 0 {
		return "" // it printed nothing
	}
	return fmt.Sprintf("  %s ends with\n    %s\n", trials.OutputPath(dir, t.Number), strings.Join(last, "\n    "))
}

// values writes parameters in the order of the space.
func values(space search.Space, params search.Params) string {
	var words []string
	for _, p := range space {
		if value, ok := params[p.Name]; ok {
			words = append(words, p.Name+"="+brief(value))
		}
	}
	return strings.Join(words, " ")
}

// brief writes a value with four digits.
func brief(value any) string {
	if number, ok := value.(float64); ok {
		return fmt.Sprintf("%.4g", number)
	}
	return fmt.Sprint(value)
}

// byImportance sorts names, the most important first.
func byImportance(importance map[string]float64) []string {
	var names []string
	for name := range importance {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case importance[a] > importance[b]:
			return -1
		case importance[a] < importance[b]:
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}

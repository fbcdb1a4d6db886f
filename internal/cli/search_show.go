package cli

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/pkg/study/search"
	"github.com/elastic-attention/workbench/pkg/study/search/journal"
	"github.com/elastic-attention/workbench/pkg/viz"
)

type searchShowCmd struct {
	Folder string `arg:"" help:"Folder of a search." predictor:"path"`

	Plot string `help:"Draw the values of the trials and the best so far: FILE.svg, or FILE.html." placeholder:"FILE" predictor:"path"`
	JSON bool   `help:"Print the trials as JSON."`
}

// Help is shown below the usage.
func (searchShowCmd) Help() string {
	return `Examples:
  elastic search show runs/search-ner-rate                     the best, the weight of each parameter, all trials
  elastic search show runs/search-ner-rate --plot history.svg

It reads what is there: a search that still runs can be shown.`
}

// Run shows what a search found.
func (c searchShowCmd) Run(a *app) error {
	if err := checkPlot(c.Plot); err != nil {
		return usageError{err}
	}
	config, all, err := journal.Read(c.Folder)
	if err != nil {
		return err
	}
	best, found := search.Best(all, config.Maximize)
	importance := search.Importance(config.Space, all, config.Maximize)
	if c.Plot != "" {
		if !found {
			return fmt.Errorf("%s holds nothing to draw yet: no trial has finished", c.Folder)
		}
		if err := a.plot(c.Plot, "search", func() (string, error) { return history(all, config.Maximize) }); err != nil {
			return err
		}
	}
	if c.JSON {
		shown := map[string]any{"trials": all, "importance": importance}
		if found {
			shown["best"] = best
		}
		return a.printJSON(shown)
	}
	counts := map[search.State]int{}
	for _, t := range all {
		counts[t.State]++
	}
	fmt.Fprintf(a.stdout, "%d trials: %d finished, %d stopped, %d paused, %d failed, %d not ended.\n",
		len(all), counts[search.Finished], counts[search.Stopped], counts[search.Paused], counts[search.Failed], counts[search.Running])
	if found {
		fmt.Fprintf(a.stdout, "\nBest: %.6g in trial %d\n", best.Value, best.Number)
		for _, p := range config.Space {
			if value, ok := best.Params[p.Name]; ok {
				fmt.Fprintf(a.stdout, "  %s = %v\n", p.Name, value)
			}
		}
	}
	if len(importance) > 0 {
		fmt.Fprintf(a.stdout, "\nWhat makes a trial good (PED-ANOVA)\n")
		for _, name := range byImportance(importance) {
			fmt.Fprintf(a.stdout, "  %3.0f %%  %s\n", 100*importance[name], name)
		}
	}
	fmt.Fprintf(a.stdout, "\n%s", trialTable(config.Space, all))
	const most = 3
	if counts[search.Failed] > 0 {
		fmt.Fprintln(a.stdout, "\nFailed")
	}
	shown := 0
	for _, t := range all {
		if t.State != search.Failed {
			continue
		}
		if shown++; shown > most {
			fmt.Fprintf(a.stdout, "and %d more\n", counts[search.Failed]-most)
			break
		}
		fmt.Fprintf(a.stdout, "trial %d: %s\n%s", t.Number, t.Error, failure(c.Folder, t))
	}
	return nil
}

// trialTable writes the trials in Markdown, in a population with the trial that each went on from.
func trialTable(space search.Space, all []search.Trial) string {
	head := []string{"trial", "outcome"}
	bred := slices.ContainsFunc(all, func(t search.Trial) bool { return t.Parent != nil })
	if bred {
		head = append(head, "from")
	}
	for _, p := range space {
		head = append(head, p.Name)
	}
	var b strings.Builder
	row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	row(head)
	row(strings.Split(strings.Repeat("---,", len(head)-1)+"---", ","))
	for _, t := range all {
		said := outcome(t)
		if t.State == search.Failed {
			said = string(t.State) // why stands below
		}
		cells := []string{strconv.Itoa(t.Number), said}
		if bred {
			from := ""
			if t.Parent != nil {
				from = strconv.Itoa(*t.Parent)
			}
			cells = append(cells, from)
		}
		for _, p := range space {
			cell := ""
			if value, ok := t.Params[p.Name]; ok {
				cell = brief(value)
			}
			cells = append(cells, cell)
		}
		row(cells)
	}
	return b.String()
}

// history draws the best value so far, and behind it that of each finished trial.
func history(all []search.Trial, maximize bool) (string, error) {
	var numbers, bestSoFar, each []float64
	for i, t := range all {
		if best, ok := search.Best(all[:i+1], maximize); ok {
			value := math.NaN()
			if t.State == search.Finished {
				value = t.Value
			}
			numbers, bestSoFar, each = append(numbers, float64(t.Number)), append(bestSoFar, best.Value), append(each, value)
		}
	}
	return viz.Chart{
		Title: "search", XLabel: "trial", YLabel: "value",
		Series: []viz.Series{{Name: "best so far", X: numbers, Y: bestSoFar, Behind: [][]float64{each}}},
	}.SVG()
}

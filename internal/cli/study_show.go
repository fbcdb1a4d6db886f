package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/study"
	"github.com/elastic-attention/workbench/pkg/viz"
)

type studyShowCmd struct {
	Folder string `arg:"" help:"Study folder." predictor:"path"`

	Resamples int    `help:"Times that the bootstrap draws." default:"10000"`
	Plot      string `help:"Draw the differences on a test set: FILE.svg, or FILE.html. Of variants; of a study of one variant, its adaptations." placeholder:"FILE" predictor:"path"`
	Set       string `help:"Test set of --plot. Default: the first, dev aside." placeholder:"NAME"`
	JSON      bool   `help:"Print the tables as JSON."`
}

// Help is shown below the usage.
func (studyShowCmd) Help() string {
	return `Examples:
  elastic study show runs/study-claim-ner               tables in Markdown
  elastic study show runs/study-claim-ner --plot wnut.svg --set wnut-17
  elastic study show docs/claim/labels-ner --plot typos.svg --set typos

It reads what is there: a study that still runs can be shown.`
}

// Run shows what a study found.
func (c studyShowCmd) Run(a *app) error {
	if err := checkPlot(c.Plot); err != nil {
		return usageError{err}
	}
	if c.Set != "" && c.Plot == "" {
		return usageError{errors.New("--set goes with --plot")}
	}
	if c.Resamples < 100 {
		return usageError{fmt.Errorf("--resamples is %d, want 100 or more: of fewer no 95 %% interval can be told", c.Resamples)}
	}
	folder, err := study.Open(c.Folder)
	if err != nil {
		return err
	}
	bootstrap := eval.Bootstrap{Resamples: c.Resamples, Seed: 1}
	variants, err := folder.Variants(bootstrap)
	if err != nil {
		return err
	}
	adaptations, err := folder.Adaptations(bootstrap)
	if err != nil {
		return err
	}
	if c.Plot != "" {
		table := variants
		if len(table.Rows) == 0 {
			table = adaptations
		}
		if err := c.plot(a, folder.Config, table); err != nil {
			return err
		}
	}
	if c.JSON {
		return a.printJSON(map[string]study.Table{"variants": variants, "adaptations": adaptations})
	}
	total := len(folder.Config.Variants) * len(folder.Config.Seeds)
	fmt.Fprintf(a.stdout, "Study %s: %d of %d runs are done.\n", folder.Config.Name, len(folder.Results), total)
	for _, table := range []study.Table{variants, adaptations} {
		if len(table.Rows) > 0 {
			fmt.Fprintf(a.stdout, "\n%s", table.Markdown())
		}
	}
	return nil
}

func (c studyShowCmd) plot(a *app, config study.Config, table study.Table) error {
	sets := table.Sets()
	if len(sets) == 0 {
		return fmt.Errorf("%s holds nothing to draw yet: it needs results of two variants with the same seeds, or of an adaptation", c.Folder)
	}
	set := c.Set
	if set == "" {
		set = sets[0]
		if set == config.Dev.Name && len(sets) > 1 {
			set = sets[1]
		}
	}
	rows := table.On(set)
	if len(rows) == 0 {
		return usageError{fmt.Errorf("--set: no results on %q, only on %s", set, strings.Join(sets, ", "))}
	}
	picture := viz.Forest{Title: table.Title + ": " + set, XLabel: "difference in " + config.Measure() + " (points), 95 % interval"}
	for _, r := range rows {
		picture.Rows = append(picture.Rows, viz.Estimate{Name: r.Name, Value: 100 * r.Difference.Difference, Low: 100 * r.Low, High: 100 * r.High})
	}
	return a.plot(c.Plot, picture.Title, picture.SVG)
}

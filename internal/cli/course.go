package cli

import (
	"fmt"
	"path/filepath"

	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/viz"
)

type plotCmd struct {
	Folder string `arg:"" name:"run" help:"Run: its folder, a part of its name, or latest." predictor:"path"`
	Plot   string `help:"Picture: FILE.svg, or FILE.html. Default: course.svg in the run folder." placeholder:"FILE" predictor:"path"`
	JSON   bool   `help:"Print the course as JSON, and draw only where --plot says so."`
}

// Help is shown below the usage.
func (plotCmd) Help() string {
	return `Loss and learning rate of each logged update, the score of each evaluation, and over them what controllers,
unfreezing and numbers that are not finite did to the run; with --weigh, the loss and the weight of each term too.
A run that is not finished is read from its last checkpoint.

Examples:
  elastic plot runs/first
  elastic plot runs/first --plot first.html
  elastic plot runs/first --json | jq .control`
}

// Run draws.
func (c plotCmd) Run(a *app) error {
	if err := checkPlot(c.Plot); err != nil {
		return usageError{err}
	}
	var err error
	var course run.Course
	c.Folder, err = a.named(c.Folder, func(dir string) (err error) {
		if err = noFolder(dir); err != nil {
			return err
		}
		course, err = run.ReadCourse(dir)
		if err == nil && len(course.History) == 0 {
			err = fmt.Errorf("%s has no update in its history: there is nothing to draw", dir)
		}
		return err
	})
	if err != nil {
		return err
	}
	path := c.Plot
	if c.JSON {
		if err := a.printJSON(course); err != nil {
			return err
		}
	} else {
		if path == "" {
			path = filepath.Join(c.Folder, "course.svg")
		}
		first, last := course.History[0], course.History[len(course.History)-1]
		fmt.Fprintf(a.stdout, "updates %d to %d: loss %.4f to %.4f, learning rate %.2e to %.2e\n", first.Update, last.Update, first.Loss, last.Loss, first.Rate, last.Rate)
		for _, e := range course.Control {
			fmt.Fprintln(a.stdout, eventLine(e))
		}
		if len(course.Control) == 0 {
			fmt.Fprintln(a.stdout, "nothing was done to it on the way")
		}
	}
	panels := picture(c.Folder, course)
	if !c.JSON && isTerminal(a.stdout) {
		if err := a.charts(panels.Charts...); err != nil {
			return err
		}
	}
	return a.plot(path, panels.Title, panels.SVG)
}

// picture draws a course.
func picture(title string, course run.Course) viz.Panels {
	var updates, losses, rates, at, scores []float64
	for _, p := range course.History {
		updates, losses, rates = append(updates, float64(p.Update)), append(losses, p.Loss), append(rates, p.Rate)
	}
	for _, m := range course.Metrics {
		at, scores = append(at, float64(m.Update)), append(scores, m.Value)
	}
	var marks []viz.Mark
	for _, e := range course.Control {
		marks = append(marks, viz.Mark{X: float64(e.Update), Kind: describe(e), Text: e.Reason})
	}
	panels := viz.Panels{Title: title, Charts: []viz.Chart{
		{XLabel: "update", YLabel: "loss (nats/target)", Marks: marks, Series: []viz.Series{{Name: "loss", X: updates, Y: losses, Smooth: 0.9}}},
		{XLabel: "update", YLabel: "learning rate", Marks: marks, Series: []viz.Series{{Name: "learning rate", X: updates, Y: rates}}},
	}}
	panels.Charts = append(panels.Charts, termCharts(course.History)...)
	if len(scores) > 0 {
		panels.Charts = append(panels.Charts, viz.Chart{XLabel: "update", YLabel: "score on dev", Series: []viz.Series{{Name: "score on dev", X: at, Y: scores}}})
	}
	return panels
}

// termCharts draws the losses and the weights of terms that were weighed; nothing if none were.
func termCharts(history []train.Point) []viz.Chart {
	losses := viz.Chart{XLabel: "update", YLabel: "loss of each term (nats/target)"}
	weights := viz.Chart{XLabel: "update", YLabel: "weight of each term"}
	add := func(s *viz.Series, update int, y float64) { s.X, s.Y = append(s.X, float64(update)), append(s.Y, y) }
	for _, p := range history {
		for i, term := range p.Terms {
			if len(losses.Series) <= i {
				losses.Series = append(losses.Series, viz.Series{Name: term.Name, Smooth: 0.9})
				weights.Series = append(weights.Series, viz.Series{Name: term.Name})
			}
			add(&losses.Series[i], p.Update, term.Loss)
			add(&weights.Series[i], p.Update, term.Weight)
		}
	}
	if len(losses.Series) == 0 {
		return nil
	}
	return []viz.Chart{losses, weights}
}

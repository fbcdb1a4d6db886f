package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/task/explain"
	"github.com/elastic-attention/workbench/pkg/viz"
)

// attention draws the attention matrices of a text.
func (c explainCmd) attention(a *app, model attends) error {
	m, err := model.Attention(a.ctx, c.Text[0])
	if err != nil {
		return err
	}
	grid := attentionGrid(m)
	if c.JSON {
		if err := a.printJSON(m); err != nil {
			return err
		}
	}
	return c.plot(a, grid.Title, grid.SVG)
}

// attentionGrid is the picture of what each head of each layer attends to.
func attentionGrid(m interpret.AttentionMap) viz.Grid {
	grid := viz.Grid{Title: "What heads attend to", Labels: m.Tokens, Values: m.Weights}
	for layer, heads := range m.Weights {
		grid.Rows = append(grid.Rows, fmt.Sprintf("layer %d", layer))
		if layer == 0 {
			for head := range heads {
				grid.Columns = append(grid.Columns, fmt.Sprintf("head %d", head))
			}
		}
	}
	return grid
}

// keepAttention draws, into the folder of a run, what its model attends to in the first of some texts.
func (a *app) keepAttention(dir string, model attends, texts []string) error {
	const most = 2 // each length may be compiled
	for i, text := range texts[:min(most, len(texts))] {
		m, err := model.Attention(a.ctx, text)
		if err != nil {
			return err
		}
		if err := keepPictures(dir, fmt.Sprintf("attention-%d", i+1), "", attentionGrid(m).SVG); err != nil {
			return err
		}
	}
	return nil
}

// sanity explains a text while the model forgets.
func (c explainCmd) sanity(a *app, model explained, config explain.Config) error {
	list, err := model.Sanity(a.ctx, c.Text[0], config, 1)
	if err != nil {
		return err
	}
	if c.JSON {
		err = a.printJSON(list)
	} else {
		fmt.Fprintf(a.stdout, "rank correlation with the explanation of the trained model (%s), stages made random one after the other\n", c.Method)
		table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "stage\tvalues\tabsolute values\t")
		for _, s := range list {
			fmt.Fprintf(table, "%s\t%+.3f\t%+.3f\t\n", s.Stage, s.Rank, s.Absolute)
		}
		err = table.Flush()
	}
	if err != nil {
		return err
	}
	chart := viz.Chart{Title: "Like the trained model's explanation: " + c.Method, XLabel: "stages made random", YLabel: "rank correlation",
		Series: []viz.Series{{Name: "values"}, {Name: "absolute values"}}}
	for i, s := range list {
		for j, y := range []float64{s.Rank, s.Absolute} {
			chart.Series[j].X, chart.Series[j].Y = append(chart.Series[j].X, float64(i+1)), append(chart.Series[j].Y, y)
		}
	}
	return c.plot(a, chart.Title, chart.SVG)
}

// faithfulness tests explanations over data.
func (c explainCmd) faithfulness(a *app, model explained, config explain.Config) error {
	f, err := model.faithfulness(a, config)
	if err != nil {
		return err
	}
	if c.JSON {
		err = a.printJSON(f.whole)
	} else {
		fmt.Fprintf(a.stdout, "%s: %s\n", f.method, f.counted)
		if o := f.Completeness; o != nil {
			fmt.Fprintf(a.stdout, "completeness error   mean %s, median %s, 95 %% of %s below %s, greatest %s\n", percent(o.Mean), percent(o.Median), f.of, percent(o.P95), percent(o.Greatest))
		}
		fmt.Fprintf(a.stdout, "area (logits)        deletion %.2f, random orders %.2f, insertion %.2f\n", f.Deletion, f.Random, f.Insertion)
		fmt.Fprintf(a.stdout, "better than random   deletion %.1f %%, insertion %.1f %% of %s\n", 100*f.DeletionBetter, 100*f.InsertionBetter, f.of)
	}
	if err != nil {
		return err
	}
	return c.plot(a, "Faithfulness", viz.Chart{
		Title: "Evidence while words go and come: " + f.method, XLabel: "share of words removed (deletion, random) or put back (insertion)", YLabel: "evidence (logits)",
		Series: []viz.Series{
			{Name: "deletion", X: f.Shares, Y: f.Curves.Deletion}, {Name: "insertion", X: f.Shares, Y: f.Curves.Insertion}, {Name: "random", X: f.Shares, Y: f.Curves.Random},
		},
	}.SVG)
}

// percent writes a small share.
func percent(share float64) string { return fmt.Sprintf("%.2g %%", 100*share) }

// heads judges attention heads over data.
func (c explainCmd) heads(a *app, model explained) error {
	heads, err := model.heads(a, c.Removal)
	if err != nil {
		return err
	}
	features := interpret.Features[:len(interpret.Features)-1]
	if c.JSON {
		err = a.printJSON(heads)
	} else {
		table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprint(table, "layer\thead\timportance\t")
		if c.Removal {
			fmt.Fprint(table, "removal\t")
		}
		fmt.Fprintln(table, strings.Join(features, "\t")+"\t")
		sorted := slices.SortedStableFunc(slices.Values(heads), func(x, y explain.Head) int { return cmp.Compare(y.Importance, x.Importance) })
		for _, h := range sorted {
			fmt.Fprintf(table, "%d\t%d\t%.5f\t", h.Layer, h.Head, h.Importance)
			if c.Removal {
				fmt.Fprintf(table, "%+.5f\t", h.Removal)
			}
			for _, name := range features {
				fmt.Fprintf(table, "%.3f\t", h.Profile[name])
			}
			fmt.Fprintln(table)
		}
		err = table.Flush()
	}
	if err != nil {
		return err
	}
	grid := func(title string, value func(explain.Head) float64) func() (string, error) {
		return func() (string, error) {
			var rows, columns []string
			var values [][]float64
			for _, h := range heads {
				if h.Head == 0 {
					rows, values = append(rows, fmt.Sprintf("layer %d", h.Layer)), append(values, nil)
				}
				if h.Layer == 0 {
					columns = append(columns, fmt.Sprintf("head %d", h.Head))
				}
				values[h.Layer] = append(values[h.Layer], value(h))
			}
			return viz.Heat(title, rows, columns, values)
		}
	}
	draw := []func() (string, error){grid("importance: mean |∂loss/∂gate|", func(h explain.Head) float64 { return h.Importance })}
	if c.Removal {
		draw = append(draw, grid("removal: by how much the loss grows", func(h explain.Head) float64 { return h.Removal }))
	}
	for _, name := range features {
		draw = append(draw, grid(name, func(h explain.Head) float64 { return h.Profile[name] }))
	}
	return c.plot(a, "Attention heads", draw...)
}

// meanings turn variables of heads into what they stand for in the formulas of their parts.
var meanings = map[string]struct {
	label string
	of    func(float64) float64
}{
	"span/z":                {"span (share of its maximum)", func(z float64) float64 { return z }},
	"entmax/alpha":          {"α of entmax", func(a float64) float64 { return 1 + sigmoid(a) }},
	"temperature/log_scale": {"temperature", func(c float64) float64 { return math.Exp(-c) }},
	"head_gate/logit":       {"gate", sigmoid},
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// noCheckpoint says of a path that leads to no checkpoint what it is.
func noCheckpoint(path string) error {
	if err := noFolder(path); err != nil {
		return err
	}
	_, err := checkpoint.Run{Dir: path}.Latest()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is no run folder with a checkpoint", path)
	}
	return err
}

// scalars shows what heads learned about themselves.
func (c explainCmd) scalars(a *app) error {
	folder, err := checkpoint.Run{Dir: c.Model}.Latest()
	if err != nil {
		return err
	}
	state, err := train.ReadState(folder.Dir)
	if err != nil {
		return err
	}
	charts := scalarCharts(state.History)
	if len(charts) == 0 {
		return fmt.Errorf("the run in %s has no attention whose heads learn a number, such as span, entmax or temperature, or is from before these were recorded", c.Model)
	}
	if c.JSON {
		if err := a.printJSON(state.History); err != nil {
			return err
		}
	} else {
		table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "number\tlayer\tat first\tin the end\tleast head\tgreatest head\t")
		for _, chart := range charts {
			for layer, s := range chart.Series {
				least, greatest := math.Inf(1), math.Inf(-1)
				for _, head := range s.Behind {
					least, greatest = math.Min(least, head[len(head)-1]), math.Max(greatest, head[len(head)-1])
				}
				fmt.Fprintf(table, "%s\t%d\t%.4f\t%.4f\t%.4f\t%.4f\t\n", chart.YLabel, layer, s.Y[0], s.Y[len(s.Y)-1], least, greatest)
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	var draw []func() (string, error)
	for _, chart := range charts {
		draw = append(draw, chart.SVG)
	}
	return c.plot(a, "What heads learned about themselves", draw...)
}

// scalarCharts draws what heads learned about themselves, a chart for each number; none if there is none.
func scalarCharts(history []train.Point) (charts []viz.Chart) {
	kinds := map[string][]string{} // "span/z" → paths, in the order of layers
	for layer := 0; ; layer++ {
		prefix := fmt.Sprintf("/layer_%d/attention/", layer)
		found := false
		for _, path := range watched(history) {
			if kind, ok := strings.CutPrefix(path, prefix); ok {
				kinds[kind], found = append(kinds[kind], path), true
			}
		}
		if !found {
			break
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		charts = append(charts, scalarChart(kind, kinds[kind], history))
	}
	return charts
}

// watched lists the variables whose values a history has.
func watched(history []train.Point) []string {
	if len(history) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(history[len(history)-1].Scalars))
}

// scalarChart draws a number of each head: a curve for each layer, the mean of its heads, which
// are drawn behind it.
func scalarChart(kind string, paths []string, history []train.Point) viz.Chart {
	meaning, ok := meanings[kind]
	if !ok {
		meaning.label, meaning.of = kind, func(x float64) float64 { return x }
	}
	chart := viz.Chart{Title: meaning.label + " by layer, heads behind", XLabel: "update", YLabel: meaning.label}
	for layer, path := range paths {
		s := viz.Series{Name: fmt.Sprintf("layer %d", layer)}
		for _, p := range history {
			values := p.Scalars[path]
			mean := 0.0
			for head, v := range values {
				if len(s.Behind) <= head {
					s.Behind = append(s.Behind, nil)
				}
				s.Behind[head] = append(s.Behind[head], meaning.of(float64(v)))
				mean += meaning.of(float64(v)) / float64(len(values))
			}
			s.X, s.Y = append(s.X, float64(p.Update)), append(s.Y, mean)
		}
		chart.Series = append(chart.Series, s)
	}
	return chart
}

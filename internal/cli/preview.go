package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/viz"
)

// previewFlags let a training command say something about the run to come, in place of it.
type previewFlags struct {
	Explain      bool     `help:"Print which parameters learn by which rule, rate and decay, and stop before training." xor:"preview"`
	RangeTest    bool     `help:"Try growing learning rates, print how the loss goes with them, and stop before training." xor:"preview"`
	RangeFrom    *float64 `help:"Lowest rate of --range-test. Default: 1e-7." placeholder:"RATE"`
	RangeTo      *float64 `help:"Highest rate of --range-test. Default: 1." placeholder:"RATE"`
	RangeUpdates *int     `help:"Updates of --range-test; it ends early when the loss diverges. Default: 100." placeholder:"N"`
	Plot         string   `help:"Draw what --range-test found: FILE.svg, or FILE.html." placeholder:"FILE" predictor:"path"`
}

// previews reports whether nothing is to be trained.
func (f previewFlags) previews() bool { return f.Explain || f.RangeTest }

// check refuses flags without what they go with.
func (f recipeFlags) check() error {
	switch {
	case !f.RangeTest && (f.RangeFrom != nil || f.RangeTo != nil || f.RangeUpdates != nil || f.Plot != ""):
		return errors.New("--range-from, --range-to, --range-updates and --plot go with --range-test")
	case f.previews() && (f.Resume || f.Continue || f.Folder != "" || f.From != ""):
		return errors.New("--explain and --range-test leave no run folder: take --run, --resume, --continue and --from away")
	case f.Resume && f.From != "":
		return errors.New("--from begins a run and --resume continues one: --continue goes with either")
	case f.Continue && f.Folder == "":
		return errors.New("--continue wants the folder of the run, by --run")
	case f.Explain && f.JSON:
		return errors.New("--explain prints a table: take --json away")
	}
	if err := errors.Join(positive("--range-from", f.RangeFrom), positive("--range-to", f.RangeTo), some(counted{"--range-updates", f.RangeUpdates})); err != nil {
		return err
	}
	if err := f.rates().Validate(); err != nil {
		return fmt.Errorf("--range-test: %w", err)
	}
	return checkPlot(f.Plot)
}

func (f previewFlags) rates() train.RateRange {
	var r train.RateRange
	given(&r.From, f.RangeFrom)
	given(&r.To, f.RangeTo)
	given(&r.Updates, f.RangeUpdates)
	return r
}

// preview explains an experiment, or tries rates for it. C is its config and O its options.
func preview[C, O any](a *app, f recipeFlags, config C, options O,
	explain func(context.Context, compute.Backend, C, O) (string, error),
	test func(context.Context, compute.Backend, C, O, train.RateRange) (train.RateCurve, error)) error {
	engine, _, err := a.open()
	if err != nil {
		return err
	}
	if f.Explain {
		table, err := explain(a.ctx, engine, config, options)
		if err != nil {
			return err
		}
		fmt.Fprint(a.stdout, table)
		return nil
	}
	progress := newTrainProgress(a.stderr, ".")
	rates := f.rates()
	rates.Step = progress.step
	curve, err := test(a.ctx, engine, config, options, rates)
	progress.pause()
	progress.bar.finish()
	if err != nil {
		return err
	}
	return a.tellRates(f, curve)
}

// rateRows is about how many rows the table of a range test has.
const rateRows = 25

// tellRates prints what a range test found.
func (a *app) tellRates(f recipeFlags, curve train.RateCurve) error {
	if f.JSON {
		if err := a.printJSON(curve); err != nil {
			return err
		}
	} else {
		table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(table, "rate\tloss\tsmoothed\t")
		every := max(1, len(curve.Points)/rateRows)
		for i, p := range curve.Points {
			if i%every == 0 || i == len(curve.Points)-1 {
				fmt.Fprintf(table, "%.2e\t%.4f\t%.4f\t\n", p.Rate, p.Loss, p.Smoothed)
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout)
		if low, high := curve.Range(); high > 0 {
			fmt.Fprintf(a.stdout, "Try rates from %.1e to %.1e: where the smoothed loss falls most steeply (%.1e), and a tenth of\nwhere it is lowest (%.1e).\n", low, high, curve.Steepest, curve.Tenth)
		}
		if curve.Diverged {
			fmt.Fprintln(a.stdout, "The test ended when the loss diverged.")
		}
		for _, warning := range curve.Warnings {
			fmt.Fprintf(a.stdout, "Mind: %s.\n", warning)
		}
	}
	var x, loss, smoothed []float64
	for _, p := range curve.Points {
		x, loss, smoothed = append(x, p.Rate), append(loss, p.Loss), append(smoothed, p.Smoothed)
	}
	chart := viz.Chart{
		Title: "Range test of the learning rate", XLabel: "learning rate", YLabel: "loss (nats/target)", LogX: true,
		Series: []viz.Series{{Name: "smoothed loss", X: x, Y: smoothed, Behind: [][]float64{loss}}},
	}
	err := a.plot(f.Plot, chart.Title, chart.SVG)
	if err == nil && !f.JSON && isTerminal(a.stdout) {
		err = a.charts(chart)
	}
	return err
}

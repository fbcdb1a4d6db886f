package cli

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

type nbKernelCmd struct {
	Install nbKernelInstallCmd `cmd:"" help:"Build the Go kernel and install it for Jupyter."`
	Bench   nbKernelBenchCmd   `cmd:"" help:"Measure its start, cells, completion and inspection."`
}

type nbKernelInstallCmd struct {
	Module  string `help:"Checkout whose packages the cells see. Default: the one around the working folder." placeholder:"DIR" predictor:"path"`
	DataDir string `help:"Jupyter's data folder. Default: your own." placeholder:"DIR" predictor:"path"`
	Gopls   bool   `help:"Build gopls too: completion and inspection in JupyterLab."`
	JSON    bool   `help:"Print as JSON."`
}

// Help is shown below the usage.
func (nbKernelInstallCmd) Help() string {
	return `The kernel is GoNB, built with the versions that tools/go.mod of the checkout pins into its .cache/bin. Its
kernelspec names all programs and folders absolutely, so it works from any Jupyter server. "elastic doctor" examines it.`
}

// Run installs.
func (c nbKernelInstallCmd) Run(a *app) error {
	fmt.Fprintln(a.stderr, "building the kernel; the first time takes a minute or two")
	installed, err := kernel.Install(a.ctx, kernel.InstallOptions{Module: c.Module, DataDir: c.DataDir, Gopls: c.Gopls, Log: a.stderr})
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(installed)
	}
	fmt.Fprintf(a.stdout, "installed %s\n  kernel %s, version %s\n  cells see %s\n", installed.Spec, installed.Program, installed.Version, installed.Module)
	return nil
}

type nbKernelBenchCmd struct {
	Times int  `help:"How often each thing is done after the first time." default:"5"`
	JSON  bool `help:"Print as JSON."`
}

// Help is shown below the usage.
func (nbKernelBenchCmd) Help() string {
	return `Times are in seconds, of the first time in a new kernel and the median of those after it. Goals are for two cores with
nothing else to do; the CPU time beside them, which other programs change little, says what a quiet machine would take.`
}

// Run measures.
func (c nbKernelBenchCmd) Run(a *app) error {
	if c.Times < 1 {
		return usageError{fmt.Errorf("--times %d, want at least 1", c.Times)}
	}
	spec, err := kernel.Find(kernel.Name, kernel.DataDirs())
	if err != nil {
		return err
	}
	o := kernel.MeasureOptions{Times: c.Times}
	if !c.JSON {
		fmt.Fprintf(a.stdout, "%-30s %8s %8s %8s %8s\n", "", "first", "median", "CPU", "goal")
		o.Done = func(t kernel.Timing) {
			goal, word := "", ""
			if t.Goal > 0 {
				if goal, word = fmt.Sprintf("%.1f", t.Goal), "met"; t.Median > t.Goal {
					word = "missed"
				}
			}
			fmt.Fprintf(a.stdout, "%-30s %8.2f %8.2f %8.2f %8s %s\n", t.What, t.First, t.Median, t.CPU, goal, word)
		}
	}
	timings, err := kernel.Measure(a.ctx, spec, o)
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(timings)
	}
	return nil
}

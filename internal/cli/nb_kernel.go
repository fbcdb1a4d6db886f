package cli

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

type nbKernelCmd struct {
	Install nbKernelInstallCmd `cmd:"" help:"Build the Go kernel and install it for Jupyter."`
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

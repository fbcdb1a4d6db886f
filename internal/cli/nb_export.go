package cli

import (
	"fmt"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/export"
)

type nbExportCmd struct {
	Notebook string `arg:"" help:"Notebook file." predictor:"path"`
	Output   string `short:"o" help:"File to write. Default: standard output." placeholder:"FILE" predictor:"path"`
}

// Help is shown below the usage.
func (nbExportCmd) Help() string {
	return `Text becomes comments, parameters become flags, tests run at the end. Build the program in a checkout, run it in the
notebook's folder:

  elastic nb export notebooks/02-attention-pooling.ipynb -o pooling.go
  go build -o pooling pooling.go
  cd notebooks && ../pooling -seed 2

A cell is a process of its own, in which package-level variables begin anew; in the program they are shared.`
}

// Run exports.
func (c nbExportCmd) Run(a *app) error {
	n, err := nb.ReadFile(c.Notebook)
	if err != nil {
		return err
	}
	program, err := export.Program(n, c.Notebook)
	if err != nil {
		return fmt.Errorf("exporting %s: %w", c.Notebook, err)
	}
	if c.Output == "" {
		_, err = a.stdout.Write(program)
		return err
	}
	return atomicfile.WriteFile(c.Output, program)
}

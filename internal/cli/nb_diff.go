package cli

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/nb"
)

type nbDiffCmd struct {
	Old     string `arg:"" help:"Notebook file." predictor:"path"`
	New     string `arg:"" help:"Notebook file that it is compared with." predictor:"path"`
	Outputs bool   `help:"Compare outputs too, with times, rates and addresses left out."`
	JSON    bool   `help:"Print as JSON."`
}

// Help is shown below the usage.
func (nbDiffCmd) Help() string {
	return `Identifiers and execution counts of cells are left out, how long an execution took, and what a front end notes
about the look of a cell. Exit code 1 says that there are differences.

As git's own: git config diff.ipynb.command 'f() { elastic nb diff "$2" "$5" || true; }; f', and in .gitattributes
"*.ipynb diff=ipynb".`
}

// Run compares.
func (c nbDiffCmd) Run(a *app) error {
	old, err := nb.ReadFile(c.Old)
	if err != nil {
		return err
	}
	now, err := nb.ReadFile(c.New)
	if err != nil {
		return err
	}
	changes := nb.Diff(old, now, c.Outputs)
	if c.JSON {
		if changes == nil {
			changes = []nb.Change{}
		}
		if err := a.printJSON(changes); err != nil {
			return err
		}
	} else if len(changes) > 0 {
		fmt.Fprintf(a.stdout, "--- %s\n+++ %s\n", c.Old, c.New)
		for _, change := range changes {
			fmt.Fprint(a.stdout, change)
		}
	}
	if len(changes) > 0 {
		return errSilent
	}
	return nil
}

package cli

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/nb"
)

type nbCheckCmd struct {
	Notebooks []string `arg:"" help:"Notebook files." predictor:"path"`
	JSON      bool     `help:"Print as JSON."`
}

// Run checks.
func (c nbCheckCmd) Run(a *app) error {
	complaints := map[string][]string{}
	for _, path := range c.Notebooks {
		list := []string{}
		for _, err := range nb.Check(path) {
			list = append(list, err.Error())
			if !c.JSON {
				fmt.Fprintf(a.stdout, "%s: %v\n", path, err)
			}
		}
		if len(list) > 0 {
			complaints[path] = list
		}
	}
	if c.JSON {
		if err := a.printJSON(complaints); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.stderr, "%d of %d notebooks are good\n", len(c.Notebooks)-len(complaints), len(c.Notebooks))
	if len(complaints) > 0 {
		return errSilent
	}
	return nil
}

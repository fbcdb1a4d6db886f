package cli

import (
	"fmt"
	"strings"
	"time"
)

type nbCmd struct {
	Run    nbRunCmd    `cmd:"" help:"Execute notebooks headless; fail when a cell failed or a number moved."`
	Sweep  nbSweepCmd  `cmd:"" help:"Execute a notebook at each point of a grid of parameters."`
	Check  nbCheckCmd  `cmd:"" help:"Say what keeps notebooks from being ones of the house, without executing them."`
	Diff   nbDiffCmd   `cmd:"" help:"Compare two notebooks cell by cell, without what says nothing."`
	Export nbExportCmd `cmd:"" help:"Turn a notebook into a Go program with the same numbers."`
	Site   nbSiteCmd   `cmd:"" help:"Make static pages of notebooks, which load nothing from elsewhere."`
	New    nbNewCmd    `cmd:"" help:"Make a notebook that runs and passes the check."`
	Cache  nbCacheCmd  `cmd:"" help:"List or clear the values that cells keep."`
	Kernel nbKernelCmd `cmd:"" help:"The kernel that executes Go notebooks."`
}

// checkTimeout refuses a time in which no cell can end.
func checkTimeout(cell time.Duration) error {
	if cell <= 0 {
		return usageError{fmt.Errorf("--cell-timeout is %s, want more than 0", cell)}
	}
	return nil
}

// parameters are the values that -p gives, by name.
func parameters(list []string) (map[string]string, error) {
	params := map[string]string{}
	for _, p := range list {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("-p %q, want NAME=VALUE", p)}
		}
		if _, twice := params[name]; twice {
			return nil, usageError{fmt.Errorf("-p gives %s twice", name)}
		}
		params[name] = value
	}
	return params, nil
}

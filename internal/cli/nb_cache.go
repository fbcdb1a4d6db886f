package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/elastic-attention/workbench/pkg/memo"
)

type nbCacheCmd struct {
	Names []string `arg:"" optional:"" help:"Names of values; all if there are none."`
	Clear bool     `help:"Remove them." xor:"form"`
	JSON  bool     `help:"Print as JSON, with the parts of the code that each was made by." xor:"form"`
}

// Help is shown below the usage.
func (nbCacheCmd) Help() string {
	return `Cells that compute for long can keep what they found (package memo, nb.Cache). A value is computed again when its
parameters or the code that computes it change; a message in the cell says which. ELASTIC_CACHE_DIR names the cache.`
}

// Run lists, or clears.
func (c nbCacheCmd) Run(a *app) error {
	cache := &memo.Cache{}
	if c.Clear {
		return cache.Clear(c.Names...)
	}
	all, err := cache.Entries()
	if err != nil {
		return err
	}
	entries := []memo.Entry{}
	for _, name := range c.Names {
		if !slices.ContainsFunc(all, func(e memo.Entry) bool { return e.Name == name }) {
			return fmt.Errorf("nothing named %q is kept: without names all is listed", name)
		}
	}
	for _, e := range all {
		if len(c.Names) == 0 || slices.Contains(c.Names, e.Name) {
			entries = append(entries, e)
		}
	}
	if c.JSON {
		return a.printJSON(entries)
	}
	if len(entries) == 0 {
		fmt.Fprintln(a.stderr, "nothing is kept")
		return nil
	}
	rows := [][]string{{"name", "made", "took", "MB", "type", "params"}}
	var bytes int64
	for _, e := range entries {
		bytes += e.Bytes
		made, took, kind := e.Made.Local().Format(time.DateTime), fmt.Sprintf("%.1f s", e.Seconds), e.Type
		if e.Made.IsZero() { // its record cannot be read
			made, took, kind = "", "", "damaged"
		}
		rows = append(rows, []string{e.Name, made, took, fmt.Sprintf("%.1f", float64(e.Bytes)/1e6), kind, string(e.Params)})
	}
	a.table(rows)
	fmt.Fprintf(a.stderr, "%.1f MB in all\n", float64(bytes)/1e6)
	return nil
}

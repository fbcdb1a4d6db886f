package cli

import (
	"fmt"
	"path/filepath"

	"github.com/elastic-attention/workbench/pkg/nb/site"
)

type nbSiteCmd struct {
	Notebooks []string `arg:"" help:"Notebook files, in the order of the index." predictor:"path"`
	Output    string   `short:"o" help:"Folder to write. One that holds a site is replaced." default:"site" predictor:"path"`
	Title     string   `help:"Title of the index." default:"Notebooks"`
	Source    string   `help:"Address of the repository's files, to which links out of the notebooks lead; without it they are plain text." placeholder:"URL"`
}

// Help is shown below the usage.
func (nbSiteCmd) Help() string {
	return `Pages show the outputs that are saved in the notebooks; "elastic nb run --write" saves them. They load nothing from
elsewhere: formulas are MathML, code is coloured when the pages are made, pictures are inside.

  elastic nb site notebooks/*.ipynb`
}

// Run makes the site.
func (c nbSiteCmd) Run(a *app) error {
	if err := site.Build(c.Output, c.Notebooks, site.Options{Title: c.Title, Source: c.Source}); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%d notebooks: %s\n", len(c.Notebooks), filepath.Join(c.Output, "index.html"))
	return nil
}

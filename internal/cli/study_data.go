package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/study"
)

type studyDataCmd struct {
	studyArg
	To string `required:"" help:"Folder for the files, which must not be there yet." placeholder:"DIR" predictor:"path"`
}

// Help is shown below the usage.
func (studyDataCmd) Help() string {
	return `Example:
  elastic study data claim-ner-quick --to quick-data

Each set becomes a file of its name: .iob2 of sentences, .csv of texts and their
classes, .txt of a text to predict. They hold the very examples of the study: its
choice, its labels, its shifts, so that a program in another language can be trained
and scored on the same ones.`
}

// Run writes the sets of a study.
func (c studyDataCmd) Run(a *app) error {
	config, err := c.config()
	if err != nil {
		return usageError{err}
	}
	paths, err := study.WriteData(a.ctx, &hub.Client{Progress: fetching(a.stderr)}, config, c.To)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: name a folder without it by --to", err)
	}
	if err != nil {
		return err
	}
	for _, path := range paths {
		fmt.Fprintln(a.stdout, path)
	}
	return nil
}

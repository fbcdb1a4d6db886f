package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/nb"
)

type nbNewCmd struct {
	Name  string `arg:"" help:"File to make, such as 21-a-question; a name without a folder is one below notebooks, if that is there." predictor:"path"`
	Title string `help:"Title. Default: made of the name."`
}

// notebooksDir is where notebooks are looked for first.
const notebooksDir = "notebooks"

// Run makes the notebook.
func (c nbNewCmd) Run(a *app) error {
	path := c.Name
	if filepath.Ext(path) != ".ipynb" {
		path += ".ipynb"
	}
	if filepath.Base(path) == ".ipynb" {
		return usageError{fmt.Errorf("%q names no notebook: want a name such as 21-a-question", c.Name)}
	}
	if info, err := os.Stat(notebooksDir); err == nil && info.IsDir() && filepath.Base(path) == path {
		path = filepath.Join(notebooksDir, path)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return usageError{fmt.Errorf("%s is there already", path)}
	}
	file := filepath.Base(path)
	title := c.Title
	if title == "" {
		words := strings.TrimLeft(strings.TrimSuffix(file, ".ipynb"), "0123456789-_ ")
		words = strings.NewReplacer("-", " ", "_", " ").Replace(words)
		if title = file; words != "" {
			first, size := utf8.DecodeRuneInString(words)
			title = string(unicode.ToUpper(first)) + words[size:]
		}
	}
	if err := nb.New(file, title).WriteFile(path); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "made %[1]s\nTry next:\n  %[2]s nb run --write %[3]s\n", path, program(), quoted(path))
	return nil
}

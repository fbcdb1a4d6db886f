package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/viz"
)

// checkPlot refuses a picture that cannot be written, before anything is computed.
func checkPlot(path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return fmt.Errorf("--plot is %q, but %s is no folder", path, filepath.Dir(path))
	}
	if ext := strings.ToLower(filepath.Ext(path)); ext != ".html" && ext != ".svg" {
		return fmt.Errorf("--plot is %q, want a name that ends in .svg or .html", path)
	}
	return nil
}

// checkPlot refuses also one file for several pictures, if it can have one only.
func (c explainCmd) checkPlot() error {
	if err := checkPlot(c.Plot); err != nil {
		return err
	}
	if strings.EqualFold(filepath.Ext(c.Plot), ".svg") && (c.Heads || c.Scalars) {
		return fmt.Errorf("--plot is %q, but --heads and --scalars draw several pictures: want a name that ends in .html", c.Plot)
	}
	return nil
}

// plot writes pictures to the file that --plot names, if it names one.
func (c explainCmd) plot(a *app, title string, draw ...func() (string, error)) error {
	return a.plot(c.Plot, title, draw...)
}

// plot writes pictures to a file, if it has a name.
func (a *app) plot(path, title string, draw ...func() (string, error)) error {
	if path == "" {
		return nil
	}
	var pictures []string
	for _, d := range draw {
		picture, err := d()
		if err != nil {
			return err
		}
		pictures = append(pictures, picture)
	}
	if len(pictures) == 0 {
		return errors.New("there is nothing to draw")
	}
	content := pictures[0] + "\n"
	if strings.EqualFold(filepath.Ext(path), ".html") {
		content = viz.Page(title, pictures...)
	}
	if err := atomicfile.Write(path, func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}); err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "picture: %s\n", path)
	return nil
}

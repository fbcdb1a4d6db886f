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
func (c explainCmd) checkPlot() error {
	if c.Plot == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(c.Plot)); err != nil || !info.IsDir() {
		return fmt.Errorf("--plot is %q, but %s is no folder", c.Plot, filepath.Dir(c.Plot))
	}
	switch ext := strings.ToLower(filepath.Ext(c.Plot)); {
	case ext == ".html":
		return nil
	case ext != ".svg":
		return fmt.Errorf("--plot is %q, want a name that ends in .svg or .html", c.Plot)
	case c.Heads || c.Scalars:
		return fmt.Errorf("--plot is %q, but --heads and --scalars draw several pictures: want a name that ends in .html", c.Plot)
	}
	return nil
}

// plot writes pictures to the file that --plot names, if it names one.
func (c explainCmd) plot(a *app, title string, draw ...func() (string, error)) error {
	if c.Plot == "" {
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
	if strings.EqualFold(filepath.Ext(c.Plot), ".html") {
		content = viz.Page(title, pictures...)
	}
	if err := atomicfile.Write(c.Plot, func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}); err != nil {
		return fmt.Errorf("writing the picture: %w", atomicfile.Explain(err, c.Plot))
	}
	fmt.Fprintf(a.stderr, "picture: %s\n", c.Plot)
	return nil
}

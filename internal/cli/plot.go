package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/track"
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
	if err := a.plot(c.Plot, title, draw...); err != nil || !c.Keep {
		return err
	}
	name := "explanation"
	for what, chosen := range map[string]bool{"attention": c.Attention, "faithfulness": c.Faithfulness, "heads": c.Heads, "sanity": c.Sanity, "scalars": c.Scalars} {
		if chosen {
			name = what
		}
	}
	if err := keepPictures(c.Model, strings.Join(append([]string{name}, c.Text...), " "), title, draw...); err != nil {
		return err
	}
	fmt.Fprintf(a.stderr, "kept in %s: elastic ui shows it\n", filepath.Join(c.Model, run.PicturesDir))
	return nil
}

// keepPictures draws pictures into the folder of a run, into one file whose name says what they show, and notes it there.
func keepPictures(dir, name, title string, draw ...func() (string, error)) error {
	pictures, err := drawn(draw)
	if err != nil {
		return err
	}
	content, ext := pictures[0]+"\n", ".svg"
	if len(pictures) > 1 || !strings.HasPrefix(content, "<svg") { // a table is HTML
		content, ext = viz.Page(title, pictures...), ".html"
	}
	const most = 60
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	file := strings.Join(words, "-")
	if runes := []rune(file); len(runes) > most {
		file = string(runes[:most])
	}
	path := filepath.Join(run.PicturesDir, file+ext)
	if err := os.MkdirAll(filepath.Join(dir, run.PicturesDir), 0o755); err != nil {
		return fmt.Errorf("keeping a picture: %w", atomicfile.Explain(err, dir))
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, path), []byte(content)); err != nil {
		return err
	}
	return track.AddArtefact(dir, path)
}

// drawn draws pictures.
func drawn(draw []func() (string, error)) (pictures []string, err error) {
	for _, d := range draw {
		picture, err := d()
		if err != nil {
			return nil, err
		}
		pictures = append(pictures, picture)
	}
	if len(pictures) == 0 {
		return nil, errors.New("there is nothing to draw")
	}
	return pictures, nil
}

// plot writes pictures to a file, if it has a name.
func (a *app) plot(path, title string, draw ...func() (string, error)) error {
	if path == "" {
		return nil
	}
	pictures, err := drawn(draw)
	if err != nil {
		return err
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

package study

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
)

// WriteData writes the very examples that a study trains and scores on into a folder, for peers in other languages: after
// labels were renamed, the limit chosen and the shifts made. The training set is the file train, every other set that of its name:
// .iob2 of sentences, as [format.WriteCoNLL] writes them, .csv of texts or .txt of a text to predict. The files' paths are
// returned. A file that is there already is an error that is [fs.ErrExist].
func WriteData(ctx context.Context, client *hub.Client, config Config, dir string) ([]string, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	subject, err := tasks[config.Task](ctx, client, config)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the data: %w", err)
	}
	var paths []string
	write := func(name, set string) error {
		path := filepath.Join(dir, url.PathEscape(name)+subject.extension())
		if err := writeFile(path, func(w io.Writer) error { return subject.write(w, set) }); err != nil {
			return fmt.Errorf("writing the %s set: %w", name, err)
		}
		paths = append(paths, path)
		return nil
	}
	if err := write("train", ""); err != nil {
		return paths, err
	}
	for _, s := range config.scored() {
		if err := write(s.Name, s.Name); err != nil {
			return paths, err
		}
	}
	return paths, nil
}

// writeFile makes a new file, of which nothing is left if it cannot be written.
func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err := errors.Join(write(file), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func (*entities) extension() string { return ".iob2" }

func (t *entities) write(w io.Writer, set string) error {
	return format.WriteCoNLL(w, t.of(set))
}

func (*texts) extension() string { return ".csv" }

func (t *texts) write(w io.Writer, set string) error {
	return format.WriteCSV(w, t.of(set), format.CSVOptions{})
}

func (*language) extension() string { return ".txt" }

func (t *language) write(w io.Writer, set string) error {
	_, err := w.Write(slices.Collect(t.of(set)))
	return err
}

// of returns the examples of a set that is scored, or what is trained on if it has no name.
func (e examples[T]) of(set string) iter.Seq[T] {
	if set == "" {
		return slices.Values(e.train)
	}
	return slices.Values(e.scored[set])
}

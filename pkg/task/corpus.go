package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/run"
)

// Synthetic names data of package synth, which needs no download; each task says what it makes of it.
const Synthetic = "synthetic"

// Corpus is the data of an experiment.
type Corpus[E any] struct {
	Train, Dev, Test []E
	// Labels are what there is to learn, in the order of their numbers; nil for a task without.
	Labels []string
	// Checksums has the SHA-256 of the file of each part (train, dev, test), or a
	// description of data that was made.
	Checksums map[string]string
	// Note is what must be said beside results on this corpus, or "".
	Note string
}

// Say adds to what must be said.
func (c *Corpus[E]) Say(text string) {
	if c.Note != "" {
		c.Note += "; "
	}
	c.Note += text
}

// Part returns a part of the corpus.
func (c Corpus[E]) Part(split data.Split) []E { return *c.part(split) }

func (c *Corpus[E]) part(split data.Split) *[]E {
	switch split {
	case data.Train:
		return &c.Train
	case data.Dev:
		return &c.Dev
	case data.Test:
		return &c.Test
	}
	return new([]E)
}

// ReadCorpus reads the parts that have a file, and notes the files' checksums.
func ReadCorpus[E any](ctx context.Context, files map[data.Split]string, read func(split data.Split, path string) ([]E, error)) (Corpus[E], error) {
	corpus := Corpus[E]{Checksums: map[string]string{}}
	for _, split := range []data.Split{data.Train, data.Dev, data.Test} {
		path := files[split]
		if path == "" {
			continue
		}
		switch info, err := os.Stat(path); {
		case err == nil && info.IsDir():
			return Corpus[E]{}, fmt.Errorf("reading %s data: %s is a folder, want a file", split, path)
		case err == nil && !info.Mode().IsRegular():
			return Corpus[E]{}, fmt.Errorf("reading %s data: %s is no file (%s); write it to one, since it is read more than once", split, path, info.Mode().Type())
		}
		part, err := read(split, path)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return Corpus[E]{}, fmt.Errorf("reading %s data: %w", split, err)
		}
		*corpus.part(split) = part
		if corpus.Checksums[string(split)], err = run.Checksum(path); err != nil {
			return Corpus[E]{}, err
		}
	}
	return corpus, nil
}

// FetchData brings in a corpus of the hub's catalogue, and returns its folder.
func FetchData(ctx context.Context, client *hub.Client, name string) (dir string, resource hub.Resource, err error) {
	if resource, err = hub.Lookup(name); err != nil {
		return "", resource, err
	}
	if dir, err = client.Fetch(ctx, resource); err != nil {
		return "", resource, fmt.Errorf("fetching data %s: %w", name, err)
	}
	return dir, resource, nil
}

// CheckData returns what is wrong with the name of a corpus to train on, and a training file in its place.
func CheckData(task, name, trainFile string) (problems []error) {
	if (name == "") == (trainFile == "") {
		problems = append(problems, errors.New("data needs either a name or a train_file"))
	}
	if err := CheckName(task, name); err != nil {
		problems = append(problems, err)
	}
	return problems
}

// CheckName refuses a name that is neither of a task's corpora nor [Synthetic] by a [*run.NameError]. An empty one
// is none.
func CheckName(task, name string) error {
	if known := append(hub.Corpora(task), Synthetic); name != "" && !slices.Contains(known, name) {
		return &run.NameError{What: "data", Name: name, Known: append(known, "a file")}
	}
	return nil
}

// CheckModel returns what is wrong with the name of a pretrained model; [run.Scratch] stands for that of [Start],
// which knows [Synthetic] data only.
func CheckModel(name, data string) (problems []error) {
	if name == "" {
		problems = append(problems, fmt.Errorf("model is empty, want a catalogue name (%v), a folder, owner/name, or %q", hub.Models(), run.Scratch))
	}
	if name == run.Scratch && data != Synthetic {
		problems = append(problems, fmt.Errorf("model %q has the vocabulary of the %q data only", run.Scratch, Synthetic))
	}
	return problems
}

// Sentences makes the sentences of a part of the [Synthetic] corpus: 4000 to train on, 500 for others.
func Sentences(split data.Split) []data.Sentence {
	switch split {
	case data.Train:
		return synth.Entities(1, 4000)
	case data.Dev:
		return synth.Entities(2, 500)
	}
	return synth.Entities(3, 500)
}

package experiment

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

// The synthetic corpus, and the model from scratch that learns it in some minutes.
const (
	scratchEpochs = 6
	synthTrain    = 4000
	synthOther    = 500
)

func scratchEncoder() transformer.Config {
	return transformer.Config{
		Hidden: 96, Layers: 2, FeedForward: 192, Attention: attention.Spec{Heads: 4, Dropout: 0.1},
		MaxPositions: 64, TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, Dropout: 0.1, InitStd: 0.05,
	}
}

// Corpus is the data of an experiment.
type Corpus struct {
	Train, Dev, Test []data.Text
	// Checksums has the SHA-256 of the file of each part (train, dev, test), or a
	// description of data that was made.
	Checksums map[string]string
	// Note is what must be said beside results on this corpus, or "".
	Note string
}

// note adds to what must be said.
func (c *Corpus) note(text string) {
	if c.Note != "" {
		c.Note += "; "
	}
	c.Note += text
}

// layout says where the parts of a corpus of the catalogue are.
type layout struct {
	files map[data.Split]string // by part; a part that is missing is held out of train
	read  func(path string, split data.Split) iter.Seq2[data.Text, error]
}

// layouts are those of the corpora of the catalogue, by name.
var layouts = map[string]layout{
	hub.Banking77: {
		files: map[data.Split]string{data.Train: "train.csv", data.Test: "test.csv"},
		read: func(path string, _ data.Split) iter.Seq2[data.Text, error] {
			return format.CSVFile(path, format.CSVOptions{Label: "category"})
		},
	},
	hub.CLINC150: {
		files: map[data.Split]string{data.Train: "data_full.json", data.Dev: "data_full.json", data.Test: "data_full.json"},
		read: func(path string, split data.Split) iter.Seq2[data.Text, error] {
			return format.CLINCFile(path, map[data.Split]string{data.Train: "train", data.Dev: "val", data.Test: "test"}[split])
		},
	},
}

// holdOut is the share of train, one in so many, that serves as dev where a corpus of the
// catalogue has no dev part of its own.
const holdOut = 10

func (d Data) checkName() error {
	if known := append(hub.Corpora(hub.TaskClassify), Synthetic); d.Name != "" && !slices.Contains(known, d.Name) {
		return &run.NameError{What: "data", Name: d.Name, Known: append(known, "a file")}
	}
	return nil
}

// Load brings in the corpus. The client fetches what is not there yet.
func (d Data) Load(ctx context.Context, client *hub.Client) (Corpus, error) {
	if err := d.checkName(); err != nil {
		return Corpus{}, err
	}
	if d.Name == Synthetic {
		return d.limited(synthetic()), nil
	}
	files := map[data.Split]string{data.Train: d.TrainFile, data.Dev: d.DevFile, data.Test: d.TestFile}
	read := d.table
	corpus := Corpus{Checksums: map[string]string{}}
	if d.Name != "" {
		resource, err := hub.Lookup(d.Name)
		if err != nil {
			return Corpus{}, err
		}
		dir, err := client.Fetch(ctx, resource)
		if err != nil {
			return Corpus{}, fmt.Errorf("fetching data %s: %w", d.Name, err)
		}
		for split, name := range layouts[d.Name].files {
			files[split] = filepath.Join(dir, name)
		}
		read = layouts[d.Name].read
	}
	for _, part := range []struct {
		split data.Split
		into  *[]data.Text
	}{{data.Train, &corpus.Train}, {data.Dev, &corpus.Dev}, {data.Test, &corpus.Test}} {
		path := files[part.split]
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return Corpus{}, fmt.Errorf("reading %s data: %s is no file (%s); write it to one, since it is read more than once", part.split, path, info.Mode().Type())
		}
		var err error
		if *part.into, err = data.CollectTexts(read(path, part.split)); err != nil {
			return Corpus{}, fmt.Errorf("reading %s data: %w", part.split, err)
		}
		if ctx.Err() != nil {
			return Corpus{}, fmt.Errorf("reading %s data: %w", part.split, context.Cause(ctx))
		}
		if corpus.Checksums[string(part.split)], err = run.Checksum(path); err != nil {
			return Corpus{}, err
		}
	}
	if d.Name != "" && corpus.Dev == nil {
		var kept []data.Text
		for i, text := range corpus.Train {
			if i%holdOut == holdOut-1 {
				corpus.Dev = append(corpus.Dev, text)
			} else {
				kept = append(kept, text)
			}
		}
		corpus.Train = kept
		corpus.Note = fmt.Sprintf("%s has no dev part: it is every %dth text of the train file", d.Name, holdOut)
	}
	return d.limited(corpus), nil
}

// table reads a file that a user gives.
func (d Data) table(path string, _ data.Split) iter.Seq2[data.Text, error] {
	options := format.CSVOptions{Text: d.TextColumn, Label: d.LabelColumn}
	if strings.HasSuffix(strings.TrimSuffix(path, ".gz"), ".tsv") {
		options.Separator = "\t"
	}
	return format.CSVFile(path, options)
}

// limited takes as many texts of each part as wanted, evenly spread over it.
func (d Data) limited(corpus Corpus) Corpus {
	for part, limit := range map[*[]data.Text]int{&corpus.Train: d.TrainLimit, &corpus.Dev: 0, &corpus.Test: 0} {
		if limit == 0 {
			limit = d.Limit
		}
		all := *part
		if limit == 0 || limit >= len(all) {
			continue
		}
		*part = make([]data.Text, limit)
		for i := range *part {
			(*part)[i] = all[i*len(all)/limit]
		}
	}
	return corpus
}

// synthetic makes the corpus that [Synthetic] names.
func synthetic() Corpus {
	return Corpus{
		Train: synthTexts(1, synthTrain), Dev: synthTexts(2, synthOther), Test: synthTexts(3, synthOther),
		Checksums: map[string]string{"synthetic": "synth.Entities with names of one kind, seeds 1 to 3"},
		Note:      "a synthetic corpus: the scores say nothing about real text",
	}
}

func synthTexts(seed uint64, sentences int) []data.Text {
	var texts []data.Text
	for _, s := range synth.Entities(seed, sentences) {
		kinds := map[string]bool{}
		for _, tag := range s.Tags {
			if _, kind, ok := strings.Cut(tag, "-"); ok {
				kinds[kind] = true
			}
		}
		for kind := range kinds {
			if len(kinds) == 1 {
				texts = append(texts, data.Text{Text: s.Text, Label: kind})
			}
		}
	}
	return texts
}

// newClassifier makes the classifier that an experiment trains, and returns the checksums of
// what it was made of.
func newClassifier(ctx context.Context, backend compute.Backend, client *hub.Client, c Config, labels []string) (*classify.Classifier, map[string]string, error) {
	if c.Model == Scratch {
		dir, err := os.MkdirTemp("", "tokenizer-")
		if err != nil {
			return nil, nil, fmt.Errorf("making the tokenizer's folder: %w", err)
		}
		defer os.RemoveAll(dir)
		if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
			return nil, nil, fmt.Errorf("writing the tokenizer: %w", err)
		}
		classifier, err := classify.NewFromScratch(backend, dir, scratchEncoder(), labels, c.Classifier, c.Train.Seed)
		return classifier, map[string]string{"model": "fresh weights"}, err
	}
	dir, sums, err := run.FetchModel(ctx, client, c.Model)
	if err != nil {
		return nil, nil, err
	}
	classifier, err := classify.New(backend, dir, labels, c.Classifier, c.Train.Seed)
	return classifier, sums, err
}

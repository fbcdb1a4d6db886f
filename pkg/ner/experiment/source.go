package experiment

import (
	"context"
	"fmt"
	"iter"
	"maps"
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
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
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
		MaxPositions: 128, TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, Dropout: 0.1, InitStd: 0.05,
	}
}

// Corpus is the data of an experiment.
type Corpus struct {
	Train, Dev, Test []data.Sentence
	// Checksums has the SHA-256 of the file of each part (train, dev, test), or a
	// description of data that was made.
	Checksums map[string]string
	// Note is what must be said beside results on this corpus, or "".
	Note string
}

func (d Data) checkName() error {
	if known := append(hub.Corpora(hub.TaskNER), Synthetic); d.Name != "" && !slices.Contains(known, d.Name) {
		return &run.NameError{What: "data", Name: d.Name, Known: append(known, "a file")}
	}
	return nil
}

// Load brings in the corpus. The client fetches what is not there yet. Files are read
// as a stream: with a limit, no more than it is held in memory, but all is checked.
func (d Data) Load(ctx context.Context, client *hub.Client) (Corpus, error) {
	if err := d.checkName(); err != nil {
		return Corpus{}, err
	}
	if d.Name == Synthetic {
		return d.synthetic()
	}
	files := map[data.Split]string{data.Train: d.TrainFile, data.Dev: d.DevFile, data.Test: d.TestFile}
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
		for split := range files {
			name, ok := resource.SplitFile(split)
			if !ok {
				return Corpus{}, fmt.Errorf("%s is no corpus: it has no file for %s", d.Name, split)
			}
			files[split] = filepath.Join(dir, name)
		}
		if d.Name == hub.UNEREnglishEWT {
			corpus.Note = "trained on the first-commit version of the train file"
		}
	}
	for _, part := range []struct {
		split data.Split
		into  *[]data.Sentence
	}{{data.Train, &corpus.Train}, {data.Dev, &corpus.Dev}, {data.Test, &corpus.Test}} {
		path := files[part.split]
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return Corpus{}, fmt.Errorf("reading %s data: %s is no file (%s); write it to one, since it is read more than once", part.split, path, info.Mode().Type())
		}
		missing := slices.Clone(d.Types)
		for sentence, err := range format.CoNLLFile(path, format.CoNLLOptions{Types: d.Types}) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return Corpus{}, fmt.Errorf("reading %s data: %w", part.split, err)
			}
			missing = without(missing, sentence)
			if d.Limit == 0 || len(*part.into) < d.Limit {
				*part.into = append(*part.into, sentence)
			}
		}
		if part.split == data.Train && len(missing) > 0 {
			return Corpus{}, fmt.Errorf("reading %s data: %s: no entity is of type %s; those that occur are %s",
				part.split, path, strings.Join(missing, ", "), typesIn(format.CoNLLFile(path, format.CoNLLOptions{})))
		}
		var err error
		if corpus.Checksums[string(part.split)], err = run.Checksum(path); err != nil {
			return Corpus{}, err
		}
	}
	return corpus, nil
}

// synthetic makes the corpus of package synth.
func (d Data) synthetic() (Corpus, error) {
	corpus := Corpus{
		Train: synth.Entities(1, synthTrain), Dev: synth.Entities(2, synthOther), Test: synth.Entities(3, synthOther),
		Checksums: map[string]string{"synthetic": "synth.Entities, seeds 1 to 3"},
		Note:      "a synthetic corpus: the scores say nothing about real text",
	}
	missing := slices.Clone(d.Types)
	for _, sentence := range corpus.Train {
		missing = without(missing, sentence)
	}
	if len(missing) > 0 {
		all := func(yield func(data.Sentence, error) bool) {
			for _, sentence := range corpus.Train {
				if !yield(sentence, nil) {
					return
				}
			}
		}
		return Corpus{}, fmt.Errorf("the synthetic corpus has no entity of type %s; those that occur are %s", strings.Join(missing, ", "), typesIn(all))
	}
	for _, part := range []*[]data.Sentence{&corpus.Train, &corpus.Dev, &corpus.Test} {
		if d.Limit > 0 {
			*part = (*part)[:min(d.Limit, len(*part))]
		}
		for _, sentence := range *part {
			for i, tag := range sentence.Tags {
				if len(d.Types) > 0 && tag != ner.Outside && !slices.Contains(d.Types, tag[2:]) {
					sentence.Tags[i] = ner.Outside
				}
			}
		}
	}
	return corpus, nil
}

// without takes the types of a sentence's entities out of a list.
func without(types []string, sentence data.Sentence) []string {
	if len(types) == 0 {
		return types
	}
	return slices.DeleteFunc(types, func(typ string) bool {
		return slices.ContainsFunc(sentence.Tags, func(tag string) bool { return tag != ner.Outside && tag[2:] == typ })
	})
}

// typesIn lists the types of entities, for messages.
func typesIn(sentences iter.Seq2[data.Sentence, error]) string {
	types := map[string]bool{}
	for sentence := range sentences {
		for _, tag := range sentence.Tags {
			if tag != ner.Outside {
				types[tag[2:]] = true
			}
		}
	}
	if len(types) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(types)), ", ")
}

// newTagger makes the tagger that an experiment trains, and returns the checksums of
// what it was made of.
func newTagger(ctx context.Context, backend compute.Backend, client *hub.Client, c Config, labels ner.LabelSet) (*ner.Tagger, map[string]string, error) {
	if c.Model == Scratch {
		dir, err := os.MkdirTemp("", "tokenizer-")
		if err != nil {
			return nil, nil, fmt.Errorf("making the tokenizer's folder: %w", err)
		}
		defer os.RemoveAll(dir)
		if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
			return nil, nil, fmt.Errorf("writing the tokenizer: %w", err)
		}
		tagger, err := ner.NewTaggerFromScratch(backend, dir, scratchEncoder(), labels, c.Tagger, c.Train.Seed)
		return tagger, map[string]string{"model": "fresh weights"}, err
	}
	dir, sums, err := run.FetchModel(ctx, client, c.Model)
	if err != nil {
		return nil, nil, err
	}
	tagger, err := ner.NewTagger(backend, dir, labels, c.Tagger, c.Train.Seed)
	return tagger, sums, err
}

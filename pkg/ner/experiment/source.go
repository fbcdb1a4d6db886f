package experiment

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/task"
)

// Corpus is the data of an experiment.
type Corpus = task.Corpus[data.Sentence]

// Load brings in the corpus. The client fetches what is not there yet. Files are read
// as a stream: with a limit, no more than it is held in memory, but all is checked.
func (d Data) Load(ctx context.Context, client *hub.Client) (Corpus, error) {
	if err := task.CheckName(hub.TaskNER, d.Name); err != nil {
		return Corpus{}, err
	}
	if d.Name == Synthetic {
		return d.synthetic()
	}
	files := map[data.Split]string{data.Train: d.TrainFile, data.Dev: d.DevFile, data.Test: d.TestFile}
	if d.Name != "" {
		dir, resource, err := task.FetchData(ctx, client, d.Name)
		if err != nil {
			return Corpus{}, err
		}
		for split := range files {
			name, ok := resource.SplitFile(split)
			if !ok {
				return Corpus{}, fmt.Errorf("%s is no corpus: it has no file for %s", d.Name, split)
			}
			files[split] = filepath.Join(dir, name)
		}
	}
	corpus, err := task.ReadCorpus(ctx, files, func(split data.Split, path string) ([]data.Sentence, error) { return d.read(ctx, split, path) })
	if d.Name == hub.UNEREnglishEWT {
		corpus.Note = "trained on the first-commit version of the train file"
	}
	return corpus, err
}

// read reads a part.
func (d Data) read(ctx context.Context, split data.Split, path string) (part []data.Sentence, err error) {
	missing := slices.Clone(d.Types)
	for sentence, err := range format.CoNLLFile(path, format.CoNLLOptions{Types: d.Types}) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		missing = without(missing, sentence)
		if d.Limit == 0 || len(part) < d.Limit {
			part = append(part, sentence)
		}
	}
	if split == data.Train && len(missing) > 0 {
		return nil, fmt.Errorf("%s: no entity is of type %s; those that occur are %s",
			path, strings.Join(missing, ", "), typesIn(format.CoNLLFile(path, format.CoNLLOptions{})))
	}
	return part, nil
}

// synthetic makes the corpus of package synth.
func (d Data) synthetic() (Corpus, error) {
	corpus := Corpus{
		Train: task.Sentences(data.Train), Dev: task.Sentences(data.Dev), Test: task.Sentences(data.Test),
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

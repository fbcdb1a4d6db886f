package experiment

import (
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/task"
)

// Corpus is the data of an experiment.
type Corpus = task.Corpus[data.Text]

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

// Load brings in the corpus. The client fetches what is not there yet.
func (d Data) Load(ctx context.Context, client *hub.Client) (Corpus, error) {
	if err := task.CheckName(hub.TaskClassify, d.Name); err != nil {
		return Corpus{}, err
	}
	if d.Name == Synthetic {
		return d.limited(synthetic()), nil
	}
	files := map[data.Split]string{data.Train: d.TrainFile, data.Dev: d.DevFile, data.Test: d.TestFile}
	read := d.table
	if d.Name != "" {
		dir, _, err := task.FetchData(ctx, client, d.Name)
		if err != nil {
			return Corpus{}, err
		}
		for split, name := range layouts[d.Name].files {
			files[split] = filepath.Join(dir, name)
		}
		read = layouts[d.Name].read
	}
	corpus, err := task.ReadCorpus(ctx, files, func(split data.Split, path string) ([]data.Text, error) {
		return data.CollectTexts(read(path, split))
	})
	if err != nil {
		return corpus, err
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
		*part = data.Spread(*part, limit)
	}
	return corpus
}

// synthetic makes the corpus that [Synthetic] names.
func synthetic() Corpus {
	return Corpus{
		Train: synthTexts(data.Train), Dev: synthTexts(data.Dev), Test: synthTexts(data.Test),
		Checksums: map[string]string{"synthetic": "synth.Entities with names of one kind, seeds 1 to 3"},
		Note:      "a synthetic corpus: the scores say nothing about real text",
	}
}

func synthTexts(split data.Split) []data.Text {
	var texts []data.Text
	for _, s := range task.Sentences(split) {
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

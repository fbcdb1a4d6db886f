package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
	classes "github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

// corpusFlags name labelled data: by default that of the run.
type corpusFlags struct {
	Data  string `help:"Corpus: ${corpora} or synthetic for taggers; ${classifyCorpora} or synthetic for classifiers; ${lmCorpora} or synthetic for language models. Default: the run's own." placeholder:"NAME" predictor:"resource"`
	File  string `help:"Labelled file in place of --data, plain or gzip: CoNLL or UNER .iob2 for taggers; .csv or .tsv with a header for classifiers; plain text for language models, of which all is scored." placeholder:"FILE" predictor:"path"`
	Split string `help:"Part of the corpus: train, dev or test." enum:"train,dev,test" default:"test"`
	Types string `group:"Taggers" help:"Entity types to keep, by comma; others become O. \"all\" keeps every type. Default: the run's own." placeholder:"A,B"`

	TextColumn  string `group:"Classifiers" help:"Column of --file that has the text. Default: the run's own, else text." placeholder:"NAME"`
	LabelColumn string `group:"Classifiers" help:"Column of --file that has the class. Default: the run's own, else label." placeholder:"NAME"`
}

// corpusOf returns the config of the run whose model reads labelled data; its zero value if the folder has a model only,
// which then must be told what to read.
func corpusOf[C any](c corpusFlags, model string) (config C, err error) {
	if c.File != "" && c.Data != "" {
		return config, usageError{errors.New("--data and --file exclude each other")}
	}
	record, err := run.ReadRecord[C](model)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return record.Config, err
	}
	if c.Data == "" && c.File == "" {
		return config, usageError{fmt.Errorf("%s is no run folder, so say what to score on: --data or --file", model)}
	}
	return config, nil
}

// sentences reads those that the flags name, for the tagger in a run or model folder.
func (c corpusFlags) sentences(a *app, model string) ([]data.Sentence, experiment.Data, error) {
	if c.TextColumn != "" || c.LabelColumn != "" {
		return nil, experiment.Data{}, usageError{fmt.Errorf("--text-column and --label-column are for classifiers, and %s is none", model)}
	}
	config, err := corpusOf[experiment.Config](c, model)
	if err != nil {
		return nil, config.Data, err
	}
	corpus := config.Data
	switch {
	case c.File != "":
		corpus = experiment.Data{TestFile: c.File, Types: corpus.Types}
	case c.Data != "":
		corpus = experiment.Data{Name: c.Data, Types: corpus.Types}
	}
	if c.Types != "" {
		corpus.Types = typeList(c.Types)
	}
	sentences, err := part(a, c, corpus.Load)
	return sentences, corpus, err
}

// texts reads those that the flags name, for the classifier in a run or model folder.
func (c corpusFlags) texts(a *app, model string) ([]data.Text, error) {
	config, err := corpusOf[classes.Config](c, model)
	if err != nil {
		return nil, err
	}
	corpus := config.Data
	switch {
	case c.File != "":
		corpus = classes.Data{TestFile: c.File, TextColumn: corpus.TextColumn, LabelColumn: corpus.LabelColumn}
		set(&corpus.TextColumn, c.TextColumn)
		set(&corpus.LabelColumn, c.LabelColumn)
	case c.TextColumn != "" || c.LabelColumn != "":
		return nil, usageError{errors.New("--text-column and --label-column need --file")}
	case c.Data != "":
		corpus = classes.Data{Name: c.Data}
	}
	return part(a, c, corpus.Load)
}

// part loads the part of a corpus that the flags name.
func part[E any](a *app, c corpusFlags, load func(context.Context, *hub.Client) (task.Corpus[E], error)) ([]E, error) {
	corpus, err := load(a.ctx, &hub.Client{Progress: fetching(a.stderr)})
	if err != nil {
		return nil, err
	}
	chosen := corpus.Test
	if c.File == "" {
		chosen = corpus.Part(data.Split(c.Split))
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("the data has no %s part", c.Split)
	}
	return chosen, nil
}

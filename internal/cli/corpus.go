package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
)

// corpusFlags name labelled data: by default that of the run.
type corpusFlags struct {
	Data  string `help:"Corpus: ${corpora} or synthetic for taggers; ${classifyCorpora} or synthetic for classifiers; ${lmCorpora} or synthetic for language models. Default: the run's own." placeholder:"NAME" predictor:"resource"`
	File  string `help:"Labelled file in place of --data, plain or gzip: CoNLL or UNER .iob2 for taggers; .csv or .tsv with a header for classifiers; plain text for language models, of which all is scored." placeholder:"FILE" predictor:"path"`
	Split string `help:"Part of the corpus: train, dev or test." enum:"train,dev,test" default:"test"`
	Types string `group:"Taggers" help:"Entity types to keep, by comma; others become O. \"all\" keeps every type. Default: the run's own." placeholder:"A,B"`
}

// load reads the sentences that the flags name, for the model in a run or model folder.
func (c corpusFlags) load(a *app, model string) ([]data.Sentence, experiment.Data, error) {
	var corpus experiment.Data
	record, err := run.ReadRecord[experiment.Config](model)
	if err == nil {
		corpus = record.Config.Data
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, corpus, err
	} else if info, err := os.Stat(model); err != nil || !info.IsDir() {
		return nil, corpus, noSuchRun(model)
	} else if c.Data == "" && c.File == "" {
		return nil, corpus, usageError{fmt.Errorf("%s is no run folder, so say what to score on: --data or --file", model)}
	}
	switch {
	case c.File != "" && c.Data != "":
		return nil, corpus, usageError{errors.New("--data and --file exclude each other")}
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

package experiment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
)

// EventsFile in a run folder is the log of a strategy of adaptation, if there was one.
const EventsFile = task.EventsFile

// Options is what a run needs beside its config.
type Options = task.Options[ner.Report]

// Loaded says what a run is about to work on.
type Loaded = run.Loaded

// Record is the content of run.json.
type Record = run.Record[Config]

// Result is what a run found.
type Result struct {
	task.Result[ner.Report]
	// Tagger is the trained tagger.
	Tagger *ner.Tagger `json:"-"`
	// Sentences are some of the test data with what was found in them.
	Sentences []Sample `json:"samples,omitempty"`
}

// Sample is a sentence of the test data with what was found in it.
type Sample struct {
	ner.Document
	Gold []ner.Span `json:"gold"`
}

// Run makes an experiment from start to end; see [task.Experiment.Run].
func Run(ctx context.Context, backend compute.Backend, config Config, options Options) (result Result, err error) {
	err = config.experiment(backend, options, &result).Run(ctx, options, &result)
	return result, err
}

// RangeTest tries learning rates before an experiment; see [task.Experiment.RangeTest].
func RangeTest(ctx context.Context, backend compute.Backend, config Config, options Options, r train.RateRange) (train.RateCurve, error) {
	return config.experiment(backend, options, new(Result)).RangeTest(ctx, options, r)
}

// Explain returns a table of what holds for which parameters; see [task.Experiment.Explain].
func Explain(ctx context.Context, backend compute.Backend, config Config, options Options) (string, error) {
	return config.experiment(backend, options, new(Result)).Explain(ctx, options)
}

type (
	experiment = task.Experiment[Config, data.Sentence, ner.Report]
	trained    = task.Model[data.Sentence, ner.Report]
)

// experiment is what only this task has.
func (c Config) experiment(backend compute.Backend, options Options, result *Result) experiment {
	as := func(tagger *ner.Tagger) trained {
		result.Tagger = tagger
		return model{tagger, c, options, result, backend}
	}
	return experiment{
		Task: hub.TaskNER, Config: c, Corpus: c.corpus,
		New: func(ctx context.Context, client *hub.Client, corpus Corpus) (trained, map[string]string, error) {
			labels, err := ner.NewLabelSet(corpus.Labels)
			if err != nil {
				return nil, nil, err
			}
			tagger, sums, err := task.Start(ctx, client, c.Model,
				func(dir string) (*ner.Tagger, error) {
					return ner.NewTagger(backend, dir, labels, c.Tagger, c.Train.Seed)
				},
				func(dir string) (*ner.Tagger, error) {
					return ner.NewTaggerFromScratch(backend, dir, task.Scratch(128), labels, c.Tagger, c.Train.Seed)
				})
			return as(tagger), sums, err
		},
		Load: func(dir string) (trained, error) {
			tagger, err := ner.Load(backend, dir)
			return as(tagger), err
		},
	}
}

// corpus loads the data, and what there is to learn in it.
func (c Config) corpus(ctx context.Context, client *hub.Client) (Corpus, error) {
	corpus, err := c.Data.Load(ctx, client)
	if err == nil {
		err = c.Train.Distill.Note(corpus.Checksums)
	}
	if err != nil {
		return corpus, err
	}
	labels, err := ner.LabelsOf(slices.Concat(corpus.Train, corpus.Dev, corpus.Test))
	if err == nil && labels.Len() == 1 {
		err = errors.New("the data has no entity, only the tag O: there is nothing to learn")
	}
	corpus.Labels = labels.Tags()
	return corpus, err
}

// model is a tagger as experiments see it.
type model struct {
	*ner.Tagger
	config  Config
	options Options
	result  *Result
	backend compute.Backend
}

func (m model) Size() (parameters, trained int) { return m.Model.Parameters(), m.Trained() }

func (m model) Train(ctx context.Context, train, dev []data.Sentence, options ner.TrainOptions) (train.Result, error) {
	return m.Tagger.Train(ctx, train, dev, m.config.Train, m.with(ctx, options))
}

// with adds what a strategy of adaptation may want.
func (m model) with(ctx context.Context, options ner.TrainOptions) ner.TrainOptions {
	options.Custom = m.options.Custom
	options.Earlier = func(prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
		return earlier(ctx, m.backend, cmp.Or(m.options.Client, &hub.Client{}), prior)
	}
	return options
}

func (m model) Evaluate(ctx context.Context, part []data.Sentence, progress func(done, total int)) (ner.Report, error) {
	return m.Tagger.Evaluate(ctx, part, ner.Options{}, progress)
}

func (m model) RangeTest(ctx context.Context, train []data.Sentence, r train.RateRange) (train.RateCurve, error) {
	return m.Tagger.RangeTest(ctx, train, m.config.Train, m.with(ctx, ner.TrainOptions{}), r)
}

func (m model) Explain() (string, error) { return m.ExplainTraining(m.config.Train) }

func (m model) Finish(ctx context.Context, corpus Corpus) (err error) {
	m.result.Sentences, err = samples(ctx, m.Tagger, corpus)
	return err
}

func (m model) Save(dir string) error {
	if m.config.Merge {
		if err := m.Merge(); err != nil {
			return err
		}
	}
	return m.Tagger.Save(dir)
}

// Text writes the scores as tables.
func (r Result) Text() string {
	return r.Describe(func(name string, report ner.Report) string {
		return fmt.Sprintf("%s (%d sentences)\n\n%s\n", name, report.Sentences, report.Text(4))
	})
}

// earlier returns the final weights of the run in a folder and, if a prior wants it, their
// Fisher information over the first sentences of that run's own training data.
func earlier(ctx context.Context, backend compute.Backend, client *hub.Client, prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
	tagger, err := ner.Load(backend, prior.FromRun)
	if err != nil {
		return nil, nil, fmt.Errorf("from_run: %w", err)
	}
	if values, err = tagger.Values(); err != nil || prior.Fisher == 0 {
		return values, nil, err
	}
	record, err := run.ReadRecord[Config](prior.FromRun)
	if err != nil {
		return nil, nil, fmt.Errorf("from_run: %w", err)
	}
	corpus, err := record.Config.Data.Load(ctx, client)
	if err != nil {
		return nil, nil, fmt.Errorf("from_run: the data of %s: %w", prior.FromRun, err)
	}
	if err := run.SameData(prior.FromRun, record.Data, corpus.Checksums); err != nil {
		return nil, nil, fmt.Errorf("from_run: %w", err)
	}
	fisher, err = tagger.Fisher(ctx, corpus.Train[:min(prior.Fisher, len(corpus.Train))])
	return values, fisher, err
}

// samples predicts the first test sentences that have entities of different kinds.
func samples(ctx context.Context, tagger *ner.Tagger, corpus Corpus) ([]Sample, error) {
	const most = 3
	var chosen []int
	for _, kinds := range []int{2, 1, 0} { // sentences with several types tell most
		for i, s := range corpus.Test {
			types := map[string]bool{}
			for _, span := range ner.FromTags(s.Tags) {
				types[span.Type] = true
			}
			if len(chosen) < most && len(types) >= kinds && len(s.Words) <= 30 && !slices.Contains(chosen, i) {
				chosen = append(chosen, i)
			}
		}
	}
	words := make([][]string, len(chosen))
	for i, at := range chosen {
		words[i] = corpus.Test[at].Words
	}
	tagged, err := tagger.Tag(ctx, words, nil) // together: a shape that evaluation has compiled
	if err != nil {
		return nil, fmt.Errorf("predicting samples: %w", err)
	}
	list := make([]Sample, len(chosen))
	for i, at := range chosen {
		s := corpus.Test[at]
		text, places := ner.Join(s.Words)
		if s.Text != "" {
			if located, err := ner.Locate(s.Text, s.Words); err == nil {
				text, places = s.Text, located
			}
		}
		entities, err := ner.Entities(text, places, ner.FromTags(tagged[i].Tags), tagged[i].Scores)
		if err != nil {
			return nil, fmt.Errorf("predicting samples: %w", err)
		}
		list[i] = Sample{Document: ner.Document{Text: text, Entities: entities}, Gold: ner.FromTags(s.Tags)}
	}
	return list, nil
}

package experiment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
)

// EventsFile in a run folder is the log of a strategy of adaptation, if there was one.
const EventsFile = "events.jsonl"

// Options is what a run needs beside its config.
type Options struct {
	// Dir is the run folder.
	Dir string
	// Resume continues the run in Dir from its last checkpoint. The config must be the same.
	Resume bool
	// Client fetches model and data; nil means the default.
	Client *hub.Client
	// Backend describes the backend, for the record.
	Backend any

	// Custom computes the objective "custom" of the config's strategy, which has none without.
	Custom adapt.Custom

	// The callbacks report progress; each may be nil.
	Loaded   func(Loaded)
	Step     func(train.Step)
	Event    func(control.Event)
	Epoch    func(epoch int, dev ner.Report)
	Progress func(done, total int) // of an evaluation, in batches
}

// Loaded says what a run is about to work on.
type Loaded = run.Loaded

// Record is the content of run.json.
type Record = run.Record[Config]

// Result is what a run found.
type Result struct {
	Dir          string      `json:"dir"`
	Dev          *ner.Report `json:"dev,omitempty"`
	Test         *ner.Report `json:"test,omitempty"`
	Note         string      `json:"note,omitempty"`
	Updates      int         `json:"updates"`
	BestEpoch    int         `json:"best_epoch"` // counted from 1; 0 without dev data
	Stopped      bool        `json:"stopped_early,omitempty"`
	Ended        string      `json:"ended,omitempty"` // why a strategy of adaptation ended training
	Compilations int         `json:"compilations"`
	Seconds      float64     `json:"seconds"` // of this process
	run.Course
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

// Run makes an experiment from start to end. One process at a time may work on a run
// folder. When ctx is cancelled while it trains or evaluates, the run is saved, and the
// error wraps [train.ErrInterrupted]. An unknown name is a [*run.NameError].
func Run(ctx context.Context, backend compute.Backend, config Config, options Options) (result Result, err error) {
	begin := time.Now()
	if options.Dir == "" {
		return Result{}, errors.New("experiment needs a run folder")
	}
	client, err := config.client(options)
	if err != nil {
		return Result{}, err
	}
	if _, _, err := run.Check(options.Dir, hub.TaskNER, config, options.Resume); err != nil {
		return Result{}, err
	}
	corpus, labels, err := config.corpus(ctx, client)
	if err != nil {
		return Result{}, err
	}
	begun, err := run.Begin(options.Dir, hub.TaskNER, config, options.Resume, corpus.Checksums)
	if err != nil {
		return Result{}, err
	}
	defer begun.Unlock()
	loaded := Loaded{Train: len(corpus.Train), Dev: len(corpus.Dev), Test: len(corpus.Test), Labels: labels.Tags(), Note: corpus.Note}
	record := begun.Record
	var tagger *ner.Tagger
	resumeDir := ""
	if folder := begun.Latest; folder != nil {
		resumeDir = folder.Dir
		if tagger, err = ner.Load(backend, resumeDir); err != nil {
			return Result{}, err
		}
		state, err := train.ReadState(resumeDir)
		if err != nil {
			return Result{}, err
		}
		loaded.ResumedAt, loaded.Skipped = state.Update, folder.Skipped
		record.Resumed = append(record.Resumed, time.Now().UTC())
	} else {
		if tagger, record.Model, err = newTagger(ctx, backend, client, config, labels); err != nil {
			return Result{}, err
		}
		record.Labels, record.Versions, record.Seed, record.Started = labels.Tags(), run.Versions(), config.Train.Seed, time.Now().UTC()
		record.Sentences = [3]int{len(corpus.Train), len(corpus.Dev), len(corpus.Test)}
	}
	loaded.Parameters, loaded.Trained = tagger.Model.Parameters(), tagger.Trained()
	record.Backend = options.Backend
	journal, err := run.NewJournal(options.Dir, record, loaded.ResumedAt)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = journal.End(err) }()

	trained, err := tagger.Train(ctx, corpus.Train, corpus.Dev, config.Train, ner.TrainOptions{
		Run: checkpoint.Run{Dir: options.Dir}, Resume: resumeDir, Journal: journal, Versions: record.Versions, Custom: options.Custom,
		Earlier: func(prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
			return earlier(ctx, backend, client, prior)
		},
		Plan: func(stats batch.Stats) {
			if loaded.Batches = stats; options.Loaded != nil {
				options.Loaded(loaded)
			}
		},
		Step: options.Step, Event: options.Event, Epoch: options.Epoch, Progress: options.Progress,
	})
	result = Result{
		Dir: options.Dir, Note: corpus.Note, Updates: trained.State.Update, Stopped: trained.Stopped, Ended: trained.State.Ended,
		BestEpoch: max(trained.State.Best.Epoch, 0), Course: run.CourseOf(trained.State), Tagger: tagger,
	}
	if logErr := writeEvents(options.Dir, trained.State.Adaptation); err == nil {
		err = logErr
	}
	if err != nil {
		return result, err
	}
	if len(corpus.Dev) > 0 {
		report, err := tagger.Evaluate(ctx, corpus.Dev, ner.Options{}, options.Progress)
		if err != nil {
			return result, run.Stopped(ctx, fmt.Errorf("evaluating on dev: %w", err))
		}
		result.Dev = &report
		journal.Scores("final/dev", report.Scores())
	}
	if len(corpus.Test) > 0 {
		report, err := tagger.Evaluate(ctx, corpus.Test, ner.Options{}, options.Progress)
		if err != nil {
			return result, run.Stopped(ctx, fmt.Errorf("evaluating on test: %w", err))
		}
		result.Test = &report
		journal.Scores("final/test", report.Scores())
		if result.Sentences, err = samples(ctx, tagger, corpus); err != nil {
			return result, run.Stopped(ctx, err)
		}
	}
	result.Compilations = trained.Compilations + tagger.Compilations()
	result.Seconds = time.Since(begin).Seconds()
	if config.Merge {
		if err := tagger.Merge(); err != nil {
			return result, err
		}
	}
	if err := tagger.Save(filepath.Join(options.Dir, run.ModelDir)); err != nil {
		return result, fmt.Errorf("saving the model: %w", err)
	}
	return result, journal.Finish(result, result.Text())
}

// client checks the config, before anything is fetched, and returns what fetches.
func (c Config) client(options Options) (*hub.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("experiment config: %w", err)
	}
	if c.Model != Scratch {
		if _, _, err := run.FindModel(c.Model); err != nil {
			return nil, err
		}
	}
	if options.Client == nil {
		return &hub.Client{}, nil
	}
	return options.Client, nil
}

// corpus loads the data, and what there is to learn in it.
func (c Config) corpus(ctx context.Context, client *hub.Client) (Corpus, ner.LabelSet, error) {
	corpus, err := c.Data.Load(ctx, client)
	if err != nil {
		return corpus, ner.LabelSet{}, err
	}
	labels, err := ner.LabelsOf(slices.Concat(corpus.Train, corpus.Dev, corpus.Test))
	if err == nil && labels.Len() == 1 {
		err = errors.New("the data has no entity, only the tag O: there is nothing to learn")
	}
	return corpus, labels, err
}

// fresh makes the tagger that an experiment begins with, and loads its data.
func (c Config) fresh(ctx context.Context, backend compute.Backend, options Options) (*ner.Tagger, Corpus, error) {
	client, err := c.client(options)
	if err != nil {
		return nil, Corpus{}, err
	}
	corpus, labels, err := c.corpus(ctx, client)
	if err != nil {
		return nil, corpus, err
	}
	tagger, _, err := newTagger(ctx, backend, client, c, labels)
	return tagger, corpus, err
}

// RangeTest tries learning rates before an experiment; see [train.RangeTest]. It needs no run folder and
// leaves nothing behind.
func RangeTest(ctx context.Context, backend compute.Backend, config Config, options Options, r train.RateRange) (train.RateCurve, error) {
	tagger, corpus, err := config.fresh(ctx, backend, options)
	if err != nil {
		return train.RateCurve{}, err
	}
	r.Pretrained = config.Model != Scratch
	return tagger.RangeTest(ctx, corpus.Train, config.Train, ner.TrainOptions{
		Custom: options.Custom,
		Earlier: func(prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
			return earlier(ctx, backend, options.Client, prior)
		},
	}, r)
}

// Explain returns a table of what holds for which parameters in an experiment: group, rule, factor of the
// learning rate, weight decay, state. It trains nothing.
func Explain(ctx context.Context, backend compute.Backend, config Config, options Options) (string, error) {
	tagger, _, err := config.fresh(ctx, backend, options)
	if err != nil {
		return "", err
	}
	return tagger.ExplainTraining(config.Train)
}

// earlier returns the final weights of the run in a folder and, if a prior wants it, their
// Fisher information over the first sentences of that run's own training data.
func earlier(ctx context.Context, backend compute.Backend, client *hub.Client, prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
	tagger, err := ner.Load(backend, filepath.Join(prior.FromRun, run.ModelDir))
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

// writeEvents writes the log of an adaptation, a JSON object a line. It is all that happened
// since the run began, also before it was resumed.
func writeEvents(dir string, events []adapt.Event) error {
	if len(events) == 0 {
		return nil
	}
	return atomicfile.Write(filepath.Join(dir, EventsFile), func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		for _, event := range events {
			if err := encoder.Encode(event); err != nil {
				return fmt.Errorf("writing events: %w", err)
			}
		}
		return nil
	})
}

// Text writes the scores as tables.
func (r Result) Text() string {
	var b strings.Builder
	for _, part := range []struct {
		name   string
		report *ner.Report
	}{{"dev", r.Dev}, {"test", r.Test}} {
		if part.report != nil {
			fmt.Fprintf(&b, "%s (%d sentences)\n\n%s\n", part.name, part.report.Sentences, part.report.Text(4))
		}
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "Note: %s.\n", r.Note)
	}
	return b.String()
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

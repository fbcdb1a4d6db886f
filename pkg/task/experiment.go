// Package task is what the experiments of all tasks share. An [Experiment] brings in data and model, trains,
// evaluates, and leaves a run folder from which every number can be traced and an interrupted run goes on;
// package run says what the folder holds. With a strategy of adaptation there is also events.jsonl, what the
// strategy did.
//
// A task is a package with a model that can be trained and scored, and an experiment package beside it, which
// says what only the task has:
//
//	Config      plain data with presets, the three methods of [Config], and a Data that loads a [Corpus]
//	model       an adapter from the task's model to [Model]
//	Result      [Result] and samples, as text
//
// All else, from the checks before anything is fetched to the last report, is [Experiment.Run].
package task

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
)

// EventsFile in a run folder is the log of a strategy of adaptation, if there was one.
const EventsFile = "events.jsonl"

// Config is the config of a task's experiments: plain data, which a run folder holds.
type Config interface {
	// Validate reports all that is wrong with it.
	Validate() error
	// Base is the name of the model that training begins with, for [run.FindModel], or [run.Scratch].
	Base() string
	// Recipe is the part of the training's recipe that all tasks have.
	Recipe() train.Config
}

// Model is what an experiment trains, under the experiment's config. E is an example, S a score.
type Model[E any, S run.Score] interface {
	// Size returns the number of parameters, and of those that are trained; 0 stands for all.
	Size() (parameters, trained int)
	// Train fits the model to the training part and scores it on dev after each epoch; see [run.Fit].
	Train(ctx context.Context, train, dev []E, options run.TrainOptions[S]) (train.Result, error)
	// Evaluate scores the model. Progress, which may be nil, is told how far it is, in batches.
	Evaluate(ctx context.Context, part []E, progress func(done, total int)) (S, error)
	// Finish is called after the last evaluation, so that the task can add to its result: samples.
	Finish(ctx context.Context, corpus Corpus[E]) error
	// Save writes the model as a folder, complete or not at all.
	Save(dir string) error
	// RangeTest tries learning rates; see [train.RangeTest].
	RangeTest(ctx context.Context, train []E, r train.RateRange) (train.RateCurve, error)
	// Explain returns a table of what holds for which parameters; see [train.Trainer.Explain].
	Explain() (string, error)
}

// Options is what a run needs beside its config.
type Options[S run.Score] struct {
	// Dir is the run folder.
	Dir string
	// Resume continues the run in Dir from its last checkpoint. The config must be the same.
	Resume bool
	// Client fetches model and data; nil means the default.
	Client *hub.Client
	// Backend describes the backend, for the record.
	Backend any

	// Custom computes the objective "custom" of the config's strategy of adaptation, in a task that has
	// objectives; see [run.TrainOptions].
	Custom adapt.Custom

	// The callbacks report progress; each may be nil.
	Loaded   func(run.Loaded)
	Step     func(train.Step)
	Event    func(control.Event)
	Epoch    func(epoch int, dev S)
	Progress func(done, total int) // of an evaluation, in batches
}

// Result is what a run found. Tasks embed it in a result that has samples too.
type Result[S run.Score] struct {
	Dir          string  `json:"dir"`
	Dev          *S      `json:"dev,omitempty"`
	Test         *S      `json:"test,omitempty"`
	Note         string  `json:"note,omitempty"`
	Updates      int     `json:"updates"`
	BestEpoch    int     `json:"best_epoch"` // counted from 1; 0 without dev data
	Stopped      bool    `json:"stopped_early,omitempty"`
	Ended        string  `json:"ended,omitempty"`        // why a strategy of adaptation ended training
	Compilations int     `json:"compilations,omitempty"` // 0 for a model that does not count its own
	Seconds      float64 `json:"seconds"`                // of this process
	run.Course
}

// Describe joins what part says about each part of the data that was scored, and the note.
func (r Result[S]) Describe(part func(name string, score S) string) string {
	var b strings.Builder
	if r.Dev != nil {
		b.WriteString(part("dev", *r.Dev))
	}
	if r.Test != nil {
		b.WriteString(part("test", *r.Test))
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "Note: %s.\n", r.Note)
	}
	return b.String()
}

// Common returns what the results of all tasks have.
func (r *Result[S]) Common() *Result[S] { return r }

// Report is a task's result: a pointer to a struct that embeds a [Result].
type Report[S run.Score] interface {
	// Text writes the scores as tables.
	Text() string
	Common() *Result[S]
}

// Experiment is an experiment of a task: C is its config, E an example, S a score.
type Experiment[C Config, E any, S run.Score] struct {
	// Task is what the model is for, as in [hub.Resource].
	Task   string
	Config C
	// Corpus brings in the data, with the labels that there are to learn.
	Corpus func(ctx context.Context, client *hub.Client) (Corpus[E], error)
	// New makes the model that the experiment begins with, and returns the checksums of what it was
	// made of; see [Start].
	New func(ctx context.Context, client *hub.Client, corpus Corpus[E]) (Model[E, S], map[string]string, error)
	// Load reads the model from the folder of a checkpoint.
	Load func(dir string) (Model[E, S], error)
}

// Run makes an experiment from start to end, and fills in the report. One process at a time may work on a run
// folder. When ctx is cancelled while it trains or evaluates, the run is saved, and the error wraps
// [train.ErrInterrupted]. An unknown name is a [*run.NameError].
func (x Experiment[C, E, S]) Run(ctx context.Context, options Options[S], report Report[S]) (err error) {
	begin := time.Now()
	if options.Dir == "" {
		return errors.New("experiment needs a run folder")
	}
	client, err := x.client(options)
	if err != nil {
		return err
	}
	if _, _, err := run.Check(options.Dir, x.Task, x.Config, options.Resume); err != nil {
		return err
	}
	corpus, err := x.Corpus(ctx, client)
	if err != nil {
		return err
	}
	begun, err := run.Begin(options.Dir, x.Task, x.Config, options.Resume, corpus.Checksums)
	if err != nil {
		return err
	}
	defer begun.Unlock()
	loaded := run.Loaded{Train: len(corpus.Train), Dev: len(corpus.Dev), Test: len(corpus.Test), Labels: corpus.Labels, Note: corpus.Note}
	record := begun.Record
	var model Model[E, S]
	resumeDir := ""
	if folder := begun.Latest; folder != nil {
		resumeDir = folder.Dir
		if model, err = x.Load(resumeDir); err != nil {
			return err
		}
		state, err := train.ReadState(resumeDir)
		if err != nil {
			return err
		}
		loaded.ResumedAt, loaded.Skipped = state.Update, folder.Skipped
		record.Resumed = append(record.Resumed, time.Now().UTC())
	} else {
		if model, record.Model, err = x.New(ctx, client, corpus); err != nil {
			return err
		}
		record.Labels, record.Versions, record.Seed, record.Started = corpus.Labels, run.Versions(), x.Config.Recipe().Seed, time.Now().UTC()
		record.Sentences = [3]int{len(corpus.Train), len(corpus.Dev), len(corpus.Test)}
	}
	loaded.Parameters, loaded.Trained = model.Size()
	record.Backend = options.Backend
	journal, err := run.NewJournal(options.Dir, record, loaded.ResumedAt)
	if err != nil {
		return err
	}
	defer func() { err = journal.End(err) }()

	trained, err := model.Train(ctx, corpus.Train, corpus.Dev, run.TrainOptions[S]{
		Run: checkpoint.Run{Dir: options.Dir}, Resume: resumeDir, Journal: journal, Versions: record.Versions,
		Plan: func(stats batch.Stats) {
			if loaded.Batches = stats; options.Loaded != nil {
				options.Loaded(loaded)
			}
		},
		Step: options.Step, Event: options.Event, Epoch: options.Epoch, Progress: options.Progress,
	})
	result := report.Common()
	*result = Result[S]{
		Dir: options.Dir, Note: corpus.Note, Updates: trained.State.Update, Stopped: trained.Stopped, Ended: trained.State.Ended,
		BestEpoch: max(trained.State.Best.Epoch, 0), Course: run.CourseOf(trained.State),
	}
	if logErr := writeEvents(options.Dir, trained.State.Adaptation); err == nil {
		err = logErr
	}
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name     string
		examples []E
		into     **S
	}{{"dev", corpus.Dev, &result.Dev}, {"test", corpus.Test, &result.Test}} {
		if len(part.examples) == 0 {
			continue
		}
		score, err := model.Evaluate(ctx, part.examples, options.Progress)
		if err != nil {
			return run.Stopped(ctx, fmt.Errorf("evaluating on %s: %w", part.name, err))
		}
		*part.into = &score
		journal.Scores("final/"+part.name, score.Scores())
	}
	if err := model.Finish(ctx, corpus); err != nil {
		return run.Stopped(ctx, err)
	}
	if counts, ok := model.(interface{ Compilations() int }); ok {
		result.Compilations = trained.Compilations + counts.Compilations()
	}
	result.Seconds = time.Since(begin).Seconds()
	if err := model.Save(filepath.Join(options.Dir, run.ModelDir)); err != nil {
		return fmt.Errorf("saving the model: %w", err)
	}
	return journal.Finish(report, report.Text())
}

// RangeTest tries learning rates before an experiment; see [train.RangeTest]. It needs no run folder and
// leaves nothing behind.
func (x Experiment[C, E, S]) RangeTest(ctx context.Context, options Options[S], r train.RateRange) (train.RateCurve, error) {
	model, corpus, err := x.fresh(ctx, options)
	if err != nil {
		return train.RateCurve{}, err
	}
	r.Pretrained = x.Config.Base() != run.Scratch
	return model.RangeTest(ctx, corpus.Train, r)
}

// Explain returns a table of what holds for which parameters in an experiment: group, rule, factor of the
// learning rate, weight decay, state. It trains nothing.
func (x Experiment[C, E, S]) Explain(ctx context.Context, options Options[S]) (string, error) {
	model, _, err := x.fresh(ctx, options)
	if err != nil {
		return "", err
	}
	return model.Explain()
}

// fresh makes the model that an experiment begins with, and loads its data.
func (x Experiment[C, E, S]) fresh(ctx context.Context, options Options[S]) (model Model[E, S], corpus Corpus[E], err error) {
	client, err := x.client(options)
	if err != nil {
		return nil, corpus, err
	}
	if corpus, err = x.Corpus(ctx, client); err != nil {
		return nil, corpus, err
	}
	model, _, err = x.New(ctx, client, corpus)
	return model, corpus, err
}

// client checks the config, before anything is fetched, and returns what fetches.
func (x Experiment[C, E, S]) client(options Options[S]) (*hub.Client, error) {
	if err := x.Config.Validate(); err != nil {
		return nil, fmt.Errorf("experiment config: %w", err)
	}
	if base := x.Config.Base(); base != run.Scratch {
		if _, _, err := run.FindModel(base); err != nil {
			return nil, err
		}
	}
	return cmp.Or(options.Client, &hub.Client{}), nil
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

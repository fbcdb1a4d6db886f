package experiment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/lm"
)

// Options is what a run needs beside its config.
type Options struct {
	// Dir is the run folder.
	Dir string
	// Resume continues the run in Dir from its last checkpoint. The config must be the same.
	Resume bool
	// Client fetches the text; nil means the default.
	Client *hub.Client
	// Backend describes the backend, for the record.
	Backend any

	// The callbacks report progress; each may be nil.
	Loaded   func(Loaded)
	Step     func(train.Step)
	Event    func(control.Event)
	Epoch    func(epoch int, dev lm.Score)
	Progress func(done, total int) // of an evaluation, in batches
}

// Loaded says what a run is about to work on; sizes are in bytes.
type Loaded = run.Loaded

// Record is the content of run.json.
type Record = run.Record[Config]

// Result is what a run found.
type Result struct {
	Dir       string   `json:"dir"`
	Dev       lm.Score `json:"dev"`
	Test      lm.Score `json:"test"`
	Note      string   `json:"note,omitempty"`
	Updates   int      `json:"updates"`
	BestEpoch int      `json:"best_epoch"` // counted from 1
	Stopped   bool     `json:"stopped_early,omitempty"`
	Seconds   float64  `json:"seconds"` // of this process
	run.Course
	// Sample is what the model writes on its own.
	Sample string `json:"sample"`
	// Model is the trained model.
	Model *lm.Model `json:"-"`
}

// Run makes an experiment from start to end. One process at a time may work on a run
// folder. When ctx is cancelled while it trains or evaluates, the run is saved, and the
// error wraps [train.ErrInterrupted]. An unknown name is a [*run.NameError].
func Run(ctx context.Context, backend compute.Backend, config Config, options Options) (result Result, err error) {
	begin := time.Now()
	if err := config.Validate(); err != nil {
		return Result{}, fmt.Errorf("experiment config: %w", err)
	}
	if options.Dir == "" {
		return Result{}, errors.New("experiment needs a run folder")
	}
	client := options.Client
	if client == nil {
		client = &hub.Client{}
	}
	if _, _, err := run.Check(options.Dir, hub.TaskLM, config, options.Resume); err != nil {
		return Result{}, err
	}
	corpus, err := config.Data.Load(ctx, client)
	if err != nil {
		return Result{}, err
	}
	begun, err := run.Begin(options.Dir, hub.TaskLM, config, options.Resume, corpus.Checksums)
	if err != nil {
		return Result{}, err
	}
	defer begun.Unlock()
	loaded := Loaded{Train: len(corpus.Train), Dev: len(corpus.Dev), Test: len(corpus.Test), Note: corpus.Note}
	record := begun.Record
	var model *lm.Model
	resumeDir := ""
	if folder := begun.Latest; folder != nil {
		resumeDir = folder.Dir
		if model, err = lm.Load(backend, resumeDir); err != nil {
			return Result{}, err
		}
		state, err := train.ReadState(resumeDir)
		if err != nil {
			return Result{}, err
		}
		loaded.ResumedAt, loaded.Skipped = state.Update, folder.Skipped
		record.Resumed = append(record.Resumed, time.Now().UTC())
	} else {
		if model, err = lm.New(backend, config.Model, config.Train.Seed); err != nil {
			return Result{}, err
		}
		record.Model, record.Versions = map[string]string{"model": "fresh weights"}, run.Versions()
		record.Seed, record.Started = config.Train.Seed, time.Now().UTC()
		record.Sentences = [3]int{len(corpus.Train), len(corpus.Dev), len(corpus.Test)}
	}
	steps, err := model.Steps(corpus.Train, config.Train)
	if err != nil {
		return Result{}, err
	}
	loaded.Parameters, loaded.Batches = model.Transformer.Parameters(), batch.Stats{Batches: steps, Shapes: 1}
	record.Backend = options.Backend
	journal, err := run.NewJournal(options.Dir, record, loaded.ResumedAt)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = journal.End(err) }()
	if options.Loaded != nil {
		options.Loaded(loaded)
	}
	trained, err := model.Train(ctx, corpus.Train, corpus.Dev, config.Train, lm.TrainOptions{
		Run: checkpoint.Run{Dir: options.Dir}, Resume: resumeDir, Journal: journal, Versions: record.Versions,
		Step: options.Step, Event: options.Event, Epoch: options.Epoch, Progress: options.Progress,
	})
	result = Result{
		Dir: options.Dir, Note: corpus.Note, Updates: trained.State.Update, Stopped: trained.Stopped,
		BestEpoch: max(trained.State.Best.Epoch, 0), Course: run.CourseOf(trained.State), Model: model,
	}
	if err != nil {
		return result, err
	}
	if result.Dev, err = model.Evaluate(ctx, corpus.Dev, options.Progress); err == nil {
		journal.Scores("final/dev", result.Dev.Scores())
		result.Test, err = model.Evaluate(ctx, corpus.Test, options.Progress)
	}
	if err == nil {
		journal.Scores("final/test", result.Test.Scores())
		result.Sample, err = model.Generate(ctx, "\n", lm.Sampling{Temperature: 0.8, Seed: config.Train.Seed}, nil)
	}
	if err != nil {
		return result, run.Stopped(ctx, err)
	}
	result.Seconds = time.Since(begin).Seconds()
	if err := model.Save(filepath.Join(options.Dir, run.ModelDir)); err != nil {
		return result, fmt.Errorf("saving the model: %w", err)
	}
	return result, journal.Finish(result, result.Text())
}

// fresh brings in what an experiment begins with.
func (c Config) fresh(ctx context.Context, backend compute.Backend, options Options) (*lm.Model, Corpus, error) {
	if err := c.Validate(); err != nil {
		return nil, Corpus{}, fmt.Errorf("experiment config: %w", err)
	}
	client := options.Client
	if client == nil {
		client = &hub.Client{}
	}
	corpus, err := c.Data.Load(ctx, client)
	if err != nil {
		return nil, Corpus{}, err
	}
	model, err := lm.New(backend, c.Model, c.Train.Seed)
	return model, corpus, err
}

// RangeTest tries learning rates before an experiment; see [train.RangeTest]. It needs no run folder and
// leaves nothing behind.
func RangeTest(ctx context.Context, backend compute.Backend, config Config, options Options, r train.RateRange) (train.RateCurve, error) {
	model, corpus, err := config.fresh(ctx, backend, options)
	if err != nil {
		return train.RateCurve{}, err
	}
	return model.RangeTest(ctx, corpus.Train, config.Train, r)
}

// Explain returns a table of what holds for which parameters in an experiment: group, rule, factor of the
// learning rate, weight decay, state. It trains nothing.
func Explain(ctx context.Context, backend compute.Backend, config Config, options Options) (string, error) {
	model, _, err := config.fresh(ctx, backend, options)
	if err != nil {
		return "", err
	}
	return model.ExplainTraining(config.Train)
}

// Text writes the scores.
func (r Result) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-6s %9s %8s %13s %11s %9s\n", "", "bytes", "loss", "bits per byte", "perplexity", "accuracy")
	for _, part := range []struct {
		name  string
		score lm.Score
	}{{"dev", r.Dev}, {"test", r.Test}} {
		s := part.score
		fmt.Fprintf(&b, "%-6s %9d %8.4f %13.4f %11.4f %9.4f\n", part.name, s.Bytes, s.Loss, s.BitsPerByte(), s.Perplexity(), s.Accuracy)
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "Note: %s.\n", r.Note)
	}
	return b.String()
}

package experiment

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

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

	// The callbacks report progress; each may be nil.
	Loaded   func(Loaded)
	Step     func(train.Step)
	Event    func(control.Event)
	Epoch    func(epoch int, dev eval.Classification)
	Progress func(done, total int) // of an evaluation, in batches
}

// Loaded says what a run is about to work on.
type Loaded = run.Loaded

// Record is the content of run.json.
type Record = run.Record[Config]

// Result is what a run found.
type Result struct {
	Dir          string               `json:"dir"`
	Dev          *eval.Classification `json:"dev,omitempty"`
	Test         *eval.Classification `json:"test,omitempty"`
	Note         string               `json:"note,omitempty"`
	Updates      int                  `json:"updates"`
	BestEpoch    int                  `json:"best_epoch"` // counted from 1; 0 without dev data
	Stopped      bool                 `json:"stopped_early,omitempty"`
	Compilations int                  `json:"compilations"`
	Seconds      float64              `json:"seconds"` // of this process
	run.Course
	// Classifier is the trained classifier.
	Classifier *classify.Classifier `json:"-"`
	// Samples are some of the test data with what was predicted for them.
	Samples []Sample `json:"samples,omitempty"`
}

// Sample is a text of the test data with what was predicted for it.
type Sample struct {
	classify.Prediction
	Gold string `json:"gold"`
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
	if _, _, err := run.Check(options.Dir, hub.TaskClassify, config, options.Resume); err != nil {
		return Result{}, err
	}
	corpus, labels, err := config.corpus(ctx, client)
	if err != nil {
		return Result{}, err
	}
	begun, err := run.Begin(options.Dir, hub.TaskClassify, config, options.Resume, corpus.Checksums)
	if err != nil {
		return Result{}, err
	}
	defer begun.Unlock()
	loaded := Loaded{Train: len(corpus.Train), Dev: len(corpus.Dev), Test: len(corpus.Test), Labels: labels, Note: corpus.Note}
	record := begun.Record
	var classifier *classify.Classifier
	resumeDir := ""
	if folder := begun.Latest; folder != nil {
		resumeDir = folder.Dir
		if classifier, err = classify.Load(backend, resumeDir); err != nil {
			return Result{}, err
		}
		state, err := train.ReadState(resumeDir)
		if err != nil {
			return Result{}, err
		}
		loaded.ResumedAt, loaded.Skipped = state.Update, folder.Skipped
		record.Resumed = append(record.Resumed, time.Now().UTC())
	} else {
		if classifier, record.Model, err = newClassifier(ctx, backend, client, config, labels); err != nil {
			return Result{}, err
		}
		record.Labels, record.Versions, record.Seed, record.Started = labels, run.Versions(), config.Train.Seed, time.Now().UTC()
		record.Sentences = [3]int{len(corpus.Train), len(corpus.Dev), len(corpus.Test)}
	}
	loaded.Parameters = classifier.Model.Parameters()
	record.Backend = options.Backend
	journal, err := run.NewJournal(options.Dir, record, loaded.ResumedAt)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = journal.End(err) }()

	trained, err := classifier.Train(ctx, corpus.Train, corpus.Dev, config.Train, classify.TrainOptions{
		Run: checkpoint.Run{Dir: options.Dir}, Resume: resumeDir, Journal: journal, Versions: record.Versions,
		Plan: func(stats batch.Stats) {
			if loaded.Batches = stats; options.Loaded != nil {
				options.Loaded(loaded)
			}
		},
		Step: options.Step, Event: options.Event, Epoch: options.Epoch, Progress: options.Progress,
	})
	result = Result{
		Dir: options.Dir, Note: corpus.Note, Updates: trained.State.Update, Stopped: trained.Stopped,
		BestEpoch: max(trained.State.Best.Epoch, 0), Course: run.CourseOf(trained.State), Classifier: classifier,
	}
	if err != nil {
		return result, err
	}
	for _, part := range []struct {
		name  string
		texts []data.Text
		into  **eval.Classification
	}{{"dev", corpus.Dev, &result.Dev}, {"test", corpus.Test, &result.Test}} {
		if len(part.texts) == 0 {
			continue
		}
		report, err := classifier.Evaluate(ctx, part.texts, options.Progress)
		if err != nil {
			return result, run.Stopped(ctx, fmt.Errorf("evaluating on %s: %w", part.name, err))
		}
		*part.into = &report
		journal.Scores("final/"+part.name, report.Scores())
	}
	if result.Samples, err = samples(ctx, classifier, corpus.Test); err != nil {
		return result, run.Stopped(ctx, err)
	}
	result.Compilations = trained.Compilations + classifier.Compilations()
	result.Seconds = time.Since(begin).Seconds()
	if err := classifier.Save(filepath.Join(options.Dir, run.ModelDir)); err != nil {
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

// corpus loads the data and its classes.
func (c Config) corpus(ctx context.Context, client *hub.Client) (Corpus, []string, error) {
	corpus, err := c.Data.Load(ctx, client)
	if err != nil {
		return corpus, nil, err
	}
	labels, err := classify.Labels(slices.Concat(corpus.Train, corpus.Dev, corpus.Test))
	if err != nil {
		return corpus, nil, err
	}
	if len(labels) < 2 {
		return corpus, nil, fmt.Errorf("the data has one class only, %q: there is nothing to learn", labels)
	}
	learned, err := classify.Labels(corpus.Train)
	unseen := slices.DeleteFunc(slices.Clone(labels), func(label string) bool { return slices.Contains(learned, label) })
	if len(unseen) > 0 { // a misspelt label, often
		corpus.note(fmt.Sprintf("no training text has the class %q, which dev or test has: it cannot be learned", unseen))
	}
	return corpus, labels, err
}

// fresh makes the classifier that an experiment begins with, and loads its data.
func (c Config) fresh(ctx context.Context, backend compute.Backend, options Options) (*classify.Classifier, Corpus, error) {
	client, err := c.client(options)
	if err != nil {
		return nil, Corpus{}, err
	}
	corpus, labels, err := c.corpus(ctx, client)
	if err != nil {
		return nil, corpus, err
	}
	classifier, _, err := newClassifier(ctx, backend, client, c, labels)
	return classifier, corpus, err
}

// RangeTest tries learning rates before an experiment; see [train.RangeTest]. It needs no run folder and
// leaves nothing behind.
func RangeTest(ctx context.Context, backend compute.Backend, config Config, options Options, r train.RateRange) (train.RateCurve, error) {
	classifier, corpus, err := config.fresh(ctx, backend, options)
	if err != nil {
		return train.RateCurve{}, err
	}
	r.Pretrained = config.Model != Scratch
	return classifier.RangeTest(ctx, corpus.Train, config.Train, r)
}

// Explain returns a table of what holds for which parameters in an experiment: group, rule, factor of the
// learning rate, weight decay, state. It trains nothing.
func Explain(ctx context.Context, backend compute.Backend, config Config, options Options) (string, error) {
	classifier, _, err := config.fresh(ctx, backend, options)
	if err != nil {
		return "", err
	}
	return classifier.ExplainTraining(config.Train)
}

// Text writes the scores: for each part a table of its classes and a summary.
func (r Result) Text() string {
	var b strings.Builder
	for _, part := range []struct {
		name   string
		report *eval.Classification
	}{{"dev", r.Dev}, {"test", r.Test}} {
		if part.report != nil {
			fmt.Fprintf(&b, "%s (%d texts)\n\n%s\n%s\n", part.name, part.report.Items, part.report.Text(4), part.report.Summary())
		}
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "Note: %s.\n", r.Note)
	}
	return b.String()
}

// samples predicts some texts of the test data, evenly spread over it.
func samples(ctx context.Context, classifier *classify.Classifier, test []data.Text) ([]Sample, error) {
	const most = 3
	chosen := Data{Limit: most}.limited(Corpus{Test: test}).Test
	texts := make([]string, len(chosen))
	for i, t := range chosen {
		texts[i] = t.Text
	}
	predictions, err := classifier.Predict(ctx, texts...) // together: a shape that evaluation has compiled
	if err != nil {
		return nil, fmt.Errorf("predicting samples: %w", err)
	}
	list := make([]Sample, len(chosen))
	for i, p := range predictions {
		list[i] = Sample{Prediction: p, Gold: chosen[i].Label}
	}
	return list, nil
}

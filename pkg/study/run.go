package study

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/run"
)

// Options is what a study needs beside its config.
type Options struct {
	// Dir is the study folder.
	Dir string
	// Client fetches model and data; nil means the default.
	Client *hub.Client
	// Backend describes the backend, for the record.
	Backend any
	// Done is told of each run, also of those that were done before; it may be nil.
	Done func(Progress)
}

// Progress is how far a study is.
type Progress struct {
	Done, Total int // runs
	Result      Result
	// Before says that the run was done by an earlier process.
	Before bool
}

// Run makes the runs of a study that its folder does not hold yet. One process at a time may work
// on a folder. When ctx is cancelled, the run that is under way is lost, and the error wraps the
// cause: the same call goes on with that run.
func Run(ctx context.Context, engine compute.Backend, config Config, options Options) (*Folder, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("study: %w", err)
	}
	if options.Dir == "" {
		return nil, errors.New("study: no folder")
	}
	if options.Client == nil {
		options.Client = &hub.Client{}
	}
	if options.Done == nil {
		options.Done = func(Progress) {}
	}
	if err := os.MkdirAll(options.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the study folder: %w", atomicfile.Explain(err, options.Dir))
	}
	held := flock.New(filepath.Join(options.Dir, ".lock"))
	if ours, err := held.TryLock(); err != nil || !ours {
		return nil, errors.Join(fmt.Errorf("another process is working on %s: wait for it or name another folder", options.Dir), err)
	}
	defer held.Close()
	s := study{engine: engine, config: config, record: Record{Started: time.Now().UTC(), Versions: run.Versions(), Backend: options.Backend}}
	if err := s.prepare(ctx, options.Client); err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.temp)
	if err := s.check(); err != nil {
		return nil, err
	}
	folder, err := begin(options.Dir, config, s.record)
	if err != nil {
		return nil, err
	}
	s.folder = folder
	return folder, s.run(ctx, options.Done)
}

// study is one at work.
type study struct {
	engine compute.Backend
	config Config
	record Record
	task   subject
	model  string // its folder
	temp   string // what is removed at the end
	base   attention.Spec
	hidden int
	folder *Folder
}

// prepare brings in model and data.
func (s *study) prepare(ctx context.Context, client *hub.Client) error {
	fresh := s.config.Model == run.Scratch
	var dir string
	var err error
	if !fresh {
		if dir, s.record.Model, err = run.FetchModel(ctx, client, s.config.Model); err != nil {
			return err
		}
	}
	s.model = dir
	if s.task, err = tasks[s.config.Task](ctx, client, s.config); err != nil {
		return err
	}
	s.record.Data = s.task.checksums()
	s.record.Examples = s.task.sizes()
	if fresh {
		model := languageModel(s.config)
		s.base, s.hidden = model.Attention, model.Hidden
		return nil
	}
	if s.config.Layers > 0 {
		if s.temp, err = os.MkdirTemp("", "study-"); err != nil {
			return fmt.Errorf("making a folder for the model: %w", err)
		}
		s.model = filepath.Join(s.temp, "model")
		if err := firstLayers(dir, s.config.Layers, s.model); err != nil {
			return errors.Join(err, os.RemoveAll(s.temp))
		}
	}
	m, _, err := pretrained.Load(s.model, pretrained.Options{})
	if err != nil {
		return errors.Join(fmt.Errorf("loading pretrained model: %w", err), os.RemoveAll(s.temp))
	}
	s.base, s.hidden = m.Config.Attention, m.Config.Hidden
	return nil
}

// check reports all variants whose attention cannot be: before there are runs, since a study may take days to come to its last variant,
// and its variants stay what they are once it has begun.
func (s *study) check() error {
	var problems []error
	for _, v := range s.config.Variants {
		spec, err := v.Spec(s.base)
		if err != nil {
			problems = append(problems, err)
		} else if err := spec.Validate(s.hidden); err != nil {
			problems = append(problems, fmt.Errorf("variant %q: %w", v.Name, err))
		}
	}
	return errors.Join(problems...)
}

// run makes the runs that are missing, variant by variant.
func (s *study) run(ctx context.Context, done func(Progress)) error {
	count, total := 0, len(s.config.Variants)*len(s.config.Seeds)
	for _, v := range s.config.Variants {
		var l learner
		var result Result
		for i, seed := range s.config.Seeds {
			count++
			if before, ok := find(s.folder.Results, v.Name, seed); ok {
				done(Progress{Done: count, Total: total, Result: before, Before: true})
				continue
			}
			var err error
			if l == nil {
				if l, result, err = s.learner(ctx, v); err != nil {
					return err
				}
			}
			result.Seed = seed
			if err = s.one(ctx, l, i, &result); err == nil {
				err = s.folder.add(result)
			}
			if err != nil {
				err = fmt.Errorf("variant %q, seed %d: %w", v.Name, seed, err)
				if ctx.Err() != nil {
					err = fmt.Errorf("study stopped after %d of %d runs, and goes on when it is started again: %w", count-1, total, context.Cause(ctx))
				}
				return errors.Join(err, l.close())
			}
			done(Progress{Done: count, Total: total, Result: result})
		}
		if l != nil {
			if err := l.close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// learner makes the model of a variant. A combination that has a result already stays what
// it is.
func (s *study) learner(ctx context.Context, v Variant) (learner, Result, error) {
	result := Result{Variant: v.Name}
	var err error
	before := slices.IndexFunc(s.folder.Results, func(r Result) bool { return r.Variant == v.Name })
	switch {
	case v.Combine > 0 && before >= 0:
		result.Spec, result.Parts = s.folder.Results[before].Spec, s.folder.Results[before].Parts
	case v.Combine > 0:
		result.Spec, result.Parts, err = s.config.combine(v, s.base, s.hidden, s.folder.Results)
	default:
		result.Spec, err = v.Spec(s.base)
	}
	if err != nil {
		return nil, result, err
	}
	recipe, err := v.recipe(s.config.Recipe)
	if err != nil {
		return nil, result, err
	}
	recipe.Adapt = recipe.strategy(s.base, result.Spec, s.hidden)
	l, err := s.task.learner(ctx, s.engine, s.model, result.Spec, recipe, len(s.config.Seeds))
	if err != nil {
		return nil, result, fmt.Errorf("variant %q: %w", v.Name, err)
	}
	result.Parameters, result.Rate = l.parameters(), l.rate()
	return l, result, nil
}

// journal opens that of a run, in a folder of its own below the study's.
func (s *study) journal(result Result) (*run.Journal, error) {
	dir := filepath.Join(s.folder.Dir, RunsDir, fmt.Sprintf("%s-%d", url.PathEscape(result.Variant), result.Seed))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a run folder: %w", atomicfile.Explain(err, dir))
	}
	at := slices.IndexFunc(s.config.Variants, func(v Variant) bool { return v.Name == result.Variant })
	recipe, err := s.config.Variants[at].recipe(s.config.Recipe)
	if err != nil {
		return nil, err
	}
	recipe.Schedule.Peak = result.Rate // a range test may have found another
	return run.NewJournal(dir, run.Record[any]{
		Task: s.config.Task, Seed: result.Seed, Data: s.record.Data, Model: s.record.Model, Versions: s.record.Versions, Backend: s.record.Backend,
		Config: map[string]any{
			"study": s.config.Name, "variant": result.Variant, "attention": result.Spec, "parts": result.Parts, "model": s.config.Model, "recipe": recipe,
		},
		Started: time.Now().UTC(),
	}, 0)
}

// one trains and scores under one seed.
func (s *study) one(ctx context.Context, l learner, i int, result *Result) (err error) {
	begin := time.Now()
	journal, err := s.journal(*result)
	if err != nil {
		return err
	}
	defer func() { err = journal.End(err) }()
	trained, err := l.train(ctx, i, result.Seed, journal)
	if err != nil {
		return err
	}
	if err := journal.Report(run.CourseOf(trained.State)); err != nil {
		return err
	}
	result.Updates, result.TrialUpdates, result.Scores = trained.State.Update, trained.State.TrialUpdates, nil
	if history := trained.State.History; len(history) > 0 {
		result.Loss = history[len(history)-1].Loss
	}
	score := func(set string, adaptation *Adaptation) error {
		used := cpuSeconds()
		score, err := l.score(ctx, set, adaptation)
		if err != nil {
			return fmt.Errorf("scoring on %q: %w", set, err)
		}
		score.Set, score.CPUSeconds = set, cpuSeconds()-used
		name := set
		if adaptation != nil {
			score.Adaptation = adaptation.Name
			name += "/" + adaptation.Name
		}
		journal.Scores(name, map[string]float64{strings.ToLower(s.config.Measure()): score.Outcomes.F1()})
		result.Scores = append(result.Scores, score)
		return nil
	}
	for _, set := range s.config.scored() {
		if err := score(set.Name, nil); err != nil {
			return err
		}
	}
	for _, adaptation := range s.config.Adaptations {
		for _, set := range s.config.Sets {
			if !s.config.on(adaptation, result.Variant, set.Name) {
				continue
			}
			if err := score(set.Name, &adaptation); err != nil {
				return fmt.Errorf("adaptation %q: %w", adaptation.Name, err)
			}
		}
	}
	result.Seconds, result.Finished = time.Since(begin).Seconds(), time.Now().UTC()
	return nil
}

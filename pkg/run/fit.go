package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Score is what a task's evaluation finds.
type Score interface {
	// Scores are the numbers that a journal keeps, by name.
	Scores() map[string]float64
}

// TrainOptions is what a training run needs beside its recipe and data; S is the task's score.
type TrainOptions[S Score] struct {
	// Run is the folder for checkpoints; an empty Dir keeps none. With one, the model ends
	// with the weights of the best epoch on dev, else with those of the last.
	Run checkpoint.Run
	// Resume continues from a checkpoint's folder, from which the model was loaded.
	Resume string
	// Journal records updates and the scores on dev; nil records nothing.
	Journal *Journal
	// Versions is noted in each checkpoint.
	Versions map[string]string
	// Earlier finds what an earlier run, which a prior of the strategy of adaptation names, knows; nil
	// refuses such priors. See [train.Experienced].
	Earlier func(prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error)
	// Custom computes the objective "custom" of the strategy, which has none without.
	Custom adapt.Custom
	// Plan is told, before the first step, how the training data was batched.
	Plan func(batch.Stats)
	// Step is called after each update, Event for what is done to the run, as [train.Hooks] has them,
	// and Epoch after each evaluation on dev.
	Step  func(train.Step)
	Event func(control.Event)
	Epoch func(epoch int, dev S)
	// Progress is told how far an evaluation is, in batches.
	Progress func(done, total int)
}

// Fitting is what [Fit] needs beside a task, its data and a recipe. E is an example.
type Fitting[E any, S Score] struct {
	TrainOptions[S]
	// Files returns the model's files, of which a checkpoint is made with the optimizer's state.
	Files func() []checkpoint.File
	// Load gives the model the weights of a checkpoint's folder: those of the best epoch, at the end.
	Load func(dir string) error
	// Dev is what the model is scored on after each epoch. If it is empty, the model ends with its last
	// weights.
	Dev []E
	// Evaluate scores the model, and Rank says how good a score is: greater is better.
	Evaluate func(ctx context.Context, part []E, progress func(done, total int)) (S, error)
	Rank     func(S) float64
}

// Fit trains a model by [train.Trainer]. With a run folder and dev data the model ends with the
// weights of the best epoch. Cancelling ctx saves a checkpoint that a later call resumes, if
// there is a run folder, and returns an error that wraps [train.ErrInterrupted].
func Fit[E any, S Score](ctx context.Context, backend compute.Backend, task train.Task, batches train.Data, config train.Config, f Fitting[E, S]) (train.Result, error) {
	trainer, err := train.New(backend, task, config)
	if err != nil {
		return train.Result{}, err
	}
	if f.Resume != "" {
		if err := trainer.Restore(f.Resume); err != nil {
			return train.Result{}, err
		}
		if err := f.markAgain(trainer.State()); err != nil {
			return train.Result{}, err
		}
	}
	hooks := train.Hooks{Event: f.Event, Step: func(s train.Step) {
		f.Journal.Step(s)
		if f.Step != nil {
			f.Step(s)
		}
	}}
	if len(f.Dev) > 0 {
		hooks.Evaluate = f.evaluate
	}
	if f.Run.Dir != "" {
		hooks.Save = func(state train.State, best bool) error {
			if err := f.Journal.sync(); err != nil {
				return err
			}
			files := append(f.Files(), trainer.Files()...)
			_, err := f.Run.Save(checkpoint.Checkpoint{Step: state.Update, Files: files, Versions: f.Versions})
			if err == nil && best {
				err = f.Run.MarkBest(state.Update)
			}
			return err
		}
	}
	result, err := trainer.Run(ctx, batches, hooks)
	if errors.Is(err, train.ErrInterrupted) && f.Run.Dir != "" {
		err = fmt.Errorf("%w; it is saved as %s", err, f.Run.Path(result.State.Update))
	}
	if err != nil {
		return result, err
	}
	if err := trainer.Finalize(); err != nil {
		return result, err
	}
	if f.Run.Dir != "" && len(f.Dev) > 0 {
		return result, f.loadBest()
	}
	return result, nil
}

// evaluate scores the model on dev after an epoch.
func (f Fitting[E, S]) evaluate(ctx context.Context, epoch int) (float64, error) {
	score, err := f.Evaluate(ctx, f.Dev, f.Progress)
	if err != nil {
		return 0, err
	}
	f.Journal.Scores(string(data.Dev), score.Scores())
	if f.Epoch != nil {
		f.Epoch(epoch, score)
	}
	return f.Rank(score), nil
}

// Explain returns the table of a recipe's parameter groups; see [train.Trainer.Explain].
func Explain(backend compute.Backend, task train.Task, config train.Config) (string, error) {
	trainer, err := train.New(backend, task, config)
	if err != nil {
		return "", err
	}
	return trainer.Explain(), trainer.Finalize()
}

// markAgain marks the checkpoint that a run continues from as the best, if it is that: a
// process that was killed after it had saved the checkpoint may not have come to it.
func (f Fitting[E, S]) markAgain(state train.State) error {
	best := state.Best
	if f.Run.Dir == "" || best.Epoch < 0 || best.Update != state.Update || f.Resume != f.Run.Path(best.Update) {
		return nil
	}
	return f.Run.MarkBest(best.Update)
}

// loadBest takes the weights of the best checkpoint.
func (f Fitting[E, S]) loadBest() error {
	folder, err := f.Run.Best()
	if errors.Is(err, fs.ErrNotExist) { // no epoch had a score
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the best checkpoint: %w", err)
	}
	if err := f.Load(folder.Dir); err != nil {
		return fmt.Errorf("loading the best checkpoint: %w", err)
	}
	return nil
}

// Take gives a model the weights of a checkpoint's folder, of a model of the same config.
func Take(to *transformer.Model, dir string) error {
	from, _, err := pretrained.Load(dir, pretrained.Options{})
	if err != nil {
		return err
	}
	return Copy(to, from)
}

// Copy gives a model the weights of another one of the same config, as they are now.
func Copy(to, from *transformer.Model) error {
	for _, v := range to.Config.Variables() {
		value, err := from.Store.GetVariable(v.Path).Value()
		if err == nil {
			value, err = value.LocalClone()
		}
		if err == nil {
			err = to.Store.GetVariable(v.Path).SetValue(value)
		}
		if err != nil {
			return fmt.Errorf("copying %s: %w", v.Path, err)
		}
	}
	return nil
}

package ner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// TrainConfig is a recipe for training a tagger.
type TrainConfig struct {
	train.Config
	// BatchSize is the number of sentences in a micro-batch; 0 means 16.
	BatchSize int `json:"batch_size,omitempty"`
	// Shapes is the number of shapes that batches have, each one compilation; 0 means 3.
	// Sentences share rows of the tagger's MaxLength tokens, and the numbers of rows are
	// chosen so that padding is least.
	Shapes int `json:"shapes,omitempty"`
}

// TrainOptions is what a training run needs beside its recipe and data.
type TrainOptions struct {
	// Run is the folder for checkpoints; an empty Dir keeps none. With one, the tagger ends
	// with the weights of the best epoch on dev, else with those of the last.
	Run checkpoint.Run
	// Resume continues from a checkpoint's folder, from which the tagger was loaded.
	Resume string
	// Versions is noted in each checkpoint.
	Versions map[string]string
	// Plan is told, before the first step, how the training data was batched.
	Plan func(batch.Stats)
	// Step is called after each update, and Epoch after each evaluation on dev.
	Step  func(train.Step)
	Epoch func(epoch int, dev Report)
	// Progress is told how far an evaluation is, in batches.
	Progress func(done, total int)
}

// Train fits the tagger to labelled sentences. After each epoch it is scored on dev,
// which may be empty; F1 over all entities decides which epoch is best. Cancelling
// ctx saves a checkpoint that a later call resumes, if there is a run folder, and
// returns an error that wraps [train.ErrInterrupted].
func (t *Tagger) Train(ctx context.Context, sentences, dev []data.Sentence, config TrainConfig, options TrainOptions) (train.Result, error) {
	for _, part := range [][]data.Sentence{sentences, dev} {
		if err := t.labels.coverAll(part); err != nil {
			return train.Result{}, err
		}
	}
	examples, err := t.Examples(sentences)
	if err != nil {
		return train.Result{}, err
	}
	dataset, err := batch.Pack("train", examples, batch.PackConfig{
		Size: config.BatchSize, Length: t.config.MaxLength, Epochs: max(config.Epochs, 1), MaxShapes: config.Shapes,
		Seed: config.Seed, PadID: int32(t.Model.Config.PadID),
	})
	if err != nil {
		return train.Result{}, err
	}
	if options.Plan != nil {
		options.Plan(dataset.Stats())
	}
	trainer, err := train.New(t.backend, task{t.Model}, config.Config)
	if err != nil {
		return train.Result{}, err
	}
	if options.Resume != "" {
		if err := trainer.Restore(options.Resume); err != nil {
			return train.Result{}, err
		}
		if err := markAgain(options, trainer.State()); err != nil {
			return train.Result{}, err
		}
	}
	hooks := train.Hooks{Step: options.Step}
	if len(dev) > 0 {
		hooks.Evaluate = func(ctx context.Context, epoch int) (float64, error) {
			report, err := t.Evaluate(ctx, dev, Options{}, options.Progress)
			if err == nil && options.Epoch != nil {
				options.Epoch(epoch, report)
			}
			return report.Micro.F1, err
		}
	}
	if options.Run.Dir != "" {
		hooks.Save = func(state train.State, best bool) error {
			files := append(t.Files(), trainer.Files()...)
			_, err := options.Run.Save(checkpoint.Checkpoint{Step: state.Update, Files: files, Versions: options.Versions})
			if err == nil && best {
				err = options.Run.MarkBest(state.Update)
			}
			return err
		}
	}
	result, err := trainer.Run(ctx, trainData{dataset}, hooks)
	if err != nil {
		return result, err
	}
	if err := trainer.Finalize(); err != nil {
		return result, err
	}
	if options.Run.Dir != "" && len(dev) > 0 {
		return result, t.loadBest(options.Run)
	}
	return result, nil
}

// markAgain marks the checkpoint that a run continues from as the best, if it is that: a
// process that was killed after it had saved the checkpoint may not have come to it.
func markAgain(options TrainOptions, state train.State) error {
	best := state.Best
	if options.Run.Dir == "" || best.Epoch < 0 || best.Update != state.Update || options.Resume != options.Run.Path(best.Update) {
		return nil
	}
	return options.Run.MarkBest(best.Update)
}

// loadBest takes the weights of a run's best checkpoint.
func (t *Tagger) loadBest(run checkpoint.Run) error {
	folder, err := run.Best()
	if errors.Is(err, fs.ErrNotExist) { // no epoch had a score
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the best checkpoint: %w", err)
	}
	best, _, err := pretrained.Load(folder.Dir, pretrained.Options{})
	if err != nil {
		return fmt.Errorf("loading the best checkpoint: %w", err)
	}
	for _, v := range t.Model.Config.Variables() {
		value, err := best.Store.GetVariable(v.Path).Value()
		if err == nil {
			err = t.Model.Store.GetVariable(v.Path).SetValue(value)
		}
		if err != nil {
			return fmt.Errorf("taking %s from the best checkpoint: %w", v.Path, err)
		}
	}
	return nil
}

// Examples encodes labelled sentences for training. The first token of each word has
// the word's label, all others [Ignore]. A sentence that is longer than MaxLength gives
// several windows; each word has its label in the window that shows most around it.
func (t *Tagger) Examples(sentences []data.Sentence) ([]batch.Example, error) {
	examples := make([]batch.Example, 0, len(sentences))
	for _, s := range sentences {
		labels, err := t.labels.Encode(s)
		if err != nil {
			return nil, err
		}
		c, parts, err := t.cut(s.Words, t.config.MaxLength)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Place(), err)
		}
		for i, p := range parts {
			w := c.windows[i]
			own := make([]int32, p.words)
			for j := range own {
				own[j] = Ignore
				if c.owners[w.Start+j] == i {
					own[j] = labels[w.Start+j]
				}
			}
			targets, err := p.alignment.Labels(own, len(p.encoding.IDs))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Place(), err)
			}
			examples = append(examples, batch.Example{IDs: p.encoding.IDs, TypeIDs: p.encoding.TypeIDs, Labels: targets})
		}
	}
	return examples, nil
}

// task is a tagger's model as the training loop sees it.
type task struct{ m *transformer.Model }

func (t task) Store() *model.Store { return t.m.Store }

func (t task) Variables() []elastic.Variable { return t.m.Config.Variables() }

// Watched lists the numbers that each head of each layer learns about itself, such as span
// and temperature: variables of attention with one element a head.
func (t task) Watched() []string {
	var paths []string
	for _, v := range t.Variables() {
		if strings.Contains(v.Path, "/attention/") && slices.Equal(v.Shape, []int{t.m.Config.Attention.Heads}) {
			paths = append(paths, v.Path)
		}
	}
	return paths
}

func (t task) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	encoded := t.m.Config.Encode(w, transformer.Inputs{IDs: inputs[0], Types: inputs[1], Documents: inputs[2], Positions: inputs[3]}, drop)
	sum, count = loss.CrossEntropy(t.m.Config.HeadLogits(w, encoded.Hidden, drop), labels[0])
	if encoded.Penalty != nil { // the loop divides by the count
		sum = graph.Add(sum, graph.Mul(encoded.Penalty, count))
	}
	return sum, count
}

// trainData gives a dataset's batches to the training loop.
type trainData struct{ dataset *batch.Packed }

func (d trainData) Steps() int { return d.dataset.Steps() }

func (d trainData) Batches(epoch, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for b := range d.dataset.EpochFrom(epoch, skip) {
			if !yield(b.GoMLX(), nil) {
				return
			}
		}
	}
}

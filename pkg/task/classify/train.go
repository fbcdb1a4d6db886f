package classify

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
)

// TrainConfig is a recipe for training a classifier.
type TrainConfig struct {
	train.Config
	// BatchSize is the number of texts in a micro-batch; 0 means 16.
	BatchSize int `json:"batch_size,omitempty"`
	// Shapes is the number of shapes that batches have, each one compilation; 0 means 3. Texts
	// share rows of the classifier's MaxLength tokens, and the numbers of rows are chosen so
	// that padding is least.
	Shapes int `json:"shapes,omitempty"`
	// Noise drops whole tokens and parts of the model while training.
	Noise run.Noise `json:"noise,omitzero"`
	// Distill lets the classifier follow another one.
	Distill run.Distill `json:"distill,omitzero"`
}

// Validate reports all that is wrong with c.
func (c TrainConfig) Validate() error {
	return errors.Join(c.Config.Validate(), c.Noise.Validate(), c.Distill.Validate())
}

// TrainOptions is what a training run needs beside its recipe and data. Earlier and Custom are of no use
// to a classifier, which has no objectives of adaptation.
type TrainOptions = run.TrainOptions[eval.Classification]

// Train fits the classifier to labelled texts. After each epoch it is scored on dev, which may
// be empty; accuracy decides which epoch is best. Cancelling ctx saves a checkpoint that a
// later call resumes, if there is a run folder, and returns an error that wraps
// [train.ErrInterrupted].
func (c *Classifier) Train(ctx context.Context, texts, dev []data.Text, config TrainConfig, options TrainOptions) (train.Result, error) {
	if _, err := c.encodeLabels(dev); err != nil {
		return train.Result{}, err
	}
	task, dataset, err := c.pack(ctx, texts, config, 1)
	if err != nil {
		return train.Result{}, err
	}
	if options.Plan != nil {
		options.Plan(dataset.Stats())
	}
	return run.Fit(ctx, c.backend, task, dataset, config.Config, run.Fitting[data.Text, eval.Classification]{
		TrainOptions: options, Files: c.Files, Load: func(dir string) error { return run.Take(c.Model, dir) },
		Dev: dev, Evaluate: c.Evaluate, Rank: func(s eval.Classification) float64 { return s.Accuracy },
	})
}

// pack cuts labelled texts into the batches of so many runs.
func (c *Classifier) pack(ctx context.Context, texts []data.Text, config TrainConfig, runs int) (task, run.Packed, error) {
	examples, err := c.Examples(texts)
	if err != nil {
		return task{}, run.Packed{}, err
	}
	learned, err := c.task(examples, config)
	if err != nil {
		return task{}, run.Packed{}, err
	}
	dataset, err := batch.Pack("train", examples, batch.PackConfig{
		Size: config.BatchSize, Length: c.config.MaxLength, Epochs: max(config.Epochs, 1) * runs, MaxShapes: config.Shapes,
		Seed: config.Seed, PadID: int32(c.Model.Config.PadID),
	})
	if err != nil {
		return task{}, run.Packed{}, err
	}
	teacher, err := config.Distill.Teach(ctx, c.pupil(), examples, func(dir string) (run.Pupil, run.Logits, error) {
		teacher, err := Load(c.backend, dir)
		if err != nil {
			return run.Pupil{}, nil, err
		}
		return teacher.pupil(), func(ctx context.Context, b batch.Batch) ([]float32, error) { return teacher.compute(ctx, b, nil) }, nil
	})
	return learned, run.Packed{Packed: dataset, Tensors: teacher.Texts}, err
}

func (c *Classifier) pupil() run.Pupil {
	return run.Pupil{Labels: c.Labels(), Tokenizer: c.Tokenizer, MaxLength: c.Model.Config.MaxLength()}
}

// RangeTest tries learning rates on labelled texts; see [train.RangeTest]. The classifier is afterwards
// what it was.
func (c *Classifier) RangeTest(ctx context.Context, texts []data.Text, config TrainConfig, r train.RateRange) (train.RateCurve, error) {
	task, dataset, err := c.pack(ctx, texts, config, 1)
	if err != nil {
		return train.RateCurve{}, err
	}
	return train.RangeTest(ctx, c.backend, task, dataset, config.Config, r)
}

// ExplainTraining returns a table of what holds for which parameters under a recipe; see
// [train.Trainer.Explain].
func (c *Classifier) ExplainTraining(config TrainConfig) (string, error) {
	return run.Explain(c.backend, task{m: c.Model, config: c.Model.Config, loss: config.Loss, weigh: config.Distill.Weigh}, config.Config)
}

// Examples encodes labelled texts for training: the first token has the number of the text's
// class, all others [batch.Ignore]. Texts are cut off at MaxLength.
func (c *Classifier) Examples(texts []data.Text) ([]batch.Example, error) {
	return c.examples(texts, c.config.MaxLength)
}

// examples encodes labelled texts, cut off at limit tokens.
func (c *Classifier) examples(texts []data.Text, limit int) ([]batch.Example, error) {
	labels, err := c.encodeLabels(texts)
	if err != nil {
		return nil, err
	}
	examples := make([]batch.Example, len(texts))
	for i, t := range texts {
		encoding, err := c.encode(t.Text, limit)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Place(), err)
		}
		targets := make([]int32, len(encoding.IDs))
		for token := range targets {
			targets[token] = batch.Ignore
		}
		targets[0] = int32(labels[i])
		examples[i] = batch.Example{IDs: encoding.IDs, TypeIDs: encoding.TypeIDs, Labels: targets}
	}
	return examples, nil
}

// task is a classifier's model as the training loop sees it.
type task struct {
	m         *transformer.Model
	config    transformer.Config // of m, with noise
	loss      loss.Config
	criterion loss.Criterion
	weigh     loss.Weighing
}

// task returns what trains the classifier on examples.
func (c *Classifier) task(examples []batch.Example, config TrainConfig) (task, error) {
	if err := config.Validate(); err != nil {
		return task{}, fmt.Errorf("training config: %w", err)
	}
	noisy, err := config.Noise.Config(c.Model.Config, c.Tokenizer)
	if err != nil {
		return task{}, fmt.Errorf("training config: %w", err)
	}
	criterion, err := config.Loss.Criterion(c.Labels(), batch.Targets(examples, len(c.Labels())))
	if err == nil {
		criterion, err = config.Distill.Criterion(criterion)
	}
	if err != nil {
		return task{}, fmt.Errorf("training config: %w", err)
	}
	return task{m: c.Model, config: noisy, loss: config.Loss, criterion: criterion, weigh: config.Distill.Weigh}, nil
}

func (t task) Store() *model.Store { return t.m.Store }

func (t task) Variables() []elastic.Variable { return t.m.Config.Variables() }

// Watched implements [train.Watcher].
func (t task) Watched() []string { return t.m.Config.HeadScalars(t.Variables()) }

func (t task) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	terms, count := t.Terms(w, inputs, labels, drop)
	return loss.Total(terms), count
}

// Weighing implements [train.Weighed].
func (t task) Weighing() (how loss.Weighing, names []string, shared []elastic.Variable) {
	return t.weigh, t.criterion.TermNames(), t.m.Config.LastLayer()
}

// Terms implements [train.Weighed].
func (t task) Terms(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (terms []*graph.Node, count *graph.Node) {
	targets := loss.Targets{Labels: labels[0], Mixture: loss.NewMixture(drop, graph.GreaterThan(inputs[5], graph.ZerosLike(inputs[5])), t.criterion.Mixup)}
	if len(inputs) > 6 {
		targets.Teacher = inputs[6]
	}
	passes := make([]transformer.Output, t.criterion.Passes())
	logits := make([]*graph.Node, len(passes))
	for i := range passes {
		passes[i] = t.config.Encode(w, transformer.Inputs{IDs: inputs[0], Types: inputs[1], Documents: inputs[2], Positions: inputs[3]}, drop)
		tokens, mask := transformer.Unpack(passes[i].Hidden, inputs[4], inputs[5])
		// Linear in the embedding of the text before the last layer, so mixing them mixes that.
		logits[i] = t.config.MaskedHeadLogits(w, tokens, mask, drop)
	}
	terms, count = t.criterion.Terms(targets, logits...)
	if extra := elastic.AddIf(transformer.MeanPenalty(passes...), t.loss.Penalty(w, t.Variables())); extra != nil { // the loop divides by the count
		terms = append(terms, graph.Mul(extra, count))
	}
	return terms, count
}

// LossConfig implements [train.Measured].
func (t task) LossConfig() loss.Config { return t.loss }

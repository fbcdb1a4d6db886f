package ner

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
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
	// Noise drops whole tokens and parts of the model while training.
	Noise run.Noise `json:"noise,omitzero"`
	// Distill lets the tagger follow another one.
	Distill run.Distill `json:"distill,omitzero"`
}

// Validate reports all that is wrong with c.
func (c TrainConfig) Validate() error {
	err := errors.Join(c.Config.Validate(), c.Noise.Validate(), c.Distill.Validate())
	if c.Loss.Mixup != 0 {
		err = errors.Join(err, errors.New("loss.mixup has no use in tagging: two sentences have no words in common whose labels could be mixed; want 0"))
	}
	return err
}

// TrainOptions is what a training run needs beside its recipe and data.
type TrainOptions = run.TrainOptions[Report]

// Train fits the tagger to labelled sentences. After each epoch it is scored on dev,
// which may be empty; F1 over all entities decides which epoch is best. Cancelling
// ctx saves a checkpoint that a later call resumes, if there is a run folder, and
// returns an error that wraps [train.ErrInterrupted].
func (t *Tagger) Train(ctx context.Context, sentences, dev []data.Sentence, config TrainConfig, options TrainOptions) (train.Result, error) {
	if err := t.labels.coverAll(dev); err != nil {
		return train.Result{}, err
	}
	task, dataset, err := t.pack(ctx, sentences, config, options, 1)
	if err != nil {
		return train.Result{}, err
	}
	if options.Plan != nil {
		options.Plan(dataset.Stats())
	}
	if err := config.Adapt.Check(options.Custom); err != nil {
		return train.Result{}, err
	}
	result, err := run.Fit(ctx, t.backend, task, dataset, config.Config, run.Fitting[data.Sentence, Report]{
		TrainOptions: options, Files: t.Files, Load: t.net.take,
		Dev: dev, Rank: func(r Report) float64 { return r.Micro.F1 },
		Evaluate: func(ctx context.Context, part []data.Sentence, progress func(done, total int)) (Report, error) {
			return t.Evaluate(ctx, part, Options{}, progress)
		},
	})
	if err != nil {
		return result, err
	}
	return result, t.finish()
}

// pack cuts labelled sentences into the batches of so many runs.
func (t *Tagger) pack(ctx context.Context, sentences []data.Sentence, config TrainConfig, options TrainOptions, runs int) (task, run.Packed, error) {
	if err := t.labels.coverAll(sentences); err != nil {
		return task{}, run.Packed{}, err
	}
	examples, err := t.Examples(sentences)
	if err != nil {
		return task{}, run.Packed{}, err
	}
	learned, err := t.task(examples, config, options)
	if err != nil {
		return task{}, run.Packed{}, err
	}
	dataset, err := batch.Pack("train", examples, batch.PackConfig{
		Size: config.BatchSize, Length: t.config.MaxLength, Epochs: max(config.Epochs, 1) * runs, MaxShapes: config.Shapes,
		Seed: config.Seed, PadID: int32(t.Model.Config.PadID),
		Apart: t.net.adapter != nil && t.net.adapter.Config().Kind == "prompt", // which stands before one text
	})
	if err != nil {
		return task{}, run.Packed{}, err
	}
	teacher, err := config.Distill.Teach(ctx, t.pupil(), examples, func(dir string) (run.Pupil, func(context.Context, batch.Batch) ([]float32, error), error) {
		teacher, err := Load(t.backend, dir)
		if err != nil {
			return run.Pupil{}, nil, err
		}
		teacher.runner = nil // it teaches with all its layers
		return teacher.pupil(), func(ctx context.Context, b batch.Batch) ([]float32, error) { return teacher.run(ctx, b, nil) }, nil
	})
	return learned, run.Packed{Packed: dataset, Tensors: teacher.Tokens}, err
}

func (t *Tagger) pupil() run.Pupil {
	return run.Pupil{Labels: t.labels.Tags(), Tokenizer: t.Tokenizer, MaxLength: t.net.maxLength()}
}

// RangeTest tries learning rates on labelled sentences; see [train.RangeTest]. The tagger is afterwards what
// it was. Of the options only Earlier and Custom count.
func (t *Tagger) RangeTest(ctx context.Context, sentences []data.Sentence, config TrainConfig, options TrainOptions, r train.RateRange) (train.RateCurve, error) {
	task, dataset, err := t.pack(ctx, sentences, config, options, 1)
	if err != nil {
		return train.RateCurve{}, err
	}
	return train.RangeTest(ctx, t.backend, task, dataset, config.Config, r)
}

// ExplainTraining returns a table of what holds for which parameters under a recipe; see
// [train.Trainer.Explain].
func (t *Tagger) ExplainTraining(config TrainConfig) (string, error) {
	return run.Explain(t.backend, task{m: t.net, config: t.Model.Config, strategy: config.Adapt, loss: config.Loss, weigh: config.Distill.Weigh}, config.Config)
}

// finish makes an adapter as small as its training left it.
func (t *Tagger) finish() error {
	if t.net.adapter == nil {
		return nil
	}
	finished, err := t.net.adapter.Finish(t.Model.Store)
	if err != nil || finished == t.net.adapter {
		return err
	}
	t.net.adapter = finished
	return t.prepare()
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
type task struct {
	m         net
	config    transformer.Config // of m, with noise
	strategy  adapt.Strategy
	loss      loss.Config
	criterion loss.Criterion
	weigh     loss.Weighing
	options   TrainOptions
}

// task returns what trains the tagger on examples.
func (t *Tagger) task(examples []batch.Example, config TrainConfig, options TrainOptions) (task, error) {
	if err := config.Validate(); err != nil {
		return task{}, fmt.Errorf("training config: %w", err)
	}
	criterion, err := config.Loss.Criterion(t.labels.Tags(), batch.Targets(examples, t.labels.Len()))
	if err == nil {
		criterion, err = config.Distill.Criterion(criterion)
	}
	if err != nil {
		return task{}, fmt.Errorf("training config: %w", err)
	}
	noisy, err := config.Noise.Config(t.Model.Config, t.Tokenizer)
	if err != nil {
		return task{}, fmt.Errorf("training config: %w", err)
	}
	return task{m: t.net, config: noisy, strategy: config.Adapt, loss: config.Loss, criterion: criterion, weigh: config.Distill.Weigh, options: options}, nil
}

func (t task) Store() *model.Store { return t.m.Store }

func (t task) Variables() []elastic.Variable { return t.m.trained() }

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
	w = t.m.weights(w, drop)
	passes := make([]transformer.Output, t.criterion.Passes())
	for i := range passes {
		passes[i] = t.config.Encode(w, transformer.Inputs{IDs: inputs[0], Types: inputs[1], Documents: inputs[2], Positions: inputs[3]}, drop)
	}
	encoded := passes[0]
	aims := loss.Targets{Labels: labels[0]}
	if len(inputs) > 4 {
		aims.Teacher = inputs[4]
	}
	terms, count = t.config.Terms(w, t.criterion, aims, drop, passes...)
	extra := t.loss.Penalty(w, t.Variables())
	if t.m.adapter != nil {
		extra = elastic.AddIf(extra, t.m.adapter.Penalty(w))
	}
	if len(t.strategy.Objective) > 0 {
		logits := t.m.Config.HeadLogits(w, encoded.Hidden, drop) // [b, l, labels]
		one := func(where *graph.Node) *graph.Node { return graph.ConvertDType(where, logits.DType()) }
		targets, documents := graph.Reshape(labels[0], -1), inputs[2]
		extra = elastic.AddIf(extra, t.strategy.Total(adapt.Signals{
			Logits: graph.Reshape(logits, -1, len(t.m.Config.Head.Labels)), Labels: targets,
			Counts:     one(graph.NotEqual(targets, graph.FillScalar(targets.Graph(), targets.Shape(), loss.Ignored))),
			Attentions: encoded.Attentions, Queries: one(graph.NotEqual(documents, graph.ZerosLike(documents))), Losses: encoded.Losses,
		}, t.options.Custom))
	}
	if extra != nil { // the loop divides by the count
		terms = append(terms, graph.Mul(extra, count))
	}
	return terms, count
}

func (t task) FollowSlots() []elastic.Variable {
	if t.m.adapter == nil {
		return nil
	}
	return t.m.adapter.FollowSlots()
}

func (t task) FollowScalars(update, total int) []float32 {
	if t.m.adapter == nil {
		return nil
	}
	return t.m.adapter.FollowScalars(update, total)
}

func (t task) Follow(scalars *graph.Node, values, gradients, slots []*graph.Node) (newValues, newSlots []*graph.Node) {
	return t.m.adapter.Follow(scalars, values, gradients, slots)
}

// Objectives implements [train.Aimed].
func (t task) Objectives() []adapt.Objective { return t.strategy.Objective }

// LossConfig implements [train.Measured].
func (t task) LossConfig() loss.Config { return t.loss }

// Experience implements [train.Experienced].
func (t task) Experience(prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
	if t.options.Earlier == nil {
		return nil, nil, fmt.Errorf("from_run %q: no earlier runs are known here", prior.FromRun)
	}
	return t.options.Earlier(prior)
}

// Values returns copies of the model's weights, by path.
func (t *Tagger) Values() (map[string]*tensors.Tensor, error) {
	values := map[string]*tensors.Tensor{}
	for _, v := range t.Model.Config.Variables() {
		value, err := t.Model.Store.GetVariable(v.Path).Value()
		if err == nil {
			values[v.Path], err = value.LocalClone()
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", v.Path, err)
		}
	}
	return values, nil
}

// Fisher estimates the diagonal of the Fisher information of the tagger's weights from labelled
// sentences, one at a time; see [train.Fisher].
func (t *Tagger) Fisher(ctx context.Context, sentences []data.Sentence) (map[string]*tensors.Tensor, error) {
	if err := t.labels.coverAll(sentences); err != nil {
		return nil, err
	}
	examples, err := t.Examples(sentences)
	if err != nil {
		return nil, err
	}
	dataset, err := batch.Pack("fisher", examples, batch.PackConfig{
		Size: 1, Length: t.config.MaxLength, Epochs: 1, MaxShapes: 1, PadID: int32(t.Model.Config.PadID),
	})
	if err != nil {
		return nil, err
	}
	return train.Fisher(ctx, t.backend, task{m: t.net, config: t.Model.Config}, run.Packed{Packed: dataset, Tensors: batch.PackedBatch.GoMLX})
}

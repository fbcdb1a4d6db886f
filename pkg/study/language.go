package study

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/lm"
	"github.com/elastic-attention/workbench/pkg/task/lm/experiment"
)

// language is the task of predicting the next byte of a text. An example is a window of the
// model's context, and F1 the share of its bytes that were the most probable.
type language struct {
	model  transformer.Config
	train  []byte
	scored map[string][]byte // by set
	sums   map[string]string
}

// checkLanguage refuses what a study of language has no use for.
func checkLanguage(c Config) error {
	var problems []error
	if c.Model != run.Scratch {
		problems = append(problems, fmt.Errorf("model is %q, want %q: models of language are trained from fresh weights", c.Model, run.Scratch))
	}
	if len(c.Adaptations) > 0 {
		problems = append(problems, errors.New("adaptations are there, but models of language do not adapt at test time"))
	}
	for _, s := range append([]Set{c.Train}, c.scored()...) {
		if len(s.Labels) > 0 || s.Only != "" || len(s.Shifts) > 0 {
			problems = append(problems, fmt.Errorf("set %q has labels, only or shifts, which a text to predict has no use for", s.Name))
		}
	}
	return errors.Join(problems...)
}

// languageModel is the model that studies of language train, without its attention's edits.
func languageModel(config Config) transformer.Config {
	model := lm.Small()
	if config.Layers > 0 {
		model.Layers = config.Layers
	}
	return model
}

func newLanguage(ctx context.Context, client *hub.Client, config Config) (task, error) {
	load := func(name string) (corpus[byte], map[string]string, error) {
		c, err := experiment.Data{Name: name}.Load(ctx, client)
		return corpus[byte]{data.Train: c.Train, data.Dev: c.Dev, data.Test: c.Test}, c.Checksums, err
	}
	from := corpora[byte]{load: load, loaded: map[string]corpus[byte]{}, checksums: map[string]string{}}
	t := &language{model: languageModel(config), scored: map[string][]byte{}, sums: from.checksums}
	for i, s := range append([]Set{config.Train}, config.scored()...) {
		text, err := from.part(s)
		if err != nil {
			return nil, err
		}
		if s.Limit > 0 && s.Limit < len(text) { // a text stays in one piece
			text = text[:s.Limit]
		}
		if i == 0 {
			t.train = text
		} else {
			t.scored[s.Name] = text
		}
	}
	return t, nil
}

func (t *language) sizes() map[string]int {
	sizes := map[string]int{"train": len(t.train)}
	for name, text := range t.scored {
		sizes[name] = len(text)
	}
	return sizes
}

func (t *language) checksums() map[string]string { return t.sums }

func (t *language) learner(ctx context.Context, engine compute.Backend, _ string, spec attention.Spec, recipe Recipe, _ int) (learner, error) {
	config := t.model
	config.Attention = spec
	model, err := lm.New(engine, config, 0)
	if err != nil {
		return nil, err
	}
	training := func() lm.TrainConfig {
		return lm.TrainConfig{Config: recipe.Config, BatchSize: recipe.BatchSize, Length: recipe.MaxLength}
	}
	if err := recipe.ranged(func(r train.RateRange) (train.RateCurve, error) { return model.RangeTest(ctx, t.train, training(), r) }, false); err != nil {
		return nil, err
	}
	repeated, err := model.Repeat(t.train, training())
	if err != nil {
		return nil, err
	}
	return &speaker{t, model, repeated, recipe.Schedule.Peak}, nil
}

// speaker is the learner of language.
type speaker struct {
	task     *language
	model    *lm.Model
	repeated *run.Repeated
	peak     float64
}

func (l *speaker) rate() float64 { return l.peak }

func (l *speaker) parameters() int { return l.model.Transformer.Parameters() }

func (l *speaker) train(ctx context.Context, i int, seed uint64, journal *run.Journal) (train.Result, error) {
	return l.repeated.Train(ctx, i, seed, journal)
}

func (l *speaker) close() error {
	l.model.Finalize()
	return l.repeated.Finalize()
}

func (l *speaker) score(ctx context.Context, set string, _ *Adaptation) (Score, error) {
	found, err := l.model.Evaluate(ctx, l.task.scored[set], nil)
	score := Score{Outcomes: eval.Outcomes{}}
	for _, w := range found.Windows {
		score.Outcomes.Add(w[0], w[1], w[1])
	}
	return score, err
}

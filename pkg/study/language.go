package study

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/compute"

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
	examples[byte]
	model transformer.Config
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

func newLanguage(ctx context.Context, client *hub.Client, config Config) (subject, error) {
	load := func(name string) (experiment.Corpus, error) { return experiment.Data{Name: name}.Load(ctx, client) }
	all, err := readExamples(config, load, Set.text)
	return &language{all, languageModel(config)}, err
}

// text limits a text, which stays in one piece.
func (s Set) text(all []byte) []byte {
	if s.Limit > 0 && s.Limit < len(all) {
		return all[:s.Limit]
	}
	return all
}

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
	return t.repeating(&recipe, false, trainable[byte]{
		size: model.Transformer.Parameters(), count: countBytes(model), finalize: model.Finalize,
		rangeTest: func(r train.RateRange) (train.RateCurve, error) { return model.RangeTest(ctx, t.train, training(), r) },
		repeat:    func() (*run.Repeated, error) { return model.Repeat(t.train, training()) },
	})
}

// countBytes counts the bytes that were the most probable, by windows.
func countBytes(model *lm.Model) counter[byte] {
	return func(ctx context.Context, text []byte, outcomes *eval.Outcomes) error {
		found, err := model.Evaluate(ctx, text, nil)
		for _, w := range found.Windows {
			outcomes.Add(w[0], w[1], w[1])
		}
		return err
	}
}

package study

import (
	"context"
	"slices"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

// texts is the task of telling classes of texts.
type texts struct {
	examples[data.Text]
	labels []string
}

func newTexts(ctx context.Context, client *hub.Client, config Config) (subject, error) {
	load := func(name string) (experiment.Corpus, error) { return experiment.Data{Name: name}.Load(ctx, client) }
	all, err := readExamples(config, load, Set.texts)
	if err != nil {
		return nil, err
	}
	labels, err := classify.Labels(all.train)
	if err != nil {
		return nil, err
	}
	return &texts{all, labels}, nil
}

// texts makes the examples of a set of those of its part.
func (s Set) texts(all []data.Text) []data.Text {
	if len(s.Labels) > 0 {
		all = slices.DeleteFunc(all, func(t data.Text) bool { return s.Labels[t.Label] == "" })
		for i, t := range all {
			all[i].Label = s.Labels[t.Label]
		}
	}
	if s.Only != "" {
		all = slices.DeleteFunc(all, func(t data.Text) bool { return t.Label != s.Only })
	}
	all = choose(all, s.Limit)
	for i := range all {
		for _, shift := range s.Shifts {
			all[i].Text = shift.Text(all[i].Text)
		}
	}
	return all
}

func (t *texts) learner(ctx context.Context, engine compute.Backend, dir string, spec attention.Spec, recipe Recipe, runs int) (learner, error) {
	config := classify.Config{MaxLength: recipe.MaxLength, Lengths: recipe.Lengths, Pooling: recipe.Pooling, Attention: &spec}
	classifier, err := classify.New(engine, dir, t.labels, config, 0)
	if err != nil {
		return nil, err
	}
	training := func() classify.TrainConfig {
		return classify.TrainConfig{Config: recipe.Config, BatchSize: recipe.BatchSize, Shapes: recipe.Shapes}
	}
	return t.repeating(&recipe, true, trainable[data.Text]{
		size: classifier.Model.Parameters(), count: countTexts(predicted(classifier)),
		rangeTest: func(r train.RateRange) (train.RateCurve, error) {
			return classifier.RangeTest(ctx, t.train, training(), r)
		},
		repeat: func() (*run.Repeated, error) { return classifier.Repeat(dir, t.train, training(), runs) },
		adapt: func(config testtime.Config) (adapted[data.Text], error) {
			a, err := classifier.Adapt(config)
			if err != nil {
				return adapted[data.Text]{}, err
			}
			predict := predicted(a.Classifier)
			if config.Method == "labels" {
				predict = a.PredictThenLearn
			}
			return adapted[data.Text]{countTexts(predict), func() error { return a.Restart(classifier) }, a.Events}, nil
		},
	})
}

// predict classifies labelled texts, before it sees their labels.
type predict func(ctx context.Context, list []data.Text, progress func(done, total int)) ([]classify.Prediction, error)

// predicted is predict by a classifier that never sees the labels.
func predicted(classifier *classify.Classifier) predict {
	return func(ctx context.Context, list []data.Text, _ func(done, total int)) ([]classify.Prediction, error) {
		words := make([]string, len(list))
		for i, t := range list {
			words[i] = t.Text
		}
		return classifier.Predict(ctx, words...)
	}
}

// countTexts counts the texts whose class is told.
func countTexts(predict predict) counter[data.Text] {
	return func(ctx context.Context, list []data.Text, outcomes *eval.Outcomes) error {
		predicted, err := predict(ctx, list, nil)
		if err != nil {
			return err
		}
		for i, t := range list {
			if predicted[i].Label == t.Label {
				outcomes.Add(1, 0, 0)
			} else {
				outcomes.Add(0, 1, 1)
			}
		}
		return nil
	}
}

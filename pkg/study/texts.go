package study

import (
	"context"
	"slices"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

// texts is the task of telling classes of texts.
type texts struct {
	examples[data.Text]
	labels []string
}

func newTexts(ctx context.Context, client *hub.Client, config Config) (task, error) {
	load := func(name string) (corpus[data.Text], map[string]string, error) {
		c, err := experiment.Data{Name: name}.Load(ctx, client)
		return corpus[data.Text]{data.Train: c.Train, data.Dev: c.Dev, data.Test: c.Test}, c.Checksums, err
	}
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

func (t *texts) learner(engine compute.Backend, dir string, spec attention.Spec, recipe Recipe, runs int) (learner, error) {
	config := classify.Config{MaxLength: recipe.MaxLength, Lengths: recipe.Lengths, Pooling: recipe.Pooling, Attention: &spec}
	classifier, err := classify.New(engine, dir, t.labels, config, 0)
	if err != nil {
		return nil, err
	}
	repeated, err := classifier.Repeat(dir, t.train, classify.TrainConfig{Config: recipe.Config, BatchSize: recipe.BatchSize, Shapes: recipe.Shapes}, runs)
	if err != nil {
		return nil, err
	}
	return &textLearner{task: t, classifier: classifier, repeated: repeated, adaptive: map[string]*classify.Adaptive{}}, nil
}

type textLearner struct {
	task       *texts
	classifier *classify.Classifier
	repeated   *run.Repeated
	adaptive   map[string]*classify.Adaptive // by adaptation
}

func (l *textLearner) parameters() int { return l.classifier.Model.Parameters() }

func (l *textLearner) train(ctx context.Context, i int, seed uint64) (train.Result, error) {
	return l.repeated.Train(ctx, i, seed)
}

func (l *textLearner) close() error { return l.repeated.Finalize() }

func (l *textLearner) score(ctx context.Context, set string, adaptation *Adaptation) (Score, error) {
	list := l.task.scored[set]
	words := make([]string, len(list))
	for i, t := range list {
		words[i] = t.Text
	}
	var score Score
	classifier, parts := l.classifier, [][]string{words}
	if adaptation != nil {
		a, ok := l.adaptive[adaptation.Name]
		var err error
		if ok {
			err = a.Restart(l.classifier)
		} else if a, err = l.classifier.Adapt(adaptation.Config); err == nil {
			l.adaptive[adaptation.Name] = a
		}
		if err != nil {
			return score, err
		}
		classifier = a.Classifier
		if adaptation.Single {
			parts = slices.Collect(slices.Chunk(words, 1))
		}
	}
	var predicted []classify.Prediction
	for _, part := range parts {
		some, err := classifier.Predict(ctx, part...)
		if err != nil {
			return score, err
		}
		predicted = append(predicted, some...)
	}
	if adaptation != nil {
		score.guarded(l.adaptive[adaptation.Name].Events())
	}
	for i, t := range list {
		if predicted[i].Label == t.Label {
			score.Outcomes.Add(1, 0, 0)
		} else {
			score.Outcomes.Add(0, 1, 1)
		}
	}
	return score, nil
}

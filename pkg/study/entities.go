package study

import (
	"context"
	"slices"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
)

// entities is the task of finding named entities.
type entities struct {
	train  []data.Sentence
	scored map[string][]data.Sentence
	labels ner.LabelSet
}

func newEntities(train file, scored []file) (task, error) {
	t := &entities{scored: map[string][]data.Sentence{}}
	var err error
	if t.train, err = train.sentences(train.path); err != nil {
		return nil, err
	}
	if t.labels, err = ner.LabelsOf(t.train); err != nil {
		return nil, err
	}
	for _, f := range scored {
		if t.scored[f.Name], err = f.sentences(f.path); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *entities) sizes() map[string]int {
	sizes := map[string]int{"train": len(t.train)}
	for name, sentences := range t.scored {
		sizes[name] = len(sentences)
	}
	return sizes
}

func (t *entities) learner(engine compute.Backend, dir string, spec attention.Spec, recipe Recipe, runs int) (learner, error) {
	config := ner.Config{MaxLength: recipe.MaxLength, Lengths: recipe.Lengths, Attention: &spec}
	tagger, err := ner.NewTagger(engine, dir, t.labels, config, 0)
	if err != nil {
		return nil, err
	}
	repeated, err := tagger.Repeat(dir, t.train, ner.TrainConfig{Config: recipe.Config, BatchSize: recipe.BatchSize, Shapes: recipe.Shapes}, runs)
	if err != nil {
		return nil, err
	}
	return &entityLearner{task: t, tagger: tagger, repeated: repeated, adaptive: map[string]*ner.Adaptive{}}, nil
}

type entityLearner struct {
	task     *entities
	tagger   *ner.Tagger
	repeated *run.Repeated
	adaptive map[string]*ner.Adaptive // by adaptation
}

func (l *entityLearner) parameters() int { return l.tagger.Model.Parameters() }

func (l *entityLearner) train(ctx context.Context, i int, seed uint64) (train.Result, error) {
	return l.repeated.Train(ctx, i, seed)
}

func (l *entityLearner) close() error { return l.repeated.Finalize() }

func (l *entityLearner) score(ctx context.Context, set string, adaptation *Adaptation) (Score, error) {
	sentences := l.task.scored[set]
	words := make([][]string, len(sentences))
	for i, s := range sentences {
		words[i] = s.Words
	}
	var score Score
	tagger := l.tagger
	if adaptation != nil {
		a, ok := l.adaptive[adaptation.Name]
		var err error
		if ok {
			err = a.Restart(l.tagger)
		} else if a, err = l.tagger.Adapt(adaptation.Config); err == nil {
			l.adaptive[adaptation.Name] = a
		}
		if err != nil {
			return score, err
		}
		tagger = a.Tagger
	}
	parts := [][][]string{words}
	if adaptation != nil && adaptation.Single {
		parts = slices.Collect(slices.Chunk(words, 1))
	}
	var tagged []ner.Tagged
	for _, part := range parts {
		some, err := tagger.Tag(ctx, part, nil)
		if err != nil {
			return score, err
		}
		tagged = append(tagged, some...)
	}
	if adaptation != nil {
		for _, event := range l.adaptive[adaptation.Name].Events() {
			if event.Reset != "" {
				score.Resets++
			}
			score.Stopped = score.Stopped || event.Stopped
		}
	}
	for i, s := range sentences {
		add(&score.Outcomes, ner.FromTags(s.Tags), ner.FromTags(tagged[i].Tags))
	}
	return score, nil
}

// add counts the entities of one sentence.
func add(outcomes *eval.Outcomes, gold, predicted []ner.Span) {
	found := 0
	for _, span := range predicted {
		if slices.Contains(gold, span) {
			found++
		}
	}
	outcomes.Add(found, len(predicted)-found, len(gold)-found)
}

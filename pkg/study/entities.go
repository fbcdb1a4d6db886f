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
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/run"
)

// entities is the task of finding named entities.
type entities struct {
	examples[data.Sentence]
	labels ner.LabelSet
}

func newEntities(ctx context.Context, client *hub.Client, config Config) (subject, error) {
	load := func(name string) (experiment.Corpus, error) { return experiment.Data{Name: name}.Load(ctx, client) }
	all, err := readExamples(config, load, Set.sentences)
	if err != nil {
		return nil, err
	}
	labels, err := ner.LabelsOf(all.train)
	if err != nil {
		return nil, err
	}
	return &entities{all, labels}, nil
}

// sentences makes the examples of a set of those of its part.
func (s Set) sentences(all []data.Sentence) []data.Sentence {
	for i, sentence := range all {
		if len(s.Labels) == 0 {
			break
		}
		all[i].Tags = slices.Clone(sentence.Tags)
		for j, tag := range sentence.Tags {
			if tag == ner.Outside {
				continue
			}
			if name, ok := s.Labels[tag[2:]]; ok {
				all[i].Tags[j] = tag[:2] + name
			} else {
				all[i].Tags[j] = ner.Outside
			}
		}
	}
	if s.Only != "" {
		all = slices.DeleteFunc(all, func(x data.Sentence) bool {
			spans := ner.FromTags(x.Tags)
			return len(spans) == 0 || slices.ContainsFunc(spans, func(span ner.Span) bool { return span.Type != s.Only })
		})
	}
	all = choose(all, s.Limit)
	for _, shift := range s.Shifts {
		all = shift.Sentences(all)
	}
	return all
}

func (t *entities) learner(ctx context.Context, engine compute.Backend, dir string, spec attention.Spec, recipe Recipe, runs int) (learner, error) {
	config := ner.Config{MaxLength: recipe.MaxLength, Lengths: recipe.Lengths, Attention: &spec}
	tagger, err := ner.NewTagger(engine, dir, t.labels, config, 0)
	if err != nil {
		return nil, err
	}
	training := func() ner.TrainConfig {
		return ner.TrainConfig{Config: recipe.Config, BatchSize: recipe.BatchSize, Shapes: recipe.Shapes}
	}
	return t.repeating(&recipe, true, trainable[data.Sentence]{
		size: tagger.Model.Parameters(), count: countEntities(tagged(tagger)),
		rangeTest: func(r train.RateRange) (train.RateCurve, error) {
			return tagger.RangeTest(ctx, t.train, training(), ner.TrainOptions{}, r)
		},
		repeat: func() (*run.Repeated, error) { return tagger.Repeat(dir, t.train, training(), runs) },
		adapt: func(config testtime.Config) (adapted[data.Sentence], error) {
			a, err := tagger.Adapt(config)
			if err != nil {
				return adapted[data.Sentence]{}, err
			}
			tag := tagged(a.Tagger)
			if config.Method == "labels" {
				tag = a.TagThenLearn
			}
			return adapted[data.Sentence]{countEntities(tag), func() error { return a.Restart(tagger) }, a.Events}, nil
		},
	})
}

// tag tags labelled sentences, before it sees their tags.
type tag func(ctx context.Context, sentences []data.Sentence, progress func(done, total int)) ([]ner.Tagged, error)

// tagged is tag by a tagger that never sees the tags.
func tagged(tagger *ner.Tagger) tag {
	return func(ctx context.Context, sentences []data.Sentence, progress func(done, total int)) ([]ner.Tagged, error) {
		words := make([][]string, len(sentences))
		for i, s := range sentences {
			words[i] = s.Words
		}
		return tagger.Tag(ctx, words, progress)
	}
}

// countEntities counts the entities that are found and those that should be found.
func countEntities(tag tag) counter[data.Sentence] {
	return func(ctx context.Context, sentences []data.Sentence, outcomes *eval.Outcomes) error {
		tagged, err := tag(ctx, sentences, nil)
		if err != nil {
			return err
		}
		for i, s := range sentences {
			add(outcomes, ner.FromTags(s.Tags), ner.FromTags(tagged[i].Tags))
		}
		return nil
	}
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

package study

import (
	"context"
	"slices"

	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/run"
)

// trainable is a model of a task, for examples T, that a recipe trains again and again.
type trainable[T any] struct {
	size      int // parameters
	rangeTest func(train.RateRange) (train.RateCurve, error)
	repeat    func() (*run.Repeated, error)
	count     counter[T]
	adapt     func(testtime.Config) (adapted[T], error)
	finalize  func() // may be nil
}

// repeating is a learner whose model is trained again and again.
type repeating[T any] struct {
	trainable[T]
	scored   map[string][]T // by set
	repeated *run.Repeated
	peak     float64               // of the schedule
	adapted  map[string]adapted[T] // by adaptation
}

// repeating makes a learner of a model, after the range test that the recipe may ask for.
func (e examples[T]) repeating(recipe *Recipe, pretrained bool, m trainable[T]) (learner, error) {
	if err := recipe.ranged(m.rangeTest, pretrained); err != nil {
		return nil, err
	}
	repeated, err := m.repeat()
	if err != nil {
		return nil, err
	}
	return &repeating[T]{trainable: m, scored: e.scored, repeated: repeated, peak: recipe.Schedule.Peak, adapted: map[string]adapted[T]{}}, nil
}

// counter counts what a model gets right of examples.
type counter[T any] func(ctx context.Context, list []T, outcomes *eval.Outcomes) error

// adapted is a model that adapts to what it is scored on.
type adapted[T any] struct {
	count   counter[T]
	restart func() error // with the weights that training has left
	events  func() []testtime.Event
}

func (l *repeating[T]) parameters() int { return l.size }

func (l *repeating[T]) rate() float64 { return l.peak }

func (l *repeating[T]) train(ctx context.Context, i int, seed uint64, journal *run.Journal) (train.Result, error) {
	return l.repeated.Train(ctx, i, seed, journal)
}

func (l *repeating[T]) close() error {
	if l.finalize != nil {
		l.finalize()
	}
	return l.repeated.Finalize()
}

func (l *repeating[T]) score(ctx context.Context, set string, adaptation *Adaptation) (Score, error) {
	var score Score
	list := l.scored[set]
	if adaptation == nil {
		err := l.count(ctx, list, &score.Outcomes)
		return score, err
	}
	a, ok := l.adapted[adaptation.Name]
	var err error
	if ok {
		err = a.restart()
	} else if a, err = l.adapt(adaptation.Config); err == nil {
		l.adapted[adaptation.Name] = a
	}
	if err != nil {
		return score, err
	}
	parts := [][]T{list}
	if adaptation.Single {
		parts = slices.Collect(slices.Chunk(list, 1))
	}
	for _, part := range parts {
		if err := a.count(ctx, part, &score.Outcomes); err != nil {
			return score, err
		}
	}
	score.guarded(a.events())
	return score, nil
}

package study

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
)

// Tasks lists what a study can be about, sorted.
func Tasks() []string { return slices.Sorted(maps.Keys(tasks)) }

// taskLM is the task whose models have fresh weights.
const taskLM = "lm"

// tasks are the tasks by name.
var tasks = map[string]func(ctx context.Context, client *hub.Client, config Config) (subject, error){
	"classify": newTexts,
	taskLM:     newLanguage,
	"ner":      newEntities,
}

// Measure names what the scores of the study's task are: F1, or accuracy of texts or of bytes.
func (c Config) Measure() string {
	if c.Task == hub.TaskNER {
		return "F1"
	}
	return "accuracy"
}

// subject is what a study is about.
type subject interface {
	// sizes are the numbers of examples, by set, and checksums those of the data, by data set
	// and split.
	sizes() map[string]int
	checksums() map[string]string
	// write writes the examples of a set that is scored, or what is trained on if it has no name, as a file with that extension holds them.
	write(w io.Writer, set string) error
	extension() string
	// learner makes a model with an attention that can be trained so many times.
	learner(ctx context.Context, engine compute.Backend, dir string, spec attention.Spec, recipe Recipe, runs int) (learner, error)
}

// learner is one variant of the model, compiled once and trained again and again.
type learner interface {
	parameters() int
	// rate is the peak of the schedule.
	rate() float64
	train(ctx context.Context, i int, seed uint64, journal *run.Journal) (train.Result, error)
	// score counts outcomes on a set; with an adaptation, of a copy that adapts.
	score(ctx context.Context, set string, adaptation *Adaptation) (Score, error)
	close() error
}

// examples are those of a task, read.
type examples[T any] struct {
	train  []T
	scored map[string][]T // by set
	sums   map[string]string
}

// readExamples reads what a study trains and scores on, by a function that makes a set's examples.
func readExamples[T any](config Config, load func(name string) (task.Corpus[T], error), make func(Set, []T) []T) (examples[T], error) {
	from := corpora[T]{load: load, loaded: map[string]task.Corpus[T]{}, checksums: map[string]string{}}
	e := examples[T]{scored: map[string][]T{}, sums: from.checksums}
	read := func(s Set) ([]T, error) {
		part, err := from.part(s)
		if err != nil {
			return nil, err
		}
		if part = make(s, part); len(part) == 0 {
			return nil, fmt.Errorf("set %q has no examples", s.Name)
		}
		return part, nil
	}
	var err error
	if e.train, err = read(config.Train); err != nil {
		return e, err
	}
	for _, s := range config.scored() {
		if e.scored[s.Name], err = read(s); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (e examples[T]) sizes() map[string]int {
	sizes := map[string]int{"train": len(e.train)}
	for name, list := range e.scored {
		sizes[name] = len(list)
	}
	return sizes
}

func (e examples[T]) checksums() map[string]string { return e.sums }

// strategy lets what a spec has beside the projections learn at its own rate.
func (r Recipe) strategy(base, spec attention.Spec, hidden int) adapt.Strategy {
	s := r.Adapt
	if r.PartRate == 0 || r.PartRate == 1 {
		return s
	}
	parts := adapt.Rate{Factor: r.PartRate}
	own := map[string]bool{}
	for _, v := range base.Variables(hidden, 1) {
		own[v.Path] = true
	}
	for _, v := range spec.Variables(hidden, 1) {
		if !own[v.Path] {
			parts.Variables = append(parts.Variables, fmt.Sprintf("/layer_*/attention/%s", v.Path))
		}
	}
	if len(parts.Variables) > 0 {
		s.Gradient = append(slices.Clone(s.Gradient), parts)
	}
	return s
}

// ranged replaces the peak by that of a range test, if the recipe asks for one.
func (r *Recipe) ranged(test func(train.RateRange) (train.RateCurve, error), pretrained bool) error {
	if !r.RangeTest {
		return nil
	}
	curve, err := test(train.RateRange{From: 1e-6, To: 10, Updates: 84, Pretrained: pretrained})
	if err != nil {
		return err
	}
	if r.Schedule.Peak = curve.Middle(); r.Schedule.Peak == 0 {
		return fmt.Errorf("the range test suggests no rate: %s", strings.Join(curve.Warnings, "; "))
	}
	return nil
}

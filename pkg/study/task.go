package study

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// Tasks lists what a study can be about, sorted.
func Tasks() []string { return slices.Sorted(maps.Keys(tasks)) }

// tasks are the tasks by name; each is made of the files of its sets: first what is trained
// on, then those that are scored.
var tasks = map[string]func(train file, scored []file) (task, error){
	"ner": newEntities,
}

// file is a set and where its data is.
type file struct {
	Set
	path string
}

// task is what a study is about.
type task interface {
	// sizes are the numbers of examples, by set.
	sizes() map[string]int
	// learner makes a model with an attention that can be trained so many times.
	learner(engine compute.Backend, dir string, spec attention.Spec, recipe Recipe, runs int) (learner, error)
}

// learner is one variant of the model, compiled once and trained again and again.
type learner interface {
	parameters() int
	train(ctx context.Context, i int, seed uint64) (train.Result, error)
	// score counts outcomes on a set; with an adaptation, of a copy that adapts.
	score(ctx context.Context, set string, adaptation *Adaptation) (Score, error)
	close() error
}

// rates multiplies the learning rates of what a spec has beside the projections.
func (r Recipe) rates(base, spec attention.Spec, hidden int) map[string]float64 {
	if r.PartRate == 0 || r.PartRate == 1 {
		return r.Rates
	}
	rates := maps.Clone(r.Rates)
	if rates == nil {
		rates = map[string]float64{}
	}
	own := map[string]bool{}
	for _, v := range base.Variables(hidden, 1) {
		own[v.Path] = true
	}
	for _, v := range spec.Variables(hidden, 1) {
		if !own[v.Path] {
			rates[fmt.Sprintf("/layer_*/attention/%s", v.Path)] = r.PartRate
		}
	}
	return rates
}

package study

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/elastic-attention/workbench/pkg/task"
)

// corpora loads data sets, each once, and notes their checksums.
type corpora[T any] struct {
	load      func(name string) (task.Corpus[T], error)
	loaded    map[string]task.Corpus[T]
	checksums map[string]string // by data set and split
}

// part returns a copy of the examples that a set begins with.
func (c corpora[T]) part(s Set) ([]T, error) {
	if _, ok := c.loaded[s.Data]; !ok {
		all, err := c.load(s.Data)
		if err != nil {
			return nil, fmt.Errorf("set %q: %w", s.Name, err)
		}
		c.loaded[s.Data] = all
		for split, sum := range all.Checksums {
			c.checksums[s.Data+" "+split] = sum
		}
	}
	part := c.loaded[s.Data].Part(s.Split)
	if len(part) == 0 {
		return nil, fmt.Errorf("set %q: data %s has no part %q", s.Name, s.Data, s.Split)
	}
	return slices.Clone(part), nil
}

// choose takes a random choice of limit examples, in their order; 0 takes all.
func choose[T any](all []T, limit int) []T {
	if limit == 0 || limit >= len(all) {
		return all
	}
	chosen := rand.New(rand.NewPCG(1, 0)).Perm(len(all))[:limit]
	slices.Sort(chosen)
	few := make([]T, limit)
	for i, at := range chosen {
		few[i] = all[at]
	}
	return few
}

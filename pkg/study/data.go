package study

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
)

// fetched is a file of a data set, with its checksum.
func (s Set) fetched(ctx context.Context, client *hub.Client) (path, sum string, err error) {
	resource, err := hub.Lookup(s.Data)
	if err != nil {
		return "", "", err
	}
	name, ok := resource.SplitFile(s.Split)
	if !ok {
		return "", "", fmt.Errorf("data %s has no part %q", s.Data, s.Split)
	}
	dir, err := client.Fetch(ctx, resource)
	if err != nil {
		return "", "", fmt.Errorf("fetching data %s: %w", s.Data, err)
	}
	path = filepath.Join(dir, name)
	sum, err = run.Checksum(path)
	return path, sum, err
}

// sentences reads a set of labelled sentences.
func (s Set) sentences(path string) ([]data.Sentence, error) {
	all, err := data.Collect(format.CoNLLFile(path, format.CoNLLOptions{}))
	if err != nil {
		return nil, fmt.Errorf("reading set %q: %w", s.Name, err)
	}
	for _, sentence := range all {
		if len(s.Labels) == 0 {
			break
		}
		for i, tag := range sentence.Tags {
			if tag == ner.Outside {
				continue
			}
			if name, ok := s.Labels[tag[2:]]; ok {
				sentence.Tags[i] = tag[:2] + name
			} else {
				sentence.Tags[i] = ner.Outside
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
	if len(all) == 0 {
		return nil, fmt.Errorf("set %q has no examples", s.Name)
	}
	return all, nil
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

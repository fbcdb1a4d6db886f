package study

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// Spec edits the attention of a model.
func (v Variant) Spec(base attention.Spec) (attention.Spec, error) {
	spec, err := base.Without(v.Without...)
	if err != nil {
		return spec, fmt.Errorf("variant %q: %w", v.Name, err)
	}
	for _, path := range slices.Sorted(maps.Keys(v.With)) {
		if spec, err = spec.With(path, v.With[path]); err != nil {
			return spec, fmt.Errorf("variant %q: %w", v.Name, err)
		}
	}
	return spec, nil
}

// recipe edits the recipe of a study.
func (v Variant) recipe(base Recipe) (Recipe, error) {
	if len(v.Recipe) == 0 {
		return base, nil
	}
	var fields map[string]json.RawMessage
	content, err := json.Marshal(base)
	if err == nil {
		err = json.Unmarshal(content, &fields)
	}
	if err != nil {
		return base, fmt.Errorf("recipe: %w", err)
	}
	maps.Copy(fields, v.Recipe)
	if content, err = json.Marshal(fields); err != nil {
		return base, fmt.Errorf("variant %q: recipe: %w", v.Name, err)
	}
	var edited Recipe
	if err = strictjson.Decode(content, &edited); err == nil {
		err = edited.Config.Validate()
	}
	if err != nil {
		return base, fmt.Errorf("variant %q: recipe: %w", v.Name, err)
	}
	return edited, nil
}

// combine puts together the variants that are best on dev: from the best downwards, each that
// fits what is there already, until there are v.Combine. It returns their names too.
func (c Config) combine(v Variant, base attention.Spec, hidden int, results []Result) (attention.Spec, []string, error) {
	at := slices.IndexFunc(c.Variants, func(other Variant) bool { return other.Name == v.Name })
	dev := map[string]float64{}
	var candidates []Variant
	for _, other := range c.Variants[1:at] {
		if other.Combine > 0 || len(other.Recipe) > 0 { // only attention can be put together
			continue
		}
		for _, seed := range c.Seeds {
			result, ok := find(results, other.Name, seed)
			if !ok {
				return base, nil, fmt.Errorf("variant %q chooses among those before it, but %q has no result for seed %d", v.Name, other.Name, seed)
			}
			score, _ := result.score(c.Dev.Name, "")
			dev[other.Name] += score.Outcomes.F1() / float64(len(c.Seeds))
		}
		candidates = append(candidates, other)
	}
	slices.SortStableFunc(candidates, func(a, b Variant) int { return cmp.Compare(dev[b.Name], dev[a.Name]) })
	spec, taken, names := base, map[string]bool{}, []string(nil)
	for _, other := range candidates {
		clash := len(other.Without) > 0 || len(names) == v.Combine
		for path := range other.With {
			clash = clash || taken[path]
		}
		if clash {
			continue
		}
		next, err := other.Spec(spec)
		if err != nil || next.Validate(hidden) != nil {
			continue
		}
		for path := range other.With {
			taken[path] = true
		}
		spec, names = next, append(names, other.Name)
	}
	return spec, names, nil
}

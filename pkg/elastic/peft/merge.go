package peft

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Merged is a model whose weights have an adapter in them.
type Merged struct {
	store     *model.Store
	originals map[string]*tensors.Tensor // host copies, by path
}

// Mergeable says whether the kind can be put into a model's weights: bottlenecks and virtual
// tokens cannot.
func (c Config) Mergeable() error {
	if _, ok := methods[c.Kind].layer.(merger); !ok {
		return fmt.Errorf("kind %q cannot be merged: it is more than other weights of the same layers", c.Kind)
	}
	return nil
}

// Merge puts the adapter into the weights of the model in the store, which then computes
// without the adapter what it computed with it. The adapter's own variables stay.
func (a *Adapter) Merge(backend compute.Backend, store *model.Store) (*Merged, error) {
	if err := a.config.Mergeable(); err != nil {
		return nil, fmt.Errorf("merging the adapter: %w", err)
	}
	method := methods[a.config.Kind].layer.(merger)
	m := &Merged{store: store, originals: map[string]*tensors.Tensor{}}
	var paths []string
	for _, l := range a.layers {
		paths = append(paths, l.path+"/weights", l.path+"/bias")
	}
	for _, path := range paths {
		value, err := store.GetVariable(path).Value()
		if err == nil {
			m.originals[path], err = value.LocalClone()
		}
		if err != nil {
			return nil, fmt.Errorf("merging the adapter: reading %s: %w", path, err)
		}
	}
	exec, err := model.NewExec(backend, store, func(scope *model.Scope, zero *Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), zero.Graph())
		var out []*Node
		for _, l := range a.layers {
			weights, bias := method.merged(a.config, l, w.In(Scope[1:]+l.path), w.In(l.path[1:]))
			out = append(out, weights, bias)
		}
		return out
	})
	if err != nil {
		return nil, fmt.Errorf("merging the adapter: %w", err)
	}
	defer exec.Finalize()
	values, err := exec.Call(float32(0))
	if err != nil {
		return nil, fmt.Errorf("merging the adapter: %w", err)
	}
	for i, path := range paths {
		if err := store.GetVariable(path).SetValue(values[i]); err != nil {
			return nil, fmt.Errorf("merging the adapter: setting %s: %w", path, err)
		}
	}
	return m, nil
}

// Unmerge gives the model its own weights back, to the last bit.
func (m *Merged) Unmerge() error {
	for _, path := range slices.Sorted(maps.Keys(m.originals)) {
		clone, err := m.originals[path].LocalClone()
		if err == nil {
			err = m.store.GetVariable(path).SetValue(clone)
		}
		if err != nil {
			return fmt.Errorf("taking the adapter out of %s: %w", path, err)
		}
	}
	return nil
}

package peft

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Bank is a base model with several adapters, of which each call names one. The base is there
// once. What is compiled depends on an adapter's config and ranks only, and its tensors are
// inputs: switching between adapters of one config compiles nothing and moves only these. It is
// safe for concurrent use; calls are made one after the other.
type Bank struct {
	backend compute.Backend
	store   *model.Store
	build   func(w elastic.Weights, in []*Node) []*Node

	mu       sync.Mutex
	entries  map[string]entry
	forms    []*form
	compiled map[GraphId]bool
}

// entry is one adapter with its tensors.
type entry struct {
	form   *form
	values []any // in the order of the form's variables
}

// form is what adapters of one config and the same ranks have in common.
type form struct {
	adapter   *Adapter // nil for the base alone
	variables []elastic.Variable
	exec      *model.Exec
}

// NewBank returns a bank for the model in a store. Build builds its graph: it reads weights by w
// only. The store is not changed.
func NewBank(backend compute.Backend, store *model.Store, build func(w elastic.Weights, in []*Node) []*Node) (*Bank, error) {
	b := &Bank{backend: backend, store: store, build: build, entries: map[string]entry{}, compiled: map[GraphId]bool{}}
	base, err := b.form(nil)
	if err != nil {
		return nil, err
	}
	b.entries[""] = entry{form: base}
	return b, nil
}

// Add takes an adapter in under a name, with copies of its variables and of those of the model
// that were trained beside, as they are in the given store now.
func (b *Bank) Add(name string, a *Adapter, store *model.Store) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, taken := b.entries[name]; taken {
		return fmt.Errorf("the bank has an adapter %q already", name)
	}
	f, err := b.form(a)
	if err != nil {
		return err
	}
	e := entry{form: f}
	for _, v := range f.variables {
		variable := store.GetVariable(v.Path)
		if variable == nil {
			return fmt.Errorf("adapter %q: the store has no variable %s", name, v.Path)
		}
		value, err := variable.Value()
		if err == nil {
			value, err = value.LocalClone()
		}
		if err != nil {
			return fmt.Errorf("adapter %q: reading %s: %w", name, v.Path, err)
		}
		e.values = append(e.values, value)
	}
	b.entries[name] = e
	return nil
}

// form returns the form of an adapter, made if there is none like it yet.
func (b *Bank) form(a *Adapter) (*form, error) {
	for _, f := range b.forms {
		if f.fits(a) {
			return f, nil
		}
	}
	f := &form{adapter: a}
	if a != nil {
		f.variables = a.Trained()
	}
	var err error
	f.exec, err = model.NewExec(b.backend, b.store, func(scope *model.Scope, in []*Node) []*Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		if f.adapter != nil {
			own := map[string]*Node{}
			for i, v := range f.variables {
				own[v.Path] = in[i]
			}
			w = f.adapter.Weights(w.With(own), nil)
		}
		return b.build(w, in[len(f.variables):])
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the adapter: %w", err)
	}
	f.exec.SetMaxCache(-1)
	b.forms = append(b.forms, f)
	return f, nil
}

// fits says whether an adapter computes by the same graph.
func (f *form) fits(a *Adapter) bool {
	if f.adapter == nil || a == nil {
		return f.adapter == a
	}
	same := func(x, y elastic.Variable) bool { return x.Path == y.Path && slices.Equal(x.Shape, y.Shape) }
	return f.adapter.config.Kind == a.config.Kind && f.adapter.config.Alpha == a.config.Alpha && f.adapter.config.Rank == a.config.Rank &&
		slices.EqualFunc(f.variables, a.Trained(), same)
}

// Call computes with the adapter of a name; "" is the base alone.
func (b *Bank) Call(name string, inputs ...any) ([]*tensors.Tensor, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.entries[name]
	if !ok {
		return nil, fmt.Errorf("the bank has no adapter %q", name)
	}
	if len(inputs) == 0 {
		return nil, errors.New("a call of the bank needs inputs")
	}
	out, g, err := e.form.exec.CallWithGraph(append(slices.Clone(e.values), inputs...)...)
	if err != nil {
		return nil, fmt.Errorf("computing with adapter %q: %w", name, err)
	}
	b.compiled[g.GraphId()] = true
	return out, nil
}

// Compilations returns the number of graphs compiled so far: one for each form of adapter and
// each shape of inputs.
func (b *Bank) Compilations() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.compiled)
}

// Finalize frees what was compiled.
func (b *Bank) Finalize() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.forms {
		f.exec.Finalize()
	}
}

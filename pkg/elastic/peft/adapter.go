package peft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Scope is the scope below which the variables of an adapter are, each below the path of the
// layer that it adapts: "/peft/layer_0/attention/query/lora_A".
const Scope = "/peft"

// Adapter is a config held against a model's variables. Its tensors have the names and shapes
// of Python's peft, [outputs, inputs] and so on. It is read-only, but for the number of updates
// that adalora's training tells it.
type Adapter struct {
	config  Config
	layers  []layer
	virtual []elastic.Variable // of prefix and prompt
	beside  []elastic.Variable // variables of the model that are trained too
	updates int                // of the whole run, as the training loop said
}

// layer is a dense layer that is adapted.
type layer struct {
	path            string // without "/weights"
	inputs, outputs int
	rank            int
	kept            []bool // adalora's pattern, one for each rank at the start; nil keeps all
	scalesInput     bool   // ia3
}

// layerMethod is what the kinds that adapt dense layers have.
type layerMethod interface {
	// variables lists those of a layer, with paths relative to it.
	variables(c Config, l layer) []elastic.Variable
	// dense computes the adapted layer: own are the adapter's weights for it, w the model's,
	// base what the model computes.
	dense(c Config, l layer, own, w elastic.Weights, x *Node, base func(x *Node) *Node, drop *dropout.Source) *Node
}

// merger is a layerMethod whose layers are dense again when the adapter is put into them.
type merger interface {
	// merged returns weights [inputs, outputs] and bias [outputs] of such a layer.
	merged(c Config, l layer, own, w elastic.Weights) (weights, bias *Node)
}

// New holds a config against the variables of a model. A pattern that matches nothing is an
// error that names it.
func New(config Config, base []elastic.Variable) (*Adapter, error) {
	a, err := newAdapter(config, base)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	return a, nil
}

func newAdapter(config Config, base []elastic.Variable) (*Adapter, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config = config.WithDefaults()
	a := &Adapter{config: config}
	var problems []error
	choose := func(field string, from []elastic.Variable, patterns []string) []elastic.Variable {
		if len(patterns) == 0 {
			return nil
		}
		chosen, err := adapt.Select(from, patterns)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", field, err))
		}
		return chosen
	}
	dense := denseMatrices(base)
	targets := choose("targets", dense, config.Targets)
	inputs := choose("inputs", targets, config.Inputs)
	if config.Train == nil {
		if head := below(base, "/head/"); len(head) > 0 {
			a.beside = head
		}
	} else {
		a.beside = choose("train", base, config.Train)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	switch config.Kind {
	case "prefix":
		for _, v := range targets {
			a.virtual = append(a.virtual, prefixVariables(config, base, v)...)
		}
	case "prompt":
		at := slices.IndexFunc(base, func(v elastic.Variable) bool { return v.Path == wordTable })
		if at < 0 {
			return nil, fmt.Errorf("kind %q wants a model with word embeddings, %s", config.Kind, wordTable)
		}
		a.virtual = []elastic.Variable{virtualVariable(promptPath, config.Length, base[at].Shape[1])}
	default:
		for _, v := range targets {
			a.layers = append(a.layers, layer{
				path: layerPath(v), inputs: v.Shape[0], outputs: v.Shape[1], rank: config.Rank,
				scalesInput: slices.ContainsFunc(inputs, func(i elastic.Variable) bool { return i.Path == v.Path }),
			})
		}
	}
	return a, nil
}

func layerPath(weights elastic.Variable) string { return strings.TrimSuffix(weights.Path, "/weights") }

// denseMatrices returns the matrices of the layers that [elastic.Dense] computes.
func denseMatrices(base []elastic.Variable) []elastic.Variable {
	biased := map[string]bool{}
	for _, v := range base {
		if path, ok := strings.CutSuffix(v.Path, "/bias"); ok {
			biased[path] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(base), func(v elastic.Variable) bool {
		return !strings.HasSuffix(v.Path, "/weights") || len(v.Shape) != 2 || !biased[layerPath(v)]
	})
}

func below(variables []elastic.Variable, prefix string) []elastic.Variable {
	return slices.DeleteFunc(slices.Clone(variables), func(v elastic.Variable) bool { return !strings.HasPrefix(v.Path, prefix) })
}

// Config returns the adapter's config with its defaults filled in.
func (a *Adapter) Config() Config { return a.config }

// Variables lists the adapter's own variables.
func (a *Adapter) Variables() []elastic.Variable {
	list := elastic.Under(Scope, a.virtual)
	for _, l := range a.layers {
		list = append(list, elastic.Under(Scope+l.path, methods[a.config.Kind].layer.variables(a.config, l))...)
	}
	return list
}

// Beside lists the variables of the model that are trained, and saved, beside the adapter's.
func (a *Adapter) Beside() []elastic.Variable { return a.beside }

// Trained lists all variables that are trained.
func (a *Adapter) Trained() []elastic.Variable { return append(a.Variables(), a.beside...) }

// Parameters returns the number of elements of the adapter's own variables.
func (a *Adapter) Parameters() int {
	total := 0
	for _, v := range a.Variables() {
		total += v.Size()
	}
	return total
}

// Ranks returns the rank of each target of a LoRA kind, by the path of its layer.
func (a *Adapter) Ranks() map[string]int {
	ranks := map[string]int{}
	for _, l := range a.layers {
		ranks[l.path] = l.rank
	}
	return ranks
}

// VirtualTokens returns how many tokens of a model's positions the adapter takes.
func (a *Adapter) VirtualTokens() int { return a.config.Length }

// Create makes the adapter's variables in a model's store, in place of those of another
// adapter. With them the model computes, but for rounding, what it does without; only virtual
// tokens always change something. They depend on config, seed and the model's weights only.
func (a *Adapter) Create(store *model.Store, seed uint64) error {
	if err := Remove(store); err != nil {
		return err
	}
	for _, v := range a.Variables() {
		if _, err := store.CreateVariable(v.Path, v.Tensor(seed)); err != nil {
			return fmt.Errorf("creating %s: %w", v.Path, err)
		}
	}
	if a.config.Kind == "dora" {
		return a.startMagnitudes(store)
	}
	return nil
}

// Remove deletes an adapter's variables from a store, if there are any.
func Remove(store *model.Store) error {
	var paths []string
	for v := range store.IterVariables() {
		if strings.HasPrefix(v.Path(), Scope+"/") {
			paths = append(paths, v.Path())
		}
	}
	for _, path := range paths {
		if err := store.DeleteVariable(path); err != nil {
			return fmt.Errorf("removing %s: %w", path, err)
		}
	}
	return nil
}

// Weights returns a model's weights as seen through the adapter. W must be those of the whole
// model, and read the adapter's variables too. A nil drop source means evaluation.
func (a *Adapter) Weights(w elastic.Weights, drop *dropout.Source) elastic.Weights {
	s := &seen{adapter: a, own: w.Adapted(nil).In(strings.TrimPrefix(Scope, "/")), drop: drop, layers: map[string]layer{}, virtual: map[string]bool{}}
	for _, l := range a.layers {
		s.layers[l.path] = l
	}
	for _, v := range a.virtual {
		s.virtual[v.Path] = true
	}
	return w.Adapted(s)
}

// seen is an adapter in one graph.
type seen struct {
	adapter *Adapter
	own     elastic.Weights
	drop    *dropout.Source
	layers  map[string]layer
	virtual map[string]bool
}

// Dense computes a layer with what the adapter adds to it.
func (s *seen) Dense(path string, w elastic.Weights, x *Node, base func(x *Node) *Node) *Node {
	l, ok := s.layers[path]
	if !ok {
		return base(x)
	}
	own := s.own.In(strings.TrimPrefix(path, "/"))
	return methods[s.adapter.config.Kind].layer.dense(s.adapter.config, l, own, w, x, base, s.drop)
}

// Extra returns virtual tokens.
func (s *seen) Extra(path string, _ *Graph) *Node {
	if !s.virtual[path] {
		return nil
	}
	return s.own.At(strings.TrimPrefix(path, "/"))
}

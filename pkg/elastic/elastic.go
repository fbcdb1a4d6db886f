// Package elastic is the vocabulary that the packages below it share: what a
// model's weights are called, how they begin, and how a graph reads them.
//
// A model is described by plain data. Its list of [Variable] values is complete
// before anything is built, so that a checkpoint can be held against it name by
// name and shape by shape, an optimizer knows which weights decay, and no weight
// is ever made in passing while a graph is built. [Weights] then hands those
// weights to graph-building code:
//
//	store, err := elastic.NewStore(variables, seed)
//	…
//	func(scope *model.Scope, x *graph.Node) *graph.Node {
//		w := elastic.WeightsOf(scope.Store(), x.Graph())
//		return graph.MatMul(x, w.In("head").At("weights"))
//	}
//
// Functions here and in the packages below that take or return *graph.Node build
// graphs and panic with an error that names the shapes, as GoMLX does; every
// entry that runs something returns an error.
package elastic

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Variable describes one weight of a model.
type Variable struct {
	// Path is its place in the model, such as "/layer_0/attention/query/weights".
	// Paths are part of the checkpoint format: renaming one is a breaking change.
	Path string
	// Shape is its dimensions; matrices are [inputs, outputs].
	Shape []int
	// Init says how it begins when no checkpoint gives it a value.
	Init Init
	// Decay is whether weight decay applies: true for matrices and embeddings,
	// false for biases and normalisation scales.
	Decay bool
}

// Size returns the number of elements.
func (v Variable) Size() int {
	size := 1
	for _, d := range v.Shape {
		size *= d
	}
	return size
}

// Matcher returns a function that reports whether a path fits a pattern, in which * stands for any text.
func Matcher(pattern string) func(path string) bool {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString
}

// number is the number of a layer, an expert and the like in a path.
var number = regexp.MustCompile(`_\d+`)

// Patterns lists what variables there are, for messages: their paths with * in place of numbers, each once.
func Patterns(variables []Variable) []string {
	var patterns []string
	for _, v := range variables {
		if pattern := number.ReplaceAllString(v.Path, "_*"); !slices.Contains(patterns, pattern) {
			patterns = append(patterns, pattern)
		}
	}
	return patterns
}

// Init is an initial distribution: normal with mean 0 and standard deviation
// Normal; else the numbers Values, one an element, if there are any; else the constant Value.
type Init struct {
	Normal float64
	Values []float64
	Value  float64
}

// Tensor returns the initial value of v under a seed. The numbers depend on the
// seed and the path only, so adding a variable changes no other.
func (v Variable) Tensor(seed uint64) *tensors.Tensor {
	data := make([]float32, v.Size())
	if v.Init.Normal > 0 {
		name := fnv.New64a()
		name.Write([]byte(v.Path))
		random := rand.New(rand.NewPCG(seed, name.Sum64()))
		for i := range data {
			data[i] = float32(random.NormFloat64() * v.Init.Normal)
		}
	} else {
		for i := range data {
			if v.Init.Values != nil {
				data[i] = float32(v.Init.Values[i])
			} else {
				data[i] = float32(v.Init.Value)
			}
		}
	}
	return tensors.FromFlatDataAndDimensions(data, v.Shape...)
}

// Under returns the variables with prefix put before each path.
func Under(prefix string, variables []Variable) []Variable {
	moved := make([]Variable, len(variables))
	for i, v := range variables {
		v.Path = prefix + "/" + strings.TrimPrefix(v.Path, "/")
		moved[i] = v
	}
	return moved
}

// NewStore returns a GoMLX store that holds the variables with their initial values.
func NewStore(variables []Variable, seed uint64) (*model.Store, error) {
	store := model.NewStore()
	for _, v := range variables {
		if store.GetVariable(v.Path) != nil {
			return nil, fmt.Errorf("variable %s is listed twice", v.Path)
		}
		if _, err := store.CreateVariable(v.Path, v.Tensor(seed)); err != nil {
			return nil, fmt.Errorf("creating variable %s: %w", v.Path, err)
		}
	}
	return store, nil
}

// Weights reads a model's weights while a graph is built. It never makes one.
type Weights struct {
	store    *model.Store
	graph    *graph.Graph
	scope    string
	replaced map[string]*graph.Node
	adapter  Adapter
	compute  dtypes.DType // of products; invalid means that of the operands

	checkpointing bool
}

// WeightsOf returns the weights of a store for one graph.
func WeightsOf(store *model.Store, g *graph.Graph) Weights {
	return Weights{store: store, graph: g}
}

// With returns the weights with nodes in place of the variables at some paths: to compute
// what a model would compute with other values.
func (w Weights) With(replaced map[string]*graph.Node) Weights {
	w.replaced = replaced
	return w
}

// Computing returns the weights with another type for [Weights.Product], such as BFloat16: mixed precision. Weights
// themselves, and all that is no product of matrices, keep their type.
//
// Source: Micikevicius et al. 2018, "Mixed precision training"; Kalamkar et al. 2019, "A study of BFLOAT16 for deep
// learning training".
func (w Weights) Computing(dtype dtypes.DType) Weights {
	w.compute = dtype
	return w
}

// Product returns f(a, b), a product of matrices, computed in the type that [Weights.Computing] chose, forward and
// backward: operands are rounded to it and the result has a's type again. Sums within the product are in float32.
func (w Weights) Product(f func(a, b *graph.Node) *graph.Node, a, b *graph.Node) *graph.Node {
	if w.compute == dtypes.InvalidDType {
		return f(a, b)
	}
	return graph.ConvertDType(f(graph.ConvertDType(a, w.compute), graph.ConvertDType(b, w.compute)), a.DType())
}

// Checkpointing returns the weights with which blocks of layers keep nothing but their input for the gradient, which computes
// the rest again: less memory for a second forward pass. Models mark their blocks by [Weights.Checkpoint].
//
// Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
func (w Weights) Checkpointing() Weights {
	w.checkpointing = true
	return w
}

// Checkpoint returns x, with which a block begins.
func (w Weights) Checkpoint(x *graph.Node) *graph.Node {
	if w.checkpointing {
		return x.Checkpoint()
	}
	return x
}

// StopCheckpoint returns x, with which the last block ends.
func (w Weights) StopCheckpoint(x *graph.Node) *graph.Node {
	if w.checkpointing {
		return x.StopCheckpoint()
	}
	return x
}

// In returns the weights below a name.
func (w Weights) In(name string) Weights {
	w.scope += "/" + name
	return w
}

// Layer returns the weights of the i-th layer, "layer_i".
func (w Weights) Layer(i int) Weights { return w.In(fmt.Sprintf("layer_%d", i)) }

// Path returns the path of the weight called name below the current scope.
func (w Weights) Path(name string) string { return w.scope + "/" + name }

// Graph returns the graph that is being built.
func (w Weights) Graph() *graph.Graph { return w.graph }

// At returns the weight called name below the current scope. It panics when the
// model has none: a weight that is missing must never begin at random unseen.
func (w Weights) At(name string) *graph.Node {
	path := w.Path(name)
	if n, ok := w.replaced[path]; ok {
		return n
	}
	v := w.store.GetVariable(path)
	if v == nil {
		exceptions.Panicf("model has no variable %s", path)
	}
	return v.NodeValue(w.graph)
}

package attention

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// The kinds of [Execution].
const (
	// Auto chooses: recurrent for [Linear], for long texts blockwise, else windowed where the mask
	// does not reach far, else chunked, and naive for short texts. Without loops in the graph, as on
	// the pure-Go backend, windowed comes before blockwise.
	Auto = "auto"
	// Naive builds the matrix [batch, heads, queries, keys]. It computes every spec.
	Naive = "naive"
	// Windowed cuts the text into blocks that see their neighbourhood only: time and memory are
	// proportional to length · reach of the mask.
	Windowed = "windowed"
	// Blockwise goes over pairs of blocks with an online softmax, and computes weights again for
	// the gradient: memory is proportional to length. Blocks that the mask hides are left out.
	//
	// Source: Rabe, Staats 2021, "Self-attention does not need O(n²) memory"; Dao 2023,
	// "FlashAttention-2", for the gradient.
	Blockwise = "blockwise"
	// Chunked computes some queries at a time with all of their keys, again for the gradient:
	// memory is proportional to length · block. It takes parts that need whole rows, such as
	// [Entmax].
	Chunked = "chunked"
	// Recurrent computes the normaliser [Linear] in linear time.
	Recurrent = "recurrent"
	// Core is GoMLX's attention.Core, which uses a fused kernel on CUDA in half precision.
	Core = "core"
)

// executor is a kind of execution.
type executor struct {
	// spec says why a spec can never be computed so, and input why an input cannot.
	spec  func(s Spec) error
	input func(j job) error
	// run computes the values [batch, queries, heads, value width] that are attended to.
	run func(j job) (y, logSum *Node)
}

func (e executor) refuse(j job) error {
	if err := e.spec(j.spec); err != nil {
		return err
	}
	return e.input(j)
}

var executors = map[string]executor{
	Naive:     {func(Spec) error { return nil }, func(job) error { return nil }, nil}, // by pipeline
	Windowed:  {windowedSpec, windowedInput, runWindowed},
	Blockwise: {blockwiseSpec, blockwiseInput, runBlockwise},
	Chunked:   {rowwise, withoutDropout, runChunked},
	Recurrent: {recurrentSpec, recurrentInput, runRecurrent},
	Core:      {coreSpec, withoutDropout, runCore},
}

// Executions lists the kinds that Execution.Kind may name, sorted.
func Executions() []string {
	kinds := []string{Auto}
	for kind := range executors {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}

// Execution says how attention is computed. It never changes results, but for rounding, and is no
// part of a spec's hash.
type Execution struct {
	// Kind is one of [Executions]; empty means [Auto].
	Kind string `json:"kind,omitempty"`
	// Block is how many queries are computed at a time, and how many keys by [Blockwise]; 0
	// means a size that fits the processor's cache.
	Block int `json:"block,omitempty"`
}

func (e Execution) validate(s Spec) error {
	var problems []error
	if e.Kind != "" && !slices.Contains(Executions(), e.Kind) {
		problems = append(problems, fmt.Errorf("kind %q is unknown; known: %s", e.Kind, strings.Join(Executions(), ", ")))
	}
	if chosen, ok := executors[e.Kind]; ok {
		if err := chosen.spec(s); err != nil {
			problems = append(problems, fmt.Errorf("kind %q cannot compute this: %w", e.Kind, err))
		}
	}
	if e.Block < 0 {
		problems = append(problems, fmt.Errorf("block is %d, want at least 1, or 0 for a default", e.Block))
	}
	return errors.Join(problems...)
}

// job is attention that is to be computed: prepared queries [b, q, h, d], keys [b, k, kv, d] and
// values [b, k, kv, v], with what else the spec's parts read.
type job struct {
	spec    Spec
	sizes   Sizes
	weights elastic.Weights
	q, k, v *Node
	in      Inputs
	// regular says that positions number the keys from 0 and the queries up to the last key.
	regular bool
}

// tile returns the job's matrix as one tile.
func (j job) tile() *Tile {
	t := &Tile{Sizes: j.sizes, Scale: j.spec.scale(j.sizes), Inputs: j.in, Q: j.q, K: j.k, losses: map[string]*Node{}}
	t.Allowed = allowed(j.spec, t)
	return t
}

// matrix returns the weights [b, h, q, k] and the tile they were computed in.
func (j job) matrix() (*Node, *Tile) {
	t := j.tile()
	if j.spec.Differential != nil {
		return j.spec.Differential.weigh(j.spec, t, j.weights, j.q, j.k), t
	}
	return weigh(j.spec, t, j.weights), t
}

// naive computes the values by the matrix, without dropout.
func (j job) naive() *Node {
	weights, _ := j.matrix()
	return j.weights.Product(heads, weights, j.v)
}

func (j job) batch() int   { return j.q.Shape().Dimensions[0] }
func (j job) queries() int { return j.q.Shape().Dimensions[1] }
func (j job) keys() int    { return j.k.Shape().Dimensions[1] }

// drops tells whether weights are dropped.
func (j job) drops() bool { return j.spec.Dropout > 0 && j.in.Drop != nil }

// block returns the number of queries at a time, which is no more than there are.
func (j job) block(otherwise int) int {
	if j.spec.Execution.Block > 0 {
		return min(j.spec.Execution.Block, j.queries())
	}
	return min(otherwise, j.queries())
}

// rowwise reports what keeps a spec from being computed some queries at a time.
func rowwise(s Spec) error {
	for _, p := range s.parts() {
		if _, ok := p.part.(AllRows); ok {
			return fmt.Errorf("%s needs all rows at once", p.path)
		}
	}
	return nil
}

// withoutDropout reports that weights are dropped, which only the matrix allows.
func withoutDropout(j job) error {
	if j.drops() {
		return errors.New("dropout draws its noise for the whole matrix")
	}
	return nil
}

// long returns the number of elements of a head's matrix from which on it is not built. On CPUs
// blockwise is the faster from there on, where it is one loop.
func long(backend compute.Backend) int {
	if canLoop(backend) {
		return 256 * 256
	}
	return 1024 * 1024
}

// choose returns the kind of execution for a job.
func (j job) choose() string {
	kind := j.spec.Execution.Kind
	if kind != "" && kind != Auto {
		if err := executors[kind].refuse(j); err != nil {
			exceptions.Panicf("attention.execution: %s cannot compute this: %v", kind, err)
		}
		return kind
	}
	able := func(kind string) bool { return executors[kind].refuse(j) == nil }
	backend := j.q.Graph().Backend()
	loops, short := canLoop(backend), j.queries()*j.keys() < long(backend)
	switch {
	case able(Recurrent) && j.queries() > j.sizes.HeadDim:
		return Recurrent
	case !short && loops && able(Blockwise):
		return Blockwise
	case able(Windowed) && 2*j.neighbourhood() <= j.keys():
		return Windowed
	case short:
		return Naive
	case able(Blockwise):
		return Blockwise
	case able(Chunked) && j.queries() >= 1024: // what it saves is memory
		return Chunked
	}
	return Naive
}

// run computes the values of a job. LogSum is nil but for blockwise softmax.
func (j job) run(kind string) (y, logSum *Node) {
	if p := j.spec.Differential; p != nil && (kind == Blockwise || kind == Core) {
		// Values are linear in weights, so each map can be computed by itself.
		first, second := p.halves(j)
		y1, _ := executors[kind].run(first)
		y2, _ := executors[kind].run(second)
		return Sub(y1, Mul(y2, p.share(j.weights))), nil
	}
	return executors[kind].run(j)
}

// custom returns outputs with a gradient of one's own: backward gets their gradients, nil for an
// output that has none, and returns those with respect to inputs. The outputs must have been
// computed from the inputs that build gets.
func custom(inputs []*Node, build func(inputs []*Node) (outputs []*Node, backward func(gradients []*Node) []*Node)) []*Node {
	var gradients, results []*Node // of the pass of differentiation that is under way
	var backward func([]*Node) []*Node
	wrapped := make([]*Node, len(inputs))
	var tie *Node // makes the outputs depend on the inputs; its value is not used
	for i, x := range inputs {
		wrapped[i] = IdentityWithCustomGradient(x, func(_, _ *Node) *Node {
			if results == nil {
				results = backward(gradients)
			}
			return results[i]
		})
		one := make([]SliceAxisSpec, x.Rank())
		for axis := range one {
			one[axis] = AxisElem(0)
		}
		tie = elastic.AddIf(tie, Reshape(Slice(wrapped[i], one...)))
	}
	stopped := make([]*Node, len(inputs))
	for i, x := range inputs {
		stopped[i] = StopGradient(x)
	}
	outputs, backward := build(stopped)
	gradients = make([]*Node, len(outputs))
	for i, y := range outputs {
		never := Const(y.Graph(), false)
		y = Add(StopGradient(y), Where(never, tie, number(tie, 0)))
		outputs[i] = IdentityWithCustomGradient(y, func(_, gradient *Node) *Node {
			if results != nil { // of an earlier pass
				gradients, results = make([]*Node, len(outputs)), nil
			}
			gradients[i] = gradient
			return gradient
		})
	}
	return outputs
}

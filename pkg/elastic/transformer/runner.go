package transformer

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Runner computes the logits of an encoder with adaptive [Depth] layer by layer, and stops
// where the depth says so: later layers are not executed. Each layer is an executable of its
// own, compiled when an input first reaches it.
//
// A batch stays together: it leaves when all tokens that count agree to. With early exit the
// logits are those of the exit where it left. With adaptive computation time they are those
// of [Config.Logits] in any case: what is not executed has no weight. A threshold of 0, which
// never leaves, runs the whole model as one executable, and gives its logits to the last
// bit; layer by layer, a compiler may round the last bits otherwise.
//
// It is safe for concurrent use, one call at a time. The threshold may be changed between
// calls by [Runner.SetThreshold].
type Runner struct {
	model     *Model
	mu        sync.Mutex
	threshold float64
	whole     *model.Exec // for a threshold of 0
	layers    []*model.Exec
	compiled  map[GraphId]bool
}

// NewRunner returns a runner for an encoder with a depth.
func NewRunner(backend compute.Backend, m *Model) (*Runner, error) {
	if m.Config.Depth == nil {
		return nil, errors.New("transformer runner: the model's depth does not adapt: config.depth is not set")
	}
	if err := m.Config.Validate(); err != nil {
		return nil, fmt.Errorf("transformer config: %w", err)
	}
	r := &Runner{model: m, threshold: m.Config.Depth.Threshold, compiled: map[GraphId]bool{}}
	prepare := func(build func(w elastic.Weights, in []*Node) []*Node) (*model.Exec, error) {
		exec, err := model.NewExec(backend, m.Store, func(scope *model.Scope, in []*Node) []*Node {
			return build(elastic.WeightsOf(scope.Store(), in[0].Graph()), in)
		})
		if err != nil {
			return nil, fmt.Errorf("transformer runner: %w", err)
		}
		exec.SetMaxCache(-1)
		return exec, nil
	}
	var err error
	r.whole, err = prepare(func(w elastic.Weights, in []*Node) []*Node {
		return []*Node{m.Config.Logits(w, Inputs{IDs: in[0], Types: in[1], Mask: in[2]}, nil)}
	})
	for i := 0; i < m.Config.Layers && err == nil; i++ {
		var exec *model.Exec
		exec, err = prepare(func(w elastic.Weights, in []*Node) []*Node { return r.layer(w, i, in) })
		r.layers = append(r.layers, exec)
	}
	return r, err
}

// Finalize frees the executables.
func (r *Runner) Finalize() {
	for _, exec := range append(r.layers, r.whole) {
		exec.Finalize()
	}
}

// SetThreshold sets the threshold of early exit in place of the config's; see [Depth].
func (r *Runner) SetThreshold(threshold float64) error {
	config := r.model.Config
	depth := *config.Depth
	depth.Threshold = threshold
	config.Depth = &depth
	if err := config.Validate(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.threshold = threshold
	return nil
}

// Compilations returns the number of graphs compiled so far: one a layer and shape.
func (r *Runner) Compilations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.compiled)
}

// Logits computes the logits of a batch and how many layers were executed for it. Ids, types
// and mask are int32 [batch, length], as in [Inputs]. Counts, boolean, says which predictions
// must be sure before the batch leaves: [batch, length] for a head of tokens, [batch] for one
// of sequences. Adaptive computation time does not read it: all tokens of the mask count.
func (r *Runner) Logits(ids, types, mask, counts *tensors.Tensor) (logits *tensors.Tensor, layers int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failure error
	err = exceptions.TryCatch[error](func() {
		if r.model.Config.Depth.Kind == EarlyExit && r.threshold == 0 {
			logits, failure = r.all(ids, types, mask)
			layers = len(r.layers)
			return
		}
		logits, layers, failure = r.untilSure(ids, types, mask, counts)
	})
	return logits, layers, errors.Join(err, failure)
}

// all computes the whole model at once.
func (r *Runner) all(ids, types, mask *tensors.Tensor) (*tensors.Tensor, error) {
	outputs, g, err := r.whole.CallWithGraph(ids, types, mask)
	if err != nil {
		return nil, fmt.Errorf("computing all layers: %w", err)
	}
	r.compiled[g.GraphId()] = true
	return outputs[0], nil
}

// untilSure computes layer by layer.
func (r *Runner) untilSure(ids, types, mask, counts *tensors.Tensor) (logits *tensors.Tensor, layers int, err error) {
	var state []*tensors.Tensor
	defer func() {
		for _, t := range state {
			t.MustFinalizeAll()
		}
	}()
	threshold := tensors.FromScalar(float32(r.threshold))
	defer threshold.MustFinalizeAll()
	for i, exec := range r.layers {
		args := []any{ids, types, mask, counts, threshold}
		for _, t := range state {
			args = append(args, t)
		}
		outputs, g, err := exec.CallWithGraph(args...)
		if err != nil {
			return nil, 0, fmt.Errorf("computing layer %d: %w", i, err)
		}
		r.compiled[g.GraphId()] = true
		for _, t := range state {
			t.MustFinalizeAll()
		}
		var waiting float32 // tokens that keep the batch
		waiting, state = tensors.ToScalar[float32](outputs[0]), outputs[2:]
		outputs[0].MustFinalizeAll()
		logits = outputs[1]
		if i == len(r.layers)-1 || waiting == 0 {
			return logits, i + 1, nil
		}
		logits.MustFinalizeAll()
	}
	return nil, 0, errors.New("the model has no layers")
}

// layer computes the i-th layer of a batch. It reads ids, types, mask, counts, threshold and
// the state that the layer before left, and returns the number of tokens that keep the batch,
// the logits, and the state: the layer's output, and what the kind of depth carries along.
func (r *Runner) layer(w elastic.Weights, i int, in []*Node) []*Node {
	c := r.model.Config
	inputs := Inputs{IDs: in[0], Types: in[1], Mask: in[2]}
	counts, threshold, state := in[3], in[4], in[5:]
	var x *Node
	if i == 0 {
		x = c.embed(w, w.In("embeddings"), inputs, nil)
	} else {
		x, state = state[0], state[1:]
	}
	x, _ = c.layer(w, i, x, inputs.attention(nil))
	if c.Depth.Kind == ACT {
		return r.halting(w, i, x, inputs, state)
	}
	logits := c.exit(w, i, x, nil)
	unsure, carried := c.Depth.unsure(logits, threshold, state)
	waiting := ReduceAllSum(ConvertDType(LogicalAnd(unsure, counts), dtypes.Float32))
	return append([]*Node{waiting, logits, x}, carried...)
}

// halting is the part of layer for adaptive computation time.
func (r *Runner) halting(w elastic.Weights, i int, x *Node, in Inputs, state []*Node) []*Node {
	c := r.model.Config
	h := newHalting(x, in.real(x.DType()))
	if i > 0 {
		h.Mixture, h.sum, h.running = state[0], state[1], state[2]
	}
	h = h.step(c.Depth.logit(w, x), x, c.Depth.epsilon(), i == c.Layers-1)
	return []*Node{ReduceAllSum(h.running), c.HeadLogits(w, h.Mixture, nil), x, h.Mixture, h.sum, h.running}
}

// unsure returns where a prediction is not yet sure enough, boolean of the shape of logits
// without the last axis, and what the rule carries to the next exit.
func (d Depth) unsure(logits, threshold *Node, state []*Node) (*Node, []*Node) {
	logits = ConvertDType(logits, dtypes.Float32)
	shape := logits.Shape().Dimensions[:logits.Rank()-1]
	threshold = BroadcastToDims(threshold, shape...)
	if d.rule() == Patience {
		label := ArgMax(logits, -1, dtypes.Int32)
		streak := ZerosLike(ConvertDType(label, dtypes.Float32)) // exits in succession that agreed with the one before
		if len(state) > 0 {
			streak = Where(Equal(label, state[0]), AddScalar(state[1], 1), streak)
		}
		return LessThan(streak, threshold), []*Node{label, streak}
	}
	p := Softmax(logits, -1)
	if d.rule() == Confidence {
		return LessOrEqual(ReduceMax(p, -1), threshold), nil
	}
	classes := float64(logits.Shape().Dimensions[logits.Rank()-1])
	entropy := Neg(ReduceSum(Mul(p, LogSoftmax(logits, -1)), -1))
	return GreaterOrEqual(MulScalar(entropy, 1/math.Log(classes)), threshold), nil
}

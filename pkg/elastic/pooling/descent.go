package pooling

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Descent is how w is adapted: w ← w − Rate·∂F/∂w, until a step is shorter than Tolerance
// or MaxSteps are made.
type Descent struct {
	Rate      float64
	Tolerance float64 // Euclidean length; 0 makes all MaxSteps
	MaxSteps  int
}

// Trace is what an adaptation did. Values has the objective before each step, Weights w
// after each.
type Trace struct {
	Values    []float64
	Weights   []*tensors.Tensor
	Converged bool // the last step was shorter than the tolerance
}

// Validate reports all that is wrong with d.
func (d Descent) Validate() error {
	var problems []error
	if !(d.Rate > 0) || math.IsInf(d.Rate, 0) {
		problems = append(problems, fmt.Errorf("rate is %g, want a positive number", d.Rate))
	}
	if !(d.Tolerance >= 0) {
		problems = append(problems, fmt.Errorf("tolerance is %g, want 0 or more", d.Tolerance))
	}
	if d.MaxSteps < 1 {
		problems = append(problems, fmt.Errorf("max_steps is %d, want at least 1", d.MaxSteps))
	}
	return errors.Join(problems...)
}

// Run adapts w, from any start: random ([Random]) or taken from earlier training. The
// objective F gets w and the inputs as nodes and returns a scalar; whether there are labels
// among the inputs is its affair. Run stops with an error when ctx is cancelled or F is not
// finite; the trace up to there comes with it.
func (d Descent) Run(ctx context.Context, backend compute.Backend, w *tensors.Tensor, objective func(w *Node, inputs []*Node) *Node, inputs ...any) (Trace, error) {
	if err := d.Validate(); err != nil {
		return Trace{}, fmt.Errorf("descent: %w", err)
	}
	exec, err := NewExec(backend, func(args []*Node) []*Node {
		w := args[0]
		value := objective(w, args[1:])
		step := MulScalar(Gradient(value, w)[0], -d.Rate)
		return []*Node{value, Add(w, step), Sqrt(ReduceAllSum(Square(step)))}
	})
	if err != nil {
		return Trace{}, fmt.Errorf("descent: %w", err)
	}
	defer exec.Finalize()
	var trace Trace
	for step := range d.MaxSteps {
		if ctx.Err() != nil {
			return trace, fmt.Errorf("descent stopped after %d steps: %w", step, context.Cause(ctx))
		}
		out, err := exec.Call(append([]any{w}, inputs...)...)
		if err != nil {
			return trace, fmt.Errorf("descent, step %d: %w", step+1, err)
		}
		value, length := number(out[0]), number(out[2])
		if math.IsNaN(value+length) || math.IsInf(value+length, 0) {
			return trace, fmt.Errorf("descent, step %d: the objective is %g and the step %g long: lower the rate, %g", step+1, value, length, d.Rate)
		}
		w = out[1]
		trace.Values, trace.Weights = append(trace.Values, value), append(trace.Weights, w)
		if length < d.Tolerance {
			trace.Converged = true
			break
		}
	}
	return trace, nil
}

// number returns a scalar of any float type.
func number(t *tensors.Tensor) float64 {
	switch v := t.Value().(type) {
	case float32:
		return float64(v)
	case float64:
		return v
	}
	return math.NaN()
}

// Random returns initial weights of the given dimensions: normal with standard deviation
// std, the same for the same seed.
func Random(seed uint64, std float64, dims ...int) *tensors.Tensor {
	size := 1
	for _, d := range dims {
		size *= d
	}
	random := rand.New(rand.NewPCG(seed, 0))
	values := make([]float32, size)
	for i := range values {
		values[i] = float32(random.NormFloat64() * std)
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

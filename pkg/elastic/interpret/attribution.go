package interpret

import (
	"context"
	"fmt"
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Explained is what is explained: it builds, for vectors x [rows, ...] in a model with
// weights w, one value a row, [rows]. Inputs are the further inputs that the caller gives.
type Explained func(w elastic.Weights, x *Node, inputs []*Node) *Node

// Attribution says how much of a function's values is owed to each element of x.
type Attribution struct {
	// Values has the shape of x.
	Values *tensors.Tensor
	// Output and Baseline are the function's values at x and at the baseline, a number a row.
	Output, Baseline []float64
	// Error is Output − Baseline − Σ Values for each row: what the attribution leaves open.
	Error []float64
}

// Attributor attributes the values of a function to its inputs. What it compiles for one
// shape of inputs serves all of that shape, whatever the number of steps. It is not safe for
// concurrent use.
type Attributor struct{ exec *model.Exec }

// NewAttributor returns an attributor for f in a model with the weights of store.
func NewAttributor(backend compute.Backend, store *model.Store, f Explained) (*Attributor, error) {
	exec, err := model.NewExec(backend, store, func(scope *model.Scope, in []*Node) []*Node {
		share, x, baseline := in[0], in[1], in[2]
		at := Add(baseline, Mul(share, Sub(x, baseline)))
		values := f(elastic.WeightsOf(scope.Store(), x.Graph()), at, in[3:])
		if values.Rank() != 1 || values.Shape().Dimensions[0] != x.Shape().Dimensions[0] {
			exceptions.Panicf("an explained function gives one value a row, [%d], got %s", x.Shape().Dimensions[0], values.Shape())
		}
		return []*Node{values, Mul(Gradient(ReduceAllSum(values), at)[0], Sub(x, baseline))}
	})
	if err != nil {
		return nil, fmt.Errorf("attribution: %w", err)
	}
	exec.SetMaxCache(-1)
	return &Attributor{exec}, nil
}

// Finalize frees what was compiled.
func (a *Attributor) Finalize() { a.exec.Finalize() }

// GradientTimesInput multiplies each element's distance from the baseline with its gradient:
//
//	vᵢ = (xᵢ − x⁰ᵢ) · ∂f/∂xᵢ at x
//
// Baseline x⁰ has the shape of x. Source: Shrikumar et al. 2017, "Not just a black box".
func (a *Attributor) GradientTimesInput(ctx context.Context, x, baseline *tensors.Tensor, inputs ...any) (Attribution, error) {
	return a.attribute(ctx, x, baseline, []float64{1}, inputs)
}

// IntegratedGradients takes the gradient's mean along the way from the baseline to x, by the
// midpoint rule with steps points; then the values add up to the difference of the outputs,
// but for the rule's error, which the result holds:
//
//	vᵢ = (xᵢ − x⁰ᵢ) · mean over α of ∂f/∂xᵢ at x⁰ + α·(x − x⁰)
//
// Source: Sundararajan, Taly, Yan 2017, "Axiomatic attribution for deep networks".
func (a *Attributor) IntegratedGradients(ctx context.Context, x, baseline *tensors.Tensor, steps int, inputs ...any) (Attribution, error) {
	if steps < 1 {
		return Attribution{}, fmt.Errorf("integrated gradients with %d steps: want at least 1", steps)
	}
	points := make([]float64, steps)
	for i := range points {
		points[i] = (float64(i) + 0.5) / float64(steps)
	}
	return a.attribute(ctx, x, baseline, points, inputs)
}

// attribute averages gradients at points between baseline (0) and x (1).
func (a *Attributor) attribute(ctx context.Context, x, baseline *tensors.Tensor, points []float64, inputs []any) (Attribution, error) {
	if !x.Shape().Equal(baseline.Shape()) || x.DType() != dtypes.Float32 || x.Rank() < 1 {
		return Attribution{}, fmt.Errorf("attribution: vectors are %s and the baseline %s, want float32 of one shape, [rows, ...]", x.Shape(), baseline.Shape())
	}
	call := func(share float64) (values, parts []float32, err error) {
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("attribution stopped: %w", context.Cause(ctx))
		}
		out, err := a.exec.Call(append([]any{float32(share), x, baseline}, inputs...)...)
		if err != nil {
			return nil, nil, fmt.Errorf("attribution: %w", err)
		}
		if values, err = tensors.CopyFlatData[float32](out[0]); err == nil {
			parts, err = tensors.CopyFlatData[float32](out[1])
		}
		return values, parts, err
	}
	result := Attribution{}
	sums := make([]float64, x.Size())
	for _, share := range points {
		_, parts, err := call(share)
		if err != nil {
			return Attribution{}, err
		}
		for i, v := range parts {
			sums[i] += float64(v) / float64(len(points))
		}
	}
	for share, into := range map[float64]*[]float64{0: &result.Baseline, 1: &result.Output} {
		values, _, err := call(share)
		if err != nil {
			return Attribution{}, err
		}
		for _, v := range values {
			*into = append(*into, float64(v))
		}
	}
	rows := len(result.Output)
	flat := make([]float32, len(sums))
	for i, v := range sums {
		flat[i] = float32(v)
	}
	for row := range rows {
		left := result.Output[row] - result.Baseline[row]
		for _, v := range sums[row*len(sums)/rows : (row+1)*len(sums)/rows] {
			left -= v
		}
		if math.IsNaN(left) || math.IsInf(left, 0) {
			return Attribution{}, fmt.Errorf("attribution: the values of row %d are not finite", row)
		}
		result.Error = append(result.Error, left)
	}
	result.Values = tensors.FromFlatDataAndDimensions(flat, x.Shape().Dimensions...)
	return result, nil
}

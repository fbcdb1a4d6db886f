package train

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Fisher estimates the diagonal of a model's Fisher information from an epoch of labelled data, by
// path, one number an element:
//
//	F = Σ_batches (∇ summed loss)² / Σ targets
//
// the empirical form, with the data's labels in place of samples of the model's predictions.
// It is exact for micro-batches of one target; with more it holds as far as their gradients
// are independent with mean 0, as they are about where training ends, so give small ones.
// Dropout is off.
//
// Source: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks";
// on the empirical form: Kunstner, Hennig, Balles 2019.
func Fisher(ctx context.Context, backend compute.Backend, task Task, data Data) (map[string]*tensors.Tensor, error) {
	variables := task.Variables()
	exec, err := model.NewExec(backend, task.Store(), func(scope *model.Scope, in []*Node) []*Node {
		g, last := in[0].Graph(), len(in)-1
		parameters := make([]*Node, len(variables))
		for i, v := range variables {
			parameters[i] = scope.Store().GetVariable(v.Path).NodeValue(g)
		}
		sum, count := task.Loss(elastic.WeightsOf(scope.Store(), g), in[:last], in[last:], nil)
		out := []*Node{count}
		for _, gradient := range Gradient(sum, parameters...) {
			out = append(out, Square(gradient))
		}
		return out
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the Fisher information: %w", err)
	}
	defer exec.Finalize()
	exec.SetMaxCache(-1)
	totals, targets := make([][]float64, len(variables)), 0.0
	for batch, err := range data.Batches(0, 0) {
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil && len(batch.Labels) != 1 {
			err = fmt.Errorf("a batch has %d label tensors, want 1", len(batch.Labels))
		}
		if err != nil {
			return nil, fmt.Errorf("estimating the Fisher information: %w", err)
		}
		var args []any
		for _, input := range append(batch.Inputs, batch.Labels...) {
			args = append(args, input)
		}
		out, err := exec.Call(args...)
		if err != nil {
			return nil, fmt.Errorf("estimating the Fisher information: %w", err)
		}
		targets += float64(tensors.ToScalar[float32](out[0]))
		for i, square := range out[1:] {
			values, err := tensors.CopyFlatData[float32](square)
			if err != nil {
				return nil, fmt.Errorf("estimating the Fisher information: %w", err)
			}
			if totals[i] == nil {
				totals[i] = make([]float64, len(values))
			}
			for j, x := range values {
				totals[i][j] += float64(x)
			}
			square.MustFinalizeAll()
		}
	}
	if targets == 0 {
		return nil, errors.New("estimating the Fisher information: the data has no target")
	}
	fisher := map[string]*tensors.Tensor{}
	for i, v := range variables {
		values := make([]float32, len(totals[i]))
		for j, x := range totals[i] {
			values[j] = float32(x / targets)
		}
		fisher[v.Path] = tensors.FromFlatDataAndDimensions(values, v.Shape...)
	}
	return fisher, nil
}

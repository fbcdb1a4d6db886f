package interpret

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Heads asks what a model's loss owes to each of its attention heads.
type Heads struct {
	Backend compute.Backend
	Store   *model.Store
	// Layers and Heads are the model's.
	Layers, Heads int
	// Loss builds one loss a row, [rows], of a model in which what each head gives is
	// multiplied by its gate ξ; see transformer.Inputs.HeadGates. Gates are [rows, layers,
	// heads], inputs what a batch holds.
	Loss func(w elastic.Weights, gates *Node, inputs []*Node) *Node
}

// Importance returns, [layers][heads], how much the loss of a row depends on each head, to
// first order:
//
//	I = mean over rows of |∂loss/∂ξ| at ξ = 1
//
// Each batch holds the inputs of Loss, whose first axis is rows. (The source divides by each
// layer's Euclidean norm before it compares heads of different layers; this does not.)
//
// Source: Michel, Levy, Neubig 2019, "Are sixteen heads really better than one?", equation 2.
func (h Heads) Importance(ctx context.Context, batches iter.Seq[[]*tensors.Tensor]) ([][]float64, error) {
	sums, rows, err := h.run(ctx, batches, func(loss, gates *Node) *Node {
		return ReduceSum(Abs(Gradient(ReduceAllSum(loss), gates)[0]), 0) // [layers, heads]
	}, func(call func(gate func(layer, head int) float32) ([]float32, error), sums [][]float64) error {
		values, err := call(func(int, int) float32 { return 1 })
		for i, v := range values {
			sums[i/h.Heads][i%h.Heads] += float64(v)
		}
		return err
	})
	return mean(sums, rows), err
}

// Removal returns, [layers][heads], by how much the mean loss of a row grows when a head is
// removed and all others stay: what Importance estimates, at layers·heads forward passes a batch.
func (h Heads) Removal(ctx context.Context, batches iter.Seq[[]*tensors.Tensor]) ([][]float64, error) {
	sums, rows, err := h.run(ctx, batches, func(loss, _ *Node) *Node { return ReduceAllSum(loss) },
		func(call func(gate func(layer, head int) float32) ([]float32, error), sums [][]float64) error {
			whole, err := call(func(int, int) float32 { return 1 })
			if err != nil {
				return err
			}
			for i := range h.Layers * h.Heads {
				without, err := call(func(layer, head int) float32 {
					if layer*h.Heads+head == i {
						return 0
					}
					return 1
				})
				if err != nil {
					return err
				}
				sums[i/h.Heads][i%h.Heads] += float64(without[0]) - float64(whole[0])
			}
			return nil
		})
	return mean(sums, rows), err
}

// run compiles a result of loss and gates, and lets visit add to the sums for each batch.
func (h Heads) run(ctx context.Context, batches iter.Seq[[]*tensors.Tensor], result func(loss, gates *Node) *Node,
	visit func(call func(gate func(layer, head int) float32) ([]float32, error), sums [][]float64) error) (sums [][]float64, rows int, err error) {
	exec, err := model.NewExec(h.Backend, h.Store, func(scope *model.Scope, in []*Node) []*Node {
		gates := in[0]
		loss := h.Loss(elastic.WeightsOf(scope.Store(), gates.Graph()), gates, in[1:])
		if loss.Rank() != 1 || loss.Shape().Dimensions[0] != gates.Shape().Dimensions[0] {
			exceptions.Panicf("heads are judged by one loss a row, [%d], got %s", gates.Shape().Dimensions[0], loss.Shape())
		}
		return []*Node{result(loss, gates)}
	})
	if err != nil {
		return nil, 0, fmt.Errorf("judging heads: %w", err)
	}
	defer exec.Finalize()
	exec.SetMaxCache(-1)
	sums = make([][]float64, h.Layers)
	for i := range sums {
		sums[i] = make([]float64, h.Heads)
	}
	for batch := range batches {
		if len(batch) == 0 || batch[0].Rank() == 0 {
			return nil, 0, errors.New("judging heads: a batch needs inputs, the first with an axis of rows")
		}
		size := batch[0].Shape().Dimensions[0]
		call := func(gate func(layer, head int) float32) ([]float32, error) {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("judging heads stopped after %d rows: %w", rows, context.Cause(ctx))
			}
			var gates []float32
			for range size {
				for i := range h.Layers * h.Heads {
					gates = append(gates, gate(i/h.Heads, i%h.Heads))
				}
			}
			args := []any{tensors.FromFlatDataAndDimensions(gates, size, h.Layers, h.Heads)}
			for _, input := range batch {
				args = append(args, input)
			}
			out, err := exec.Call(args...)
			if err != nil {
				return nil, fmt.Errorf("judging heads: %w", err)
			}
			return tensors.CopyFlatData[float32](out[0])
		}
		if err := visit(call, sums); err != nil {
			return nil, 0, err
		}
		rows += size
	}
	if rows == 0 {
		return nil, 0, errors.New("judging heads: there is no batch")
	}
	for _, layer := range sums {
		for _, v := range layer {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, 0, errors.New("judging heads: the loss or its gradient is not finite")
			}
		}
	}
	return sums, rows, nil
}

func mean(sums [][]float64, rows int) [][]float64 {
	for _, row := range sums {
		for i := range row {
			row[i] /= float64(rows)
		}
	}
	return sums
}

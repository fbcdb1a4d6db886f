package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// rows are the tokens of examples as tensors: ids, types and mask, int32 [rows, length]. They are
// filled up to a power of two with copies of the last, so that there are few numbers of rows.
type rows struct {
	examples         []Example
	size, length     int
	ids, types, mask *tensors.Tensor
}

// example is what a row holds.
func (r rows) example(row int) Example { return r.examples[min(row, len(r.examples)-1)] }

func (x *Explainer) rows(examples []Example, length int) rows {
	r := rows{examples: examples, size: 1, length: length}
	for r.size < len(examples) {
		r.size *= 2
	}
	var ids, types, mask []int32
	for row := range r.size {
		e := r.example(row)
		ids = append(ids, padded(e.IDs, int32(x.Model.Config.PadID), length)...)
		types = append(types, padded(e.TypeIDs, 0, length)...)
		mask = append(mask, padded(slices.Repeat([]int32{1}, len(e.IDs)), 0, length)...)
	}
	r.ids, r.types, r.mask = tensor(ids, r.size, length), tensor(types, r.size, length), tensor(mask, r.size, length)
	return r
}

// counts are those of the rows' logits, [rows, labels] for a head that pools, else [rows, length, labels].
func (x *Explainer) counts(r rows) *tensors.Tensor {
	labels := len(x.Model.Config.Head.Labels)
	shape, size := []int{r.size, labels}, labels
	if !x.pools() {
		shape, size = []int{r.size, r.length, labels}, r.length*labels
	}
	var flat []float32
	for row := range r.size {
		counts := r.example(row).Counts
		flat = append(append(flat, counts...), make([]float32, size-len(counts))...)
	}
	return tensors.FromFlatDataAndDimensions(flat, shape...)
}

// pools tells whether the model's head makes one vector of a text's tokens.
func (x *Explainer) pools() bool { return x.Model.Config.Head.Kind == transformer.Sequence }

// padded fills values of tokens up.
func padded(values []int32, with int32, length int) []int32 {
	return append(slices.Clone(values), slices.Repeat([]int32{with}, length-len(values))...)
}

func tensor(flat []int32, dims ...int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(flat, dims...)
}

// look computes float32 outputs, each flat, by a graph that looks into the model. What is
// compiled for it is kept under its name.
func (x *Explainer) look(ctx context.Context, name string, build func(w elastic.Weights, in []*graph.Node) []*graph.Node, inputs ...*tensors.Tensor) ([][]float32, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s stopped: %w", name, context.Cause(ctx))
	}
	if x.Virtual {
		return nil, fmt.Errorf("%s: the adapter has virtual tokens, which take part in attention and are no words", name)
	}
	x.Lock.Lock()
	defer x.Lock.Unlock()
	exec, ok := x.looks[name]
	if !ok {
		var err error
		exec, err = model.NewExec(x.Backend, x.Model.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
			return build(x.weights(elastic.WeightsOf(scope.Store(), in[0].Graph())), in)
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		exec.SetMaxCache(-1)
		if x.looks == nil {
			x.looks = map[string]*model.Exec{}
		}
		x.looks[name] = exec
	}
	args := make([]any, len(inputs))
	for i, input := range inputs {
		args[i] = input
	}
	var flat [][]float32
	var failure error
	err := exceptions.TryCatch[error](func() {
		outputs, err := exec.Call(args...)
		if err != nil {
			failure = err
			return
		}
		for _, output := range outputs {
			values, err := tensors.CopyFlatData[float32](output)
			failure = errors.Join(failure, err)
			flat = append(flat, values)
			output.MustFinalizeAll()
		}
	})
	if err := errors.Join(err, failure); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return flat, nil
}

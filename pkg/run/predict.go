package run

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Logits computes the logits of a batch, flat [size, classes], or [size, length, classes] if each token has some.
type Logits func(ctx context.Context, b batch.Batch) ([]float32, error)

// Forward computes the logits of batches. Each shape is compiled once. It is not safe for
// concurrent use.
type Forward struct {
	exec     *model.Exec
	compiled map[graph.GraphId]bool
}

// NewForward prepares what logits builds in a model with the variables of store.
func NewForward(backend compute.Backend, store *model.Store, logits func(w elastic.Weights, in transformer.Inputs) *graph.Node) (*Forward, error) {
	exec, err := model.NewExec(backend, store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		return []*graph.Node{logits(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]})}
	})
	if err != nil {
		return nil, fmt.Errorf("preparing prediction: %w", err)
	}
	exec.SetMaxCache(-1)
	return &Forward{exec, map[graph.GraphId]bool{}}, nil
}

// Logits computes those of a batch; see [Logits].
func (f *Forward) Logits(_ context.Context, b batch.Batch) (logits []float32, err error) {
	var failure error
	err = exceptions.TryCatch[error](func() {
		inputs := b.GoMLX().Inputs
		outputs, g, err := f.exec.CallWithGraph(inputs[0], inputs[1], inputs[2])
		if err != nil {
			failure = err
			return
		}
		f.compiled[g.GraphId()] = true
		logits, failure = tensors.CopyFlatData[float32](outputs[0])
		for _, tensor := range append(inputs, outputs[0]) {
			tensor.MustFinalizeAll()
		}
	})
	return logits, errors.Join(err, failure)
}

// Compilations returns the number of shapes compiled so far; 0 for nil.
func (f *Forward) Compilations() int {
	if f == nil {
		return 0
	}
	return len(f.compiled)
}

// Finalize frees what was compiled.
func (f *Forward) Finalize() { f.exec.Finalize() }

// Predict computes the logits of examples in batches of texts of like lengths, and hands each batch with its logits, flat, to take.
// A single example is computed alone, in a batch of one. Logits that are not finite are an error. Progress, if not nil, is told
// how many batches of how many are done.
func Predict(ctx context.Context, examples []batch.Example, config batch.Config, logits Logits, take func(b batch.Batch, logits []float32), progress func(done, total int)) error {
	if len(examples) == 0 {
		return nil
	}
	if len(examples) == 1 {
		config.Size = 1
	}
	dataset, err := batch.New("prediction", examples, config)
	if err != nil {
		return err
	}
	total, done := dataset.Steps(), 0
	for b := range dataset.Epoch(0) {
		if ctx.Err() != nil {
			return fmt.Errorf("prediction stopped after %d of %d batches: %w", done, total, context.Cause(ctx))
		}
		flat, err := logits(ctx, b)
		if err != nil {
			return fmt.Errorf("predicting a batch of %d×%d tokens: %w", b.Size, b.Length, err)
		}
		for _, v := range flat {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("predicting a batch of %d×%d tokens: the model computes %g: its weights are damaged, or its training diverged", b.Size, b.Length, v)
			}
		}
		take(b, flat)
		if done++; progress != nil {
			progress(done, total)
		}
	}
	return nil
}

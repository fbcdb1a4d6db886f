package ner

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
)

// look computes float32 outputs, each flat, by a graph that looks into the model. What is
// compiled for it is kept under its name.
func (t *Tagger) look(ctx context.Context, name string, build func(w elastic.Weights, in []*graph.Node) []*graph.Node, inputs ...*tensors.Tensor) ([][]float32, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s stopped: %w", name, context.Cause(ctx))
	}
	if a := t.net.adapter; a != nil && slices.Contains([]string{"prefix", "prompt"}, a.Config().Kind) {
		return nil, fmt.Errorf("%s: the adapter has virtual tokens, which take part in attention and are no words", name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	exec, ok := t.looks[name]
	if !ok {
		var err error
		exec, err = model.NewExec(t.backend, t.Model.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
			return build(t.net.weights(elastic.WeightsOf(scope.Store(), in[0].Graph()), nil), in)
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		exec.SetMaxCache(-1)
		if t.looks == nil {
			t.looks = map[string]*model.Exec{}
		}
		t.looks[name] = exec
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

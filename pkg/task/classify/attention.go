package classify

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Attention returns the attention weights of all layers and heads for a text. Of a text that is too long only what the model
// reads is there. Each of the config's Lengths is compiled once.
func (c *Classifier) Attention(ctx context.Context, text string) (interpret.AttentionMap, error) {
	encoding, err := c.encode(text, c.config.Lengths[len(c.config.Lengths)-1])
	if err != nil {
		return interpret.AttentionMap{}, err
	}
	tokens := make([]string, len(encoding.IDs))
	for i, id := range encoding.IDs {
		tokens[i] = c.Tokenizer.Token(id)
	}
	length := c.padded(len(tokens))
	ids, types, mask := make([]int32, length), make([]int32, length), make([]int32, length)
	for i := range ids {
		ids[i] = int32(c.Model.Config.PadID)
		if i < len(tokens) {
			ids[i], types[i], mask[i] = encoding.IDs[i], encoding.TypeIDs[i], 1
		}
	}
	flat, err := c.weights(ctx, ids, types, mask)
	if err != nil {
		return interpret.AttentionMap{}, fmt.Errorf("reading attention: %w", err)
	}
	return interpret.MapAttention(tokens, c.Model.Config.Attention.Heads, length, flat), nil
}

// weights computes the attention weights of a row, flat [layers, heads, length, length].
func (c *Classifier) weights(ctx context.Context, ids, types, mask []int32) (flat []float32, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attentions == nil {
		config := c.Model.Config
		c.attentions, err = model.NewExec(c.backend, c.Model.Store, func(scope *model.Scope, in []*graph.Node) *graph.Node {
			encoded := config.Encode(elastic.WeightsOf(scope.Store(), in[0].Graph()), transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]}, nil)
			return graph.Stack(encoded.Attentions, 0) // [layers, 1, heads, length, length]
		})
		if err != nil {
			return nil, err
		}
		c.attentions.SetMaxCache(-1)
	}
	row := func(values []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(values, 1, len(values)) }
	var failure error
	err = exceptions.TryCatch[error](func() {
		var outputs []*tensors.Tensor
		if outputs, failure = c.attentions.Call(row(ids), row(types), row(mask)); failure == nil {
			flat, failure = tensors.CopyFlatData[float32](outputs[0])
			outputs[0].MustFinalizeAll()
		}
	})
	return flat, errors.Join(err, failure)
}

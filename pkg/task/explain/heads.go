package explain

import (
	"context"
	"errors"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Head says what one attention head is for, over a set of labelled examples.
type Head struct {
	Layer int `json:"layer"` // from 0
	Head  int `json:"head"`  // from 0
	// Importance is the mean |∂loss/∂gate| over examples, the loss being the mean cross-entropy
	// of an example's labels; see [interpret.Heads].
	Importance float64 `json:"importance"`
	// Removal is by how much that loss grows without the head; 0 if it was not asked for.
	Removal float64 `json:"removal,omitempty"`
	// Profile has the means of [interpret.Features], but for the count.
	Profile map[string]float64 `json:"profile"`
}

// Heads judges all heads on labelled examples, layer by layer; of a model whose head pools, the
// label is that of the first token. With removal it also removes each in turn, which takes
// layers·heads forward passes an example. Progress, if not nil, is told how many passes over the
// examples of how many are done.
func (x *Explainer) Heads(ctx context.Context, examples []batch.Example, removal bool, progress func(done, total int)) ([]Head, error) {
	if len(examples) == 0 {
		return nil, errors.New("judging heads: there is no example")
	}
	total := 2
	if removal {
		total = 3
	}
	done := func(n int) {
		if progress != nil {
			progress(n, total)
		}
	}
	// One example at a time, so that each has a gradient of its own and none is padding only.
	var batches [][]*tensors.Tensor
	for _, e := range examples {
		length := x.Length(len(e.IDs))
		r := x.rows([]Example{{IDs: e.IDs, TypeIDs: e.TypeIDs}}, length)
		batches = append(batches, []*tensors.Tensor{r.ids, r.types, r.mask, tensor(padded(e.Labels, loss.Ignored, length), 1, length)})
	}
	config := x.Model.Config
	profiles, err := x.profiles(ctx, batches)
	if err != nil {
		return nil, err
	}
	done(1)
	judge := interpret.Heads{
		Backend: x.Backend, Store: x.Model.Store, Layers: config.Layers, Heads: config.Attention.Heads,
		Loss: func(w elastic.Weights, gates *graph.Node, in []*graph.Node) *graph.Node {
			_, logits := x.encode(x.weights(w), transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2], HeadGates: gates})
			labels := in[3]
			if x.pools() {
				labels = graph.Squeeze(graph.Slice(labels, graph.AxisRange(), graph.AxisElem(0)), 1)
			}
			sum, count := loss.CrossEntropy(logits, labels)
			return graph.InsertAxes(graph.Div(sum, graph.MaxScalar(count, 1)), 0) // [1]
		},
	}
	importance, err := judge.Importance(ctx, slices.Values(batches))
	if err != nil {
		return nil, err
	}
	done(2)
	var removed [][]float64
	if removal {
		if removed, err = judge.Removal(ctx, slices.Values(batches)); err != nil {
			return nil, err
		}
		done(3)
	}
	var list []Head
	for layer := range config.Layers {
		for head := range config.Attention.Heads {
			h := Head{Layer: layer, Head: head, Importance: importance[layer][head], Profile: profiles[layer][head]}
			if removal {
				h.Removal = removed[layer][head]
			}
			list = append(list, h)
		}
	}
	return list, nil
}

// profiles returns the mean features of each head of each layer.
func (x *Explainer) profiles(ctx context.Context, batches [][]*tensors.Tensor) ([][]map[string]float64, error) {
	config, features := x.Model.Config, len(interpret.Features)
	heads := config.Attention.Heads
	sums := make([]float64, config.Layers*heads*features)
	for _, b := range batches {
		out, err := x.look(ctx, "profiles of heads", func(w elastic.Weights, in []*graph.Node) []*graph.Node {
			encoded := config.Encode(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2]}, nil)
			var layers []*graph.Node
			for _, weights := range encoded.Attentions {
				layers = append(layers, interpret.Profile(weights, in[2]))
			}
			return []*graph.Node{graph.Stack(layers, 0)} // [layers, heads, features]
		}, b[:3]...)
		if err != nil {
			return nil, err
		}
		for i, v := range out[0] {
			sums[i] += float64(v)
		}
	}
	profiles := make([][]map[string]float64, config.Layers)
	for layer := range profiles {
		for head := range heads {
			own := sums[(layer*heads+head)*features : (layer*heads+head+1)*features]
			means := map[string]float64{}
			for i, name := range interpret.Features[:features-1] {
				means[name] = own[i] / own[features-1]
			}
			profiles[layer] = append(profiles[layer], means)
		}
	}
	return profiles, nil
}

// Attention returns the attention weights of all layers and heads for the tokens of a text, which is
// padded to a length. Names tells what tokens are called.
func (x *Explainer) Attention(ctx context.Context, ids, types []int32, length int, names func(id int32) string) (interpret.AttentionMap, error) {
	config := x.Model.Config
	r := x.rows([]Example{{IDs: ids, TypeIDs: types}}, length)
	inputs := []*tensors.Tensor{r.ids, r.types, r.mask}
	if length == len(ids) {
		inputs = inputs[:2]
	}
	out, err := x.look(ctx, "attention weights", func(w elastic.Weights, in []*graph.Node) []*graph.Node {
		text := transformer.Inputs{IDs: in[0], Types: in[1]}
		if len(in) > 2 {
			text.Mask = in[2]
		}
		return []*graph.Node{graph.Stack(config.Encode(w, text, nil).Attentions, 0)} // [layers, 1, heads, length, length]
	}, inputs...)
	if err != nil {
		return interpret.AttentionMap{}, err
	}
	tokens := make([]string, len(ids))
	for i, id := range ids {
		tokens[i] = names(id)
	}
	return interpret.MapAttention(tokens, config.Attention.Heads, length, out[0]), nil
}

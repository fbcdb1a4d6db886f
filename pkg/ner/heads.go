package ner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// Head says what one attention head is for, over a set of labelled sentences.
type Head struct {
	Layer int `json:"layer"` // from 0
	Head  int `json:"head"`  // from 0
	// Importance is the mean |∂loss/∂gate| over sentences, the loss being the mean
	// cross-entropy of a sentence's words; see [interpret.Heads].
	Importance float64 `json:"importance"`
	// Removal is by how much that loss grows without the head; 0 if it was not asked for.
	Removal float64 `json:"removal,omitempty"`
	// Profile has the means of [interpret.Features], but for the count.
	Profile map[string]float64 `json:"profile"`
}

// Heads judges all heads on labelled sentences, layer by layer. With removal it also
// removes each in turn, which takes layers·heads forward passes a sentence. Progress, if not
// nil, is told how many passes over the sentences of how many are done.
func (t *Tagger) Heads(ctx context.Context, sentences []data.Sentence, removal bool, progress func(done, total int)) ([]Head, error) {
	if err := t.labels.coverAll(sentences); err != nil {
		return nil, err
	}
	examples, err := t.Examples(sentences)
	if err != nil {
		return nil, err
	}
	if len(examples) == 0 {
		return nil, errors.New("judging heads: there is no sentence")
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
	// One sentence at a time, so that each has a gradient of its own and none is padding only.
	var batches [][]*tensors.Tensor
	for _, e := range examples {
		length := t.padded(len(e.IDs))
		fill := func(values []int32, with int32) *tensors.Tensor {
			return tensors.FromFlatDataAndDimensions(append(slices.Clone(values), slices.Repeat([]int32{with}, length-len(values))...), 1, length)
		}
		mask := slices.Repeat([]int32{1}, len(e.IDs))
		batches = append(batches, []*tensors.Tensor{fill(e.IDs, int32(t.Model.Config.PadID)), fill(e.TypeIDs, 0), fill(mask, 0), fill(e.Labels, Ignore)})
	}
	config := t.Model.Config
	profiles, err := t.profiles(ctx, batches)
	if err != nil {
		return nil, err
	}
	done(1)
	judge := interpret.Heads{
		Backend: t.backend, Store: t.Model.Store, Layers: config.Layers, Heads: config.Attention.Heads,
		Loss: func(w elastic.Weights, gates *graph.Node, in []*graph.Node) *graph.Node {
			encoded := config.Encode(w, transformer.Inputs{IDs: in[0], Types: in[1], Mask: in[2], HeadGates: gates}, nil)
			sum, count := loss.CrossEntropy(config.HeadLogits(w, encoded.Hidden, nil), in[3])
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
func (t *Tagger) profiles(ctx context.Context, batches [][]*tensors.Tensor) ([][]map[string]float64, error) {
	config, features := t.Model.Config, len(interpret.Features)
	heads := config.Attention.Heads
	sums := make([]float64, config.Layers*heads*features)
	for _, b := range batches {
		out, err := t.look(ctx, "profiles of heads", func(w elastic.Weights, in []*graph.Node) []*graph.Node {
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

// Attention returns the attention weights of all layers and heads for a text. A text with
// more tokens than the model has positions is an error.
func (t *Tagger) Attention(ctx context.Context, text string) (interpret.AttentionMap, error) {
	if !utf8.ValidString(text) {
		return interpret.AttentionMap{}, errors.New("the text is not UTF-8: convert it first")
	}
	words, _ := Words(text)
	if len(words) == 0 {
		return interpret.AttentionMap{}, errors.New("the text has no words")
	}
	config := t.Model.Config
	_, parts, err := t.cut(words, config.MaxLength())
	if err != nil {
		return interpret.AttentionMap{}, err
	}
	if len(parts) != 1 {
		return interpret.AttentionMap{}, fmt.Errorf("the text has more tokens than the model has positions for, %d", config.MaxLength())
	}
	encoding := parts[0].encoding
	n := len(encoding.IDs)
	out, err := t.look(ctx, "attention weights", func(w elastic.Weights, in []*graph.Node) []*graph.Node {
		return []*graph.Node{graph.Stack(config.Encode(w, transformer.Inputs{IDs: in[0], Types: in[1]}, nil).Attentions, 0)} // [layers, 1, heads, n, n]
	}, tensors.FromFlatDataAndDimensions(slices.Clone(encoding.IDs), 1, n), tensors.FromFlatDataAndDimensions(slices.Clone(encoding.TypeIDs), 1, n))
	if err != nil {
		return interpret.AttentionMap{}, err
	}
	tokens := make([]string, n)
	for i, id := range encoding.IDs {
		tokens[i] = t.Tokenizer.Token(id)
	}
	return interpret.MapAttention(tokens, config.Attention.Heads, n, out[0]), nil
}

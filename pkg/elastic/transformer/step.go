package transformer

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// decoding returns the attention among tokens of the model that is computed step by step, its
// number of layers, and its weights: the decoder's, or those of a model that is only one.
func (c Config) decoding(w elastic.Weights) (attention.Spec, int, elastic.Weights) {
	if c.Decoder != nil {
		return c.Decoder.Attention, c.Decoder.Layers, w.In("decoder")
	}
	return c.Attention, c.Layers, w
}

// Slots returns how many slots [NewCaches] needs so that steps of at most tokens tokens, up to a
// text of length tokens, give what one pass gives. It fails for a model that cannot be
// computed step by step: one whose tokens see later ones, and one whose layers mix
// ([ACT]).
func (c Config) Slots(length, tokens int) (int, error) {
	if length > c.MaxLength() {
		return 0, fmt.Errorf("a text of %d tokens: the model has positions for %d", length, c.MaxLength())
	}
	if c.Depth != nil && c.Depth.Kind == ACT {
		return 0, fmt.Errorf("depth.kind %q is not computed step by step", ACT)
	}
	spec, _, _ := c.decoding(elastic.Weights{})
	return spec.Slots(length, tokens)
}

// NewCaches returns empty caches, one a layer, for a batch; see [attention.Cache] and
// [Config.Slots].
func (c Config) NewCaches(g *Graph, dtype dtypes.DType, batch, slots int) []attention.Cache {
	spec, layers, _ := c.decoding(elastic.Weights{})
	caches := make([]attention.Cache, layers)
	for i := range caches {
		caches[i] = attention.NewCache(g, dtype, spec, c.Hidden, batch, slots)
	}
	return caches
}

// Step computes the next tokens of a text: ids int32 [batch, tokens], of which the first has
// the given position, an int32 scalar. It returns their hidden states [batch, tokens,
// hidden], which the head reads, and the caches with them in it. Memory is that of an
// encoder–decoder, from [Config.Remember], and nothing for others.
//
//	caches := config.NewCaches(g, dtypes.Float32, batch, slots)
//	hidden, caches := config.Step(w, ids, position, caches, transformer.Memory{})
//	logits := config.HeadLogits(w, hidden, nil)
//
// The caches' fields are nodes: a graph for one step takes them as inputs and returns the new
// ones. All rows of the batch are at the same position, and have no padding.
func (c Config) Step(w elastic.Weights, ids, position *Node, caches []attention.Cache, memory Memory) (*Node, []attention.Cache) {
	spec, layers, own := c.decoding(w)
	if len(caches) != layers || c.Decoder != nil && len(memory.Keys) != layers {
		exceptions.Panicf("a step of %d layers got %d caches and a memory of %d", layers, len(caches), len(memory.Keys))
	}
	positions := Add(Iota(ids.Graph(), shapes.Make(dtypes.Int32, 1, ids.Shape().Dimensions[1]), 1), position) // [1, tokens]
	in := Inputs{IDs: ids, Positions: BroadcastToDims(positions, ids.Shape().Dimensions...), decoder: c.Decoder != nil}
	x := c.embed(w, own.In("embeddings"), in, nil)
	fresh := make([]attention.Cache, layers)
	for i := range layers {
		layer := own.Layer(i)
		var attended attention.Result
		x = c.residual(layer.In("attention").In("norm"), x, path{}, func(x *Node) *Node {
			attended, fresh[i] = attention.Step(spec, layer.In("attention"), x, caches[i], position, attention.Inputs{})
			return attended.Output
		})
		if c.Decoder != nil {
			x, _ = c.cross(layer.In("cross"), i, x, memory, positions, path{})
		}
		x = c.feedForward(layer.In("feed_forward"), x, path{}, &attended)
	}
	return c.finish(own, x), fresh
}

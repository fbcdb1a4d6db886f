package transformer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Decoder describes the decoder of an encoder–decoder. A block attends to the tokens before
// it, then to the encoder's output, the memory, and has a feed-forward part; each with the
// encoder's norm order. Words are the encoder's; positions and normalisations are its own.
//
// Source: Vaswani et al. 2017, section 3.1; Lewis et al. 2020, "BART".
type Decoder struct {
	// Layers is the number of blocks.
	Layers int `json:"layers"`
	// FeedForward is the width inside the feed-forward parts; 0 means the encoder's.
	FeedForward int `json:"feed_forward,omitempty"`
	// Attention describes the attention among the decoder's own tokens; it must be one that
	// can be computed step by step: with a mask that hides later tokens, one text a row.
	Attention attention.Spec `json:"attention"`
	// Cross describes the attention to the memory. Positions of queries are those of the
	// decoder, positions of keys those of the encoder, both from 0.
	Cross attention.Spec `json:"cross"`
}

func (d Decoder) validate(c Config) error {
	var problems []error
	add := func(err error) {
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				problems = append(problems, fmt.Errorf("decoder.%s", strings.TrimSuffix(line, "\n")))
			}
		}
	}
	if d.Layers < 1 {
		add(fmt.Errorf("layers is %d, want at least 1", d.Layers))
	}
	if d.FeedForward < 0 {
		add(fmt.Errorf("feed_forward is %d, want at least 1, or 0 for the encoder's", d.FeedForward))
	}
	if c.Hidden > 0 {
		add(d.Attention.Validate(c.Hidden))
		if c.MaxPositions > 0 {
			_, err := d.Attention.Slots(c.MaxPositions, 1)
			add(err)
		}
		if err := d.Cross.Validate(c.Hidden); err != nil {
			add(errors.New(strings.ReplaceAll("\n"+err.Error(), "\nattention.", "\ncross.")[1:]))
		}
	}
	return errors.Join(problems...)
}

// DecoderFeedForward returns the width inside the feed-forward parts of the decoder.
func (c Config) DecoderFeedForward() int { return cmp.Or(c.Decoder.FeedForward, c.FeedForward) }

// variables lists the weights, with paths relative to /decoder.
func (d Decoder) variables(c Config) []elastic.Variable {
	list := []elastic.Variable{c.table("embeddings/position", c.MaxPositions)}
	list = append(list, c.normVariables("embeddings/norm", PostNorm)...)
	for i := range d.Layers {
		layer := fmt.Sprintf("layer_%d", i)
		list = slices.Concat(list,
			elastic.Under(layer+"/attention", d.Attention.Variables(c.Hidden, c.InitStd)),
			elastic.Under(layer+"/attention/norm", elastic.NormVariables(c.Hidden)),
			elastic.Under(layer+"/cross", d.Cross.Variables(c.Hidden, c.InitStd)),
			elastic.Under(layer+"/cross/norm", elastic.NormVariables(c.Hidden)),
			elastic.Under(layer+"/feed_forward", c.feedForwardVariables(c.DecoderFeedForward())))
	}
	return append(list, c.normVariables("norm", PreNorm)...)
}

// Memory is an encoder's output as the decoder's cross-attention reads it: keys and values of
// each layer, computed once for all steps.
type Memory struct {
	Keys   []*Node // of each layer, [batch, length, key heads, key width]
	Values []*Node // of each layer, [batch, length, key heads, value width]
	Mask   *Node   // int32 [batch, length]: 1 for a token, 0 for padding; nil means all 1
}

// Remember computes the memory of an encoder's hidden states [batch, length, hidden].
func (c Config) Remember(w elastic.Weights, hidden, mask *Node) Memory {
	m := Memory{Mask: mask}
	for i := range c.Decoder.Layers {
		cross := w.In("decoder").Layer(i).In("cross")
		sizes, width := c.Decoder.crossSizes(c.Hidden)
		m.Keys = append(m.Keys, heads4(elastic.Dense(cross.In("key"), hidden), sizes.KVHeads, width))
		m.Values = append(m.Values, heads4(elastic.Dense(cross.In("value"), hidden), sizes.KVHeads, sizes.ValueDim))
	}
	return m
}

// crossSizes returns the sizes of cross-attention and the width of a query or key.
func (d Decoder) crossSizes(hidden int) (attention.Sizes, int) {
	sizes := d.Cross.Sizes(hidden)
	if d.Cross.Differential != nil {
		return sizes, 2 * sizes.HeadDim
	}
	return sizes, sizes.HeadDim
}

// heads4 parts the last axis of x [b, l, heads·width] into heads, [b, l, heads, width].
func heads4(x *Node, heads, width int) *Node {
	dims := x.Shape().Dimensions
	return Reshape(x, dims[0], dims[1], heads, width)
}

// Decode computes the decoder of an encoder–decoder on its own tokens, all at once, as in
// training: Hidden is what the head reads. In.Mask marks padding among them; documents are
// not known to it.
func (c Config) Decode(w elastic.Weights, in Inputs, memory Memory, drop *dropout.Source) Output {
	in.decoder = true
	own := w.In("decoder")
	x := c.embed(w, own.In("embeddings"), in, drop)
	seen := in.attention(drop)
	out := Output{States: []*Node{x}}
	for i := range c.Decoder.Layers {
		layer, p := own.Layer(i), c.path(i, c.Decoder.Layers, drop, seen.QueryDocuments)
		var attended, crossed attention.Result
		x = c.residual(layer.In("attention").In("norm"), w.Checkpoint(x), p, func(x *Node) *Node {
			attended = attention.Self(c.Decoder.Attention, layer.In("attention"), x, seen)
			return attended.Output
		})
		x, crossed = c.cross(layer.In("cross"), i, x, memory, numbered(x, 0), p)
		x = c.feedForward(layer.In("feed_forward"), x, p, &attended)
		if i == c.Decoder.Layers-1 {
			x = w.StopCheckpoint(c.finish(own, x))
		}
		out.block(x, attended)
		out.Crosses = append(out.Crosses, crossed.Weights)
		out.Penalty = elastic.AddIf(out.Penalty, crossed.Penalty)
	}
	out.Hidden = x
	return out
}

// cross computes the attention of the i-th block to the memory, in its residual.
func (c Config) cross(w elastic.Weights, i int, x *Node, memory Memory, positions *Node, p path) (*Node, attention.Result) {
	sizes, width := c.Decoder.crossSizes(c.Hidden)
	in := attention.Inputs{QueryPositions: positions, KeyPositions: numbered(memory.Keys[i], 0), Drop: p.drop}
	if memory.Mask != nil {
		in.Mask = InsertAxes(NotEqual(memory.Mask, ZerosLike(memory.Mask)), 1, 1)
	}
	var r attention.Result
	x = c.residual(w.In("norm"), x, p, func(x *Node) *Node {
		in.X = x
		r = attention.Attend(c.Decoder.Cross, w, heads4(elastic.Dense(w.In("query"), x), sizes.Heads, width), memory.Keys[i], memory.Values[i], in)
		dims := r.Output.Shape().Dimensions
		return elastic.Dense(w.In("output"), Reshape(r.Output, dims[0], dims[1], dims[2]*dims[3]))
	})
	return x, r
}

// numbered returns the positions first, first+1, … of axis 1 of x, int32 [1, length].
func numbered(x *Node, first int) *Node {
	return AddScalar(Iota(x.Graph(), shapes.Make(dtypes.Int32, 1, x.Shape().Dimensions[1]), 1), first)
}

// Package transformer defines one configurable transformer encoder in GoMLX.
//
// A [Config] says everything about a model: sizes, attention, head. [New] makes one
// with fresh weights; package pretrained makes one from a published checkpoint. The
// graph functions [Config.Encode] and [Config.Logits] compute with it:
//
//	inputs   token ids, token types, mask       int32 [batch, length]
//	embed    word + position + type, LayerNorm  [batch, length, hidden]
//	blocks   x = LayerNorm(x + attention(x))
//	         x = LayerNorm(x + W₂·act(W₁·x))
//	head     logits
//
// Blocks are post-norm, as in BERT.
//
// Source: Vaswani et al. 2017, "Attention is all you need"; Devlin et al. 2019,
// "BERT: Pre-training of deep bidirectional transformers".
package transformer

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Inputs is what an encoder reads; all have the shape [batch, length] and are int32.
type Inputs struct {
	IDs   *Node // token ids
	Types *Node // token types; nil means all 0
	Mask  *Node // 1 for a token, 0 for padding; nil means all 1

	// Documents, in place of Mask, lets several texts share a row: tokens attend only to
	// tokens with the same number, and 0 is padding. Positions, which go with it, count
	// from 0 in each text.
	Documents *Node
	Positions *Node

	// Words, [batch, length, hidden], takes the place of the word embeddings of IDs, which
	// then say only where padding is. Explanations move it.
	Words *Node
	// HeadGates, [batch or 1, layers, heads], multiply what each head gives; nil leaves all
	// as they are. See package interpret.
	HeadGates *Node
}

// mask returns where attention is allowed, in a shape that broadcasts to
// [batch, heads, queries, keys], or nil for everywhere.
func (in Inputs) mask() *Node {
	switch {
	case in.Documents != nil:
		length := in.Documents.Shape().Dimensions[1]
		queries := InsertAxes(in.Documents, 1, -1) // [b, 1, q, 1]
		keys := InsertAxes(in.Documents, 1, 1)     // [b, 1, 1, k]
		dims := []int{in.Documents.Shape().Dimensions[0], 1, length, length}
		queries, keys = BroadcastToDims(queries, dims...), BroadcastToDims(keys, dims...)
		return LogicalAnd(Equal(queries, keys), NotEqual(keys, ZerosLike(keys)))
	case in.Mask != nil:
		return InsertAxes(NotEqual(in.Mask, ZerosLike(in.Mask)), 1, 1)
	}
	return nil
}

// documents returns which text of its row each token belongs to, [batch, length]; a row
// that is one text has 1 for tokens and 0 for padding, as its mask.
func (in Inputs) documents() *Node {
	switch {
	case in.Documents != nil:
		return in.Documents
	case in.Mask != nil:
		return in.Mask
	}
	return OnesLike(in.IDs)
}

// headGates returns those of a layer, [batch or 1, heads], or nil.
func (in Inputs) headGates(layer int) *Node {
	if in.HeadGates == nil {
		return nil
	}
	return Squeeze(Slice(in.HeadGates, AxisRange(), AxisElem(layer)), 1)
}

// Output is what an encoder computes.
type Output struct {
	// Hidden is the last layer's output [batch, length, hidden].
	Hidden *Node
	// States holds the embeddings' output and each block's, Layers+1 in all, each
	// [batch, length, hidden].
	States []*Node
	// Attentions holds each block's attention weights [batch, heads, queries, keys].
	Attentions []*Node
	// Losses holds what the parts of each block's attention report; see attention.Result.
	Losses []map[string]*Node
	// Penalty is what those cost, to be added to the training loss; nil if they cost nothing.
	Penalty *Node
}

// Encode computes the encoder. A nil drop source means evaluation.
func (c Config) Encode(w elastic.Weights, in Inputs, drop *dropout.Source) Output {
	x := c.embed(w.In("embeddings"), in, drop)
	mask, documents := in.mask(), in.documents()
	out := Output{States: []*Node{x}}
	for i := range c.Layers {
		layer := w.Layer(i)

		attended := attention.Self(c.Attention, layer.In("attention"), x, attention.Inputs{
			Mask: mask, Drop: drop, QueryPositions: in.Positions, KeyPositions: in.Positions, QueryDocuments: documents, KeyDocuments: documents,
			HeadGates: in.headGates(i),
		})
		x = Add(x, drop.Apply(attended.Output, c.Dropout))
		x = elastic.LayerNorm(layer.In("attention").In("norm"), x, c.NormEpsilon)

		ff := layer.In("feed_forward")
		y := activations[c.Activation](elastic.Dense(ff.In("inner"), x)) // [b, l, feed_forward]
		y = elastic.Dense(ff.In("outer"), y)                             // [b, l, hidden]
		x = Add(x, drop.Apply(y, c.Dropout))
		x = elastic.LayerNorm(ff.In("norm"), x, c.NormEpsilon)

		out.States = append(out.States, x)
		out.Attentions = append(out.Attentions, attended.Weights)
		out.Losses = append(out.Losses, attended.Losses)
		out.Penalty = elastic.AddIf(out.Penalty, attended.Penalty)
	}
	out.Hidden = x
	return out
}

func (c Config) embed(w elastic.Weights, in Inputs, drop *dropout.Source) *Node {
	if in.IDs.Rank() != 2 || in.IDs.DType() != dtypes.Int32 {
		exceptions.Panicf("token ids must be int32 [batch, length], got %s", in.IDs.Shape())
	}
	length := in.IDs.Shape().Dimensions[1]
	if length > c.MaxLength() {
		exceptions.Panicf("input has %d tokens, the model has positions for %d", length, c.MaxLength())
	}
	pad := Equal(in.IDs, FillScalar(in.IDs.Graph(), in.IDs.Shape(), float64(c.PadID)))
	x := in.Words // [b, l, hidden]
	if x == nil {
		x = withoutGradient(Gather(w.At("word"), InsertAxes(in.IDs, -1)), pad)
	}

	switch {
	case in.Positions != nil:
		positions := in.Positions
		if c.PositionsFromPad {
			positions = AddScalar(positions, int32(c.PadID+1))
		}
		x = Add(x, Gather(w.At("position"), InsertAxes(positions, -1)))
	case c.PositionsFromPad:
		real := ConvertDType(LogicalNot(pad), dtypes.Int32)
		positions := AddScalar(Mul(CumSum(real, 1), real), int32(c.PadID))
		x = Add(x, withoutGradient(Gather(w.At("position"), InsertAxes(positions, -1)), pad))
	default:
		x = Add(x, InsertAxes(Slice(w.At("position"), AxisRange(0, length)), 0))
	}

	if c.TypeVocab > 0 {
		types := in.Types
		if types == nil {
			types = ZerosLike(in.IDs)
		}
		x = Add(x, Gather(w.At("type"), InsertAxes(types, -1)))
	}
	x = elastic.LayerNorm(w.In("norm"), x, c.NormEpsilon)
	return drop.Apply(x, c.Dropout)
}

// withoutGradient returns x [b, l, hidden], through which no gradient passes where stop
// [b, l] is true: the embeddings of padding are not trained, as with PyTorch's padding_idx.
func withoutGradient(x, stop *Node) *Node {
	return IdentityWithCustomGradient(x, func(_, gradient *Node) *Node {
		return Where(stop, ZerosLike(gradient), gradient)
	})
}

// activations maps the kinds that Config.Activation may name to their functions.
var activations = map[string]func(x *Node) *Node{
	"gelu":      gelu,
	"gelu_tanh": geluTanh,
	"relu":      func(x *Node) *Node { return Max(x, ZerosLike(x)) },
	"tanh":      Tanh,
}

// gelu computes x·Φ(x) exactly, Φ(x) = (1 + erf(x/√2)) / 2.
//
// Source: Hendrycks, Gimpel 2016, "Gaussian error linear units".
func gelu(x *Node) *Node {
	return Mul(MulScalar(x, 0.5), OnePlus(Erf(MulScalar(x, 1/math.Sqrt2))))
}

// geluTanh is gelu with Φ approximated by tanh, as in section 2 of the same paper.
func geluTanh(x *Node) *Node {
	inner := MulScalar(Add(x, MulScalar(Mul(x, Square(x)), 0.044715)), math.Sqrt(2/math.Pi))
	return Mul(MulScalar(x, 0.5), OnePlus(Tanh(inner)))
}

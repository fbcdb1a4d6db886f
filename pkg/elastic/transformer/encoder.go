// Package transformer defines one configurable transformer in GoMLX.
//
// A [Config] says everything about a model: sizes, attention, structure, head. [New] makes
// one with fresh weights; package pretrained makes one from a published checkpoint. The
// graph functions [Config.Encode] and [Config.Logits] compute with it:
//
//	inputs   token ids, token types, mask       int32 [batch, length]
//	embed    word + position + type, LayerNorm  [batch, length, hidden]
//	blocks   x = LayerNorm(x + attention(x))
//	         x = LayerNorm(x + W₂·act(W₁·x))
//	head     logits
//
// Blocks are post-norm, as in BERT, or pre-norm, as in GPT-2 ([Config].NormOrder). Three
// fields make the structure elastic: [Depth] computes as many layers as an input needs,
// [Experts] has several feed-forward parts of which each token uses a few, and [Decoder]
// adds a decoder that attends to the encoder ([Config.Decode]). [Config.Step] computes a
// causal model token by token with a cache; [Runner] computes layer by layer and stops early.
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
	// tokens with the same number, 1 to length, and 0 is padding. Positions, which go with it, count
	// from 0 in each text.
	Documents *Node
	Positions *Node

	// Words, [batch, length, hidden], takes the place of the word embeddings of IDs, which
	// then say only where padding is. Explanations move it.
	Words *Node
	// HeadGates, [batch or 1, layers, heads], multiply what each head gives; nil leaves all
	// as they are. See package interpret.
	HeadGates *Node

	decoder bool // the inputs are those of a decoder, which has no token types
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

// The kinds that Config.NormOrder may name.
const (
	// PostNorm normalises after each sum, x = LayerNorm(x + f(x)), and after the embeddings.
	PostNorm = "post"
	// PreNorm normalises before each part, x = x + f(LayerNorm(x)), and after the last block.
	//
	// Source: Radford et al. 2019, "Language models are unsupervised multitask learners",
	// section 2.3; Xiong et al. 2020, "On layer normalization in the transformer architecture".
	PreNorm = "pre"
)

// NormOrders lists the kinds that Config.NormOrder may name, sorted.
func NormOrders() []string { return []string{PostNorm, PreNorm} }

func (c Config) normOrder() string {
	if c.NormOrder == "" {
		return PostNorm
	}
	return c.NormOrder
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
	// Hidden is the output [batch, length, hidden]: the last of States, or with adaptive
	// computation time the mixture of them.
	Hidden *Node
	// States holds the embeddings' output and each block's, Layers+1 in all, each
	// [batch, length, hidden]. The last is normalised, also in a pre-norm model.
	States []*Node
	// Attentions holds each block's attention weights [batch, heads, queries, keys]; virtual
	// tokens of an adapter are the first keys.
	Attentions []*Node
	// Crosses holds those of each decoder block to the encoder's output.
	Crosses []*Node
	// Losses holds what the parts of each block report: those of attention, see
	// attention.Result, and those of [Experts].
	Losses []map[string]*Node
	// Halting is what adaptive computation time did; see [Depth].
	Halting Halting
	// Penalty is what all those cost, to be added to the training loss; nil if they cost nothing.
	Penalty *Node
}

// block notes what a block computed.
func (o *Output) block(x *Node, attended attention.Result) {
	o.States = append(o.States, x)
	o.Attentions = append(o.Attentions, attended.Weights)
	o.Losses = append(o.Losses, attended.Losses)
	o.Penalty = elastic.AddIf(o.Penalty, attended.Penalty)
}

// Encode computes the encoder. A nil drop source means evaluation.
func (c Config) Encode(w elastic.Weights, in Inputs, drop *dropout.Source) Output {
	in, virtual := c.withVirtual(w, c.withNoise(in, drop))
	x := c.embed(w, w.In("embeddings"), in, drop)
	seen := in.attention(drop)
	out := Output{States: []*Node{x}}
	for i := range c.Layers {
		var attended attention.Result
		seen.HeadGates = in.headGates(i)
		x, attended = c.layer(w, i, w.Checkpoint(x), seen)
		if i == c.Layers-1 {
			x = w.StopCheckpoint(x)
		}
		out.block(x, attended)
	}
	out.Hidden = x
	if c.Depth != nil && c.Depth.Kind == ACT {
		c.Depth.halt(w, in, &out)
	}
	return out.withoutVirtual(virtual)
}

// attention returns what the attention of every block reads.
func (in Inputs) attention(drop *dropout.Source) attention.Inputs {
	documents := in.documents()
	return attention.Inputs{
		Mask: in.mask(), Drop: drop, QueryPositions: in.Positions, KeyPositions: in.Positions, QueryDocuments: documents, KeyDocuments: documents,
	}
}

// layer computes the i-th block. What its feed-forward part reports is with what its
// attention does.
func (c Config) layer(w elastic.Weights, i int, x *Node, in attention.Inputs) (*Node, attention.Result) {
	layer := w.Layer(i)
	p := c.path(i, c.Layers, in.Drop, in.QueryDocuments)
	var attended attention.Result
	x = c.residual(layer.In("attention").In("norm"), x, p, func(x *Node) *Node {
		attended = attention.Self(c.Attention, layer.In("attention"), x, in)
		return attended.Output
	})
	x = c.feedForward(layer.In("feed_forward"), x, p, &attended)
	if i == c.Layers-1 {
		x = c.finish(w, x)
	}
	return x, attended
}

// residual adds to x [batch, length, hidden] what f makes of it, and normalises.
func (c Config) residual(norm elastic.Weights, x *Node, p path, f func(x *Node) *Node) *Node {
	if c.normOrder() == PreNorm {
		return Add(x, p.apply(p.drop.Apply(f(elastic.LayerNorm(norm, x, c.NormEpsilon)), c.Dropout)))
	}
	return elastic.LayerNorm(norm, Add(x, p.apply(p.drop.Apply(f(x), c.Dropout))), c.NormEpsilon)
}

// finish normalises the last block's output in a pre-norm model.
func (c Config) finish(w elastic.Weights, x *Node) *Node {
	if c.normOrder() == PreNorm {
		return elastic.LayerNorm(w.In("norm"), x, c.NormEpsilon)
	}
	return x
}

// feedForward computes a block's feed-forward part, dense or of experts.
func (c Config) feedForward(w elastic.Weights, x *Node, p path, r *attention.Result) *Node {
	return c.residual(w.In("norm"), x, p, func(x *Node) *Node {
		if c.Experts != nil {
			return c.Experts.mix(c, w, x, p.texts, r)
		}
		y := activations[c.Activation](elastic.Dense(w.In("inner"), x)) // [b, l, feed_forward]
		return elastic.Dense(w.In("outer"), y)                          // [b, l, hidden]
	})
}

// embed computes the sum of embeddings. The words are the whole model's, the rest is in own.
func (c Config) embed(w, own elastic.Weights, in Inputs, drop *dropout.Source) *Node {
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
		x = withoutGradient(Gather(w.In("embeddings").At("word"), InsertAxes(in.IDs, -1)), pad)
	}

	switch {
	case in.Positions != nil:
		positions := in.Positions
		if c.PositionsFromPad {
			positions = AddScalar(positions, int32(c.PadID+1))
		}
		x = Add(x, Gather(own.At("position"), InsertAxes(positions, -1)))
	case c.PositionsFromPad:
		real := ConvertDType(LogicalNot(pad), dtypes.Int32)
		positions := AddScalar(Mul(CumSum(real, 1), real), int32(c.PadID))
		x = Add(x, withoutGradient(Gather(own.At("position"), InsertAxes(positions, -1)), pad))
	default:
		x = Add(x, InsertAxes(Slice(own.At("position"), AxisRange(0, length)), 0))
	}

	if c.TypeVocab > 0 && !in.decoder {
		types := in.Types
		if types == nil {
			types = ZerosLike(in.IDs)
		}
		x = Add(x, Gather(own.At("type"), InsertAxes(types, -1)))
	}
	if c.normOrder() == PostNorm {
		x = elastic.LayerNorm(own.In("norm"), x, c.NormEpsilon)
	}
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

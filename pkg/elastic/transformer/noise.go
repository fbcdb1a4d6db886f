package transformer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Noise is what training does to whole words and whole parts of a model, beside the dropout of
// elements. Evaluation knows nothing of it, and checkpoints in the layout of Hugging Face do not hold
// it: it belongs to a recipe.
type Noise struct {
	// DropPath is the probability p that the last block's attention is left out for a text, so that
	// only the residual is, and so its feed-forward part. In block i of L, counted from 0, it is
	// p·i/(L−1). What is kept is divided by 1 minus the probability.
	//
	// Each text drops parts of its own, also where several share a row ([Inputs].Documents): what
	// a text computes does not depend on its neighbours.
	//
	// Source: Huang et al. 2016, "Deep networks with stochastic depth", with the rates and the
	// scaling of timm's drop_path_rate, which begins at 0 where the paper begins at p/L. In a decoder,
	// attention to the memory is a part of its own.
	DropPath float64 `json:"drop_path,omitempty"`
	// WordDropout is the probability that a token is replaced by Unknown before its embedding is
	// looked up. Padding and the ids in Keep are not, nor are tokens of a decoder.
	//
	// Source: Bowman et al. 2016, "Generating sentences from a continuous space", section 3.1.1.
	WordDropout float64 `json:"word_dropout,omitempty"`
	// Unknown is the id of a token that says nothing, such as [MASK] or [UNK].
	Unknown int `json:"unknown,omitempty"`
	// Keep are ids that are never replaced: special tokens.
	Keep []int `json:"keep,omitempty"`
}

// validate reports all that is wrong with n in a model.
func (n Noise) validate(c Config) error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf("noise."+format, args...)) }
	for name, p := range map[string]float64{"drop_path": n.DropPath, "word_dropout": n.WordDropout} {
		if !(p >= 0 && p < 1) {
			add("%s is %g, want 0 ≤ p < 1", name, p)
		}
	}
	for _, id := range append(slices.Clone(n.Keep), n.Unknown) {
		if id < 0 || id >= c.VocabSize {
			add("unknown and keep have the id %d, want ids below vocab_size %d", id, c.VocabSize)
		}
	}
	return errors.Join(problems...)
}

// withNoise replaces tokens of an encoder's input.
func (c Config) withNoise(in Inputs, drop *dropout.Source) Inputs {
	if c.Noise == nil || c.Noise.WordDropout == 0 || drop == nil || in.Words != nil {
		return in
	}
	g, shape := in.IDs.Graph(), in.IDs.Shape()
	uniform := drop.Uniform(shapes.Make(dtypes.Float32, shape.Dimensions...))
	dropped := LessThan(uniform, Scalar(g, dtypes.Float32, c.Noise.WordDropout))
	for _, id := range append(slices.Clone(c.Noise.Keep), c.PadID) {
		dropped = LogicalAnd(dropped, NotEqual(in.IDs, FillScalar(g, shape, float64(id))))
	}
	in.IDs = Where(dropped, FillScalar(g, shape, float64(c.Noise.Unknown)), in.IDs)
	return in
}

// path is how the parts of a block are dropped while training.
type path struct {
	drop  *dropout.Source // nil in evaluation
	rate  float64         // of the block
	texts *Node           // which text of its row each token belongs to, int32 [b, l], 0 for padding
}

// path returns that of the i-th of so many blocks.
func (c Config) path(i, layers int, drop *dropout.Source, texts *Node) path {
	p := path{drop: drop, texts: texts}
	if c.Noise != nil && layers > 1 {
		p.rate = c.Noise.DropPath * float64(i) / float64(layers-1)
	}
	return p
}

// apply returns x [b, l, hidden] with zeros in all tokens of texts that are dropped.
func (p path) apply(x *Node) *Node {
	if p.drop == nil || p.rate == 0 {
		return x
	}
	batch, length := x.Shape().Dimensions[0], x.Shape().Dimensions[1]
	each := p.drop.Uniform(shapes.Make(dtypes.Float32, batch, length+1)) // of each text that a row has room for, and padding
	keep := GreaterOrEqual(each, Scalar(x.Graph(), dtypes.Float32, p.rate))
	scale := Where(keep, FillScalar(x.Graph(), each.Shape(), 1/(1-p.rate)), ZerosLike(each))
	row := MulScalar(Iota(x.Graph(), p.texts.Shape(), 0), int32(length+1))
	scale = Gather(Reshape(scale, -1), InsertAxes(Add(row, p.texts), -1)) // [b, l]
	return Mul(x, InsertAxes(ConvertDType(StopGradient(scale), x.DType()), -1))
}

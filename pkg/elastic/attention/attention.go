// Package attention computes attention from a plain description of it.
//
// A [Spec] is data: it is part of a model's config, travels in its checkpoint, can be
// validated, compared, hashed, and changed by name:
//
//	spec := attention.Spec{Heads: 8, Mask: attention.Causal{}, Normalizer: attention.Entmax{Alpha: 1.5}}
//	plain, err := spec.Without("entmax")
//
// [Self] and [Cross] turn it into graph nodes by a fixed pipeline:
//
//	project   queries, keys, values        [batch, length, heads, width]
//	QK-norm   of queries and keys
//	rotary    turn them by their positions
//	scale     s = q·kᵀ · scale             [batch, heads, queries, keys]
//	scores    modifiers of s, in the order of the spec
//	positions biases added to s
//	mask      true where attention is allowed
//	normalise weights a; a row without any allowed key is all zero
//	span      weights beyond a head's span fade, the rest is renormalised
//	dropout   on the weights, while training
//	values    y = Σ a·v                    [batch, queries, heads, value width]
//	gates     on y, in the order of the spec
//	output    heads joined and projected   [batch, queries, hidden]
//
// Each step but the projections is a [Part]: a value with a kind, one file each. Specs in
// JSON name parts by kind; [Register] makes a caller's own known. [Execution] says how it is
// computed: by the whole matrix, or in ways that take less memory and time.
package attention

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// Inputs is what an attention layer reads beside its vectors. The zero value is one text
// a row, without padding, while evaluating.
type Inputs struct {
	// Mask is true where attention is allowed, and broadcasts to [batch, heads, queries,
	// keys]: padding, for instance. It is joined with the spec's own mask. Nil allows all.
	Mask *Node
	// QueryPositions and KeyPositions are int32 [batch or 1, length]. Nil numbers the keys
	// from 0, and the queries so that the last query has the position of the last key.
	QueryPositions, KeyPositions *Node
	// QueryDocuments and KeyDocuments are int32 [batch, length]: which of several texts in a
	// row a token belongs to. Only parts that ask for them need them; see [Document].
	QueryDocuments, KeyDocuments *Node
	// PrefixKeys and PrefixValues, [prefix, key heads, head or value width], stand before the keys
	// and values of every row: all queries see them, whatever the masks say, and they are neither
	// normalised nor turned. Their positions are 0, 1, …, so if positions are given, those of the
	// text begin behind them. [Self] and [Cross] take them from the adapter of their weights.
	PrefixKeys, PrefixValues *Node
	// Tasks is int32 [batch]: the task of each row, for parts that are conditioned on it.
	Tasks *Node
	// X is what the queries were projected from, [batch, queries, hidden]. [Self] and [Cross]
	// set it; in [Attend] only parts that read it need it.
	X *Node
	// Statistics asks for [Result.Statistics], and Rows, numbers of queries, for [Result.Rows].
	Statistics bool
	Rows       []int
	// HeadGates, [batch or 1, heads], multiply what each head of [Self], [Cross] and [Step] gives
	// before it is projected: 0 removes a head. Nil leaves all as they are.
	HeadGates *Node
	// Drop is the source of randomness while training; nil while evaluating.
	Drop *dropout.Source
}

// Result is what a layer computes.
type Result struct {
	// Output is [batch, queries, hidden]; of [Attend], [batch, queries, heads, value width].
	Output *Node
	// Weights are [batch, heads, queries, keys], from before dropout. Who uses them has the matrix
	// built, whatever the execution; of long texts rather ask for Rows or Statistics.
	Weights *Node
	// Rows are the weights of the queries that [Inputs.Rows] names, [batch, heads, rows, keys].
	Rows *Node
	// Statistics is there if [Inputs.Statistics] asks for it.
	Statistics *Statistics
	// LogSum is the logarithm of the sum of the exponentials of each row's logits, [batch, heads,
	// queries], with which partial results are merged; see [Merge]. Nil unless the execution was
	// blockwise and the normaliser is an exponential one without a span.
	LogSum *Node
	// Losses are scalars that parts report, by kind: the mean span of [Span], the expected
	// number of open gates of [HardConcrete], the imbalance of [MixtureOfHeads].
	Losses map[string]*Node
	// Penalty is the sum of the losses, each times the Penalty of its part, to be added to
	// the training loss; nil if no part has one.
	Penalty *Node
}

// Tile is what parts see: the attention matrix, or the block of it that is being
// computed, by the vectors and positions of its queries and keys.
type Tile struct {
	Sizes
	// Q and K are [batch, queries, heads, head width] and [batch, keys, key heads, head
	// width], after QK-norm and rotary, before scaling.
	Q, K *Node
	// Scale is what products of queries and keys are multiplied by.
	Scale float64
	// Inputs has positions filled in.
	Inputs
	// Allowed is the mask of spec and input joined, boolean [batch, heads, queries, keys];
	// nil allows all. Masks themselves do not see it.
	Allowed *Node

	losses  map[string]*Node
	penalty *Node
	// count returns the number of keys that each query may attend to, where Allowed does not
	// show it, [batch, heads, queries, 1].
	count func() *Node
}

// visible returns the number of keys that each query may attend to; it broadcasts to [batch,
// heads, queries, 1].
func (t *Tile) visible() *Node {
	dtype := t.Q.DType()
	switch {
	case t.count != nil:
		return t.count()
	case t.Allowed == nil:
		return Scalar(t.Q.Graph(), dtype, t.K.Shape().Dimensions[1])
	}
	return ReduceAndKeep(ConvertDType(t.Allowed, dtype), ReduceSum, -1)
}

// Report notes a scalar under a part's kind, and what a unit of it costs; see Result. Of the two maps of [Differential] the
// first reports.
func (t *Tile) Report(kind string, loss *Node, penalty float64) {
	if _, reported := t.losses[kind]; reported {
		return
	}
	t.losses[kind] = loss
	if penalty != 0 {
		t.penalty = elastic.AddIf(t.penalty, MulScalar(loss, penalty))
	}
}

// Distance returns position of query − position of key, int32 [batch or 1, 1, queries, keys].
func (t *Tile) Distance() *Node {
	return Sub(t.QueryPosition(), t.KeyPosition())
}

// QueryPosition returns the positions of queries, int32 [batch or 1, 1, queries, 1].
func (t *Tile) QueryPosition() *Node { return InsertAxes(t.QueryPositions, 1, -1) }

// KeyPosition returns the positions of keys, int32 [batch or 1, 1, 1, keys].
func (t *Tile) KeyPosition() *Node { return InsertAxes(t.KeyPositions, 1, 1) }

// shape returns [batch, heads, queries, keys].
func (t *Tile) shape() []int {
	return []int{t.Q.Shape().Dimensions[0], t.Heads, t.Q.Shape().Dimensions[1], t.K.Shape().Dimensions[1]}
}

// Self computes self-attention over x [batch, length, hidden].
//
// Source: Vaswani et al. 2017, "Attention is all you need", equation 1 and section
// 3.2.2; with biases, as in BERT.
func Self(s Spec, w elastic.Weights, x *Node, in Inputs) Result { return Cross(s, w, x, x, in) }

// Cross computes attention of x [batch, queries, hidden] to memory [batch, keys, hidden].
func Cross(s Spec, w elastic.Weights, x, memory *Node, in Inputs) Result {
	for _, n := range []*Node{x, memory} {
		if n.Rank() != 3 {
			exceptions.Panicf("attention input must be [batch, length, hidden], got %s", n.Shape())
		}
	}
	sizes := s.Sizes(x.Shape().Dimensions[2])
	q, k, v := project(s, sizes, w, x, memory)
	in.X = x
	in = in.fromAdapter(w, k, v)
	return output(w, attend(s, sizes, w, q, k, v, in), in)
}

// project computes queries of x, keys and values of memory, each [b, l, heads, width].
func project(s Spec, sizes Sizes, w elastic.Weights, x, memory *Node) (q, k, v *Node) {
	of := func(name string, from *Node, heads, width int) *Node {
		dims := from.Shape().Dimensions
		return Reshape(elastic.Dense(w.In(name), from), dims[0], dims[1], heads, width)
	}
	width := sizes.HeadDim
	if s.Differential != nil {
		width *= 2
	}
	return of("query", x, sizes.Heads, width), of("key", memory, sizes.KVHeads, width), of("value", memory, sizes.KVHeads, sizes.ValueDim)
}

// output gates the heads of a result as the input says, joins and projects them.
func output(w elastic.Weights, r Result, in Inputs) Result {
	if in.HeadGates != nil {
		r.Output = Mul(r.Output, InsertAxes(in.HeadGates, 1, -1)) // [b, q, h, d]
	}
	dims := r.Output.Shape().Dimensions
	r.Output = elastic.Dense(w.In("output"), Reshape(r.Output, dims[0], dims[1], dims[2]*dims[3]))
	return r
}

// Attend computes the pipeline between the projections: q is [batch, queries, heads,
// width], k [batch, keys, key heads, width], v [batch, keys, key heads, value width]; width
// is HeadDim, or twice that with Differential. Its output is [batch, queries, heads, value
// width].
func Attend(s Spec, w elastic.Weights, q, k, v *Node, in Inputs) Result {
	return attend(s, sizesOf(s, q, k, v), w, q, k, v, in)
}

func sizesOf(s Spec, q, k, v *Node) Sizes {
	for _, n := range []*Node{q, k, v} {
		if n.Rank() != 4 {
			exceptions.Panicf("queries, keys and values must be [batch, length, heads, width], got %s, %s, %s", q.Shape(), k.Shape(), v.Shape())
		}
	}
	sizes := Sizes{Heads: q.Shape().Dimensions[2], KVHeads: k.Shape().Dimensions[2], HeadDim: q.Shape().Dimensions[3], ValueDim: v.Shape().Dimensions[3]}
	if s.Differential != nil {
		sizes.HeadDim /= 2
	}
	if sizes.Heads != s.Heads || sizes.Heads%sizes.KVHeads != 0 || v.Shape().Dimensions[2] != sizes.KVHeads {
		exceptions.Panicf("queries %s, keys %s and values %s do not fit a spec of %d heads", q.Shape(), k.Shape(), v.Shape(), s.Heads)
	}
	return sizes
}

func attend(s Spec, sizes Sizes, w elastic.Weights, q, k, v *Node, in Inputs) Result {
	g := q.Graph()
	dims := []int{q.Shape().Dimensions[0], sizes.Heads, q.Shape().Dimensions[1], k.Shape().Dimensions[1]}
	regular := in.KeyPositions == nil && in.prefix() == 0
	if in.KeyPositions == nil {
		regular = regular && in.QueryPositions == nil
		in.KeyPositions = AddScalar(Iota(g, shapes.Make(dtypes.Int32, 1, dims[3]), 1), float64(in.prefix()))
		if in.QueryPositions == nil {
			in.QueryPositions = AddScalar(Iota(g, shapes.Make(dtypes.Int32, 1, dims[2]), 1), float64(in.prefix()+dims[3]-dims[2]))
		}
	} else if in.QueryPositions == nil {
		exceptions.Panicf("attention input has positions of keys and none of queries")
	}
	q, k = prepare(s, w, q, k, in.QueryPositions, in.KeyPositions)
	k, v, in = in.prepend(k, v)
	return pipeline(s, sizes, w, q, k, v, in, regular)
}

// prepare normalises queries and keys and turns them by their positions.
func prepare(s Spec, w elastic.Weights, q, k, queryPositions, keyPositions *Node) (*Node, *Node) {
	if s.QKNorm != nil {
		q, k = s.QKNorm.apply(w.In(s.QKNorm.Kind()), q, k)
	}
	if s.Rotary != nil {
		q, k = s.Rotary.Apply(q, queryPositions), s.Rotary.Apply(k, keyPositions)
	}
	return q, k
}

// pipeline is the rest from prepared queries and keys, with positions in the input.
func pipeline(s Spec, sizes Sizes, w elastic.Weights, q, k, v *Node, in Inputs, regular bool) Result {
	j := job{spec: s, sizes: sizes, weights: w, q: q, k: k, v: v, in: in, regular: regular}
	// The matrix is built in any case: its nodes cost nothing if the result's weights are not used.
	weights, t := j.matrix()
	var y, logSum *Node // [b, q, h, d], [b, h, q]
	if kind := j.choose(); kind == Naive {
		y = w.Product(heads, t.Inputs.Drop.Apply(weights, s.Dropout), v)
	} else {
		y, logSum = j.run(kind)
	}
	if s.Differential != nil {
		y = s.Differential.norm(w.In(s.Differential.Kind()), y)
	}
	for _, gate := range s.Gates {
		y = gate.Gate(t, w.In(gate.Kind()), y)
	}
	result := Result{Output: y, Weights: weights, LogSum: logSum, Losses: t.losses, Penalty: t.penalty}
	if in.Statistics {
		result.Statistics = j.statistics()
	}
	if len(in.Rows) > 0 {
		result.Rows = j.rowsOf(in.Rows)
	}
	return result
}

// allowed joins the masks of spec and input, [b, h, q, k]; nil allows all.
func allowed(s Spec, t *Tile) *Node {
	var mask *Node
	if m := s.mask(); m != nil {
		mask = t.seePrefix(BroadcastToDims(m.Allowed(t), t.shape()...))
	}
	if t.Inputs.Mask != nil {
		given := BroadcastToDims(ExpandLeftToRank(t.Inputs.Mask, 4), t.shape()...) // GoMLX would align the first axes
		if mask == nil {
			return given
		}
		mask = LogicalAnd(mask, given)
	}
	return mask
}

// weigh computes the weights of one attention map, [b, h, q, k].
func weigh(s Spec, t *Tile, w elastic.Weights) *Node {
	logits := w.Product(products, MulScalar(t.Q, t.Scale), t.K) // [b, h, q, k]
	modifiers := slices.Concat(s.Scores, s.Positions)
	for _, score := range modifiers {
		logits = score.Score(t, w.In(score.Kind()), logits)
	}
	normalizer := s.normalizer()
	weights := normalizer.Normalize(t, w.In(normalizer.Kind()), logits, t.Allowed)
	if s.Span != nil {
		weights = s.Span.Reweigh(t, w.In(s.Span.Kind()), weights)
	}
	for _, score := range modifiers {
		if r, ok := score.(Reweigher); ok {
			weights = r.Reweigh(t, w.In(score.Kind()), weights)
		}
	}
	return weights
}

// products computes q·k of all queries [b, q, h, d] and keys [b, k, kv, d], as [b, h, q, k].
// Query head h meets key head h / (heads/kv).
func products(q, k *Node) *Node {
	h, kv := q.Shape().Dimensions[2], k.Shape().Dimensions[2]
	if h == kv {
		return Einsum("bqhd,bkhd->bhqk", q, k)
	}
	d := q.Shape().Dimensions
	logits := Einsum("bqngd,bknd->bngqk", Reshape(q, d[0], d[1], kv, h/kv, d[3]), k)
	return Reshape(logits, d[0], h, d[1], k.Shape().Dimensions[1])
}

// heads computes Σ a·v of weights [b, h, q, k] and values [b, k, kv, d], as [b, q, h, d].
func heads(weights, v *Node) *Node {
	h, kv := weights.Shape().Dimensions[1], v.Shape().Dimensions[2]
	if h == kv {
		return Einsum("bhqk,bkhd->bqhd", weights, v)
	}
	d := weights.Shape().Dimensions
	y := Einsum("bngqk,bknd->bqngd", Reshape(weights, d[0], kv, h/kv, d[2], d[3]), v)
	return Reshape(y, d[0], d[2], h, v.Shape().Dimensions[3])
}

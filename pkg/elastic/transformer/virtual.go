package transformer

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// withVirtual makes room for the virtual tokens that an adapter of w puts before a text: a
// prompt, [tokens, hidden] at "embeddings/prompt", becomes the first tokens of the input, and
// prefixes of attentions take the first positions. It returns the new input and the number of
// tokens that a prompt added.
func (c Config) withVirtual(w elastic.Weights, in Inputs) (Inputs, int) {
	prompt := w.In("embeddings").Extra("prompt")
	tokens := 0
	for i := range c.Layers {
		if keys := w.Layer(i).In("attention").In("prefix").Extra("keys"); keys != nil {
			tokens = keys.Shape().Dimensions[0]
		}
	}
	if prompt != nil {
		tokens = prompt.Shape().Dimensions[0]
	}
	if tokens == 0 {
		return in, 0
	}
	if length := in.IDs.Shape().Dimensions[1] + tokens; length > c.MaxLength() {
		exceptions.Panicf("input has %d tokens, %d of them virtual; the model has positions for %d", length, tokens, c.MaxLength())
	}
	in.Positions = AddScalar(c.positions(in), int32(tokens))
	if prompt == nil {
		return in, 0
	}
	g, batch := in.IDs.Graph(), in.IDs.Shape().Dimensions[0]
	before := func(rest *Node, value int32) *Node {
		if rest == nil {
			return nil
		}
		first := BroadcastToDims(Scalar(g, dtypes.Int32, value), batch, tokens)
		return Concatenate([]*Node{first, rest}, 1)
	}
	words := in.Words
	if words == nil {
		words = Gather(w.In("embeddings").At("word"), InsertAxes(in.IDs, -1))
	}
	in.Words = Concatenate([]*Node{BroadcastToDims(InsertAxes(prompt, 0), batch, tokens, c.Hidden), words}, 1)
	notPad := int32(0)
	if c.PadID == 0 {
		notPad = 1
	}
	in.IDs, in.Types = before(in.IDs, notPad), before(in.Types, 0)
	in.Mask, in.Documents = before(in.Mask, 1), before(in.Documents, 1)
	numbers := Iota(g, shapes.Make(dtypes.Int32, batch, tokens), 1)
	in.Positions = Concatenate([]*Node{numbers, in.Positions}, 1)
	return in, tokens
}

// positions returns those of an input, [batch, length], counted from 0 in each text.
func (c Config) positions(in Inputs) *Node {
	switch {
	case in.Positions != nil:
		return in.Positions
	case c.PositionsFromPad:
		pad := Equal(in.IDs, FillScalar(in.IDs.Graph(), in.IDs.Shape(), float64(c.PadID)))
		real := ConvertDType(LogicalNot(pad), dtypes.Int32)
		return Mul(AddScalar(CumSum(real, 1), int32(-1)), real)
	}
	return Iota(in.IDs.Graph(), in.IDs.Shape(), 1)
}

// withoutVirtual takes the first tokens of states [batch, length, hidden] and of the queries of
// attentions [batch, heads, queries, keys] away again.
func (o Output) withoutVirtual(tokens int) Output {
	if tokens == 0 {
		return o
	}
	for i, x := range o.States {
		o.States[i] = Slice(x, AxisRange(), AxisRange(tokens))
	}
	for i, x := range o.Attentions {
		o.Attentions[i] = Slice(x, AxisRange(), AxisRange(), AxisRange(tokens))
	}
	o.Hidden = o.States[len(o.States)-1]
	return o
}

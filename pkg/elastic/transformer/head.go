package transformer

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
)

// The kinds that Head.Kind may name.
const (
	// NoHead gives the last hidden states [batch, length, hidden].
	NoHead = ""
	// Pooled gives tanh(W·h₀ + b) of the first token [batch, hidden].
	Pooled = "pooled"
	// Tokens gives a logit for each token and label [batch, length, labels].
	Tokens = "tokens"
	// Sequence gives a logit for each label, from the pooled first token [batch, labels].
	Sequence = "sequence"
	// MaskedLM gives a logit for each token and vocabulary entry [batch, length, vocabulary];
	// its output matrix is the word embedding unless Head.Untied.
	MaskedLM = "masked_lm"
	// LM gives a logit for each token and vocabulary entry that may follow it, [batch, length,
	// vocabulary]; its output matrix is the word embedding, without a bias, as in GPT-2.
	LM = "lm"
)

type head struct {
	labelled  bool
	variables func(c Config) []elastic.Variable // paths relative to /head
	logits    func(c Config, w, own elastic.Weights, hidden *Node, drop *dropout.Source) *Node
}

// heads maps the kinds to what they compute. w is the whole model's weights, own the head's.
var heads = map[string]head{
	NoHead: {
		variables: func(Config) []elastic.Variable { return nil },
		logits:    func(_ Config, _, _ elastic.Weights, hidden *Node, _ *dropout.Source) *Node { return hidden },
	},
	Pooled: {
		variables: poolerVariables,
		logits: func(_ Config, _, own elastic.Weights, hidden *Node, _ *dropout.Source) *Node {
			return pool(own, hidden)
		},
	},
	Tokens: {
		labelled:  true,
		variables: classifierVariables,
		logits: func(c Config, _, own elastic.Weights, hidden *Node, drop *dropout.Source) *Node {
			return elastic.Dense(own.In("classifier"), drop.Apply(hidden, c.Head.Dropout))
		},
	},
	Sequence: {
		labelled: true,
		variables: func(c Config) []elastic.Variable {
			return append(poolerVariables(c), classifierVariables(c)...)
		},
		logits: func(c Config, _, own elastic.Weights, hidden *Node, drop *dropout.Source) *Node {
			return elastic.Dense(own.In("classifier"), drop.Apply(pool(own, hidden), c.Head.Dropout))
		},
	},
	MaskedLM: {
		variables: func(c Config) []elastic.Variable {
			list := elastic.Under("transform", elastic.DenseVariables(c.Hidden, c.Hidden, c.InitStd))
			list = append(list, elastic.Under("norm", elastic.NormVariables(c.Hidden))...)
			if c.Head.Untied {
				return append(list, elastic.Under("decoder", elastic.DenseVariables(c.Hidden, c.VocabSize, c.InitStd))...)
			}
			return append(list, elastic.Variable{Path: "bias", Shape: []int{c.VocabSize}})
		},
		logits: func(c Config, w, own elastic.Weights, hidden *Node, _ *dropout.Source) *Node {
			x := activations[c.Activation](elastic.Dense(own.In("transform"), hidden))
			x = elastic.LayerNorm(own.In("norm"), x, c.NormEpsilon)
			if c.Head.Untied {
				return elastic.Dense(own.In("decoder"), x)
			}
			return Add(vocabulary(w, x), ExpandLeftToRank(own.At("bias"), 3))
		},
	},
	LM: {
		variables: func(Config) []elastic.Variable { return nil },
		logits: func(_ Config, w, _ elastic.Weights, hidden *Node, _ *dropout.Source) *Node {
			return vocabulary(w, hidden)
		},
	},
}

// vocabulary returns the products of x [b, l, hidden] and all words, [b, l, vocabulary].
func vocabulary(w elastic.Weights, x *Node) *Node {
	return DotGeneral(x, []int{2}, nil, w.In("embeddings").At("word"), []int{1}, nil)
}

func poolerVariables(c Config) []elastic.Variable {
	return elastic.Under("pooler", elastic.DenseVariables(c.Hidden, c.Hidden, c.InitStd))
}

func classifierVariables(c Config) []elastic.Variable {
	return elastic.Under("classifier", elastic.DenseVariables(c.Hidden, len(c.Head.Labels), c.InitStd))
}

func pool(own elastic.Weights, hidden *Node) *Node {
	first := Squeeze(Slice(hidden, AxisRange(), AxisElem(0)), 1) // [b, hidden]
	return Tanh(elastic.Dense(own.In("pooler"), first))
}

// Logits computes the encoder and its head; see [Head] for the shape. A nil drop
// source means evaluation. An encoder–decoder's logits come from [Config.Decode].
func (c Config) Logits(w elastic.Weights, in Inputs, drop *dropout.Source) *Node {
	if c.Decoder != nil {
		exceptions.Panicf("the head of an encoder–decoder reads the decoder: its logits are those of Decode")
	}
	return c.HeadLogits(w, c.Encode(w, in, drop).Hidden, drop)
}

// HeadLogits computes the head on the last hidden states.
func (c Config) HeadLogits(w elastic.Weights, hidden *Node, drop *dropout.Source) *Node {
	return heads[c.Head.Kind].logits(c, w, w.In("head"), hidden, drop)
}

package transformer

import (
	. "github.com/gomlx/gomlx/core/graph"

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
)

type head struct {
	labelled  bool
	variables func(c Config) []elastic.Variable // paths relative to /head
	logits    func(c Config, w elastic.Weights, hidden *Node, drop *dropout.Source) *Node
}

// heads maps the kinds to what they compute. w is the whole model's weights.
var heads = map[string]head{
	NoHead: {
		variables: func(Config) []elastic.Variable { return nil },
		logits:    func(_ Config, _ elastic.Weights, hidden *Node, _ *dropout.Source) *Node { return hidden },
	},
	Pooled: {
		variables: poolerVariables,
		logits: func(_ Config, w elastic.Weights, hidden *Node, _ *dropout.Source) *Node {
			return pool(w, hidden)
		},
	},
	Tokens: {
		labelled:  true,
		variables: classifierVariables,
		logits: func(c Config, w elastic.Weights, hidden *Node, drop *dropout.Source) *Node {
			return elastic.Dense(w.In("head").In("classifier"), drop.Apply(hidden, c.Head.Dropout))
		},
	},
	Sequence: {
		labelled: true,
		variables: func(c Config) []elastic.Variable {
			return append(poolerVariables(c), classifierVariables(c)...)
		},
		logits: func(c Config, w elastic.Weights, hidden *Node, drop *dropout.Source) *Node {
			return elastic.Dense(w.In("head").In("classifier"), drop.Apply(pool(w, hidden), c.Head.Dropout))
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
		logits: func(c Config, w elastic.Weights, hidden *Node, _ *dropout.Source) *Node {
			h := w.In("head")
			x := activations[c.Activation](elastic.Dense(h.In("transform"), hidden))
			x = elastic.LayerNorm(h.In("norm"), x, c.NormEpsilon)
			if c.Head.Untied {
				return elastic.Dense(h.In("decoder"), x)
			}
			x = DotGeneral(x, []int{2}, nil, w.In("embeddings").At("word"), []int{1}, nil) // [b, l, vocabulary]
			return Add(x, ExpandLeftToRank(h.At("bias"), 3))
		},
	},
}

func poolerVariables(c Config) []elastic.Variable {
	return elastic.Under("pooler", elastic.DenseVariables(c.Hidden, c.Hidden, c.InitStd))
}

func classifierVariables(c Config) []elastic.Variable {
	return elastic.Under("classifier", elastic.DenseVariables(c.Hidden, len(c.Head.Labels), c.InitStd))
}

func pool(w elastic.Weights, hidden *Node) *Node {
	first := Squeeze(Slice(hidden, AxisRange(), AxisElem(0)), 1) // [b, hidden]
	return Tanh(elastic.Dense(w.In("head").In("pooler"), first))
}

// Logits computes the encoder and its head; see [Head] for the shape. A nil drop
// source means evaluation.
func (c Config) Logits(w elastic.Weights, in Inputs, drop *dropout.Source) *Node {
	return c.HeadLogits(w, c.Encode(w, in, drop).Hidden, drop)
}

// HeadLogits computes the head on an encoder's last hidden states.
func (c Config) HeadLogits(w elastic.Weights, hidden *Node, drop *dropout.Source) *Node {
	return heads[c.Head.Kind].logits(c, w, hidden, drop)
}

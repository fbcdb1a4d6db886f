package transformer

import (
	"maps"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention/simplex"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/pooling"
)

// The kinds that Head.Kind may name.
const (
	// NoHead gives the last hidden states [batch, length, hidden].
	NoHead = ""
	// Pooled gives tanh(W·h₀ + b) of the first token [batch, hidden].
	Pooled = "pooled"
	// Tokens gives a logit for each token and label [batch, length, labels].
	Tokens = "tokens"
	// Sequence gives a logit for each label, from the pooled tokens [batch, labels]:
	// classifier(tanh(W·h + b)), where Head.Pooling says what h is.
	Sequence = "sequence"
	// MaskedLM gives a logit for each token and vocabulary entry [batch, length, vocabulary];
	// its output matrix is the word embedding unless Head.Untied.
	MaskedLM = "masked_lm"
	// LM gives a logit for each token and vocabulary entry that may follow it, [batch, length,
	// vocabulary]; its output matrix is the word embedding, without a bias, as in GPT-2.
	LM = "lm"
)

// The kinds that Head.Pooling may name: how a sequence head makes one vector h of the last
// hidden states u of a text's tokens.
const (
	// FirstPooling takes the first token, [CLS], as BERT does. It is the default.
	FirstPooling = "cls"
	// MeanPooling takes the mean of all tokens, special ones included.
	MeanPooling = "mean"
	// AttentionPooling is the theory's: h = Σ aₜ·uₜ with a = softmax(w·u); see
	// [pooling.ByTokens]. The learned w is the variable /head/pooling/w, which begins as 0, so
	// that a fresh head begins as MeanPooling.
	AttentionPooling = "attention"
)

// poolings maps the kinds to functions of u [batch, length, hidden] and a mask, boolean
// [batch, length] or nil for all, that give h [batch, hidden].
var poolings = map[string]func(w elastic.Weights, u, mask *Node) *Node{
	FirstPooling: func(_ elastic.Weights, u, _ *Node) *Node {
		return Squeeze(Slice(u, AxisRange(), AxisElem(0)), 1)
	},
	MeanPooling: func(_ elastic.Weights, u, mask *Node) *Node { return pooling.Mean(u, mask) },
	AttentionPooling: func(w elastic.Weights, u, mask *Node) *Node {
		h, _ := pooling.ByTokens(w.In("pooling").At("w"), u, mask)
		return h
	},
}

// PoolingWeights returns how much each token of last hidden states [batch, length, hidden] counts
// in the vector that a head makes of them, [batch, length]; they add up to 1. The mask is as in
// [Config.MaskedHeadLogits].
func (c Config) PoolingWeights(w elastic.Weights, hidden, mask *Node) *Node {
	none := ZerosLike(ReduceMax(hidden, -1)) // [b, l]
	switch c.Head.pooling() {
	case AttentionPooling:
		_, a := pooling.ByTokens(w.In("head").In("pooling").At("w"), hidden, mask)
		return a
	case MeanPooling:
		return simplex.Softmax(none, mask)
	}
	return ConvertDType(Equal(Iota(hidden.Graph(), none.Shape(), 1), none), hidden.DType())
}

// Poolings lists the kinds that Head.Pooling may name, sorted.
func Poolings() []string { return slices.Sorted(maps.Keys(poolings)) }

// pooling returns the kind that a head's pooling has.
func (h Head) pooling() string {
	if h.Pooling == "" {
		return FirstPooling
	}
	return h.Pooling
}

type head struct {
	labelled  bool
	variables func(c Config) []elastic.Variable // paths relative to /head
	logits    func(c Config, w, own elastic.Weights, hidden, mask *Node, drop *dropout.Source) *Node
}

// heads maps the kinds to what they compute. w is the whole model's weights, own the head's.
var heads = map[string]head{
	NoHead: {
		variables: func(Config) []elastic.Variable { return nil },
		logits:    func(_ Config, _, _ elastic.Weights, hidden, _ *Node, _ *dropout.Source) *Node { return hidden },
	},
	Pooled: {
		variables: poolerVariables,
		logits: func(c Config, _, own elastic.Weights, hidden, mask *Node, _ *dropout.Source) *Node {
			return pool(c, own, hidden, mask)
		},
	},
	Tokens: {
		labelled:  true,
		variables: classifierVariables,
		logits: func(c Config, _, own elastic.Weights, hidden, _ *Node, drop *dropout.Source) *Node {
			return elastic.Dense(own.In("classifier"), drop.Apply(hidden, c.Head.Dropout))
		},
	},
	Sequence: {
		labelled: true,
		variables: func(c Config) []elastic.Variable {
			list := append(poolerVariables(c), classifierVariables(c)...)
			if c.Head.pooling() == AttentionPooling {
				list = append(list, elastic.Variable{Path: "pooling/w", Shape: []int{c.Hidden}})
			}
			return list
		},
		logits: func(c Config, _, own elastic.Weights, hidden, mask *Node, drop *dropout.Source) *Node {
			return elastic.Dense(own.In("classifier"), drop.Apply(pool(c, own, hidden, mask), c.Head.Dropout))
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
		logits: func(c Config, w, own elastic.Weights, hidden, _ *Node, _ *dropout.Source) *Node {
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
		logits: func(_ Config, w, _ elastic.Weights, hidden, _ *Node, _ *dropout.Source) *Node {
			return vocabulary(w, hidden)
		},
	},
}

// vocabulary returns the products of x [b, l, hidden] and all words, [b, l, vocabulary].
func vocabulary(w elastic.Weights, x *Node) *Node {
	return w.Product(func(x, words *Node) *Node {
		return DotGeneral(x, []int{2}, nil, words, []int{1}, nil)
	}, x, w.In("embeddings").At("word"))
}

func poolerVariables(c Config) []elastic.Variable {
	return elastic.Under("pooler", elastic.DenseVariables(c.Hidden, c.Hidden, c.InitStd))
}

func classifierVariables(c Config) []elastic.Variable {
	return elastic.Under("classifier", elastic.DenseVariables(c.Hidden, len(c.Head.Labels), c.InitStd))
}

// pool makes one vector of each row's tokens, [batch, hidden].
func pool(c Config, own elastic.Weights, hidden, mask *Node) *Node {
	return Tanh(elastic.Dense(own.In("pooler"), poolings[c.Head.pooling()](own, hidden, mask)))
}

// Logits computes the encoder and its head; see [Head] for the shape. A nil drop
// source means evaluation. An encoder–decoder's logits come from [Config.Decode]. Rows that hold several texts have no logits of their own under a
// head that pools: see [Unpack].
func (c Config) Logits(w elastic.Weights, in Inputs, drop *dropout.Source) *Node {
	if c.Decoder != nil {
		exceptions.Panicf("the head of an encoder–decoder reads the decoder: its logits are those of Decode")
	}
	if in.Documents != nil && (c.Head.Kind == Sequence || c.Head.Kind == Pooled) {
		exceptions.Panicf("a head of kind %q takes rows of one text, want them unpacked first", c.Head.Kind)
	}
	var mask *Node
	if in.Mask != nil {
		mask = NotEqual(in.Mask, ZerosLike(in.Mask))
	}
	return c.MaskedHeadLogits(w, c.Encode(w, in, drop).Hidden, mask, drop)
}

// HeadLogits computes the head on an encoder's last hidden states, in rows without padding
// where the head pools them.
func (c Config) HeadLogits(w elastic.Weights, hidden *Node, drop *dropout.Source) *Node {
	return c.MaskedHeadLogits(w, hidden, nil, drop)
}

// MaskedHeadLogits computes the head on an encoder's last hidden states [batch, length,
// hidden]. The mask, boolean [batch, length], is true for tokens and false for padding; nil
// means all tokens. Only heads that pool read it.
func (c Config) MaskedHeadLogits(w elastic.Weights, hidden, mask *Node, drop *dropout.Source) *Node {
	return heads[c.Head.Kind].logits(c, w, w.In("head"), hidden, mask, drop)
}

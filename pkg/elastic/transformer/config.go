package transformer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
)

// Config describes a transformer and its head. It is plain data: the same on every
// machine, stored with each run and in each checkpoint.
type Config struct {
	// VocabSize is the number of token ids.
	VocabSize int `json:"vocab_size"`
	// Hidden is the width of the residual stream.
	Hidden int `json:"hidden"`
	// Layers is the number of blocks.
	Layers int `json:"layers"`
	// FeedForward is the width inside the feed-forward part of a block.
	FeedForward int `json:"feed_forward"`
	// Attention describes the attention of every block.
	Attention attention.Spec `json:"attention"`
	// MaxPositions is the number of learned position embeddings.
	MaxPositions int `json:"max_positions"`
	// PositionsFromPad numbers positions as RoBERTa does: the i-th token that is not
	// PadID has position PadID+1+i, and pads have position PadID. So the longest input is
	// MaxPositions−PadID−1 tokens. False numbers them 0, 1, 2, … as BERT does.
	PositionsFromPad bool `json:"positions_from_pad,omitempty"`
	// PadID is the id of the padding token. Where it stands, its embedding gets no gradient. −1
	// means that the vocabulary has none.
	PadID int `json:"pad_id"`
	// TypeVocab is the number of token types (segments); 0 means that the model has none.
	TypeVocab int `json:"type_vocab"`
	// Activation of the feed-forward part: a kind that [Activations] lists.
	Activation string `json:"activation"`
	// NormEpsilon is added to the variance in every layer normalisation.
	NormEpsilon float64 `json:"norm_epsilon"`
	// Dropout is the probability that an element of an embedding or of a block's two
	// outputs is dropped while training; Attention.Dropout is that of attention weights.
	Dropout float64 `json:"dropout"`
	// Noise drops whole words and whole parts of blocks while training; nil drops none.
	Noise *Noise `json:"noise,omitempty"`
	// InitStd is the standard deviation of initial matrices and embeddings.
	InitStd float64 `json:"init_std"`
	// NormOrder says where blocks normalise: a kind that [NormOrders] lists. Empty is
	// [PostNorm].
	NormOrder string `json:"norm_order,omitempty"`
	// Depth lets the number of layers follow the input; nil means that all are computed.
	Depth *Depth `json:"depth,omitempty"`
	// Experts takes the place of the feed-forward part of every block; nil keeps that.
	Experts *Experts `json:"experts,omitempty"`
	// Decoder makes the model an encoder–decoder: the fields above describe its encoder, and
	// the head reads the decoder. Nil means an encoder; with a causal mask in Attention that
	// is what is called a decoder-only model.
	Decoder *Decoder `json:"decoder,omitempty"`
	// Head says what the encoder's output is used for.
	Head Head `json:"head"`
}

// Head describes the part of a model above its encoder.
type Head struct {
	// Kind is a kind that [Heads] lists; empty means no head: the model gives hidden states.
	Kind string `json:"kind,omitempty"`
	// Labels names the outputs in the order of their ids; masked language models have none.
	Labels []string `json:"labels,omitempty"`
	// Untied gives a masked language model an output matrix and bias of its own. False means
	// that its output matrix is the word embedding, as in BERT.
	Untied bool `json:"untied,omitempty"`
	// Pooling says how a [Sequence] head makes one vector of a text's tokens: a kind that
	// [Poolings] lists; empty means "cls".
	Pooling string `json:"pooling,omitempty"`
	// Dropout is the probability that an element of the head's input is dropped while training.
	Dropout float64 `json:"dropout,omitempty"`
}

// MaxLength returns the greatest number of tokens that the model's positions allow.
func (c Config) MaxLength() int {
	if c.PositionsFromPad {
		return c.MaxPositions - c.PadID - 1
	}
	return c.MaxPositions
}

// Validate reports all that is wrong with c, each problem with its field.
func (c Config) Validate() error {
	var problems []error
	positive := func(name string, value int) {
		if value <= 0 {
			problems = append(problems, fmt.Errorf("%s is %d, want at least 1", name, value))
		}
	}
	probability := func(name string, value float64) {
		if !(value >= 0 && value < 1) {
			problems = append(problems, fmt.Errorf("%s is %g, want 0 ≤ p < 1", name, value))
		}
	}
	positive("vocab_size", c.VocabSize)
	positive("hidden", c.Hidden)
	positive("layers", c.Layers)
	positive("feed_forward", c.FeedForward)
	positive("max_positions", c.MaxPositions)
	if c.MaxPositions > 0 {
		positive("max_positions less positions before the first token", c.MaxLength())
	}
	if c.TypeVocab < 0 {
		problems = append(problems, fmt.Errorf("type_vocab is %d, want 0 or more", c.TypeVocab))
	}
	if c.PadID < -1 || c.VocabSize > 0 && c.PadID >= c.VocabSize {
		problems = append(problems, fmt.Errorf("pad_id is %d, want an id below vocab_size %d, or -1 for none", c.PadID, c.VocabSize))
	}
	if c.PadID < 0 && c.PositionsFromPad {
		problems = append(problems, errors.New("positions_from_pad needs a pad_id, which is -1"))
	}
	if _, ok := activations[c.Activation]; !ok {
		problems = append(problems, fmt.Errorf("activation %q is unknown; known: %s", c.Activation, strings.Join(Activations(), ", ")))
	}
	if !(c.NormEpsilon > 0) {
		problems = append(problems, fmt.Errorf("norm_epsilon is %g, want a positive number", c.NormEpsilon))
	}
	if !(c.InitStd > 0) {
		problems = append(problems, fmt.Errorf("init_std is %g, want a positive number", c.InitStd))
	}
	probability("dropout", c.Dropout)
	probability("head.dropout", c.Head.Dropout)
	if c.Hidden > 0 {
		problems = append(problems, c.Attention.Validate(c.Hidden))
	}
	if !slices.Contains(NormOrders(), c.normOrder()) {
		problems = append(problems, fmt.Errorf("norm_order %q is unknown; known: %s", c.NormOrder, strings.Join(NormOrders(), ", ")))
	}
	if c.Noise != nil {
		problems = append(problems, c.Noise.validate(c))
	}
	if c.Depth != nil {
		problems = append(problems, c.Depth.validate(c))
	}
	if c.Experts != nil {
		problems = append(problems, c.Experts.validate())
	}
	if c.Decoder != nil {
		problems = append(problems, c.Decoder.validate(c))
	}
	if kind, ok := heads[c.Head.Kind]; !ok {
		problems = append(problems, fmt.Errorf("head.kind %q is unknown; known: %s", c.Head.Kind, strings.Join(Heads(), ", ")))
	} else if kind.labelled != (len(c.Head.Labels) > 0) {
		problems = append(problems, fmt.Errorf("head.labels has %d names, which does not fit head.kind %q", len(c.Head.Labels), c.Head.Kind))
	}
	if c.Head.Untied && c.Head.Kind != MaskedLM {
		problems = append(problems, fmt.Errorf("head.untied is for head.kind %q only, not %q", MaskedLM, c.Head.Kind))
	}
	if _, ok := poolings[c.Head.pooling()]; !ok {
		problems = append(problems, fmt.Errorf("head.pooling %q is unknown; known: %s", c.Head.Pooling, strings.Join(Poolings(), ", ")))
	} else if c.Head.Pooling != "" && c.Head.Kind != Sequence {
		problems = append(problems, fmt.Errorf("head.pooling is for head.kind %q only, not %q", Sequence, c.Head.Kind))
	}
	for i, label := range c.Head.Labels {
		if j := slices.Index(c.Head.Labels, label); j != i {
			problems = append(problems, fmt.Errorf("head.labels %d and %d are both %q", j, i, label))
		}
	}
	return errors.Join(problems...)
}

// Variables lists every weight of the model that c describes.
func (c Config) Variables() []elastic.Variable {
	std := c.InitStd
	list := []elastic.Variable{c.table("/embeddings/word", c.VocabSize), c.table("/embeddings/position", c.MaxPositions)}
	if c.TypeVocab > 0 {
		list = append(list, c.table("/embeddings/type", c.TypeVocab))
	}
	list = append(list, c.normVariables("/embeddings/norm", PostNorm)...)
	for i := range c.Layers {
		layer := fmt.Sprintf("/layer_%d", i)
		list = slices.Concat(list,
			elastic.Under(layer+"/attention", c.Attention.Variables(c.Hidden, std)),
			elastic.Under(layer+"/attention/norm", elastic.NormVariables(c.Hidden)),
			elastic.Under(layer+"/feed_forward", c.feedForwardVariables(c.FeedForward)))
	}
	list = append(list, c.normVariables("/norm", PreNorm)...)
	if c.Decoder != nil {
		list = append(list, elastic.Under("/decoder", c.Decoder.variables(c))...)
	}
	if c.Depth != nil {
		list = append(list, elastic.Under("/depth", c.Depth.variables(c))...)
	}
	return append(list, elastic.Under("/head", heads[c.Head.Kind].variables(c))...)
}

// HeadScalars returns the paths of those of some variables that hold numbers which each head of each layer
// learns about itself, such as span and temperature: variables of attention with one element a head.
func (c Config) HeadScalars(variables []elastic.Variable) []string {
	var paths []string
	for _, v := range variables {
		if strings.Contains(v.Path, "/attention/") && slices.Equal(v.Shape, []int{c.Attention.Heads}) {
			paths = append(paths, v.Path)
		}
	}
	return paths
}

// LastLayer lists the weights of the last dense layer below the head, or of the experts in its place: those that all terms
// of a loss on the logits share, for [loss.GradNorm].
func (c Config) LastLayer() []elastic.Variable {
	last := fmt.Sprintf("/layer_%d/feed_forward/", c.Layers-1)
	return slices.DeleteFunc(c.Variables(), func(v elastic.Variable) bool {
		return !strings.HasPrefix(v.Path, last) || !strings.HasSuffix(v.Path, "/outer/weights")
	})
}

// table lists an embedding.
func (c Config) table(path string, rows int) elastic.Variable {
	return elastic.Variable{Path: path, Shape: []int{rows, c.Hidden}, Init: elastic.Init{Normal: c.InitStd}, Decay: true}
}

// normVariables lists those of a normalisation that only one order has: that of the
// embeddings after the norm, that of the last layer's output before it.
func (c Config) normVariables(path, order string) []elastic.Variable {
	if c.normOrder() != order {
		return nil
	}
	return elastic.Under(path, elastic.NormVariables(c.Hidden))
}

func (c Config) feedForwardVariables(width int) []elastic.Variable {
	norm := elastic.Under("norm", elastic.NormVariables(c.Hidden))
	if c.Experts != nil {
		return append(c.Experts.variables(c, width), norm...)
	}
	return slices.Concat(
		elastic.Under("inner", elastic.DenseVariables(c.Hidden, width, c.InitStd)),
		elastic.Under("outer", elastic.DenseVariables(width, c.Hidden, c.InitStd)), norm)
}

// Hash returns a hash of c, the same on every machine and in every process.
func (c Config) Hash() (string, error) {
	content, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("hashing transformer config: %w", err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}

// Activations lists the kinds that Config.Activation may name, sorted.
func Activations() []string { return slices.Sorted(maps.Keys(activations)) }

// Heads lists the kinds that Head.Kind may name, sorted.
func Heads() []string { return slices.Sorted(maps.Keys(heads)) }

package attention

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/internal/kind"
	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Spec describes the attention of a layer: plain data, which can be validated, compared
// and hashed, and which travels inside a checkpoint. Only Heads must be given; the zero
// value of every other field means plain softmax attention. The fields stand in the
// order of the pipeline, which the package comment shows.
type Spec struct {
	// Heads is the number of query heads.
	Heads int
	// KVHeads is the number of key and value heads; query head h uses key head
	// h / (Heads/KVHeads). 0 means Heads, 1 is multi-query attention.
	KVHeads int
	// HeadDim is the width of a query or key; 0 means hidden size / Heads.
	HeadDim int
	// ValueDim is the width of a value; 0 means HeadDim, twice that with Differential.
	ValueDim int
	// Scale multiplies the products of queries and keys; 0 means 1/√HeadDim.
	Scale float64
	// QKNorm normalises queries and keys.
	QKNorm *QKNorm
	// Rotary turns queries and keys by their positions.
	Rotary *Rotary
	// Differential subtracts a second attention map.
	Differential *Differential
	// Scores change logits, in this order.
	Scores []Score
	// Positions add position biases to the logits, in this order.
	Positions []Score
	// Mask says which keys a query may attend to, beside the masks of the input; nil
	// allows all.
	Mask Mask
	// Normalizer turns logits into weights; nil means [PlainSoftmax].
	Normalizer Normalizer
	// Span limits how far each head looks back.
	Span *Span
	// Dropout is the probability that a weight is dropped while training.
	Dropout float64
	// Gates change the attended values of each head, in this order.
	Gates []Gate
	// Execution says how all this is computed, which changes no result.
	Execution Execution
}

// layout is the JSON form of a Spec.
type layout struct {
	Heads        int               `json:"heads,omitempty"`
	KVHeads      int               `json:"kv_heads,omitempty"`
	HeadDim      int               `json:"head_dim,omitempty"`
	ValueDim     int               `json:"value_dim,omitempty"`
	Scale        float64           `json:"scale,omitempty"`
	QKNorm       *QKNorm           `json:"qk_norm,omitempty"`
	Rotary       *Rotary           `json:"rotary,omitempty"`
	Differential *Differential     `json:"differential,omitempty"`
	Scores       []json.RawMessage `json:"scores,omitempty"`
	Positions    []json.RawMessage `json:"positions,omitempty"`
	Mask         json.RawMessage   `json:"mask,omitempty"`
	Normalizer   json.RawMessage   `json:"normalizer,omitempty"`
	Span         *Span             `json:"span,omitempty"`
	Dropout      float64           `json:"dropout,omitempty"`
	Gates        []json.RawMessage `json:"gates,omitempty"`
	Execution    Execution         `json:"execution,omitzero"`
}

// MarshalJSON writes s; parts are written as their kind or as an object with "kind".
func (s Spec) MarshalJSON() ([]byte, error) {
	out := layout{
		Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim, ValueDim: s.ValueDim, Scale: s.Scale, QKNorm: s.QKNorm,
		Rotary: s.Rotary, Differential: s.Differential, Span: s.Span, Dropout: s.Dropout, Execution: s.Execution,
	}
	var errs [5]error
	out.Scores, errs[0] = writeParts(s.Scores)
	out.Positions, errs[1] = writeParts(s.Positions)
	out.Gates, errs[2] = writeParts(s.Gates)
	if s.Mask != nil {
		out.Mask, errs[3] = kind.Write(s.Mask)
	}
	if s.Normalizer != nil {
		out.Normalizer, errs[4] = kind.Write(s.Normalizer)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// String is s as JSON, so that a spec that is printed can be read back; of one that JSON cannot hold it says why.
func (s Spec) String() string {
	content, err := json.Marshal(s)
	if err != nil {
		return fmt.Sprintf("attention spec without JSON: %v", err)
	}
	return string(content)
}

// UnmarshalJSON reads a spec. Unknown fields and kinds are errors that name them.
func (s *Spec) UnmarshalJSON(content []byte) error {
	var in layout
	if err := strictjson.Decode(content, &in); err != nil {
		return fmt.Errorf("attention spec: %w", err)
	}
	out := Spec{
		Heads: in.Heads, KVHeads: in.KVHeads, HeadDim: in.HeadDim, ValueDim: in.ValueDim, Scale: in.Scale, QKNorm: in.QKNorm,
		Rotary: in.Rotary, Differential: in.Differential, Span: in.Span, Dropout: in.Dropout, Execution: in.Execution,
	}
	var errs [5]error
	out.Scores, errs[0] = readParts[Score](in.Scores, "scores")
	out.Positions, errs[1] = readParts[Score](in.Positions, "positions")
	out.Gates, errs[2] = readParts[Gate](in.Gates, "gates")
	if in.Mask != nil {
		out.Mask, errs[3] = readPart[Mask](in.Mask, "mask")
	}
	if in.Normalizer != nil {
		out.Normalizer, errs[4] = readPart[Normalizer](in.Normalizer, "normalizer")
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("attention spec: %w", err)
	}
	*s = out
	return nil
}

// placed is a part and its place in a spec.
type placed struct {
	path string
	part Part
}

// parts lists the parts of s in the order of the pipeline.
func (s Spec) parts() []placed {
	var list []placed
	if s.QKNorm != nil {
		list = append(list, placed{"qk_norm", s.QKNorm})
	}
	if s.Rotary != nil {
		list = append(list, placed{"rotary", s.Rotary})
	}
	if s.Differential != nil {
		list = append(list, placed{"differential", s.Differential})
	}
	for _, p := range s.Scores {
		list = append(list, placed{"scores." + p.Kind(), p})
	}
	for _, p := range s.Positions {
		list = append(list, placed{"positions." + p.Kind(), p})
	}
	if s.Mask != nil {
		list = append(list, placed{"mask", s.Mask})
	}
	list = append(list, placed{"normalizer", s.normalizer()})
	if s.Span != nil {
		list = append(list, placed{"span", s.Span})
	}
	for _, p := range s.Gates {
		list = append(list, placed{"gates." + p.Kind(), p})
	}
	return list
}

// mask returns the mask with the limit of a frozen span.
func (s Spec) mask() Mask {
	switch {
	case s.Span == nil || s.Span.Limit == 0:
		return s.Mask
	case s.Mask == nil:
		return Band{Radius: s.Span.Limit - 1}
	}
	return All{s.Mask, Band{Radius: s.Span.Limit - 1}}
}

func (s Spec) normalizer() Normalizer {
	if s.Normalizer == nil {
		return PlainSoftmax{}
	}
	return s.Normalizer
}

// Sizes returns the dimensions of a layer in a model of the given hidden size.
func (s Spec) Sizes(hidden int) Sizes {
	sizes := Sizes{Hidden: hidden, Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim, ValueDim: s.ValueDim}
	if sizes.KVHeads == 0 {
		sizes.KVHeads = s.Heads
	}
	if sizes.HeadDim == 0 && s.Heads > 0 {
		sizes.HeadDim = hidden / s.Heads
		if s.Differential != nil {
			sizes.HeadDim /= 2
		}
	}
	if sizes.ValueDim == 0 {
		sizes.ValueDim = sizes.HeadDim
		if s.Differential != nil {
			sizes.ValueDim *= 2
		}
	}
	return sizes
}

// scale returns what the products of queries and keys are multiplied by.
func (s Spec) scale(sizes Sizes) float64 {
	if s.Scale != 0 {
		return s.Scale
	}
	return 1 / math.Sqrt(float64(sizes.HeadDim))
}

// Validate reports all that is wrong with s in a model of the given hidden size, each
// problem with the path of its field.
func (s Spec) Validate(hidden int) error {
	var problems []error
	add := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("attention."+format, args...))
	}
	if s.Heads < 1 {
		add("heads is %d, want at least 1", s.Heads)
		return errors.Join(problems...) // nothing else can be told
	}
	for i, p := range s.Scores {
		if p == nil {
			add("scores[%d] is nil, want a part", i)
		}
	}
	for i, p := range s.Positions {
		if p == nil {
			add("positions[%d] is nil, want a part", i)
		}
	}
	for i, p := range s.Gates {
		if p == nil {
			add("gates[%d] is nil, want a part", i)
		}
	}
	if problems != nil {
		return errors.Join(problems...)
	}
	sizes := s.Sizes(hidden)
	for _, f := range []struct {
		name  string
		value int
	}{{"kv_heads", s.KVHeads}, {"head_dim", s.HeadDim}, {"value_dim", s.ValueDim}} {
		if f.value < 0 {
			add("%s is %d, want at least 1, or 0 for the default", f.name, f.value)
		}
	}
	if s.KVHeads > 0 && s.Heads%s.KVHeads != 0 {
		add("kv_heads is %d, which does not divide heads, %d", s.KVHeads, s.Heads)
	}
	if s.HeadDim == 0 {
		switch {
		case hidden%s.Heads != 0:
			add("heads is %d, which does not divide the hidden size %d; set head_dim", s.Heads, hidden)
		case s.Differential != nil && hidden/s.Heads%2 != 0:
			add("heads is %d, which leaves an odd width %d to divide into two maps; set head_dim", s.Heads, hidden/s.Heads)
		}
	}
	if math.IsNaN(s.Scale) || math.IsInf(s.Scale, 0) || s.Scale < 0 {
		add("scale is %g, want a positive number, or 0 for 1/√head_dim", s.Scale)
	}
	if !(s.Dropout >= 0 && s.Dropout < 1) {
		add("dropout is %g, want 0 ≤ p < 1", s.Dropout)
	}
	if err := s.Execution.validate(s); err != nil {
		for line := range strings.Lines(err.Error()) {
			add("execution.%s", strings.TrimSuffix(line, "\n"))
		}
	}
	seen := map[string]string{}
	for _, p := range s.parts() {
		if err := p.part.Validate(sizes); err != nil {
			for line := range strings.Lines(err.Error()) {
				add("%s.%s", p.path, strings.TrimSuffix(line, "\n"))
			}
		}
		if other, twice := seen[p.part.Kind()]; twice {
			add("%s: kind %q is used by %s already; a part's kind is its name", p.path, p.part.Kind(), other)
		}
		seen[p.part.Kind()] = p.path
		if needs, ok := p.part.(interface{ Needs(Spec) error }); ok {
			if err := needs.Needs(s); err != nil {
				add("%s: %w", p.path, err)
			}
		}
	}
	return errors.Join(problems...)
}

// Variables lists the weights of one attention layer, with paths relative to it. std is
// the standard deviation of the initial matrices.
func (s Spec) Variables(hidden int, std float64) []elastic.Variable {
	sizes := s.Sizes(hidden)
	width := sizes.HeadDim
	if s.Differential != nil {
		width *= 2
	}
	dense := func(name string, inputs, outputs int) []elastic.Variable {
		return elastic.Under(name, elastic.DenseVariables(inputs, outputs, std))
	}
	list := slices.Concat(
		dense("query", hidden, sizes.Heads*width),
		dense("key", hidden, sizes.KVHeads*width),
		dense("value", hidden, sizes.KVHeads*sizes.ValueDim),
		dense("output", sizes.Heads*sizes.ValueDim, hidden))
	for _, p := range s.parts() {
		list = append(list, elastic.Under(p.part.Kind(), p.part.Variables(sizes))...)
	}
	return list
}

// Over returns s in place of another spec of the same model: Heads and Dropout that s leaves
// at 0 are those of the other.
func (s Spec) Over(other Spec) Spec {
	if s.Heads == 0 {
		s.Heads = other.Heads
	}
	if s.Dropout == 0 {
		s.Dropout = other.Dropout
	}
	return s
}

// Plain tells whether s is softmax attention without any part, as in BERT.
func (s Spec) Plain() bool {
	content, err := json.Marshal(s)
	plain, plainErr := json.Marshal(Spec{Heads: s.Heads, Dropout: s.Dropout})
	return err == nil && plainErr == nil && bytes.Equal(content, plain)
}

// Hash returns a hash of s, the same on every machine and in every process, and whatever the
// Execution.
func (s Spec) Hash() (string, error) {
	s.Execution = Execution{}
	content, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("hashing attention spec: %w", err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}

package attention

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/internal/kind"
	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Part is one named piece of a [Spec]: a mask, a score modifier, a normaliser, a gate.
// It is plain data; its exported fields with their JSON tags are what a spec stores.
// What it does in the pipeline is said by the further interface that it has: [Mask],
// [Score], [Normalizer], [Reweigher] or [Gate].
type Part interface {
	// Kind is the name by which specs in JSON, [Spec.Without] and reports call the part.
	Kind() string
	// Validate reports all that is wrong with the part in a layer of these sizes, each
	// problem beginning with the name of its field.
	Validate(s Sizes) error
	// Variables lists the part's own weights, with paths relative to the part.
	Variables(s Sizes) []elastic.Variable
}

// Mask says which keys a query may attend to.
type Mask interface {
	Part
	// Allowed returns a boolean node that broadcasts to [batch, heads, queries, keys].
	Allowed(t *Tile) *Node
}

// Score changes logits before they are normalised.
type Score interface {
	Part
	// Score returns new logits of the shape of logits, [batch, heads, queries, keys].
	Score(t *Tile, w elastic.Weights, logits *Node) *Node
}

// Normalizer turns logits into weights.
type Normalizer interface {
	Part
	// Normalize returns weights of the shape of logits, [batch, heads, queries, keys]: zero
	// where mask, boolean and of the same shape or nil, is false.
	Normalize(t *Tile, w elastic.Weights, logits, mask *Node) *Node
}

// Reweigher is a [Score] or [Gate] that also changes weights after they were normalised.
type Reweigher interface {
	Reweigh(t *Tile, w elastic.Weights, weights *Node) *Node
}

// Gate changes the attended values of each head.
type Gate interface {
	Part
	// Gate returns new values of the shape of y, [batch, queries, heads, value width].
	Gate(t *Tile, w elastic.Weights, y *Node) *Node
}

// Sizes are the dimensions of an attention layer, with all defaults filled in.
type Sizes struct {
	Hidden   int // width of the layer's input and output
	Heads    int // query heads
	KVHeads  int // key and value heads; Heads is a multiple of it
	HeadDim  int // width of a query or key of one head
	ValueDim int // width of a value of one head
}

// reserved are names that a layer's variables have beside those of its parts.
var reserved = []string{"query", "key", "value", "output", "norm", "qk_norm", "rotary", "differential", "span"}

var registry kind.Registry[Part]

// Register makes a part of a caller's own known, so that specs in JSON can name it. It
// fails if the kind is empty or taken. A checkpoint whose spec names the kind can be
// loaded only by programs that register it.
func Register[P Part]() error {
	var zero P
	if slices.Contains(reserved, zero.Kind()) {
		return fmt.Errorf("attention part kind %q is taken", zero.Kind())
	}
	if err := kind.Add[P](&registry); err != nil {
		return fmt.Errorf("attention part %w", err)
	}
	return nil
}

// Kinds lists the known kinds of parts, sorted.
func Kinds() []string { return registry.Kinds() }

// readPart decodes a part and checks that it has the role R. Path names it in errors.
func readPart[R Part](raw json.RawMessage, path string) (R, error) {
	return kind.Read[R](&registry, raw, path, "")
}

func readParts[R Part](list []json.RawMessage, path string) ([]R, error) {
	var parts []R
	var problems []error
	for i, raw := range list {
		part, err := readPart[R](raw, fmt.Sprintf("%s[%d]", path, i))
		if err != nil {
			problems = append(problems, err)
			continue
		}
		parts = append(parts, part)
	}
	return parts, errors.Join(problems...)
}

func writeParts[R Part](parts []R) ([]json.RawMessage, error) {
	var list []json.RawMessage
	for _, part := range parts {
		raw, err := kind.Write(part)
		if err != nil {
			return nil, err
		}
		list = append(list, raw)
	}
	return list, nil
}

// plain is embedded by parts that have no weights and nothing to check.
type plain struct{}

func (plain) Validate(Sizes) error               { return nil }
func (plain) Variables(Sizes) []elastic.Variable { return nil }

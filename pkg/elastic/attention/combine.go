package attention

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/elastic"
)

// All allows what all of its masks allow.
type All []Mask

// Any allows what any of its masks allows.
type Any []Mask

// None allows what none of its masks allows.
type None []Mask

// Kind returns "all".
func (All) Kind() string { return "all" }

// Kind returns "any".
func (Any) Kind() string { return "any" }

// Kind returns "none".
func (None) Kind() string { return "none" }

// Allowed implements [Mask].
func (m All) Allowed(t *Tile) *Node { return combine(m, t, LogicalAnd) }

// Allowed implements [Mask].
func (m Any) Allowed(t *Tile) *Node { return combine(m, t, LogicalOr) }

// Allowed implements [Mask].
func (m None) Allowed(t *Tile) *Node { return LogicalNot(combine(m, t, LogicalOr)) }

func combine(masks []Mask, t *Tile, join func(x, y *Node) *Node) *Node {
	out := masks[0].Allowed(t)
	for _, m := range masks[1:] {
		out = join(out, m.Allowed(t))
	}
	return out
}

// Validate implements [Part].
func (m All) Validate(s Sizes) error { return validateMasks(m, s) }

// Validate implements [Part].
func (m Any) Validate(s Sizes) error { return validateMasks(m, s) }

// Validate implements [Part].
func (m None) Validate(s Sizes) error { return validateMasks(m, s) }

func validateMasks(masks []Mask, s Sizes) error {
	if len(masks) == 0 {
		return errors.New("of is empty, want at least one mask")
	}
	var problems []error
	for i, m := range masks {
		if m == nil {
			problems = append(problems, fmt.Errorf("of[%d] is nil, want a mask", i))
			continue
		}
		if err := m.Validate(s); err != nil {
			field := fmt.Sprintf("of[%d].", i)
			problems = append(problems, errors.New(field+strings.ReplaceAll(err.Error(), "\n", "\n"+field)))
		}
	}
	return errors.Join(problems...)
}

// Variables implements [Part].
func (All) Variables(Sizes) []elastic.Variable { return nil }

// Variables implements [Part].
func (Any) Variables(Sizes) []elastic.Variable { return nil }

// Variables implements [Part].
func (None) Variables(Sizes) []elastic.Variable { return nil }

// ofMasks is the JSON form.
type ofMasks struct {
	Of []json.RawMessage `json:"of"`
}

// MarshalJSON writes the masks as a field "of".
func (m All) MarshalJSON() ([]byte, error) { return writeMasks(m) }

// MarshalJSON writes the masks as a field "of".
func (m Any) MarshalJSON() ([]byte, error) { return writeMasks(m) }

// MarshalJSON writes the masks as a field "of".
func (m None) MarshalJSON() ([]byte, error) { return writeMasks(m) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *All) UnmarshalJSON(content []byte) error { return readMasks(content, (*[]Mask)(m)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *Any) UnmarshalJSON(content []byte) error { return readMasks(content, (*[]Mask)(m)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *None) UnmarshalJSON(content []byte) error { return readMasks(content, (*[]Mask)(m)) }

func writeMasks(masks []Mask) ([]byte, error) {
	list, err := writeParts(masks)
	if err != nil {
		return nil, err
	}
	return json.Marshal(ofMasks{list})
}

func readMasks(content []byte, into *[]Mask) error {
	var in ofMasks
	if err := strictjson.Decode(content, &in); err != nil {
		return err
	}
	masks, err := readParts[Mask](in.Of, "of")
	*into = masks
	return err
}

package attention

import (
	"errors"
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Window lets a query attend to the last Size keys, itself included: 0 ≤ q − k < Size.
//
// Source: Beltagy et al. 2020, "Longformer", section 3.1, in the causal form of Jiang et
// al. 2023, "Mistral 7B". Some implementations keep Size+1 keys; this one keeps Size.
type Window struct {
	Size int `json:"size"`
}

// Kind returns "window".
func (Window) Kind() string { return "window" }

// Validate implements [Part].
func (m Window) Validate(Sizes) error { return atLeast("size", m.Size, 1) }

// Variables implements [Part].
func (Window) Variables(Sizes) []elastic.Variable { return nil }

// Allowed implements [Mask].
func (m Window) Allowed(t *Tile) *Node { return within(t.Distance(), 0, m.Size-1) }

// Band lets a query attend to keys on both sides: |q − k| ≤ Radius.
//
// Source: Beltagy et al. 2020, "Longformer", section 3.1.
type Band struct {
	Radius int `json:"radius"`
}

// Kind returns "band".
func (Band) Kind() string { return "band" }

// Validate implements [Part].
func (m Band) Validate(Sizes) error { return atLeast("radius", m.Radius, 1) }

// Variables implements [Part].
func (Band) Variables(Sizes) []elastic.Variable { return nil }

// Allowed implements [Mask].
func (m Band) Allowed(t *Tile) *Node { return within(t.Distance(), -m.Radius, m.Radius) }

// SinkWindow lets a query attend to the last Size keys and to the first Sinks positions
// of the text: k ≤ q and (q − k < Size or k < Sinks).
//
// Source: Xiao et al. 2024, "Efficient streaming language models with attention sinks".
type SinkWindow struct {
	Size  int `json:"size"`
	Sinks int `json:"sinks"`
}

// Kind returns "sink_window".
func (SinkWindow) Kind() string { return "sink_window" }

// Validate implements [Part].
func (m SinkWindow) Validate(Sizes) error {
	return errors.Join(atLeast("size", m.Size, 1), atLeast("sinks", m.Sinks, 1))
}

// Variables implements [Part].
func (SinkWindow) Variables(Sizes) []elastic.Variable { return nil }

// Allowed implements [Mask].
func (m SinkWindow) Allowed(t *Tile) *Node {
	sink := LessThan(t.KeyPosition(), number(t.KeyPositions, m.Sinks))
	return LogicalOr(within(t.Distance(), 0, m.Size-1), LogicalAnd(sink, Causal{}.Allowed(t)))
}

// Dilated lets a query attend to Size keys that are Step positions apart, itself
// included: q − k is 0, Step, 2·Step, … (Size−1)·Step.
//
// Source: Beltagy et al. 2020, "Longformer", section 3.1.
type Dilated struct {
	Size int `json:"size"`
	Step int `json:"step"`
}

// Kind returns "dilated".
func (Dilated) Kind() string { return "dilated" }

// Validate implements [Part].
func (m Dilated) Validate(Sizes) error {
	if err := errors.Join(atLeast("size", m.Size, 1), atLeast("step", m.Step, 2)); err != nil {
		return err
	}
	return atLeast("size · step", m.Size*m.Step, 1)
}

// Variables implements [Part].
func (Dilated) Variables(Sizes) []elastic.Variable { return nil }

// Allowed implements [Mask].
func (m Dilated) Allowed(t *Tile) *Node {
	distance := t.Distance()
	return LogicalAnd(within(distance, 0, m.Size*m.Step-1), Equal(Mul(quotient(distance, m.Step), number(distance, m.Step)), distance))
}

// within returns low ≤ n ≤ high.
func within(n *Node, low, high int) *Node {
	return LogicalAnd(GreaterOrEqual(n, number(n, low)), LessOrEqual(n, number(n, high)))
}

// quotient returns n / by, rounded towards zero; n is an integer.
func quotient(n *Node, by int) *Node { return Div(n, number(n, by)) }

// atLeast wants a number from least up, which positions, int32 numbers, can be compared with.
func atLeast(field string, value, least int) error {
	switch {
	case value < least:
		return fmt.Errorf("%s is %d, want at least %d", field, value, least)
	case value > math.MaxInt32:
		return fmt.Errorf("%s is %d, want at most %d", field, value, math.MaxInt32)
	}
	return nil
}

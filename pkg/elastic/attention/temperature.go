package attention

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Temperature divides the logits of each head by a temperature: sharper attention below 1,
// flatter above.
//
//	s ← s · exp(cₕ),  cₕ = −ln temperature
//
// Value is the temperature, or where it begins if it is Learned, one number a head.
type Temperature struct {
	Value   float64 `json:"value,omitempty"` // 0 means 1
	Learned bool    `json:"learned,omitempty"`
}

// Kind returns "temperature".
func (Temperature) Kind() string { return "temperature" }

// Validate implements [Part].
func (p Temperature) Validate(Sizes) error {
	switch {
	case !(p.Value >= 0):
		return fmt.Errorf("value is %g, want a positive temperature, or 0 for 1", p.Value)
	case !p.Learned && (p.Value == 0 || p.Value == 1):
		return fmt.Errorf("value is %g and learned is false, which changes nothing", p.Value)
	}
	return nil
}

// Variables implements [Part]: "log_scale" [heads], c of the formula, if it is learned.
func (p Temperature) Variables(s Sizes) []elastic.Variable {
	if !p.Learned {
		return nil
	}
	return []elastic.Variable{{Path: "log_scale", Shape: []int{s.Heads}, Init: elastic.Init{Value: -logOr0(p.Value)}}}
}

// Score implements [Score].
func (p Temperature) Score(_ *Tile, w elastic.Weights, logits *Node) *Node {
	if !p.Learned {
		return MulScalar(logits, 1/p.Value)
	}
	return Mul(logits, Exp(perHead(w.At("log_scale"))))
}

// InputTemperature lets each token set the temperature of each head:
//
//	s ← s · exp(x·Wₕ + bₕ)
//
// x is what the query was projected from; W and b begin at 0, so it begins as no change.
type InputTemperature struct{ plain }

// Kind returns "input_temperature".
func (InputTemperature) Kind() string { return "input_temperature" }

// Variables implements [Part]: "weights" [hidden, heads] and "bias" [heads].
func (InputTemperature) Variables(s Sizes) []elastic.Variable {
	return elastic.DenseVariables(s.Hidden, s.Heads, 0)
}

// Score implements [Score].
func (p InputTemperature) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	return Mul(logits, p.factor(t, w))
}

func (p InputTemperature) factor(t *Tile, w elastic.Weights) *Node {
	scale := Exp(elastic.Dense(w, t.input(p))) // [b, q, h]
	return InsertAxes(TransposeAllDims(scale, 0, 2, 1), -1)
}

// TaskTemperature gives each task its temperature of each head:
//
//	s ← s · exp(c[task, h])
//
// Inputs.Tasks says which task a row is; c begins at 0.
type TaskTemperature struct {
	Tasks int `json:"tasks"`
}

// Kind returns "task_temperature".
func (TaskTemperature) Kind() string { return "task_temperature" }

// Validate implements [Part].
func (p TaskTemperature) Validate(Sizes) error { return atLeast("tasks", p.Tasks, 1) }

// Variables implements [Part]: "log_scale" [tasks, heads].
func (p TaskTemperature) Variables(s Sizes) []elastic.Variable {
	return []elastic.Variable{{Path: "log_scale", Shape: []int{p.Tasks, s.Heads}}}
}

// Score implements [Score].
func (p TaskTemperature) Score(t *Tile, w elastic.Weights, logits *Node) *Node {
	return Mul(logits, p.factor(t, w))
}

func (p TaskTemperature) factor(t *Tile, w elastic.Weights) *Node {
	if t.Tasks == nil {
		exceptions.Panicf("attention part %q needs the tasks of the rows in the input", p.Kind())
	}
	scale := Exp(Gather(w.At("log_scale"), InsertAxes(t.Tasks, -1))) // [b, h]
	return InsertAxes(scale, -1, -1)
}

// input returns what the queries were projected from, for a part that needs it.
func (t *Tile) input(p Part) *Node {
	if t.X == nil {
		exceptions.Panicf("attention part %q reads the layer's input, which Inputs.X must be", p.Kind())
	}
	return t.X
}

package search

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
)

// The kinds of parameters.
const (
	Float       = "float"
	Int         = "int"
	Categorical = "categorical"
)

// Parameter is one thing that is searched for.
type Parameter struct {
	// Name is made of letters, digits and underscores.
	Name string `json:"name"`
	// Kind is [Float], [Int] or [Categorical].
	Kind string `json:"kind"`
	// Low and High bound a number; both may be taken. Those of an int are whole.
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
	// Log says that factors matter and not differences: rates, decays, sizes.
	Log bool `json:"log,omitempty"`
	// Step of an int: only Low, Low+Step, … are taken; 0 means 1. It excludes Log.
	Step int `json:"step,omitempty"`
	// Choices of a categorical parameter.
	Choices []string `json:"choices,omitempty"`
	// When says under which values of earlier categorical parameters this one exists; all of them
	// must hold. Empty means always.
	When map[string][]string `json:"when,omitempty"`
}

// Space is what is searched. A parameter stands behind those that its When names.
type Space []Parameter

// Params are the values of a trial's parameters by name: a float64, an int or a string by kind. Parameters
// that do not exist under the others' values are absent.
type Params map[string]any

var validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate reports all that is wrong with a space, each problem with the path of its field.
func (s Space) Validate() error {
	var problems []error
	if len(s) == 0 {
		problems = append(problems, errors.New("space is empty, want at least one parameter"))
	}
	for i, p := range s {
		add := func(field, format string, args ...any) {
			problems = append(problems, fmt.Errorf("space.%d.%s: %s (parameter %q)", i, field, fmt.Sprintf(format, args...), p.Name))
		}
		if !validName.MatchString(p.Name) {
			add("name", "%q, want letters, digits and underscores", p.Name)
		}
		if Reserved(p.Name) {
			add("name", "%q has a meaning in commands; choose another", p.Name)
		}
		if slices.ContainsFunc(s[:i], func(q Parameter) bool { return q.Name == p.Name }) {
			add("name", "is there twice")
		}
		p.validateKind(add)
		for name, values := range p.When {
			at := slices.IndexFunc(s[:i], func(q Parameter) bool { return q.Name == name && q.Kind == Categorical })
			if at < 0 {
				add("when", "no categorical parameter %q stands before this one", name)
				continue
			}
			if len(values) == 0 {
				add("when", "%s has no values, so the parameter would never exist", name)
			}
			for _, value := range values {
				if !slices.Contains(s[at].Choices, value) {
					add("when", "%s is never %q; its choices are %q", name, value, s[at].Choices)
				}
			}
		}
	}
	return errors.Join(problems...)
}

func (p Parameter) validateKind(add func(field, format string, args ...any)) {
	whole := func(v float64) bool { return v == math.Trunc(v) && math.Abs(v) <= 1<<53 }
	switch p.Kind {
	case Categorical:
		if len(p.Choices) == 0 {
			add("choices", "are empty")
		}
		for i, choice := range p.Choices {
			if slices.Contains(p.Choices[:i], choice) {
				add("choices", "%q is there twice", choice)
			}
		}
		if p.Low != 0 || p.High != 0 || p.Log || p.Step != 0 {
			add("kind", "a categorical parameter has choices only, no low, high, log or step")
		}
		return
	case Float:
		if p.Step != 0 {
			add("step", "is for ints only")
		}
	case Int:
		if !whole(p.Low) || !whole(p.High) {
			add("low", "%g and high %g, want whole numbers", p.Low, p.High)
		}
		if p.Step < 0 || p.Step > 0 && p.Log {
			add("step", "is %d, want 1 or more, and none with log", p.Step)
		}
	default:
		add("kind", "%q is unknown; known: %s, %s, %s", p.Kind, Float, Int, Categorical)
		return
	}
	if len(p.Choices) > 0 {
		add("choices", "are for categorical parameters only")
	}
	if !(p.Low < p.High) || math.IsInf(p.Low, 0) || math.IsInf(p.High, 0) {
		add("low", "%g and high %g, want finite numbers, low below high", p.Low, p.High)
	}
	if p.Log && !(p.Low > 0) {
		add("low", "%g, want more than 0 with log", p.Low)
	} else if p.Low < p.High && !(p.place(p.High) > p.place(p.Low)) {
		add("low", "%g and high %g cannot be told apart, or their distance is no number", p.Low, p.High)
	}
}

// Check returns params with each value in the type of its kind, as they are after they were read from JSON. It is an
// error if one is missing, unknown or out of bounds.
func (s Space) Check(params Params) (Params, error) {
	checked := Params{}
	for _, p := range s {
		value, given := params[p.Name]
		switch exists := p.exists(checked); {
		case !exists && given:
			return nil, fmt.Errorf("%s is given, but does not exist beside %v", p.Name, checked)
		case exists && !given:
			return nil, fmt.Errorf("%s is missing", p.Name)
		case exists:
			value, ok := p.read(value)
			if !ok {
				return nil, fmt.Errorf("%s is %v, want %s", p.Name, params[p.Name], p.domain())
			}
			checked[p.Name] = value
		}
	}
	for name := range params {
		if !slices.ContainsFunc(s, func(p Parameter) bool { return p.Name == name }) {
			return nil, fmt.Errorf("%s is no parameter of the space", name)
		}
	}
	return checked, nil
}

// exists reports whether p exists beside the values of earlier parameters.
func (p Parameter) exists(params Params) bool {
	for name, values := range p.When {
		if value, ok := params[name].(string); !ok || !slices.Contains(values, value) {
			return false
		}
	}
	return true
}

func (p Parameter) read(value any) (any, bool) {
	if p.Kind == Categorical {
		choice, ok := value.(string)
		return choice, ok && slices.Contains(p.Choices, choice)
	}
	var number float64
	switch v := value.(type) {
	case float64:
		number = v
	case int:
		number = float64(v)
	default:
		return nil, false
	}
	if !(number >= p.Low && number <= p.High) {
		return nil, false
	}
	if p.Kind == Int {
		return int(number), number == math.Trunc(number) && (int(number)-int(p.Low))%p.step() == 0
	}
	return number, true
}

func (p Parameter) domain() string {
	switch p.Kind {
	case Categorical:
		return fmt.Sprintf("one of %q", p.Choices)
	case Int:
		return fmt.Sprintf("a whole number from %g to %g in steps of %d", p.Low, p.High, p.step())
	}
	return fmt.Sprintf("a number from %g to %g", p.Low, p.High)
}

func (p Parameter) step() int { return max(p.Step, 1) }

// cells is the number of values, 0 of a float: those that cannot be counted.
func (p Parameter) cells() int {
	switch p.Kind {
	case Categorical:
		return len(p.Choices)
	case Int:
		return (int(p.High)-int(p.Low))/p.step() + 1
	}
	return 0
}

// Samplers see each parameter as a number in [0, 1]. A float is placed linearly or by its logarithm. A value of the
// others has a cell of this interval, ints with log cells of different widths, and stands in its middle.

// ends returns the two numbers that 0 and 1 stand for, before logarithms.
func (p Parameter) ends() (low, high float64) {
	if p.Kind != Int {
		return p.Low, p.High
	}
	half := float64(p.step()) / 2
	return p.Low - half, p.Low + float64(p.cells()-1)*float64(p.step()) + half
}

// place maps a number to where it stands.
func (p Parameter) place(number float64) float64 {
	low, high := p.ends()
	if p.Log {
		low, high, number = math.Log(low), math.Log(high), math.Log(number)
	}
	return (number - low) / (high - low)
}

// value returns the value at a place in [0, 1].
func (p Parameter) value(place float64) any {
	place = min(max(place, 0), 1)
	if p.Kind == Categorical {
		return p.Choices[min(int(place*float64(len(p.Choices))), len(p.Choices)-1)]
	}
	low, high := p.ends()
	var number float64
	if p.Log {
		number = math.Exp(math.Log(low) + place*(math.Log(high)-math.Log(low)))
	} else {
		number = low + place*(high-low)
	}
	if p.Kind == Float {
		return min(max(number, p.Low), p.High) // logarithms round
	}
	at := int(math.Round((number - p.Low) / float64(p.step())))
	return int(p.Low) + min(max(at, 0), p.cells()-1)*p.step()
}

// cell returns the part of [0, 1] that a value has, of which it is the middle; for a float a point.
func (p Parameter) cell(value any) (from, to float64) {
	switch v := value.(type) {
	case string:
		width := 1 / float64(len(p.Choices))
		from = float64(slices.Index(p.Choices, v)) * width
		return from, from + width
	case int:
		half := float64(p.step()) / 2
		return p.place(float64(v) - half), p.place(float64(v) + half)
	case float64:
		at := p.place(v)
		return at, at
	}
	panic(fmt.Sprintf("value %v of %s is of no kind", value, p.Name)) // params are checked where they come in
}

// at returns the place of a value.
func (p Parameter) at(value any) float64 {
	from, to := p.cell(value)
	return (from + to) / 2
}

// params makes parameters of a place for each; those that do not exist are left out.
func (s Space) params(places []float64) Params {
	params := Params{}
	for i, p := range s {
		if p.exists(params) {
			params[p.Name] = p.value(places[i])
		}
	}
	return params
}

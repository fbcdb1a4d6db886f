// Package adapt says how a model adapts while it is trained: a [Strategy] is plain data of three
// kinds, which compose.
//
//	gradient    w ← w − fᵢ·η·∇F(w), with a factor f for each pattern of variables; 0 freezes
//	objective   F(w) = loss + Σ weight·objective: terms of what the model computes, ready-made
//	            or a function of the caller's
//	experience  priors: where variables begin, and what they are pulled towards, each
//	            variable as strongly as it mattered before
//
// Budgets and a test of convergence end the adaptation; an [Event] now and then says what moved
// and by how much. Package train carries a strategy out, from train.Config.Adapt:
//
//	strategy := adapt.Strategy{
//		Gradient:   []adapt.Rate{{Variables: []string{"/embeddings/*"}, Factor: 0}},
//		Objective:  []adapt.Objective{{Kind: "attention_entropy", Weight: 0.01}},
//		Experience: []adapt.Prior{{FromRun: "runs/first", Weight: 0.1, Fisher: 200}},
//		Converge:   adapt.Converge{Below: 1e-5, Steps: 10},
//	}
//
// What fails: a strong prior and a new task that needs other weights; entropy as an objective
// of too great a weight, which makes everything one class (TestEntropyCollapses shows it);
// convergence measured under a decaying learning rate, which makes every run converge at its
// end. Adaptation to inputs without labels is package testtime.
package adapt

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Strategy says how a model adapts while it is trained. The zero value is plain training.
type Strategy struct {
	Gradient   []Rate      `json:"gradient,omitempty"`
	Objective  []Objective `json:"objective,omitempty"`
	Experience []Prior     `json:"experience,omitempty"`
	Budget     Budget      `json:"budget,omitzero"`
	Converge   Converge    `json:"converge,omitzero"`
	// LogEvery is the number of updates between events; 0 means 10. The first and the last
	// update have one always.
	LogEvery int `json:"log_every,omitempty"`
}

// Rate multiplies the learning rate of some variables, decoupled weight decay included.
type Rate struct {
	// Variables are patterns of paths, in which * stands for any text. Of several rates that
	// match a variable the first counts; variables without one have a factor of 1.
	Variables []string `json:"variables"`
	// Factor of the learning rate; 0 freezes.
	Factor float64 `json:"factor"`
}

// Prior is what is known about variables before: by an earlier run, by the state in which
// this one begins (neither FromRun nor Value), or by somebody (Value).
type Prior struct {
	// Variables are patterns of paths; nil means all.
	Variables []string `json:"variables,omitempty"`
	// FromRun names an earlier run, whose final weights are the prior w₀.
	FromRun string `json:"from_run,omitempty"`
	// Value is w₀ for every element of the variables.
	Value *float64 `json:"value,omitempty"`
	// Initial lets the variables begin at w₀.
	Initial bool `json:"initial,omitempty"`
	// Weight α adds ½·α·Σ Fᵢ·(wᵢ − w₀ᵢ)² to the mean loss; 0 adds nothing. Source: L2-SP, Li et al.
	// 2018, "Explicit inductive bias for transfer learning", for F = 1; elastic weight
	// consolidation, Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting", else.
	Weight float64 `json:"weight,omitempty"`
	// Fisher is the number of examples of the earlier run's training data from which the
	// diagonal F of the Fisher information is estimated; 0 means F = 1.
	Fisher int `json:"fisher,omitempty"`
}

// Patterns returns those of p's variables, "*" for all.
func (p Prior) Patterns() []string {
	if p.Variables == nil {
		return []string{"*"}
	}
	return p.Variables
}

// String says what is known and what it is used for.
func (p Prior) String() string {
	text := "where the run begins"
	switch {
	case p.FromRun != "":
		text = p.FromRun
	case p.Value != nil:
		text = fmt.Sprint(*p.Value)
	}
	if p.Initial {
		text += ", as initial value"
	}
	if p.Weight > 0 {
		text += fmt.Sprintf(", pulled to with weight %g", p.Weight)
	}
	if p.Fisher > 0 {
		text += fmt.Sprintf(" and Fisher information of %d examples", p.Fisher)
	}
	return text
}

// Budget ends the adaptation when something is used up; 0 means no limit.
type Budget struct {
	Updates int `json:"updates,omitempty"`
	// Seconds of training, evaluation not counted. A run that ends by it cannot be repeated
	// bit by bit.
	Seconds float64 `json:"seconds,omitempty"`
	// Distance is ‖w − start‖ over all variables that are trained, after an update.
	Distance float64 `json:"distance,omitempty"`
}

// Converge ends the adaptation when ‖Δw‖/‖w‖ of an update has been below Below for Steps updates in a
// row.
type Converge struct {
	Below float64 `json:"below,omitempty"` // 0 means never
	Steps int     `json:"steps,omitempty"` // 0 means 5
}

// Event says what an adaptation did up to an update.
type Event struct {
	Update int `json:"update"` // 0 is the start
	// Why is "begin", "step", or why the adaptation ended.
	Why  string  `json:"why"`
	Loss float64 `json:"loss,omitempty"` // mean loss of the update, objectives included, priors not
	// Change is ‖Δw‖/‖w‖ of the update and Distance ‖w − start‖, over all variables that are trained.
	Change   float64 `json:"change,omitempty"`
	Distance float64 `json:"distance,omitempty"`
	// Moved is the distance of each group: variables with the same first name, as "/layer_3".
	Moved map[string]float64 `json:"moved,omitempty"`
	// Adapts and Frozen count elements by group, at the start; Priors says what was known.
	Adapts map[string]int `json:"adapts,omitempty"`
	Frozen map[string]int `json:"frozen,omitempty"`
	Priors []string       `json:"priors,omitempty"`
}

// IsZero reports whether s is plain training; defaults that are filled in do not count.
func (s Strategy) IsZero() bool {
	return len(s.Gradient)+len(s.Objective)+len(s.Experience) == 0 && s.Budget == Budget{} && s.Converge.Below == 0
}

// WithDefaults returns s with defaults in place of zeros.
func (s Strategy) WithDefaults() Strategy {
	if s.LogEvery == 0 {
		s.LogEvery = 10
	}
	if s.Converge.Steps == 0 {
		s.Converge.Steps = 5
	}
	return s
}

// Validate reports all that is wrong with s, each problem with its field.
func (s Strategy) Validate() error {
	var problems []error
	number := func(path string, x float64) {
		if !(x >= 0) || math.IsInf(x, 0) {
			problems = append(problems, fmt.Errorf("%s is %g, want 0 or more, and finite", path, x))
		}
	}
	for i, r := range s.Gradient {
		if len(r.Variables) == 0 {
			problems = append(problems, fmt.Errorf("gradient[%d].variables is empty, want patterns of paths", i))
		}
		number(fmt.Sprintf("gradient[%d].factor", i), r.Factor)
	}
	for i, o := range s.Objective {
		problems = append(problems, o.validate(fmt.Sprintf("objective[%d]", i)))
	}
	for i, p := range s.Experience {
		path := fmt.Sprintf("experience[%d]", i)
		number(path+".weight", p.Weight)
		if p.FromRun != "" && p.Value != nil {
			problems = append(problems, fmt.Errorf("%s has both from_run and value", path))
		}
		if p.Value != nil && (math.IsNaN(*p.Value) || math.IsInf(*p.Value, 0)) {
			problems = append(problems, fmt.Errorf("%s.value is %g, want a finite number", path, *p.Value))
		}
		if p.Fisher < 0 || p.Fisher > 0 && (p.FromRun == "" || p.Weight == 0) {
			problems = append(problems, fmt.Errorf("%s.fisher is %d, want 0, or a number of examples with from_run and a weight", path, p.Fisher))
		}
		if !p.Initial && p.Weight == 0 {
			problems = append(problems, fmt.Errorf("%s does nothing: want initial or a weight", path))
		}
		if p.Initial && p.FromRun == "" && p.Value == nil {
			problems = append(problems, fmt.Errorf("%s.initial needs from_run or value", path))
		}
	}
	number("budget.seconds", s.Budget.Seconds)
	number("budget.distance", s.Budget.Distance)
	number("converge.below", s.Converge.Below)
	for path, n := range map[string]int{"budget.updates": s.Budget.Updates, "converge.steps": s.Converge.Steps, "log_every": s.LogEvery} {
		if n < 0 {
			problems = append(problems, fmt.Errorf("%s is %d, want 0 or more", path, n))
		}
	}
	return errors.Join(problems...)
}

// Factors returns the factor of the learning rate of each variable, by path. A pattern that
// matches none is an error.
func (s Strategy) Factors(variables []elastic.Variable) (map[string]float64, error) {
	factors := map[string]float64{}
	var problems []error
	for i, r := range s.Gradient {
		chosen, err := Select(variables, r.Variables)
		if err != nil {
			problems = append(problems, fmt.Errorf("gradient[%d].variables: %w", i, err))
		}
		for _, v := range chosen {
			if _, ok := factors[v.Path]; !ok {
				factors[v.Path] = r.Factor
			}
		}
	}
	for _, v := range variables {
		if _, ok := factors[v.Path]; !ok {
			factors[v.Path] = 1
		}
	}
	return factors, errors.Join(problems...)
}

// End says why the adaptation ends after an update, or "". Calm is for how many updates in a
// row ‖Δw‖/‖w‖ has been below [Converge].Below.
func (s Strategy) End(update, calm int, seconds, distance float64) string {
	b, c := s.Budget, s.WithDefaults().Converge
	switch {
	case c.Below > 0 && calm >= c.Steps:
		return fmt.Sprintf("converged: relative change below %g for %d updates", c.Below, c.Steps)
	case b.Updates > 0 && update >= b.Updates:
		return fmt.Sprintf("budget of %d updates used", b.Updates)
	case b.Seconds > 0 && seconds >= b.Seconds:
		return fmt.Sprintf("budget of %g seconds used", b.Seconds)
	case b.Distance > 0 && distance >= b.Distance:
		return fmt.Sprintf("budget of distance %g used", b.Distance)
	}
	return ""
}

// Group returns the group of a variable in an [Event]: the first name of its path.
func Group(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return "/" + first
}

// Select returns the variables whose paths one of the patterns matches. A pattern that
// matches none is an error that names it.
func Select(variables []elastic.Variable, patterns []string) ([]elastic.Variable, error) {
	var chosen []elastic.Variable
	matched := make([]bool, len(patterns))
	matchers := make([]func(string) bool, len(patterns))
	for i, pattern := range patterns {
		matchers[i] = elastic.Matcher(pattern)
	}
	for _, v := range variables {
		found := false
		for i, matches := range matchers {
			match := matches(v.Path)
			matched[i] = matched[i] || match
			found = found || match
		}
		if found {
			chosen = append(chosen, v)
		}
	}
	var problems []error
	for i, ok := range matched {
		if !ok {
			problems = append(problems, fmt.Errorf("pattern %q matches no variable of the model; there are %s", patterns[i], strings.Join(elastic.Patterns(variables), " ")))
		}
	}
	if len(chosen) == 0 && len(problems) == 0 {
		problems = append(problems, errors.New("no variables are to adapt"))
	}
	return chosen, errors.Join(problems...)
}

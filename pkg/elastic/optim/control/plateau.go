package control

import (
	"errors"
	"fmt"
	"math"
)

// Plateau reduces the rate when a number stops improving, with the semantics of PyTorch's
// ReduceLROnPlateau: after more than Patience observations in a row without an
// improvement the factor of the rate is multiplied by Factor; for Cooldown observations after that,
// none counts as bad.
//
// PyTorch's min_lr and eps are rates. Here, where the rate is the schedule's times a
// factor, Min and Epsilon are factors: min_lr and eps over the rate without reduction.
type Plateau struct {
	Progress
	// Factor is in (0, 1); 0 means 0.1.
	Factor float64 `json:"factor,omitempty"`
	// Cooldown is a number of observations.
	Cooldown int `json:"cooldown,omitempty"`
	// Min is the lowest factor of the rate.
	Min float64 `json:"min,omitempty"`
	// Epsilon is how much a reduction must exceed to be made; 0 means 1e-8.
	Epsilon float64 `json:"epsilon,omitempty"`
}

func (p Plateau) withDefaults() Plateau {
	p.Progress = p.Progress.withDefaults()
	if p.Factor == 0 {
		p.Factor = 0.1
	}
	if p.Epsilon == 0 {
		p.Epsilon = 1e-8
	}
	return p
}

func (p Plateau) validate(path string) error {
	p = p.withDefaults()
	path += "plateau."
	problems := []error{p.Progress.validate(path)}
	if !(p.Factor > 0 && p.Factor < 1) {
		problems = append(problems, fmt.Errorf("%sfactor is %g, want 0 < f < 1", path, p.Factor))
	}
	if p.Cooldown < 0 {
		problems = append(problems, fmt.Errorf("%scooldown is %d, want 0 or more", path, p.Cooldown))
	}
	if !(p.Min >= 0 && p.Min <= 1) {
		problems = append(problems, fmt.Errorf("%smin is %g, want a factor of the rate 0 ≤ m ≤ 1", path, p.Min))
	}
	if !(p.Epsilon > 0 && p.Epsilon < 1) {
		problems = append(problems, fmt.Errorf("%sepsilon is %g, want 0 < e < 1", path, p.Epsilon))
	}
	return errors.Join(problems...)
}

func (p Plateau) start() worker {
	return &plateau{p.withDefaults(), plateauState{Scale: 1}}
}

type plateauState struct {
	watched
	Scale    float64 `json:"scale"`
	Cooldown int     `json:"cooldown"` // observations that are left of it
}

type plateau struct {
	options Plateau
	plateauState
}

func (p *plateau) factor() float64 { return p.Scale }
func (p *plateau) stopped() string { return "" }
func (p *plateau) state() any      { return &p.plateauState }

func (p *plateau) observe(signals Signals) (Event, bool) {
	value, seen := p.options.value(signals)
	if !seen {
		return Event{}, false
	}
	p.options.observe(&p.watched, value)
	if p.Cooldown > 0 {
		p.Cooldown--
		p.Bad = 0
	}
	if p.Bad <= p.options.Patience {
		return Event{}, false
	}
	bad := p.Bad
	p.Bad, p.Cooldown = 0, p.options.Cooldown
	scale := math.Max(p.Scale*p.options.Factor, p.options.Min)
	if p.Scale-scale <= p.options.Epsilon {
		return Event{}, false
	}
	p.Scale = scale
	return Event{
		Controller: "plateau", Signal: p.options.Signal, Action: "reduce",
		Reason: p.options.reason(bad, value, p.Best),
	}, true
}

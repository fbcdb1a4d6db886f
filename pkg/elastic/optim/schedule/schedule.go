// Package schedule has learning-rate schedules as plain values.
//
// A schedule counts updates, from 0: At(0) is the rate of the first update. It is
// computed on the host in float64 and handed to the compiled step as an input, so no
// schedule causes a compilation, and a run that resumes goes on where it was.
package schedule

import (
	"errors"
	"fmt"
	"math"
)

// Schedule gives the learning rate of each update.
type Schedule interface {
	// At returns the rate of update step, counted from 0.
	At(step int) float64
}

// Constant is the same rate for ever.
type Constant struct{ Rate float64 }

// At returns the rate.
func (c Constant) At(int) float64 { return c.Rate }

// Linear rises to Peak during the warm-up and then falls to 0 at TotalSteps:
//
//	(s+1)/W · Peak       for s < W
//	(T−s)/(T−W) · Peak   from there on, 0 after T
//
// with W = WarmupSteps and T = TotalSteps. The first update already has a positive
// rate; the decay begins at Peak. (Transformers' own schedule gives the first update
// of a warm-up the rate 0.)
type Linear struct {
	Peak                    float64
	WarmupSteps, TotalSteps int
}

// At returns the rate of update step.
func (l Linear) At(step int) float64 {
	if step < l.WarmupSteps {
		return l.Peak * float64(step+1) / float64(l.WarmupSteps)
	}
	if step >= l.TotalSteps {
		return 0
	}
	return l.Peak * float64(l.TotalSteps-step) / float64(l.TotalSteps-l.WarmupSteps)
}

// Config names a schedule in a training config.
type Config struct {
	// Kind is "linear" (warm-up, then to zero at the last update) or "constant"; empty means linear.
	Kind string `json:"kind,omitempty"`
	// Peak is the highest rate.
	Peak float64 `json:"peak"`
	// Warmup is the fraction of all updates that the warm-up takes, in [0, 1); linear only.
	Warmup float64 `json:"warmup,omitempty"`
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	if c.Kind != "" && c.Kind != "linear" && c.Kind != "constant" {
		problems = append(problems, fmt.Errorf("schedule.kind %q is unknown; known: linear, constant", c.Kind))
	}
	if !(c.Peak > 0) || math.IsInf(c.Peak, 0) {
		problems = append(problems, fmt.Errorf("schedule.peak is %g, want a positive and finite rate", c.Peak))
	}
	if !(c.Warmup >= 0 && c.Warmup < 1) {
		problems = append(problems, fmt.Errorf("schedule.warmup is %g, want a fraction 0 ≤ w < 1", c.Warmup))
	}
	if c.Kind == "constant" && c.Warmup != 0 {
		problems = append(problems, errors.New("schedule.warmup is set, but a constant schedule has none"))
	}
	return errors.Join(problems...)
}

// Schedule returns the schedule over a number of updates.
func (c Config) Schedule(totalSteps int) Schedule {
	if c.Kind == "constant" {
		return Constant{Rate: c.Peak}
	}
	return Linear{Peak: c.Peak, WarmupSteps: int(c.Warmup * float64(totalSteps)), TotalSteps: totalSteps}
}

package search

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/elastic-attention/workbench/internal/kind"
)

// Scheduler decides how far trials go, by what they report. It is plain data: what it decides follows from the
// trials alone, so a search that is taken up again goes on as if it had never stopped. Resources are whole numbers of
// something that trials report by, as epochs.
type Scheduler interface {
	kind.Value
	// Validate reports all that is wrong with it.
	Validate() error
	// Plan is how many trials it wants; 0 leaves that to the config.
	Plan() int
	next(view) move
	stop(trials []Trial, number int) bool
}

// view is what a scheduler sees: trials of which less is better.
type view struct {
	trials []Trial
	limit  int
	seed   uint64
	space  Space
}

// move is what a scheduler wants: a trial to begin or to resume, until some resource.
type move struct {
	to               int // begin, resume or rest
	trial, until     int
	params           Params // nil leaves them to the sampler
	parent, replaces *int
}

const (
	begin = iota
	resume
	rest
)

// Median stops a trial that is worse, by the best that it has reported, than half of the others were after as much.
//
// Source: Golovin et al. 2017, "Google Vizier", section 3.1, the median stopping rule.
type Median struct {
	// Startup is how many trials must have gone as far; 0 means 5.
	Startup int `json:"startup,omitempty"`
	// Warmup is the resource up to which none is stopped.
	Warmup int `json:"warmup,omitempty"`
}

// Kind returns "median".
func (Median) Kind() string { return "median" }

// Validate reports negative numbers.
func (m Median) Validate() error {
	if m.Startup < 0 || m.Warmup < 0 {
		return fmt.Errorf("scheduler: startup is %d and warmup %d, want 0 or more", m.Startup, m.Warmup)
	}
	return nil
}

// Plan returns 0.
func (Median) Plan() int { return 0 }

func (m Median) next(v view) move {
	if len(v.trials) >= v.limit {
		return move{to: rest}
	}
	return move{}
}

func (m Median) stop(trials []Trial, number int) bool {
	trial := trials[number]
	resource := trial.resource()
	if resource <= m.Warmup {
		return false
	}
	var others []float64
	for i, t := range trials {
		if value, ok := t.after(resource); ok && i != number {
			others = append(others, value)
		}
	}
	startup := m.Startup
	if startup == 0 {
		startup = 5
	}
	if len(others) < startup {
		return false
	}
	best := math.Inf(1)
	for _, r := range trial.Reports {
		best = min(best, r.Value)
	}
	sort.Float64s(others)
	n := len(others)
	return best > (others[(n-1)/2]+others[n/2])/2
}

// Rungs says how much resource trials get before they are compared: Min·Etaᵏ, the last below Max. The best of a rung
// go on to the next, and those of the last rung to their end.
type Rungs struct {
	// Min is the resource of the first rung; 0 means 1. Max is that of a whole trial.
	Min int `json:"min,omitempty"`
	Max int `json:"max"`
	// Eta says that one in so many goes on; 0 means 3.
	Eta int `json:"eta,omitempty"`
}

func (r Rungs) withDefaults() Rungs {
	if r.Min == 0 {
		r.Min = 1
	}
	if r.Eta == 0 {
		r.Eta = 3
	}
	return r
}

func (r Rungs) validate() error {
	var problems []error
	if r = r.withDefaults(); r.Min < 1 {
		problems = append(problems, fmt.Errorf("scheduler.min is %d, want 1 or more", r.Min))
	}
	if r.Eta < 2 || r.Eta > 1000 {
		problems = append(problems, fmt.Errorf("scheduler.eta is %d, want it from 2 to 1000", r.Eta))
	}
	if r.Max > 1<<40 || r.Max/max(r.Eta, 1) < r.Min {
		problems = append(problems, fmt.Errorf("scheduler.max is %d, want the resource of a whole trial, at least min times eta, and at most 2⁴⁰", r.Max))
	}
	return errors.Join(problems...)
}

// levels lists the rungs from the one that starts with resource from. The last is 0: to the end.
func (r Rungs) levels() []int {
	r = r.withDefaults()
	var levels []int
	for resource := r.Min; resource < r.Max; resource *= r.Eta {
		levels = append(levels, resource)
	}
	return append(levels, 0)
}

// candidate is a trial that may go on.
type candidate struct {
	at    int
	value float64
}

// best returns up to n of the candidates, the best first; among equals the earlier.
func best(all []candidate, n int) []candidate {
	slices.SortStableFunc(all, func(a, b candidate) int {
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		}
		return a.at - b.at
	})
	return all[:min(n, len(all))]
}

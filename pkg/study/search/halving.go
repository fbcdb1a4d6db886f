package search

import (
	"fmt"
	"math"
	"slices"
)

// Halving gives Trials trials the resource of the first rung, lets the best one in Eta go on to the next when all
// of a rung are there, and so on: successive halving. Those that go on are resumed, not begun again.
//
// Source: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization".
type Halving struct{ Rungs }

// Kind returns "halving".
func (Halving) Kind() string { return "halving" }

// Validate reports rungs that cannot be.
func (h Halving) Validate() error { return h.validate() }

// Plan returns 0.
func (Halving) Plan() int { return 0 }

func (h Halving) next(v view) move {
	r := h.withDefaults()
	return bracket{levels: h.levels(), eta: r.Eta, size: v.limit}.next(v.trials, indices(len(v.trials)))
}

func (Halving) stop([]Trial, int) bool { return false }

// bracket is a run of successive halving over some of the trials.
type bracket struct {
	levels    []int
	eta, size int
}

// next looks at the trials whose numbers are given, which are the bracket's.
func (b bracket) next(trials []Trial, members []int) move {
	if len(members) < b.size {
		return move{until: b.levels[0]}
	}
	// A rung is complete if all that were to reach it did, failed or were let go.
	in := members
	for k, level := range b.levels[:len(b.levels)-1] {
		var there []candidate
		for _, i := range in {
			t := trials[i]
			value, ok := t.after(level)
			switch {
			case ok:
				there = append(there, candidate{i, value})
			case t.State == Finished: // it never reported, or ended early
				there = append(there, candidate{i, t.Value})
			case t.State == Running:
				return move{to: rest}
			}
		}
		chosen := best(there, max(len(in)/b.eta, 1))
		in = nil
		for _, c := range chosen {
			in = append(in, c.at)
			if t := trials[c.at]; t.State == Paused && t.Until == level {
				return move{to: resume, trial: c.at, until: b.levels[k+1]}
			}
		}
	}
	return move{to: rest}
}

func indices(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Hyperband makes several brackets of successive halving, from many trials that begin with little resource to few that
// get all, so that a search is safe where early values mislead. With s from S = ⌊log_η(Max/Min)⌋ down to 0, bracket s
// begins ⌈(S+1)/(s+1)·ηˢ⌉ trials with Max·η⁻ˢ. It plans Rounds times all brackets.
//
// Source: Li et al. 2018, "Hyperband", JMLR 18, algorithm 1; with another sampler than random it is the scheme of Falkner et
// al. 2018, "BOHB". Here trials that go on are resumed, which costs less than what the papers count.
type Hyperband struct {
	Rungs
	// Rounds is how often all brackets are gone through; 0 means 1.
	Rounds int `json:"rounds,omitempty"`
}

// Kind returns "hyperband".
func (Hyperband) Kind() string { return "hyperband" }

// Validate reports rungs that cannot be.
func (h Hyperband) Validate() error {
	if h.Rounds < 0 || h.Rounds > 1000 {
		return fmt.Errorf("scheduler.rounds is %d, want 1 or more, at most 1000", h.Rounds)
	}
	if err := h.validate(); err != nil {
		return err
	}
	if r := h.withDefaults(); r.Max/r.Min > mostRungs {
		return fmt.Errorf("scheduler.max is %d times min, want at most %d times: the first bracket would begin about so many trials", r.Max/r.Min, mostRungs)
	}
	return nil
}

const mostRungs = 100_000

// Plan returns the number of trials of all brackets, 0 if h is not valid.
func (h Hyperband) Plan() int {
	total := 0
	for _, b := range h.brackets() {
		total += b.size
	}
	return total
}

func (h Hyperband) brackets() []bracket {
	r := h.withDefaults()
	if h.Validate() != nil {
		return nil
	}
	most := 0
	for size := r.Min * r.Eta; size <= r.Max; size *= r.Eta {
		most++
	}
	var all []bracket
	for range max(h.Rounds, 1) {
		for s := most; s >= 0; s-- {
			size := math.Ceil(float64(most+1) / float64(s+1) * math.Pow(float64(r.Eta), float64(s)))
			var levels []int
			for k := s; k > 0; k-- {
				levels = append(levels, max(int(float64(r.Max)/math.Pow(float64(r.Eta), float64(k))), 1))
			}
			all = append(all, bracket{levels: append(levels, 0), eta: r.Eta, size: int(size)})
		}
	}
	return all
}

func (h Hyperband) next(v view) move {
	from := 0
	for _, b := range h.brackets() {
		to := min(from+b.size, len(v.trials))
		members := indices(to)[from:]
		if m := b.next(v.trials, members); m.to != rest {
			return m
		}
		from += b.size // where a bracket waits, workers that are free begin the next
	}
	return move{to: rest}
}

func (Hyperband) stop([]Trial, int) bool { return false }

// ASHA is successive halving that never waits: a worker that is free resumes a trial that is among the best one in
// Eta of those that have reached a rung so far, from the highest rung down, or else begins a new one. If none has finished when
// all have begun, the best goes on to its end.
//
// Source: Li et al. 2020, "A system for massively parallel hyperparameter tuning", algorithm 2.
type ASHA struct{ Rungs }

// Kind returns "asha".
func (ASHA) Kind() string { return "asha" }

// Validate reports rungs that cannot be.
func (a ASHA) Validate() error { return a.validate() }

// Plan returns 0.
func (ASHA) Plan() int { return 0 }

func (a ASHA) next(v view) move {
	levels := a.levels()
	for k := len(levels) - 2; k >= 0; k-- {
		var there []candidate
		for i, t := range v.trials {
			if value, ok := t.after(levels[k]); ok {
				there = append(there, candidate{i, value})
			}
		}
		for _, c := range best(there, len(there)/a.withDefaults().Eta) {
			if t := v.trials[c.at]; t.State == Paused && t.Until == levels[k] {
				return move{to: resume, trial: c.at, until: levels[k+1]}
			}
		}
	}
	if len(v.trials) < v.limit {
		return move{until: levels[0]}
	}
	return a.last(v.trials, levels)
}

// last lets the best trial of the highest rung go on when nothing else is left to do and none has finished.
func (ASHA) last(trials []Trial, levels []int) move {
	if slices.ContainsFunc(trials, func(t Trial) bool { return t.State == Running || t.State == Finished }) {
		return move{to: rest}
	}
	for k := len(levels) - 2; k >= 0; k-- {
		var there []candidate
		for i, t := range trials {
			if value, ok := t.after(levels[k]); ok && t.State == Paused && t.Until == levels[k] {
				there = append(there, candidate{i, value})
			}
		}
		if len(there) > 0 {
			return move{to: resume, trial: best(there, 1)[0].at, until: levels[k+1]}
		}
	}
	return move{to: rest}
}

func (ASHA) stop([]Trial, int) bool { return false }

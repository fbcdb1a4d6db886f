package search

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// TPE suggests what is more probable among good trials than among the others: the tree-structured Parzen estimator, over
// all parameters together. Of n trials the best ⌈n/10⌉, at most 25, make the density l, the others g; of some
// candidates drawn from l the one with the largest l/g is taken. Trials that run and have reported nothing count as bad, so that
// workers side by side do not crowd.
//
// Parameters that exist under the same conditions have a density together, made of the trials that have them. A value
// that finished ranks before one that was reported on the way, and among these the one with more resource first.
//
// Source: Bergstra et al. 2011, "Algorithms for hyper-parameter optimization"; Falkner et al. 2018, "BOHB", for densities
// over several parameters; Watanabe 2023, "Tree-structured Parzen estimator: understanding its algorithm components",
// arXiv 2304.11127.
type TPE struct {
	// Startup is how many trials are drawn at random before; 0 means 10.
	Startup int `json:"startup,omitempty"`
	// Candidates is the number of draws from l; 0 means 24.
	Candidates int `json:"candidates,omitempty"`
}

// Kind returns "tpe".
func (TPE) Kind() string { return "tpe" }

// Validate reports negative numbers, and too many candidates.
func (t TPE) Validate(Space) error {
	if t.Startup < 0 || t.Candidates < 0 || t.Candidates > 100_000 {
		return fmt.Errorf("sampler: startup is %d and candidates %d, want 1 or more, at most 100000 candidates, or 0 for the default", t.Startup, t.Candidates)
	}
	return nil
}

// Sample suggests.
func (t TPE) Sample(h History) Params {
	if t.Startup == 0 {
		t.Startup = 10
	}
	if t.Candidates == 0 {
		t.Candidates = 24
	}
	ranked, known := rank(h.Trials, t.Startup)
	if known < t.Startup {
		return Random{}.Sample(h)
	}
	good := goodOf(known)
	random := h.random()
	params := Params{}
	for i, p := range h.Space {
		if _, drawn := params[p.Name]; drawn || !p.exists(params) {
			continue
		}
		var group []Parameter
		for _, q := range h.Space[i:] {
			if maps.EqualFunc(p.When, q.When, slices.Equal) {
				group = append(group, q)
			}
		}
		l, g := newParzen(group, having(group, ranked[:good])), newParzen(group, having(group, ranked[good:]))
		best, score := Params(nil), math.Inf(-1)
		for range t.Candidates {
			candidate := l.sample(random)
			if s := l.log(candidate) - g.log(candidate); best == nil || s > score {
				best, score = candidate, s
			}
		}
		maps.Copy(params, best)
	}
	return params
}

// having returns the parameters of the trials that have a group of them.
func having(group []Parameter, trials []Trial) []Params {
	var all []Params
	for _, t := range trials {
		if _, ok := t.Params[group[0].Name]; ok {
			all = append(all, t.Params)
		}
	}
	return all
}

// rank sorts trials, the best first, and says how many have said anything.
//
// Trials are compared by what they reached after the largest resource that at least so many have used: their values if enough
// have finished, else what they reported there. Trials that did not come as far follow, those with more
// resource first, then those of which nothing is known.
func rank(trials []Trial, enough int) (ranked []Trial, known int) {
	var resources []int
	finished := 0
	for _, t := range trials {
		if _, ok := quality(t); !ok {
			continue
		}
		known++
		if t.State == Finished {
			finished++
		}
		resources = append(resources, t.resource())
	}
	enough = max(enough, goodOf(known))
	slices.SortFunc(resources, func(a, b int) int { return b - a })
	level := 0
	if len(resources) >= enough {
		level = resources[enough-1]
	}
	type place struct {
		class, resource int
		value           float64
	}
	of := func(t Trial) place {
		value, ok := quality(t)
		if !ok {
			return place{class: 2}
		}
		if finished < enough && level > 0 {
			if value, ok := t.after(level); ok {
				return place{value: value}
			}
		} else if t.State == Finished {
			return place{value: value}
		}
		return place{1, -t.resource(), value}
	}
	ranked = slices.Clone(trials)
	slices.SortStableFunc(ranked, func(a, b Trial) int {
		x, y := of(a), of(b)
		return cmp.Or(cmp.Compare(x.class, y.class), cmp.Compare(x.resource, y.resource), cmp.Compare(x.value, y.value))
	})
	return ranked, known
}

// goodOf says how many of so many trials count as good.
func goodOf(known int) int { return min((known+9)/10, 25) }

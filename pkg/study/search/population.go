package search

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Population is population-based training. Size trials are trained side by side; each pauses after every Interval of
// the resource. One that is then among the worst Quantile of the members is replaced: a new trial goes on from the
// state of one of the best Quantile, with its parameters perturbed. The others go on as they are, until Max.
//
// To perturb means for a number to be multiplied by 0.8 or 1.2, or with probability Resample, and for a
// categorical parameter always so, to be drawn anew.
//
// Source: Jaderberg et al. 2017, "Population based training of neural networks", arXiv 1711.09846: truncation
// selection, and perturb and resample as in its appendix.
type Population struct {
	// Size is the number of members, at least 2.
	Size int `json:"size"`
	// Interval is the resource between comparisons, Max that of a whole trial.
	Interval int `json:"interval"`
	Max      int `json:"max"`
	// Quantile, in (0, 0.5], is the share that is replaced; 0 means 0.2.
	Quantile float64 `json:"quantile,omitempty"`
	// Resample, in [0, 1], is the probability with which a parameter is drawn anew; 0 means 0.25.
	Resample float64 `json:"resample,omitempty"`
}

// Kind returns "population".
func (Population) Kind() string { return "population" }

// Validate reports sizes that cannot be.
func (p Population) Validate() error {
	var problems []error
	if p.Size < 2 || p.Size > 100_000 {
		problems = append(problems, fmt.Errorf("scheduler.size is %d, want it from 2 to 100000", p.Size))
	}
	if p.Interval < 1 || p.Max <= p.Interval || p.Max > 1<<40 {
		problems = append(problems, fmt.Errorf("scheduler.interval is %d and max %d, want 1 or more, and max above, at most 2⁴⁰", p.Interval, p.Max))
	}
	if !(p.Quantile >= 0 && p.Quantile <= 0.5) {
		problems = append(problems, fmt.Errorf("scheduler.quantile is %g, want it in (0, 0.5], or 0 for the default", p.Quantile))
	}
	if !(p.Resample >= 0 && p.Resample <= 1) {
		problems = append(problems, fmt.Errorf("scheduler.resample is %g, want it in [0, 1]", p.Resample))
	}
	return errors.Join(problems...)
}

// Plan returns the size. Replacements come on top.
func (p Population) Plan() int { return max(p.Size, 0) }

func (p Population) next(v view) move {
	if len(v.trials) < p.Size {
		return move{until: p.Interval}
	}
	at := -1 // the member that is furthest behind
	for i, t := range v.trials {
		if t.State == Paused && (at < 0 || t.resource() < v.trials[at].resource()) {
			at = i
		}
	}
	if at < 0 {
		return move{to: rest}
	}
	if parents := p.parents(v.trials, at); len(parents) > 0 {
		random := rand.New(rand.NewPCG(v.seed, uint64(len(v.trials))))
		from := v.trials[parents[random.IntN(len(parents))]]
		return move{until: p.until(from), params: p.perturb(v.space, from.Params, random), parent: &from.Number, replaces: &at}
	}
	return move{to: resume, trial: at, until: p.until(v.trials[at])}
}

// parents are the trials one of which replaces a member: none if that is good enough. Members are compared by what they had
// reached after as much as this one. Only a paused trial has a state to go on from that does not change meanwhile.
func (p Population) parents(trials []Trial, member int) (parents []int) {
	var members []candidate
	for i, t := range trials {
		if value, ok := t.after(trials[member].resource()); ok && (t.State == Running || t.State == Paused || t.State == Finished) {
			members = append(members, candidate{i, value})
		}
	}
	quantile := p.Quantile
	if quantile == 0 {
		quantile = 0.2
	}
	few := max(int(quantile*float64(p.Size)), 1)
	ordered := best(members, len(members))
	if len(ordered) < 2*few || !slices.ContainsFunc(ordered[len(ordered)-few:], func(c candidate) bool { return c.at == member }) {
		return nil
	}
	for _, c := range ordered[:few] {
		if trials[c.at].State == Paused {
			parents = append(parents, c.at)
		}
	}
	return parents
}

// until is where a trial pauses that goes on from the state of t.
func (p Population) until(t Trial) int {
	if until := t.resource() + p.Interval; until < p.Max {
		return until
	}
	return 0
}

func (p Population) perturb(space Space, parent Params, random *rand.Rand) Params {
	resample := p.Resample
	if resample == 0 {
		resample = 0.25
	}
	params := Params{}
	for _, q := range space {
		if !q.exists(params) {
			continue
		}
		anew := q.value(random.Float64())
		factor := 0.8 + 0.4*float64(random.IntN(2))
		value, had := parent[q.Name]
		switch again := random.Float64() < resample; {
		case !had || again:
			params[q.Name] = anew
		case q.Kind == Categorical:
			params[q.Name] = value
		case q.Kind == Int:
			params[q.Name] = q.value(q.place(max(float64(value.(int))*factor, q.Low)))
		default:
			params[q.Name] = min(max(value.(float64)*factor, q.Low), q.High)
		}
	}
	return params
}

func (Population) stop([]Trial, int) bool { return false }

package search

import (
	"fmt"
	"math/rand/v2"

	"github.com/elastic-attention/workbench/internal/kind"
)

// Sampler suggests parameters. It is plain data: what it suggests follows from the history and the
// seed alone.
type Sampler interface {
	kind.Value
	// Validate reports what is wrong with it, or with it on a space.
	Validate(Space) error
	// Sample returns the parameters of the next trial.
	Sample(History) Params
}

// History is what a sampler knows.
type History struct {
	Space Space
	// Trials are those of earlier studies, then those of this one; less is better.
	Trials []Trial
	// Number is that of the trial that is to begin, counted from 0 without those of earlier studies.
	Number int
	Seed   uint64
}

// random returns the source of random numbers for the trial.
func (h History) random() *rand.Rand { return rand.New(rand.NewPCG(h.Seed, uint64(h.Number))) }

// Random draws each parameter uniformly, on a logarithmic scale where it has one.
type Random struct{}

// Kind returns "random".
func (Random) Kind() string { return "random" }

// Validate returns nil.
func (Random) Validate(Space) error { return nil }

// Sample draws.
func (Random) Sample(h History) Params {
	random := h.random()
	places := make([]float64, len(h.Space))
	for i := range places {
		places[i] = random.Float64()
	}
	return h.Space.params(places)
}

// Grid takes every combination once, the last parameter changing fastest. A parameter that does not exist
// beside the values of others makes no further combinations.
type Grid struct {
	// Points is the number of values of a float, and the most of an int, evenly spaced from low to high; 0 means 5.
	Points int `json:"points,omitempty"`
}

// Kind returns "grid".
func (Grid) Kind() string { return "grid" }

// Validate reports a negative number of points and a space with too many combinations.
func (g Grid) Validate(space Space) error {
	if g.Points < 0 || g.Points > maxGrid {
		return fmt.Errorf("sampler.points is %d, want it from 1 to %d", g.Points, maxGrid)
	}
	if size := g.size(space); size > maxGrid {
		return fmt.Errorf("sampler: a grid of this space has more than %d points; take fewer points, or another sampler", maxGrid)
	}
	return nil
}

const maxGrid = 100_000

// size is the number of combinations, at most maxGrid+1.
func (g Grid) size(space Space) int { return len(g.combinations(space, maxGrid+1)) }

// Sample returns combination number h.Number; behind the last, the first follows.
func (g Grid) Sample(h History) Params {
	all := g.combinations(h.Space, maxGrid)
	return all[h.Number%len(all)]
}

func (g Grid) combinations(space Space, limit int) []Params {
	all := []Params{{}}
	for _, p := range space {
		var next []Params
		for _, params := range all {
			if !p.exists(params) {
				next = append(next, params)
				continue
			}
			for _, value := range g.values(p) {
				more := Params{p.Name: value}
				for name, v := range params {
					more[name] = v
				}
				if next = append(next, more); len(next) == limit {
					return next
				}
			}
		}
		all = next
	}
	return all
}

func (g Grid) values(p Parameter) []any {
	points := g.Points
	if points == 0 {
		points = 5
	}
	if cells := p.cells(); cells > 0 && (cells <= points || p.Kind == Categorical) {
		points = cells
	}
	var values []any
	if p.Kind == Categorical {
		for _, choice := range p.Choices {
			values = append(values, choice)
		}
		return values
	}
	from, to := p.place(p.Low), p.place(p.Low+float64(max(p.cells()-1, 0)*p.step()))
	if p.Kind == Float {
		from, to = 0, 1
	}
	for i := range points {
		at := (from + to) / 2
		if points > 1 {
			at = from + (to-from)*float64(i)/float64(points-1)
		}
		if value := p.value(at); len(values) == 0 || values[len(values)-1] != value {
			values = append(values, value)
		}
	}
	return values
}

package testtime

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Guard puts the variables back to where they began when predictions collapse. After
// MaxResets times it stops the adaptation for good.
//
// Now and then it lets the unadapted model predict the same batch and compares. So neither a
// shift of the data nor how rare a class is counts as collapse; only what adaptation did to
// the predictions does. Sums over looks fade by an eighth a look.
//
// With the method "labels" damage can be told from gain: what counts there in place of changed decisions
// are those that were right without adaptation less those that are right with it, and entropy, which falls
// as a model learns, says nothing.
//
// A reset needs evidence, a few changed decisions, and MaxResets of them may come. So the damage
// is bounded by a number of decisions; on a stream of a hundred telling decisions in batches of one, at
// a rate far too high, that was a tenth of them, on longer streams it is less.
type Guard struct {
	// Off switches it off, but for values that are not finite.
	Off bool `json:"off,omitempty"`
	// MaxChanged: collapsed is who decides otherwise than the unadapted model too often. The
	// share is that of rows with another class among the rows that the unadapted model puts in
	// any class but its most frequent one: the decisions that say something, be it the tenth of
	// words that are entities or nine tenths of ten balanced classes. One standard deviation of
	// the count (its root) is taken off first, for small numbers prove nothing. As no more
	// decisions can be wrong than have changed, this bounds the damage. 0 means 0.03; for data
	// that differs so much from the training data that many decisions should change, allow more.
	MaxChanged float64 `json:"max_changed,omitempty"`
	// MinEntropy: collapsed is whose mean entropy is less than this share of the unadapted
	// model's; 0 means 0.3.
	MinEntropy float64 `json:"min_entropy,omitempty"`
	// MaxDivergence: collapsed is whose mean prediction over a batch has a greater divergence
	// KL(unadapted ‖ adapted), in nats; 0 means no limit, for a good one depends on the
	// number of classes and how rare they are.
	MaxDivergence float64 `json:"max_divergence,omitempty"`
	// Every is how often it looks, in steps, for a look costs a forward pass of the unadapted
	// model; before that, it looks at steps 2, 4, 8 and so on. 0 means 16.
	Every int `json:"every,omitempty"`
	// MaxResets is how often it begins anew before it gives up; 0 means 3.
	MaxResets int `json:"max_resets,omitempty"`
}

// withDefaults returns g with defaults in place of zeros.
func (g Guard) withDefaults() Guard {
	for into, value := range map[*float64]float64{&g.MaxChanged: 0.03, &g.MinEntropy: 0.3} {
		if *into == 0 {
			*into = value
		}
	}
	for into, value := range map[*int]int{&g.Every: 16, &g.MaxResets: 3} {
		if *into == 0 {
			*into = value
		}
	}
	return g
}

func (g Guard) validate() error {
	problems := []error{
		between("guard.max_changed", g.MaxChanged, 0, 100), between("guard.min_entropy", g.MinEntropy, 0, 1),
		between("guard.max_divergence", g.MaxDivergence, 0, 100),
	}
	if g.Every < 1 || g.MaxResets < 1 {
		problems = append(problems, fmt.Errorf("guard.every is %d and guard.max_resets %d, want at least 1", g.Every, g.MaxResets))
	}
	return errors.Join(problems...)
}

// due reports whether the guard looks at a step, counted from 1 since the last reset, given how
// full the last batch was. Before the first step there is nothing to see.
func (g Guard) due(step int, full float64, w watch) bool {
	every := max(min(g.Every, 2), int(float64(g.Every)*min(full, 1)))
	return !g.Off && (step%every == 0 || step > 1 && step < every && step&(step-1) == 0 || w.alarmed)
}

// sight is what one look at the unadapted model shows.
type sight struct {
	rows               float64   // that count
	entropy, unadapted float64   // mean entropies
	damage             float64   // rows with another class; with labels, how many fewer are right
	classes            []float32 // how often the unadapted model predicts each
}

// watch gathers sights; they fade.
type watch struct {
	entropy, unadapted, damage float64
	classes                    []float64
	alarmed                    bool // the last look showed damage
}

// memory of the sums, in looks.
const memory = 8

func (w *watch) add(s sight) {
	if w.classes == nil {
		w.classes = make([]float64, len(s.classes))
	}
	fade := func(sum *float64, x float64) { *sum = *sum*(1-1.0/memory) + x }
	fade(&w.entropy, s.entropy*s.rows)
	fade(&w.unadapted, s.unadapted*s.rows)
	fade(&w.damage, s.damage)
	w.alarmed = s.damage > 0
	for i, n := range s.classes {
		fade(&w.classes[i], float64(n))
	}
}

// share is the share of decisions that have changed, or with labels become wrong, beyond doubt.
func (w *watch) share() float64 {
	telling := -slices.Max(w.classes)
	for _, n := range w.classes {
		telling += n
	}
	damage := math.Max(w.damage, 0)
	return (damage - math.Sqrt(damage)) / math.Max(telling, 1)
}

// notFinite is why variables are put back whatever the guard.
const notFinite = "values are not finite"

// judge says why the variables must be put back, or "".
func (a *Adapter) judge(e Event, looked bool, s sight) string {
	if sum := e.Loss + e.Entropy + e.Moved + e.Divergence; math.IsNaN(sum) || math.IsInf(sum, 0) {
		return notFinite
	}
	if !looked {
		return ""
	}
	guard := a.config.Guard
	a.watch.add(s)
	labelled := a.config.Method == "labels"
	if got := a.watch.entropy / a.watch.unadapted; got < guard.MinEntropy && !labelled {
		return fmt.Sprintf("mean entropy fell to %.3g of the unadapted model's, below %g", got, guard.MinEntropy)
	}
	if got := a.watch.share(); got > guard.MaxChanged {
		what := "decisions changed"
		if labelled {
			what = "decisions became wrong"
		}
		return fmt.Sprintf("%s: %.3g of those that say something, more than %g", what, got, guard.MaxChanged)
	}
	if guard.MaxDivergence > 0 && e.Divergence > guard.MaxDivergence {
		return fmt.Sprintf("predictions diverged by %.3g nats, more than %g", e.Divergence, guard.MaxDivergence)
	}
	return ""
}

// Package testtime lets a trained model adapt to the inputs that it is used on, without labels.
//
// An [Adapter] holds a model's named variables, usually its normalisations or the elastic parts
// of its attention. For each batch it computes the model's logits, returns them as the
// prediction, and then moves the variables a little down the gradient of an objective of these
// logits:
//
//	tent   mean entropy H of the predictions                                  (Wang et al. 2021)
//	eata   H of reliable and non-redundant rows, weighted by exp(e₀ − H)      (Niu et al. 2022)
//	sar    H of reliable rows where the loss is flat: the gradient is taken
//	       at the worst point nearby                                         (Niu et al. 2023)
//	memo   entropy of the mean prediction over augmentations of one input    (Zhang et al. 2022);
//	       the rows of a batch are these augmentations
//
// All are known to collapse sooner or later: everything becomes the class that is predicted
// most, with great confidence. So a [Guard] watches entropy and class frequencies and puts the
// variables back; [Adapter.Reset] does it by hand, to the last bit. Every step is an [Event] that
// says what was done and why.
//
// Nothing here reads a label, so a score that is computed from the returned logits is
// honest. Each batch is predicted before it is learned from, but for [Config].Episodic.
package testtime

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Methods lists the kinds that Config.Method may name.
func Methods() []string { return []string{"eata", "memo", "sar", "tent"} }

// Config says what adapts, and how. It is plain data; the zero value of a field means its
// default.
type Config struct {
	// Method is one of [Methods]; empty means "tent".
	Method string `json:"method,omitempty"`
	// Variables are patterns of paths, in which * stands for any text: which variables adapt.
	// Nil means those of all normalisations, "*/norm/*".
	Variables []string `json:"variables,omitempty"`
	// Optimizer is "sgd" or "adam"; empty means "sgd".
	Optimizer string `json:"optimizer,omitempty"`
	// Rate is the learning rate; 0 means 1e-3.
	Rate float64 `json:"rate,omitempty"`
	// Momentum of "sgd"; 0 means none.
	Momentum float64 `json:"momentum,omitempty"`
	// Threshold is e₀ of eata and sar, as a share of the greatest entropy, ln(classes); 0
	// means 0.4.
	Threshold float64 `json:"threshold,omitempty"`
	// Redundancy of eata: rows whose prediction has at least this |cosine| with the running
	// mean of predictions are left out; 0 means 0.05, 1 leaves out none.
	Redundancy float64 `json:"redundancy,omitempty"`
	// Radius is ρ of sar, how far away the worst point is looked for; 0 means 0.05.
	Radius float64 `json:"radius,omitempty"`
	// Episodic begins anew with each batch: what is learned from one is forgotten before the
	// next. A batch is then predicted after it was learned from.
	Episodic bool `json:"episodic,omitempty"`
	// Guard says when the variables are put back.
	Guard Guard `json:"guard,omitzero"`
}

// Guard puts the variables back to where they began when predictions collapse. After
// MaxResets times it stops the adaptation for good.
type Guard struct {
	// Off switches it off, but for values that are not finite.
	Off bool `json:"off,omitempty"`
	// MinEntropy: collapsed is whose running mean of entropy is less than this share of the
	// mean entropy in the first batch, before the model adapted; 0 means 0.3.
	MinEntropy float64 `json:"min_entropy,omitempty"`
	// MaxDivergence: collapsed is whose mean prediction over a batch has a greater divergence
	// KL(unadapted ‖ adapted), in nats, from what the unadapted model predicts for the same
	// batch; 0 means 0.002, for words of which few are entities.
	MaxDivergence float64 `json:"max_divergence,omitempty"`
	// Every is how often the divergence is looked at, in batches, for it costs a forward pass
	// of the unadapted model; 0 means 4.
	Every int `json:"every,omitempty"`
	// MaxResets is how often it begins anew before it gives up; 0 means 3.
	MaxResets int `json:"max_resets,omitempty"`
}

// WithDefaults returns c with defaults in place of zeros.
func (c Config) WithDefaults() Config {
	text := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	number := func(x *float64, value float64) {
		if *x == 0 {
			*x = value
		}
	}
	text(&c.Method, "tent")
	text(&c.Optimizer, "sgd")
	number(&c.Rate, 1e-3)
	number(&c.Threshold, 0.4)
	number(&c.Redundancy, 0.05)
	number(&c.Radius, 0.05)
	number(&c.Guard.MinEntropy, 0.3)
	number(&c.Guard.MaxDivergence, 0.002)
	if c.Variables == nil {
		c.Variables = []string{"*/norm/*"}
	}
	if c.Guard.Every == 0 {
		c.Guard.Every = 4
	}
	if c.Guard.MaxResets == 0 {
		c.Guard.MaxResets = 3
	}
	return c
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var problems []error
	oneOf := func(name, value string, known []string) {
		if !slices.Contains(known, value) {
			problems = append(problems, fmt.Errorf("%s %q is unknown; known: %v", name, value, known))
		}
	}
	between := func(name string, value, low, high float64) {
		if !(value >= low && value <= high) {
			problems = append(problems, fmt.Errorf("%s is %g, want %g to %g", name, value, low, high))
		}
	}
	oneOf("method", c.Method, Methods())
	oneOf("optimizer", c.Optimizer, []string{"adam", "sgd"})
	if !(c.Rate > 0) || math.IsInf(c.Rate, 0) {
		problems = append(problems, fmt.Errorf("rate is %g, want a positive number", c.Rate))
	}
	between("momentum", c.Momentum, 0, 0.999)
	between("threshold", c.Threshold, 0, 1)
	between("redundancy", c.Redundancy, 0, 1)
	between("radius", c.Radius, 0, 10)
	between("guard.min_entropy", c.Guard.MinEntropy, 0, 1)
	between("guard.max_divergence", c.Guard.MaxDivergence, 0, 100)
	if c.Momentum != 0 && c.Optimizer != "sgd" {
		problems = append(problems, fmt.Errorf("momentum is %g, which only sgd has", c.Momentum))
	}
	if c.Guard.Every < 1 || c.Guard.MaxResets < 1 {
		problems = append(problems, fmt.Errorf("guard.every is %d and guard.max_resets %d, want at least 1", c.Guard.Every, c.Guard.MaxResets))
	}
	return errors.Join(problems...)
}

// Select returns the variables whose paths one of the patterns matches. A pattern that
// matches none is an error that names it.
func Select(variables []elastic.Variable, patterns []string) ([]elastic.Variable, error) {
	var chosen []elastic.Variable
	matched := make([]bool, len(patterns))
	for _, v := range variables {
		found := false
		for i, pattern := range patterns {
			match := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$").MatchString(v.Path)
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
			problems = append(problems, fmt.Errorf("pattern %q matches no variable of the model", patterns[i]))
		}
	}
	if len(chosen) == 0 && len(problems) == 0 {
		problems = append(problems, errors.New("no variables are to adapt"))
	}
	return chosen, errors.Join(problems...)
}

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
//	pseudo_label  −ln p of the predicted class, over rows where p ≥ confidence     (Lee 2013)
//	masked        KL(p ‖ p′) of the prediction p, held fixed, from that for a partly
//	              hidden input, p′: self-distillation in place of reconstruction, which a
//	              model without a language-model head cannot do   (after Xie et al. 2020)
//	labels        −ln p of the true class, for [Adapter.Predict] and [Adapter.Learn], or both by
//	              [Adapter.PredictThenLearn]
//
// To each, Anchor·‖w − w₀‖² is added, w₀ being where the variables began.
//
// The gradient ends at the lowest variable that adapts, and what lies below it is computed once. With the
// default, the normalisations of the last layers ([Config].LastLayers), a step therefore costs less than
// three times a prediction, of tent and sar about twice.
//
// All without labels are known to collapse sooner or later: everything becomes the class that is
// predicted most, with great confidence. So a [Guard] compares with the unadapted model and puts the
// variables back; [Adapter.Reset] does it by hand, to the last bit. Every step is an [Event] that
// says what was done and why.
//
// [Adapter.Step] reads no label, so a score that is computed from the returned logits is
// honest. Each batch is predicted before it is learned from, but for [Config].Episodic. True
// labels are taken only for a batch that was predicted already, and the adapter keeps the score
// of these first predictions itself ([Adapter.Score]).
package testtime

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
)

// Methods lists the kinds that Config.Method may name.
func Methods() []string {
	return []string{"eata", "labels", "masked", "memo", "pseudo_label", "sar", "tent"}
}

// Config says what adapts, and how. It is plain data; the zero value of a field means its
// default.
type Config struct {
	// Method is one of [Methods]; empty means "tent".
	Method string `json:"method,omitempty"`
	// Variables are patterns of paths, in which * stands for any text: which variables adapt.
	// Nil means those of normalisations, "*/norm/*".
	Variables []string `json:"variables,omitempty"`
	// LastLayers leaves of Variables those of the last so many layers and of what follows them. What
	// lies below the lowest variable is computed once: no gradient goes there, and neither do the further
	// forward passes of sar and of the guard. 0 means all of Variables, or where those are nil half
	// of the layers, and for sar, masked and labels, which have a further forward pass, a third; the
	// embeddings count as one layer, and the last always adapts.
	LastLayers int `json:"last_layers,omitempty"`
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
	// Confidence of pseudo_label: the least probability of a class that is taken for true; 0
	// means 0.9.
	Confidence float64 `json:"confidence,omitempty"`
	// MaskShare of masked: how much of an input is hidden; 0 means 0.15. Seed says what.
	MaskShare float64 `json:"mask_share,omitempty"`
	Seed      uint64  `json:"seed,omitempty"`
	// Anchor μ adds μ·‖w − w₀‖² to the objective: a pull to where the variables began; 0
	// means none.
	Anchor float64 `json:"anchor,omitempty"`
	// FullRows scales the step of a batch with fewer rows that count, by rows/FullRows: a small
	// batch says less, and there are more of them; at one rate for all, batches of one sentence
	// would go as far per sentence as 32 of them together. 0 means 64, as the published
	// recipes scale (Niu et al. 2023); 1 switches it off.
	FullRows int `json:"full_rows,omitempty"`
	// Every learns from every so many-th batch and only predicts the others, beginning with
	// the first; 0 means 1, all.
	Every int `json:"every,omitempty"`
	// Episodic begins anew with each batch: what is learned from one is forgotten before the
	// next. A batch is then predicted after it was learned from.
	Episodic bool `json:"episodic,omitempty"`
	// Guard says when the variables are put back.
	Guard Guard `json:"guard,omitzero"`
}

// WithDefaults returns c with defaults in place of zeros, but for Variables and LastLayers, whose
// defaults depend on the model.
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
	number(&c.Confidence, 0.9)
	number(&c.MaskShare, 0.15)
	if c.Method == "labels" && c.Guard.Every == 0 {
		c.Guard.Every = 1
	}
	c.Guard = c.Guard.withDefaults()
	if c.Every == 0 {
		c.Every = 1
	}
	if c.FullRows == 0 {
		c.FullRows = 64
	}
	return c
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var problems []error
	oneOf := func(name, value string, known []string) {
		if !slices.Contains(known, value) {
			problems = append(problems, fmt.Errorf("%s %q is unknown; known: %s", name, value, strings.Join(known, ", ")))
		}
	}
	oneOf("method", c.Method, Methods())
	oneOf("optimizer", c.Optimizer, []string{"adam", "sgd"})
	if !(c.Rate > 0) || math.IsInf(c.Rate, 0) {
		problems = append(problems, fmt.Errorf("rate is %g, want a positive number", c.Rate))
	}
	if c.Momentum != 0 && c.Optimizer != "sgd" {
		problems = append(problems, fmt.Errorf("momentum is %g, which only sgd has", c.Momentum))
	}
	if c.Every < 1 || c.FullRows < 1 {
		problems = append(problems, fmt.Errorf("every is %d and full_rows %d, want at least 1", c.Every, c.FullRows))
	}
	if c.Episodic && c.Method == "labels" {
		problems = append(problems, errors.New("episodic is set, which predicts a batch after it was learned from: with labels that would score what was told"))
	}
	if c.LastLayers < 0 {
		problems = append(problems, fmt.Errorf("last_layers is %d, want at least 0", c.LastLayers))
	}
	return errors.Join(append(problems,
		between("momentum", c.Momentum, 0, 0.999), between("threshold", c.Threshold, 0, 1), between("redundancy", c.Redundancy, 0, 1),
		between("radius", c.Radius, 0, 10), between("confidence", c.Confidence, 0, 1), between("mask_share", c.MaskShare, 0, 0.999),
		between("anchor", c.Anchor, 0, 1e6), c.Guard.validate())...)
}

// choose returns those of a model's variables that adapt.
func (c Config) choose(variables []elastic.Variable) ([]elastic.Variable, error) {
	patterns, last := c.Variables, c.LastLayers
	depths := optim.Depths(variables)
	if patterns == nil {
		patterns = []string{"*/norm/*"}
		if last == 0 {
			share := 2
			if slices.Contains([]string{"labels", "masked", "sar"}, c.Method) {
				share = 3
			}
			last = max(1, slices.Max(depths)/share)
		}
	}
	chosen, err := adapt.Select(variables, patterns)
	if err != nil || last == 0 {
		return chosen, err
	}
	above := map[string]int{}
	for i, v := range variables {
		above[v.Path] = depths[i]
	}
	low := func(v elastic.Variable) bool { return above[v.Path] > last }
	if chosen = slices.DeleteFunc(chosen, low); len(chosen) == 0 {
		return nil, fmt.Errorf("none of %s is in the last %d layers or after them", strings.Join(patterns, " "), last)
	}
	return chosen, nil
}

func between(name string, value, low, high float64) error {
	if value >= low && value <= high {
		return nil
	}
	return fmt.Errorf("%s is %g, want %g to %g", name, value, low, high)
}

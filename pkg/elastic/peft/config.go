// Package peft fine-tunes a model by a few weights of its own, while the model's stay as they
// are: parameter-efficient fine-tuning.
//
// A [Config] is plain data and says what is added, and where:
//
//	lora     y = W·x + b + α/r · B·A·x                                         (Hu et al. 2021)
//	rslora   the same with α/√r                                                (Kalajdzievski 2023)
//	dora     y = m/‖W + s·B·A‖ · (W + s·B·A)·x + b                             (Liu et al. 2024)
//	adalora  y = W·x + b + α/r₀ · B·diag(E)·A·x, with a budget of ranks        (Zhang et al. 2023)
//	ia3      y = l ⊙ (W·x + b), or W·(l ⊙ x) + b                               (Liu et al. 2022)
//	houlsby  y = h + U·gelu(D·LayerNorm(h)), h = W·x + b, behind attention and
//	         feed-forward part                                                 (Houlsby et al. 2019)
//	pfeiffer the same behind the feed-forward part only                        (Pfeiffer et al. 2021)
//	prefix   keys and values before those of the text, in every layer          (Li, Liang 2021)
//	prompt   embeddings before those of the text                               (Lester et al. 2021)
//
// [New] holds it against a model's variables and gives an [Adapter], whose own variables are
// listed before anything is built, as a model's are. Graph functions read weights through it:
//
//	adapter, err := peft.New(peft.Config{Kind: "lora", Rank: 8}, config.Variables())
//	err = adapter.Create(store, seed)
//	…
//	logits := config.Logits(adapter.Weights(w, nil), inputs, nil)
//
// [Adapter.Merge] puts an adapter into the weights and takes it out again; a [Bank] switches
// between several on one base; [Files] and [Load] exchange them with Python's peft.
package peft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Config says what is added to a model. It is plain data; the zero value of a field means its
// default. Fields that a kind does not have must be zero.
type Config struct {
	// Kind is one of [Kinds].
	Kind string `json:"kind"`
	// Targets are patterns of the paths of the matrices of dense layers, in which * stands for
	// any text, such as "*/attention/query/weights": the layers that are adapted, or for "prefix"
	// the key layers of the attentions that are. Nil means what the kind's paper adapts.
	Targets []string `json:"targets,omitempty"`
	// Inputs of ia3 are patterns for those of the targets whose inputs are scaled, not their
	// outputs; nil means the outer feed-forward layers if Targets is nil, else none.
	Inputs []string `json:"inputs,omitempty"`
	// Rank is r of the LoRA kinds, for adalora that at the start; 0 means 8, for adalora 12.
	Rank int `json:"rank,omitempty"`
	// Alpha is α of the LoRA kinds; 0 means twice the rank.
	Alpha float64 `json:"alpha,omitempty"`
	// Dropout is the probability that an element of the input of A is dropped while training.
	Dropout float64 `json:"dropout,omitempty"`
	// Width of the bottleneck of houlsby and pfeiffer; 0 means 48.
	Width int `json:"width,omitempty"`
	// Length of prefix and prompt, in virtual tokens; 0 means 16.
	Length int `json:"length,omitempty"`
	// Budget of adalora; nil means its defaults.
	Budget *Budget `json:"budget,omitempty"`
	// Train are patterns of variables of the model that are trained, and saved, beside the
	// adapter's; nil means those of the head, "/head/*", if the model has one.
	Train []string `json:"train,omitzero"`
}

// Budget says how adalora spends ranks: those of all targets together shrink from Rank to
// Target a target, and go where they are needed most.
type Budget struct {
	// Target is the mean rank of a target at the end; 0 means half of the rank at the start.
	Target int `json:"target,omitempty"`
	// Warmup is the number of updates before the budget shrinks; 0 means a tenth of all.
	Warmup int `json:"warmup,omitempty"`
	// Final is the number of updates after the ranks are settled; 0 means a third of all.
	Final int `json:"final,omitempty"`
	// Every is the number of updates between two allocations; 0 means 10.
	Every int `json:"every,omitempty"`
	// Beta1 and Beta2 are the decay rates of sensitivity and uncertainty; 0 means 0.85.
	Beta1 float64 `json:"beta1,omitempty"`
	Beta2 float64 `json:"beta2,omitempty"`
	// Orthogonality is the cost of ‖A·Aᵀ − I‖ and ‖Bᵀ·B − I‖, their mean over all targets; 0
	// means 0.5, which is peft's, and -1 none.
	Orthogonality float64 `json:"orthogonality,omitempty"`
}

// method is what a kind is made of.
type method struct {
	targets []string // default
	inputs  []string // default, of ia3
	// fields lists the fields of Config that the kind has, beside Kind and Train.
	fields []string
	layer  layerMethod // nil for kinds that add virtual tokens
}

var (
	queryValue = []string{"*/attention/query/weights", "*/attention/value/weights"}
	lowRank    = []string{"targets", "rank", "alpha", "dropout"}
)

// methods is the registry of kinds.
var methods = map[string]method{
	"lora":     {targets: queryValue, fields: lowRank, layer: lora{}},
	"rslora":   {targets: queryValue, fields: lowRank, layer: lora{}},
	"dora":     {targets: queryValue, fields: lowRank, layer: dora{}},
	"adalora":  {targets: queryValue, fields: append(slices.Clip(lowRank), "budget"), layer: adalora{}},
	"ia3":      {targets: []string{"*/attention/key/weights", "*/attention/value/weights", "*/feed_forward/outer/weights"}, inputs: []string{"*/feed_forward/outer/weights"}, fields: []string{"targets", "inputs"}, layer: ia3{}},
	"houlsby":  {targets: []string{"*/attention/output/weights", "*/feed_forward/outer/weights"}, fields: []string{"targets", "width"}, layer: bottleneck{}},
	"pfeiffer": {targets: []string{"*/feed_forward/outer/weights"}, fields: []string{"targets", "width"}, layer: bottleneck{}},
	"prefix":   {targets: []string{"*/attention/key/weights"}, fields: []string{"targets", "length"}},
	"prompt":   {fields: []string{"length"}},
}

// Kinds lists the kinds that Config.Kind may name, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(methods)) }

// WithDefaults returns c with defaults in place of zeros.
func (c Config) WithDefaults() Config {
	m := methods[c.Kind]
	number := func(field string, into *int, value int) {
		if *into == 0 && slices.Contains(m.fields, field) {
			*into = value
		}
	}
	if c.Kind == "adalora" {
		number("rank", &c.Rank, 12)
	}
	number("rank", &c.Rank, 8)
	number("width", &c.Width, 48)
	number("length", &c.Length, 16)
	if c.Alpha == 0 && c.Rank > 0 {
		c.Alpha = 2 * float64(c.Rank)
	}
	if c.Targets == nil {
		c.Targets = m.targets
		if c.Inputs == nil {
			c.Inputs = m.inputs
		}
	}
	if c.Kind == "adalora" {
		budget := Budget{}
		if c.Budget != nil {
			budget = *c.Budget
		}
		real := func(into *float64, value float64) {
			if *into == 0 {
				*into = value
			}
		}
		number("budget", &budget.Target, (c.Rank+1)/2)
		number("budget", &budget.Every, 10)
		real(&budget.Beta1, 0.85)
		real(&budget.Beta2, 0.85)
		real(&budget.Orthogonality, 0.5)
		c.Budget = &budget
	}
	return c
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	m, ok := methods[c.Kind]
	if !ok {
		return fmt.Errorf("kind %q is unknown; known: %s", c.Kind, strings.Join(Kinds(), ", "))
	}
	var problems []error
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"targets", len(c.Targets) > 0}, {"inputs", len(c.Inputs) > 0}, {"rank", c.Rank != 0}, {"alpha", c.Alpha != 0},
		{"dropout", c.Dropout != 0}, {"width", c.Width != 0}, {"length", c.Length != 0}, {"budget", c.Budget != nil},
	} {
		if field.set && !slices.Contains(m.fields, field.name) {
			problems = append(problems, fmt.Errorf("%s is set, which kind %q does not have", field.name, c.Kind))
		}
	}
	c = c.WithDefaults()
	positive := func(field, name string, value int) {
		if value < 1 && slices.Contains(m.fields, field) {
			problems = append(problems, fmt.Errorf("%s is %d, want at least 1", name, value))
		}
	}
	positive("rank", "rank", c.Rank)
	positive("width", "width", c.Width)
	positive("length", "length", c.Length)
	if !(c.Alpha >= 0) {
		problems = append(problems, fmt.Errorf("alpha is %g, want a positive number", c.Alpha))
	}
	if !(c.Dropout >= 0 && c.Dropout < 1) {
		problems = append(problems, fmt.Errorf("dropout is %g, want 0 ≤ p < 1", c.Dropout))
	}
	if b := c.Budget; b != nil && c.Kind == "adalora" {
		if b.Target < 1 || b.Target > c.Rank {
			problems = append(problems, fmt.Errorf("budget.target is %d, want 1 to the rank, %d", b.Target, c.Rank))
		}
		positive("budget", "budget.every", b.Every)
		for name, value := range map[string]int{"warmup": b.Warmup, "final": b.Final} {
			if value < 0 {
				problems = append(problems, fmt.Errorf("budget.%s is %d, want 0 or more", name, value))
			}
		}
		for name, value := range map[string]float64{"beta1": b.Beta1, "beta2": b.Beta2} {
			if !(value > 0 && value < 1) {
				problems = append(problems, fmt.Errorf("budget.%s is %g, want 0 < β < 1", name, value))
			}
		}
		if !(b.Orthogonality >= 0 || b.Orthogonality == -1) {
			problems = append(problems, fmt.Errorf("budget.orthogonality is %g, want 0 or more, or -1", b.Orthogonality))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

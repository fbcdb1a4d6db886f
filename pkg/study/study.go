// Package study measures a claim: it trains variants of a model under the same seeds, scores each
// on test sets in domain and shifted, with and without adaptation at test time, and keeps what
// happened to every single example, so that differences get honest intervals.
//
// A [Config] is plain data: a task, a pretrained model, a recipe, variants (the model's attention,
// edited by name), seeds, test sets and adaptations. [Run] works through the grid, one run after
// the other. A run is one variant under one seed: a training and all its scores. It is one
// line of results.jsonl in the study folder, written when it is complete; a study that was stopped
// in whatever way goes on with the runs that are missing. [Open] reads a folder, [Folder.Variants]
// compares its variants with the first one, [Folder.Adaptations] each adaptation with none.
//
//	config, err := study.Preset("claim-ner-quick")
//	folder, err := study.Run(ctx, backend, config, study.Options{Dir: "studies/first"})
//	table, err := folder.Variants(eval.Bootstrap{Resamples: 10000, Seed: 1})
//	fmt.Println(table.Markdown())
//
// A study folder holds
//
//	study.json       the config
//	record.json      checksums of model and data, versions, backend
//	results.jsonl    a [Result] a line
//	runs/            the folder of each run, with its course
package study

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/internal/preset"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/augment"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
)

// Config is a study.
type Config struct {
	Name string `json:"name"`
	// Task is one of [Tasks].
	Task string `json:"task"`
	// Model is a name of the hub's catalogue, or a folder in Hugging Face layout; for the task lm,
	// whose models have fresh weights, it is "scratch".
	Model string `json:"model"`
	// Layers keeps only the first layers of the model, for studies that must be quick; 0 keeps all.
	// A fresh model has so many.
	Layers int `json:"layers,omitempty"`
	// Recipe is how every variant is trained.
	Recipe Recipe `json:"recipe"`
	// Train is what it is trained on. Dev is what combinations are chosen on; nothing else
	// decides by it, and nothing at all by the test sets.
	Train Set `json:"train"`
	Dev   Set `json:"dev"`
	// Sets are the test sets.
	Sets []Set `json:"sets"`
	// Variants are the models that are compared, the first being what all others are compared with.
	Variants []Variant `json:"variants"`
	// Seeds of the runs: fresh weights and dropout follow from the seed, the order of the data
	// from its place in the list, equally for all variants.
	Seeds []uint64 `json:"seeds"`
	// Adaptations at test time.
	Adaptations []Adaptation `json:"adaptations,omitempty"`
}

// Recipe is a recipe for training, and how texts are cut for it.
type Recipe struct {
	train.Config
	// BatchSize is the number of examples a batch, and Shapes of shapes that batches have.
	BatchSize int `json:"batch_size"`
	Shapes    int `json:"shapes,omitempty"`
	// MaxLength is the longest training example in tokens, Lengths what examples are padded to
	// when they are scored. The task lm trains on windows of MaxLength bytes and has no use for Lengths.
	MaxLength int   `json:"max_length"`
	Lengths   []int `json:"lengths"`
	// Pooling of the task classify makes one vector of a text; empty means "cls".
	Pooling string `json:"pooling,omitempty"`
	// PartRate multiplies the learning rate of weights that the model's own attention does not
	// have; 0 means 1. A temperature is one number a head, begins fresh, and would hardly move by
	// the small steps that suit pretrained matrices.
	PartRate float64 `json:"part_rate,omitempty"`
	// RangeTest replaces the schedule's peak by what a range test of the learning rate suggests, made
	// once for all seeds: the middle of its range; see [train.RangeTest].
	RangeTest bool `json:"range_test,omitempty"`
}

// Set is some examples.
type Set struct {
	// Name is what results call it.
	Name string `json:"name"`
	// Data is a name of the hub's catalogue, or "synthetic"; Split is a part of it.
	Data  string     `json:"data"`
	Split data.Split `json:"split"`
	// Labels keeps these labels (types of entities, or classes) under other names, and drops all
	// others: entities become no entities, texts are left out. Empty keeps all as they are.
	Labels map[string]string `json:"labels,omitempty"`
	// Only keeps the examples that have this label and no other: a stream of a single class.
	Only string `json:"only,omitempty"`
	// Limit takes a random choice of so many examples, in their order, the same for every
	// set of the same data; 0 takes all.
	Limit int `json:"limit,omitempty"`
	// Shifts change the texts, one after the other.
	Shifts []augment.Shift `json:"shifts,omitempty"`
}

// Variant is what is compared: the model's own attention, edited, and the study's recipe, edited.
type Variant struct {
	Name string `json:"name"`
	// Without takes parts away, With then sets fields by path, as attention.Spec has it:
	// {"normalizer": "sparsemax"}. Paths are set in alphabetical order.
	Without []string                   `json:"without,omitempty"`
	With    map[string]json.RawMessage `json:"with,omitempty"`
	// Recipe sets fields of the study's recipe, each as a whole, for this variant:
	// {"optimizer": {"kind": "prodigy"}, "schedule": {"kind": "constant", "peak": 1}}.
	Recipe map[string]json.RawMessage `json:"recipe,omitempty"`
	// Combine, in place of both, puts together so many of the variants that stand before it: the
	// best on dev, over all seeds, that fit each other. The first variant is none of them.
	Combine int `json:"combine,omitempty"`
}

// Adaptation is a way to adapt at test time.
type Adaptation struct {
	Name   string          `json:"name"`
	Config testtime.Config `json:"config"`
	// Single gives the model one example at a time, in place of batches.
	Single bool `json:"single,omitempty"`
	// Variants and Sets are the names of those that it is scored on; empty means the first
	// variant, and all sets.
	Variants []string `json:"variants,omitempty"`
	Sets     []string `json:"sets,omitempty"`
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !slices.Contains(Tasks(), c.Task) {
		add("task %q is unknown; known: %s", c.Task, strings.Join(Tasks(), ", "))
	}
	switch {
	case c.Model == "":
		add("model is empty, want a pretrained one, or %q for task %q", run.Scratch, taskLM)
	case c.Task == taskLM:
		if err := checkLanguage(c); err != nil {
			problems = append(problems, err)
		}
	case c.Model == run.Scratch:
		add("model is %q, which is for task %q only: want a pretrained one", c.Model, taskLM)
	}
	if c.Layers < 0 {
		add("layers is %d, want 0 or more", c.Layers)
	}
	if len(c.Seeds) == 0 {
		add("seeds are empty, want at least one")
	}
	for i, seed := range c.Seeds {
		if slices.Contains(c.Seeds[:i], seed) {
			add("seeds: %d is there twice", seed)
		}
	}
	names := func(what string, list []string) {
		for i, name := range list {
			if name == "" {
				add("%s %d has no name", what, i)
			} else if slices.Contains(list[:i], name) {
				add("%s: the name %q is there twice", what, name)
			}
		}
	}
	sets, variants := c.setNames(), c.variantNames()
	names("sets", append([]string{c.Dev.Name}, sets...))
	names("variants", variants)
	var adaptations []string
	for _, a := range c.Adaptations {
		adaptations = append(adaptations, a.Name)
	}
	names("adaptations", adaptations)
	if len(c.Sets) == 0 {
		add("sets are empty, want at least one to score on")
	}
	if len(c.Variants) == 0 || c.Variants[0].Combine != 0 {
		add("variants must begin with one that the others are compared with")
	}
	for _, s := range append([]Set{c.Train, c.Dev}, c.Sets...) {
		if err := s.validate(); err != nil {
			add("set %q: %w", s.Name, err)
		}
	}
	for i, v := range c.Variants {
		if v.Combine < 0 || v.Combine > 0 && (len(v.With)+len(v.Without)+len(v.Recipe) > 0 || v.Combine > i-1) {
			add("variant %q: combine is %d, want at most the %d variants between the first and this one, and no with, without or recipe", v.Name, v.Combine, max(i-1, 0))
		}
		if _, err := v.recipe(c.Recipe); err != nil {
			problems = append(problems, err)
		}
	}
	for _, a := range c.Adaptations {
		if err := a.Config.Validate(); err != nil {
			add("adaptation %q: %w", a.Name, err)
		}
		for _, name := range a.Sets {
			if !slices.Contains(sets, name) {
				add("adaptation %q: no set %q; known: %s", a.Name, name, strings.Join(sets, ", "))
			}
		}
		for _, name := range a.Variants {
			if !slices.Contains(variants, name) {
				add("adaptation %q: no variant %q; known: %s", a.Name, name, strings.Join(variants, ", "))
			}
		}
	}
	if !(c.Recipe.PartRate >= 0) {
		add("recipe.part_rate is %g, want 0 or more", c.Recipe.PartRate)
	}
	return errors.Join(append(problems, c.Recipe.Config.Validate())...)
}

func (s Set) validate() error {
	var problems []error
	if s.Data == "" || s.Split == "" {
		problems = append(problems, errors.New("data and split must be given"))
	}
	if s.Limit < 0 {
		problems = append(problems, fmt.Errorf("limit is %d, want 0 or more", s.Limit))
	}
	for i, shift := range s.Shifts {
		if err := shift.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("shifts.%d: %w", i, err))
		}
	}
	return errors.Join(problems...)
}

// scored lists the sets that models are scored on.
func (c Config) scored() []Set { return append([]Set{c.Dev}, c.Sets...) }

func (c Config) setNames() []string {
	var names []string
	for _, s := range c.Sets {
		names = append(names, s.Name)
	}
	return names
}

func (c Config) variantNames() []string {
	var names []string
	for _, v := range c.Variants {
		names = append(names, v.Name)
	}
	return names
}

// on tells whether an adaptation is scored for a variant on a set.
func (c Config) on(a Adaptation, variant, set string) bool {
	variants := a.Variants
	if len(variants) == 0 {
		variants = []string{c.Variants[0].Name}
	}
	return slices.Contains(variants, variant) && (len(a.Sets) == 0 || slices.Contains(a.Sets, set))
}

//go:embed presets/*.json
var files embed.FS

var presets = preset.Files[Config]{What: "study", FS: files}

// Presets lists the studies that come with the package, sorted.
func Presets() []string { return presets.Names() }

// Preset returns a study that comes with the package.
func Preset(name string) (Config, error) { return presets.Get(name) }

// ReadConfig reads a study from a file. Unknown fields are errors.
func ReadConfig(file string) (Config, error) { return presets.Read(file) }

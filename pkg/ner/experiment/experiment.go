// Package experiment is a whole named-entity experiment as one call: it brings in
// model and data, trains, evaluates, and leaves a run folder from which every number
// can be traced and an interrupted run goes on.
//
//	config, err := experiment.Preset("quick")
//	result, err := experiment.Run(ctx, backend, config, experiment.Options{Dir: "runs/first"})
//	fmt.Println(result.Test)
//
// Packages run and task say what a run folder holds.
package experiment

import (
	"errors"
	"fmt"
	"slices"

	"github.com/elastic-attention/workbench/internal/preset"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
)

// Names of a model and of data that need no download.
const (
	// Scratch is a small transformer with fresh weights, made for [Synthetic].
	Scratch = run.Scratch
	// Synthetic is the corpus of package synth.
	Synthetic = task.Synthetic
)

// Config is an experiment: plain data, which a run folder holds.
type Config struct {
	// Preset is the name of the recipe that the config began as; for the record.
	Preset string `json:"preset,omitempty"`
	// Model is a name of the hub's catalogue, a folder in Hugging Face layout, the id of a
	// model on the Hugging Face hub (owner/name), or [Scratch].
	Model string `json:"model"`
	// Data says what to learn from.
	Data Data `json:"data"`
	// Tagger says how texts are cut.
	Tagger ner.Config `json:"tagger"`
	// Train is the recipe.
	Train ner.TrainConfig `json:"train"`
	// RateFrom says, if rates of Train are those of earlier runs, of which and why; for the record. See
	// [run.BestRates].
	RateFrom string `json:"rate_from,omitempty"`
	// Merge puts Tagger.Adapter into the weights of the model that the run ends with, which is
	// then whole. False saves the adapter, which names its base.
	Merge bool `json:"merge,omitempty"`
}

// Data names a corpus: one of the catalogue or [Synthetic], or three files.
type Data struct {
	// Name is a name of the hub's catalogue, or [Synthetic]; empty when files are given.
	Name string `json:"name,omitempty"`
	// Files in CoNLL or UNER layout, plain or gzip. Dev and Test may be empty.
	TrainFile string `json:"train_file,omitempty"`
	DevFile   string `json:"dev_file,omitempty"`
	TestFile  string `json:"test_file,omitempty"`
	// Types are the entity types that are kept; others become O. Empty keeps all.
	Types []string `json:"types,omitempty"`
	// Limit takes only the first sentences of each part; 0 takes all.
	Limit int `json:"limit,omitempty"`
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	problems := append(task.CheckModel(c.Model, c.Data.Name), task.CheckData(hub.TaskNER, c.Data.Name, c.Data.TrainFile)...)
	if c.Data.Name != "" && (c.Data.DevFile != "" || c.Data.TestFile != "") {
		problems = append(problems, fmt.Errorf("data has the name %q and files as well", c.Data.Name))
	}
	if slices.Contains(c.Data.Types, "") {
		problems = append(problems, fmt.Errorf("data.types are %q, want no empty one", c.Data.Types))
	}
	if c.Data.Limit < 0 {
		problems = append(problems, fmt.Errorf("data.limit is %d, want 0 or more", c.Data.Limit))
	}
	if c.Tagger.Adapter != nil {
		if err := c.Tagger.Adapter.Validate(); err != nil {
			problems = append(problems, fmt.Errorf("tagger.adapter: %w", err))
		} else if err := c.Tagger.Adapter.Mergeable(); err != nil && c.Merge {
			problems = append(problems, fmt.Errorf("tagger.adapter: %w", err))
		}
		if c.Model == Scratch {
			problems = append(problems, fmt.Errorf("tagger.adapter wants a pretrained model, not %q", Scratch))
		}
	} else if c.Merge {
		problems = append(problems, errors.New("merge wants a tagger.adapter"))
	}
	return errors.Join(append(problems, c.Train.Validate())...)
}

// Base is the name of the model that training begins with.
func (c Config) Base() string { return c.Model }

// Recipe is the part of the training's recipe that all tasks have.
func (c Config) Recipe() train.Config { return c.Train.Config }

// DefaultPreset is the preset that a first run takes.
const DefaultPreset = "quick"

// presets are the recipes, by name.
var presets = preset.Recipes[Config]{
	// quick ends within a quarter of an hour on two cores.
	"quick": func() Config { return recipe(1, 1e-4, 0.1, 0.01, 1) },
	// full is the recipe of docs/benchmarks.md with five epochs.
	"full": func() Config { return recipe(5, 1e-4, 0.1, 0.01, 1) },
	// seed is the recipe of the article that the project grew from.
	"seed": func() Config { return recipe(5, 2e-5, 0, 0, 0) },
}

func recipe(epochs int, peak, warmup, decay, clip float64) Config {
	rates := schedule.Config{Peak: peak, Warmup: warmup}
	if warmup == 0 {
		rates.Kind = "constant"
	}
	return Config{
		Model: hub.MiniLML6,
		Data:  Data{Name: hub.UNEREnglishEWT, Types: []string{"LOC", "ORG", "PER"}},
		// Three lengths for training and one for evaluation: four compilations in all.
		Tagger: ner.Config{MaxLength: 128, Lengths: []int{64}},
		Train: ner.TrainConfig{
			Config: train.Config{
				Epochs: epochs, ClipNorm: clip, Schedule: rates,
				Optimizer: optim.Config{Rule: optim.AdamW{WeightDecay: decay}},
				SaveEvery: 200, LogEvery: 5, Seed: 42,
			},
			BatchSize: 16, Shapes: 3,
		},
	}
}

// Preset returns the recipe with a name.
func Preset(name string) (Config, error) {
	config, err := presets.Get(name)
	if err == nil {
		config.Preset = name
	}
	return config, err
}

// Presets lists the names of the recipes, sorted.
func Presets() []string { return presets.Names() }

// Offline returns the config that needs no download: a small transformer from scratch
// on the synthetic corpus, by a recipe that fits them. Limits, checkpoints and the seed
// are those of c.
func (c Config) Offline() Config {
	c.Model = Scratch
	c.Data = Data{Name: Synthetic, Limit: c.Data.Limit}
	c.Tagger = ner.Config{MaxLength: 64, Lengths: []int{64}}
	c.Merge, c.RateFrom = false, ""
	c.Train.Epochs = max(c.Train.Epochs, task.ScratchEpochs)
	c.Train.ClipNorm = 1
	c.Train.Schedule = schedule.Config{Peak: 2e-3, Warmup: 0.1}
	c.Train.Optimizer = optim.Config{Rule: optim.AdamW{WeightDecay: 0.01}}
	return c
}

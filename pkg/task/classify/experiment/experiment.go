// Package experiment is a whole text-classification experiment as one call: it brings in model
// and data, trains, evaluates, and leaves a run folder from which every number can be traced
// and an interrupted run goes on.
//
//	config, err := experiment.Preset("quick")
//	result, err := experiment.Run(ctx, backend, config, experiment.Options{Dir: "runs/intents"})
//	fmt.Println(result.Text())
//
// Packages run and task say what a run folder holds.
package experiment

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/internal/preset"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

// Names of a model and of data that need no download.
const (
	// Scratch is a small transformer with fresh weights, made for [Synthetic].
	Scratch = run.Scratch
	// Synthetic is the corpus of package synth: those of its sentences whose names are all of
	// one kind, person, organisation or place, which is the class.
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
	// Classifier says how texts are cut and pooled.
	Classifier classify.Config `json:"classifier"`
	// Train is the recipe.
	Train classify.TrainConfig `json:"train"`
	// RateFrom says, if rates of Train are those of earlier runs, of which and why; for the record. See
	// [run.BestRates].
	RateFrom string `json:"rate_from,omitempty"`
}

// Data names a corpus: one of the catalogue or [Synthetic], or three files.
type Data struct {
	// Name is a name of the hub's catalogue, or [Synthetic]; empty when files are given.
	Name string `json:"name,omitempty"`
	// Files are tables with a header, plain or gzip: with commas, or with tabs if the name ends
	// in .tsv or .tsv.gz. Dev and Test may be empty.
	TrainFile string `json:"train_file,omitempty"`
	DevFile   string `json:"dev_file,omitempty"`
	TestFile  string `json:"test_file,omitempty"`
	// TextColumn and LabelColumn name the columns of files; empty means "text" and "label".
	TextColumn  string `json:"text_column,omitempty"`
	LabelColumn string `json:"label_column,omitempty"`
	// Limit takes only so many texts of each part, evenly spread over it, since files are often
	// sorted by class; 0 takes all.
	Limit int `json:"limit,omitempty"`
	// TrainLimit is Limit for the training part only; 0 means Limit.
	TrainLimit int `json:"train_limit,omitempty"`
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	problems := append(task.CheckModel(c.Model, c.Data.Name), task.CheckData(hub.TaskClassify, c.Data.Name, c.Data.TrainFile)...)
	if c.Data.Name != "" && (c.Data.DevFile != "" || c.Data.TestFile != "" || c.Data.TextColumn != "" || c.Data.LabelColumn != "") {
		problems = append(problems, fmt.Errorf("data has the name %q and files or columns as well", c.Data.Name))
	}
	if c.Data.Limit < 0 || c.Data.TrainLimit < 0 {
		problems = append(problems, fmt.Errorf("data.limit is %d and data.train_limit %d, want 0 or more", c.Data.Limit, c.Data.TrainLimit))
	}
	if kind := c.Classifier.Pooling; kind != "" && !slices.Contains(transformer.Poolings(), kind) {
		problems = append(problems, fmt.Errorf("classifier.pooling %q is unknown; known: %s", kind, strings.Join(transformer.Poolings(), ", ")))
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
	// quick ends within some minutes on two cores.
	"quick": func() Config { return recipe(2, 2e-4) },
	// full is quick with five epochs.
	"full": func() Config { return recipe(5, 2e-4) },
}

func recipe(epochs int, peak float64) Config {
	return Config{
		Model: hub.MiniLML6,
		Data:  Data{Name: hub.Banking77},
		// MiniLM was pretrained to be pooled by the mean, and learns faster so.
		Classifier: classify.Config{MaxLength: 64, Lengths: []int{32, 64}, Pooling: transformer.MeanPooling},
		Train: classify.TrainConfig{
			Config: train.Config{
				Epochs: epochs, ClipNorm: 1, Schedule: schedule.Config{Peak: peak, Warmup: 0.1},
				Optimizer: optim.Config{Rule: optim.AdamW{WeightDecay: 0.01}}, SaveEvery: 200, LogEvery: 5, Seed: 42,
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

// Offline returns the config that needs no download: a small transformer from scratch on the
// synthetic corpus, by a recipe that fits them. Limits, pooling, checkpoints and the seed are
// those of c.
func (c Config) Offline() Config {
	c.Model = Scratch
	c.Data = Data{Name: Synthetic, Limit: c.Data.Limit, TrainLimit: c.Data.TrainLimit}
	c.Train.Epochs = max(c.Train.Epochs, task.ScratchEpochs)
	c.Train.Schedule = schedule.Config{Peak: 2e-3, Warmup: 0.1}
	c.RateFrom = ""
	return c
}

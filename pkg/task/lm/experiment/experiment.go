// Package experiment is a whole language-model experiment as one call: it brings in the text,
// trains, scores, and leaves a run folder from which every number can be traced and an
// interrupted run goes on.
//
//	config, err := experiment.Preset("quick")
//	result, err := experiment.Run(ctx, backend, config, experiment.Options{Dir: "runs/plays"})
//	fmt.Println(result.Text())
//
// Packages run and task say what a run folder holds.
package experiment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/elastic-attention/workbench/internal/preset"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
	"github.com/elastic-attention/workbench/pkg/task/lm"
)

// Synthetic is the text of the sentences of package synth: data that needs no download.
const Synthetic = task.Synthetic

// Config is an experiment: plain data, which a run folder holds.
type Config struct {
	// Preset is the name of the recipe that the config began as; for the record.
	Preset string `json:"preset,omitempty"`
	// Data says what to learn from.
	Data Data `json:"data"`
	// Model describes the transformer; see [lm.New] for what is set there.
	Model transformer.Config `json:"model"`
	// Train is the recipe.
	Train lm.TrainConfig `json:"train"`
	// RateFrom says, if rates of Train are those of earlier runs, of which and why; for the record. See
	// [run.BestRates].
	RateFrom string `json:"rate_from,omitempty"`
}

// Data names a text: one of the catalogue or [Synthetic], or files.
type Data struct {
	// Name is a name of the hub's catalogue, or [Synthetic]; empty when files are given.
	Name string `json:"name,omitempty"`
	// Files are plain text, as they are or gzip; see [format.Plain]. Without DevFile and TestFile, they are the last two parts of the text:
	// 5 % each, as is usual for tinyshakespeare. A TestFile alone is a text to score only.
	TrainFile string `json:"train_file,omitempty"`
	DevFile   string `json:"dev_file,omitempty"`
	TestFile  string `json:"test_file,omitempty"`
	// Limit takes only so many bytes from the beginning of each part; 0 takes all.
	Limit int `json:"limit,omitempty"`
}

// Validate reports all that is wrong with c, but for the model.
func (c Config) Validate() error {
	problems := task.CheckData(hub.TaskLM, c.Data.Name, c.Data.TrainFile)
	if (c.Data.DevFile == "") != (c.Data.TestFile == "") {
		problems = append(problems, errors.New("data has a dev_file or a test_file only, want both or none"))
	}
	if c.Data.Name != "" && c.Data.DevFile != "" {
		problems = append(problems, fmt.Errorf("data has the name %q and files as well", c.Data.Name))
	}
	if c.Data.Limit < 0 {
		problems = append(problems, fmt.Errorf("data.limit is %d bytes, want 0 or more", c.Data.Limit))
	}
	return errors.Join(append(problems, c.Train.Validate())...)
}

// Base says that models begin with fresh weights.
func (c Config) Base() string { return run.Scratch }

// Recipe is the part of the training's recipe that all tasks have.
func (c Config) Recipe() train.Config { return c.Train.Config }

// DefaultPreset is the preset that a first run takes.
const DefaultPreset = "quick"

// presets are the recipes, by name.
var presets = preset.Recipes[Config]{
	// quick ends within some minutes on two cores.
	"quick": func() Config { return recipe(lm.Small(), 1, 2e-3) },
	// full is a larger model that sees more.
	"full": func() Config {
		model := lm.Small()
		model.Hidden, model.Layers, model.FeedForward, model.MaxPositions, model.Dropout = 256, 4, 1024, 128, 0.1
		return recipe(model, 5, 1e-3)
	},
}

func recipe(model transformer.Config, epochs int, peak float64) Config {
	return Config{
		Data: Data{Name: hub.TinyShakespeare}, Model: model,
		Train: lm.TrainConfig{
			Config: train.Config{
				Epochs: epochs, ClipNorm: 1, Schedule: schedule.Config{Kind: "cosine", Peak: peak, Warmup: 0.1},
				Optimizer: optim.Config{Rule: optim.AdamW{Beta2: 0.99, WeightDecay: 0.1}}, SaveEvery: 500, LogEvery: 10, Seed: 42,
			},
			BatchSize: 16,
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

// Corpus is the text of an experiment, byte by byte.
type Corpus = task.Corpus[byte]

// held is the share of a text, one in so many, that is held out for dev, and again for test.
const held = 20

// Load brings in the text. The client fetches what is not there yet.
func (d Data) Load(ctx context.Context, client *hub.Client) (Corpus, error) {
	if err := task.CheckName(hub.TaskLM, d.Name); err != nil {
		return Corpus{}, err
	}
	corpus, err := d.whole(ctx, client)
	if err != nil {
		return Corpus{}, err
	}
	parts := []*[]byte{&corpus.Train, &corpus.Dev, &corpus.Test}
	switch {
	case d.Name == "" && d.TrainFile == "":
		parts = parts[2:]
	case d.DevFile == "":
		all := corpus.Train
		part := len(all) / held
		corpus.Train, corpus.Dev, corpus.Test = all[:len(all)-2*part], all[len(all)-2*part:len(all)-part], all[len(all)-part:]
	}
	for _, part := range parts {
		if d.Limit > 0 && d.Limit < len(*part) {
			*part = (*part)[:d.Limit]
		}
		if len(*part) < 2 {
			return Corpus{}, fmt.Errorf("the text %s is too short: each part that it serves for (train, dev, test) needs at least 2 bytes", cmp.Or(d.TrainFile, d.Name, d.TestFile))
		}
	}
	return corpus, nil
}

// whole brings in the text as files have it.
func (d Data) whole(ctx context.Context, client *hub.Client) (Corpus, error) {
	files := map[data.Split]string{data.Train: d.TrainFile, data.Dev: d.DevFile, data.Test: d.TestFile}
	switch d.Name {
	case "":
	case Synthetic:
		var text strings.Builder
		for _, s := range task.Sentences(data.Train) {
			text.WriteString(s.Text + "\n")
		}
		return Corpus{
			Train: []byte(text.String()), Checksums: map[string]string{Synthetic: "synth.Entities, seed 1"},
			Note: "a synthetic text: the scores say nothing about real text",
		}, nil
	default:
		dir, resource, err := task.FetchData(ctx, client, d.Name)
		if err != nil {
			return Corpus{}, err
		}
		files[data.Train] = filepath.Join(dir, resource.Files[0].Path)
	}
	return task.ReadCorpus(ctx, files, func(_ data.Split, path string) ([]byte, error) { return format.Plain(path) })
}

package cli

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/lm"
	"github.com/elastic-attention/workbench/pkg/task/lm/experiment"
)

type trainLMCmd struct {
	Preset string `help:"Recipe: quick (a small model, 1 epoch) or full (a larger one, 5 epochs)." enum:"${lmPresets}" default:"${defaultLMPreset}"`

	sourceFlags `kong:"set='data=Text: ${lmCorpora}',set='train=Training text, a file of UTF-8, plain or gzip, in place of --data. Without --dev and --test its last tenth serves as these.',set='kind=text',set='limit=so many bytes of each part'"`
	Layers      *int `help:"Layers of the model." placeholder:"N"`
	Hidden      *int `help:"Width of the model; feed-forward parts are four times as wide." placeholder:"N"`
	Context     *int `help:"Bytes that the model can see, at most those of the training text." placeholder:"N"`

	recipeFlags
}

// Help is shown below the usage.
func (trainLMCmd) Help() string {
	return `Examples:
  elastic train lm                                         Shakespeare, byte by byte
  elastic train lm --train mine.txt --layers 4 --context 128
  elastic train lm --attention '{"heads": 4, "mask": "causal", "positions": ["alibi"]}'
  elastic train lm --control '[{"trials": {}}]'            finds the rate by trials, which are undone
  elastic train lm --data synthetic                        no download at all
  elastic train lm --range-test --plot rates.svg           which learning rates? --explain: what learns how?
  elastic train lm --resume                                after Ctrl-C, a crash or kill -9; with the flags of before
  elastic generate runs/lm-quick-... "ROMEO:"              what it writes

A token is a byte of UTF-8, so that every text will do.`
}

func (c trainLMCmd) config() (experiment.Config, error) {
	config, err := experiment.Preset(c.Preset)
	if err != nil {
		return config, err
	}
	if files, err := c.files(); err != nil {
		return config, err
	} else if files {
		config.Data = experiment.Data{TrainFile: c.Train, DevFile: c.Dev, TestFile: c.Test}
	}
	set(&config.Data.Name, c.Data)
	given(&config.Data.Limit, c.Limit)
	model, training := &config.Model, &config.Train
	if err := some(counted{"--layers", c.Layers}, counted{"--hidden", c.Hidden}, counted{"--context", c.Context}); err != nil {
		return config, err
	}
	given(&model.Layers, c.Layers)
	given(&model.MaxPositions, c.Context)
	if c.Hidden != nil {
		model.Hidden, model.FeedForward = *c.Hidden, 4**c.Hidden
	}
	attention := &model.Attention
	config.RateFrom, err = c.apply(hub.TaskLM, run.Scratch, recipe{&training.Config, &training.BatchSize, &training.Length, &training.Noise, &attention})
	if err != nil {
		return config, err
	}
	model.Attention = attention.Over(model.Attention)
	if err := config.Validate(); err != nil {
		return config, err
	}
	return config, fits(model.Variables(), backend.ThisMachine())
}

// fits refuses a model whose weights, gradients and moments are more than a machine has memory for, before there are weights: Go's
// runtime ends a program that asks for too much.
func fits(variables []elastic.Variable, machine backend.Machine) error {
	parameters := 0.0
	for _, v := range variables {
		parameters += float64(v.Size())
	}
	memory := machine.Memory
	if machine.Limit > 0 {
		memory = min(memory, machine.Limit)
	}
	if need := 4 * 4 * parameters; memory > 0 && need > float64(memory) {
		return fmt.Errorf("a model of %.3g parameters needs at least %.0f GB for its weights, gradients and the optimizer's moments, and this machine has %.0f GB: choose a smaller --hidden, --layers or --context", parameters, need/1e9, float64(memory)/1e9)
	}
	return nil
}

// Run trains.
func (c trainLMCmd) Run(a *app) error {
	if err := c.find(a, hub.TaskLM); err != nil {
		return err
	}
	config, err := c.config()
	if err != nil {
		return usageError{err}
	}
	var result experiment.Result
	return runTask(a, c.recipeFlags, config, training[experiment.Config, lm.Score]{
		task: hub.TaskLM, preset: c.Preset, data: dataName(config.Data.Name, config.Data.TrainFile), items: "bytes", rateFrom: config.RateFrom,
		run: keep(experiment.Run, &result), explain: experiment.Explain, rangeTest: experiment.RangeTest,
		epoch:   lm.Score.String,
		samples: func() string { return "It writes:\n" + data.Printable(result.Sample) + "\n\n" },
		model:   func() string { return "the model, in GPT-2's layout" },
		next:    func() []string { return []string{`generate %s "ROMEO:" --temperature 0.8`} },
	})
}

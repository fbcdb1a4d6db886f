package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/lm"
	"github.com/elastic-attention/workbench/pkg/task/lm/experiment"
)

type trainLMCmd struct {
	Preset string `help:"Recipe: quick (a small model, 1 epoch) or full (a larger one, 5 epochs)." enum:"${lmPresets}" default:"${defaultLMPreset}"`

	Data    string `help:"Text: ${lmCorpora}, or synthetic." placeholder:"NAME" predictor:"resource"`
	Train   string `help:"Training text, a file of UTF-8, in place of --data. Without --dev and --test its last tenth serves as these." placeholder:"FILE" predictor:"path"`
	Dev     string `help:"Development text; the best epoch on it is kept." placeholder:"FILE" predictor:"path"`
	Test    string `help:"Test text." placeholder:"FILE" predictor:"path"`
	Limit   *int   `help:"Take only so many bytes of each part." placeholder:"N"`
	Layers  *int   `help:"Layers of the model." placeholder:"N"`
	Hidden  *int   `help:"Width of the model; feed-forward parts are four times as wide." placeholder:"N"`
	Context *int   `help:"Bytes that the model can see." placeholder:"N"`

	recipeFlags
}

// Help is shown below the usage.
func (trainLMCmd) Help() string {
	return `Examples:
  elastic train lm                                         Shakespeare, byte by byte
  elastic train lm --train mine.txt --layers 4 --context 128
  elastic train lm --attention '{"heads": 4, "mask": "causal", "positions": ["alibi"]}'
  elastic train lm --data synthetic                        no download at all
  elastic train lm --range-test --plot rates.svg           which learning rates? --explain: what learns how?
  elastic train lm --resume                                after Ctrl-C, a crash or kill -9; with the flags of before
  elastic generate runs/lm-quick-... "ROMEO:"              what it writes

A token is a byte of UTF-8, so that every text will do.`
}

func (c trainLMCmd) config() (experiment.Config, error) {
	config, err := experiment.Preset(c.Preset)
	if err != nil {
		return config, usageError{err}
	}
	switch {
	case c.Train != "":
		if c.Data != "" {
			return config, usageError{errors.New("--data and --train exclude each other")}
		}
		config.Data = experiment.Data{TrainFile: c.Train, DevFile: c.Dev, TestFile: c.Test}
	case c.Dev != "" || c.Test != "":
		return config, usageError{errors.New("--dev and --test need --train")}
	case c.Data != "":
		config.Data.Name = c.Data
	}
	set(&config.Data.Limit, c.Limit)
	if err := some(counted{"--layers", c.Layers}, counted{"--hidden", c.Hidden}, counted{"--context", c.Context}); err != nil {
		return config, usageError{err}
	}
	set(&config.Model.Layers, c.Layers)
	set(&config.Model.MaxPositions, c.Context)
	if c.Hidden != nil {
		config.Model.Hidden, config.Model.FeedForward = *c.Hidden, 4**c.Hidden
	}
	if config.RateFrom, err = c.takeRates(hub.TaskLM, run.Scratch, &config.Train.Config); err != nil {
		return config, usageError{err}
	}
	attention := &config.Model.Attention
	if err := c.apply(&config.Train.Config, &config.Train.BatchSize, &config.Train.Length, &config.Train.Noise, &attention); err != nil {
		return config, usageError{err}
	}
	config.Model.Attention = attention.Over(config.Model.Attention)
	if err := config.Validate(); err != nil {
		return config, usageError{err}
	}
	return config, nil
}

// Run trains.
func (c trainLMCmd) Run(a *app) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	if c.previews() {
		options := experiment.Options{Client: &hub.Client{Progress: fetching(a.stderr)}}
		return preview(a, c.recipeFlags, config, options, experiment.Explain, experiment.RangeTest)
	}
	dir, err := c.dir(hub.TaskLM, c.Preset)
	if err != nil {
		return err
	}
	if c.Resume, err = begin(c.recipeFlags, dir, hub.TaskLM, config); err != nil {
		return err
	}
	record, recordErr := run.ReadRecord[experiment.Config](dir) // an error is experiment.Run's to explain
	a.tellRateFrom(config.RateFrom)
	progress := &trainProgress{w: a.stderr, started: time.Now()}
	engine, choice, err := a.open()
	if err != nil {
		return err
	}
	if c.Resume && recordErr == nil {
		a.tellBackend(record.Backend, choice)
	}
	result, err := experiment.Run(a.ctx, engine, config, experiment.Options{
		Dir: dir, Resume: c.Resume, Client: &hub.Client{Progress: fetching(a.stderr)}, Backend: choice,
		Loaded: func(l experiment.Loaded) {
			a.tellLoaded(l, run.Scratch, dataName(config.Data.Name, config.Data.TrainFile), "bytes", dir, c.Resume)
		},
		Step: progress.step, Event: progress.event,
		Epoch: func(epoch int, dev lm.Score) {
			progress.pause()
			fmt.Fprintf(a.stderr, "epoch %d: dev %v\n", epoch, dev)
		},
		Progress: evaluation(a.stderr),
	})
	progress.pause()
	progress.bar.finish()
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(result)
	}
	fmt.Fprintf(a.stdout, "\n%s\nIt writes:\n%s\n\n%d updates, %s in all. The weights are those of epoch %d, the best on dev.", result.Text(), result.Sample, result.Updates, time.Duration(result.Seconds)*time.Second, result.BestEpoch)
	fmt.Fprintf(a.stdout, `
Run folder: %[1]s
  model/         the model, in GPT-2's layout
  run.json       config, seed, checksums, versions
  journal.jsonl  what happened, for "elastic runs" and "elastic ui"
Try next:
  %[2]s generate %[1]s "ROMEO:" --temperature 0.8
`, dir, program())
	return nil
}

package ner

import (
	"context"
	"errors"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/run"
)

// Repeat prepares as many runs of a recipe on labelled sentences, each from the pretrained model
// in dir, of which the tagger was made. After each the tagger has its weights.
func (t *Tagger) Repeat(dir string, sentences []data.Sentence, config TrainConfig, runs int) (*run.Repeated, error) {
	if t.net.adapter != nil {
		return nil, errors.New("repeated runs train whole models, and the tagger has an adapter")
	}
	if err := config.Adapt.Check(nil); err != nil {
		return nil, err
	}
	task, dataset, err := t.pack(context.Background(), sentences, config, TrainOptions{}, runs)
	if err != nil {
		return nil, err
	}
	return run.NewRepeated(t.backend, task, t.Model, run.Pretrained(t.Model, dir), dataset, config.Config)
}

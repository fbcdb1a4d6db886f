package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
)

// timeNER times ner.Tagger.Train with the recipe of the preset "quick", without
// evaluation and checkpoints. The first call ends with the first update, so ready is
// from the start of the process, over reading model and corpus, to there.
func timeNER(ctx context.Context, engine compute.Backend, o options) (result, error) {
	config, err := experiment.Preset("quick")
	if err != nil {
		return result{}, err
	}
	config.Train.BatchSize, config.Train.MaxUpdates, config.Train.Seed = o.batch, o.updates, o.seed
	config.Train.SaveEvery = 0

	resource, err := hub.Lookup(config.Model)
	if err != nil {
		return result{}, err
	}
	dir, err := new(hub.Client).Fetch(ctx, resource)
	if err != nil {
		return result{}, err
	}
	corpus, err := config.Data.Load(ctx, new(hub.Client))
	if err != nil {
		return result{}, err
	}
	labels, err := ner.LabelsOf(corpus.Train)
	if err != nil {
		return result{}, err
	}
	tagger, err := ner.NewTagger(engine, dir, labels, config.Tagger, config.Train.Seed)
	if err != nil {
		return result{}, err
	}
	if o.dropout >= 0 {
		m := &tagger.Model.Config
		m.Dropout, m.Attention.Dropout, m.Head.Dropout = o.dropout, o.dropout, o.dropout
	}

	var (
		r        = result{Workload: fmt.Sprintf("ner-b%d", o.batch), Shape: config.Model}
		n        nerResult
		stats    batch.Stats
		watch    stopwatch
		steady   float64 // seconds and positions of the steps that compiled nothing
		steps    int
		all      float64
		compiled int
	)
	options := ner.TrainOptions{
		Plan: func(s batch.Stats) { stats = s; watch.start() },
		Step: func(s train.Step) {
			watch.stop()
			if len(r.Losses) < 5 {
				r.Losses = append(r.Losses, s.Loss)
			}
			elapsed := s.Elapsed.Seconds()
			all += elapsed
			if s.Compilations > compiled {
				compiled = s.Compilations
				n.CompileSteps += elapsed
			} else {
				steady += elapsed
				steps++
			}
			n.Loss += s.Loss
			watch.start()
		},
	}
	if _, err := tagger.Train(ctx, corpus.Train, nil, config.Train, options); err != nil {
		return result{}, err
	}
	watch.fill(&r)
	r.P95 = 0
	n.Compilations, n.EpochSteps, n.Padding = compiled, stats.Batches, stats.Padding
	n.Loss /= float64(watch.calls)
	n.Sentences = float64(o.batch*steps) / steady
	n.SentencesAll = float64(o.batch*watch.calls) / all
	n.Tokens = n.Sentences * float64(stats.Tokens) / float64(stats.Examples)
	epoch := n.CompileSteps + steady/float64(steps)*float64(stats.Batches-compiled)
	n.Epoch = float64(stats.Examples) / epoch
	r.NER = &n
	return r, nil
}

// layOut puts links to weights and corpus where tools/bench/peer_ner.py looks for them.
func layOut(ctx context.Context, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	link := func(target, name string) error {
		name = filepath.Join(to, name)
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			return err
		}
		return os.Symlink(target, name)
	}
	for _, name := range []string{hub.MiniLML6, hub.UNEREnglishEWT} {
		resource, err := hub.Lookup(name)
		if err != nil {
			return err
		}
		dir, err := new(hub.Client).Fetch(ctx, resource)
		if err != nil {
			return err
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		if name == hub.MiniLML6 {
			if err := link(dir, "model"); err != nil {
				return err
			}
			continue
		}
		for _, split := range []data.Split{data.Train, data.Dev, data.Test} {
			file, ok := resource.SplitFile(split)
			if !ok {
				return fmt.Errorf("%s has no file for %s", name, split)
			}
			if err := link(filepath.Join(dir, file), fmt.Sprintf("uner.%s.iob2", split)); err != nil {
				return err
			}
		}
	}
	return nil
}

package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
)

type trainNERCmd struct {
	Preset string `help:"Recipe: quick (1 epoch), full (5 epochs at 1e-4) or seed (5 epochs at 2e-5, the article's)." enum:"${presets}" default:"${defaultPreset}"`

	baseFlags `kong:"set='family=',set='data=Corpus: ${corpora}',set='train=Training file (CoNLL or UNER .iob2, plain or gzip), in place of --data.',set='kind=file',set='limit=the first sentences of each part'"`
	Types     string `help:"Entity types to keep, by comma; others become O. \"all\" keeps every type." placeholder:"A,B"`

	Depth   string `help:"Depth that adapts: ${depths}, or a JSON spec, or a file that holds one." placeholder:"KIND" predictor:"path"`
	Experts string `help:"Experts in place of feed-forward parts, in JSON or a file: {\"count\": 4}." placeholder:"SPEC" predictor:"path"`
	Peft    string `help:"Train an adapter and the head only: ${adapters}, or a JSON spec, or a file that holds one." placeholder:"KIND" predictor:"path"`
	Merge   bool   `help:"Save the model with the adapter of --peft in its weights, in place of the adapter."`
	Adapt   string `help:"Strategy by which the model adapts while it is trained: a JSON object, or a file that holds one." placeholder:"STRATEGY" predictor:"path"`
	teacherFlags
	recipeFlags
}

// Help is shown below the usage.
func (trainNERCmd) Help() string {
	return `Examples:
  elastic train ner                                    MiniLM on English web text, one epoch
  elastic train ner --preset full --seed 7             five epochs
  elastic train ner --train my.train --dev my.dev --test my.test --types all
  elastic train ner --model google-bert/bert-base-cased --lr 3e-5 --epochs 3
  elastic train ner --model scratch --data synthetic   no download at all
  elastic train ner --attention '{"normalizer": "sparsemax", "scores": [{"kind": "temperature", "learned": true}]}'
  elastic train ner --depth early_exit                 a head after each layer; predict and eval take --threshold
  elastic train ner --experts '{"count": 4, "balance": 0.01}'
  elastic train ner --peft lora                        an adapter and the head only; also dora, adalora, ia3, …
  elastic train ner --peft '{"kind": "lora", "rank": 16, "targets": ["*/query/weights"]}' --merge
  elastic train ner --adapt '{"gradient": [{"variables": ["/embeddings/*"], "factor": 0}], "converge": {"below": 1e-5}}'
  elastic train ner --optimizer lion --lr 3e-5          or prodigy with --lr 1, muon, schedule_free_adamw, …
  elastic train ner --optimizer '{"kind": "adamw", "weight_decay": 0.01, "layer_decay": 0.8}' --schedule cosine
  elastic train ner --loss '{"label_smoothing": 0.1, "class_weights": {"O": 0.5}}'
  elastic train ner --loss '{"r_drop": 1, "penalties": [{"variables": ["/head/*"], "l1": 1e-4}]}'
  elastic train ner --teacher runs/large --temperature 3   learn from another run's model too
  elastic train ner --drop-path 0.1 --word-dropout 0.05
  elastic train ner --control '[{"spike": {}}, {"plateau": {"patience": 1}}]'
  elastic train ner --rate-from runs/a,runs/b,runs/c    the rate of the best of them
  elastic train ner --epochs 5 --unfreeze epoch         head first, then one layer more each epoch
  elastic train ner --optimizer lion --explain          which parameters learn how; trains nothing
  elastic train ner --range-test --plot rates.svg       how does the loss go with growing learning rates?
  elastic train ner --resume                           after Ctrl-C, a crash or kill -9; with the flags of before
  elastic train ner --from runs/a --lr 1e-5 --epochs 8 from the last epoch of another run, with another rate

Without a network and without a mirror, a run with the preset's model and data falls back to a
small transformer from scratch on a synthetic corpus, and says so.`
}

// adapterRate is the learning rate of adapters, whose few weights want larger steps.
const adapterRate = 1e-3

func (c trainNERCmd) config() (experiment.Config, error) {
	config, err := experiment.Preset(c.Preset)
	if err != nil {
		return config, err
	}
	if c.settle() {
		config = config.Offline()
	}
	set(&config.Model, c.Model)
	if files, err := c.files(); err != nil {
		return config, err
	} else if files {
		config.Data = experiment.Data{TrainFile: c.Train, DevFile: c.Dev, TestFile: c.Test}
	}
	set(&config.Data.Name, c.Data)
	given(&config.Data.Limit, c.Limit)
	if c.Types != "" {
		config.Data.Types = typeList(c.Types)
	}
	training, tagger := &config.Train, &config.Tagger
	if training.Distill, err = c.distill(); err != nil {
		return config, err
	}
	config.Merge = c.Merge
	config.RateFrom, err = c.apply(hub.TaskNER, config.Model, recipe{&training.Config, &training.BatchSize, &tagger.MaxLength, &training.Noise, &tagger.Attention})
	if err := errors.Join(err,
		kindFlag("--depth", c.Depth, transformer.DepthKinds(), &tagger.Depth),
		spec("--experts", c.Experts, &tagger.Experts),
		kindFlag("--peft", c.Peft, peft.Kinds(), &tagger.Adapter),
		kindFlag("--adapt", c.Adapt, nil, &training.Adapt),
	); err != nil {
		return config, err
	}
	if c.Peft != "" && c.LearningRate == nil && c.RateFrom == "" {
		training.Schedule.Peak = adapterRate
	}
	return config, config.Validate()
}

// typeList reads a list of entity types; nil stands for all.
func typeList(list string) []string {
	if list == "all" {
		return nil
	}
	types := strings.Split(list, ",")
	for i, typ := range types {
		types[i] = strings.TrimSpace(typ)
	}
	return types
}

// Run trains.
func (c trainNERCmd) Run(a *app) error {
	if err := cmp.Or(c.baseFlags.find(a), c.teacherFlags.find(a, hub.TaskNER), c.recipeFlags.find(a, hub.TaskNER)); err != nil {
		return err
	}
	config, err := c.config()
	if err != nil {
		return usageError{err}
	}
	var result experiment.Result
	t := training[experiment.Config, ner.Report]{
		task: hub.TaskNER, preset: c.Preset, data: dataName(config.Data.Name, config.Data.TrainFile), items: "sentences", rateFrom: config.RateFrom,
		run: keep(experiment.Run, &result), explain: experiment.Explain, rangeTest: experiment.RangeTest,
		loaded: func(config experiment.Config, l run.Loaded) {
			if adapter := config.Tagger.Adapter; adapter != nil {
				fmt.Fprintf(a.stderr, "adapter %s: %d parameters are trained, head included\n", adapter.Kind, l.Trained)
			}
		},
		epoch: func(dev ner.Report) string {
			return fmt.Sprintf("F1 %.4f  precision %.4f  recall %.4f", dev.Micro.F1, dev.Micro.Precision, dev.Micro.Recall)
		},
		samples: func() string {
			var lines []string
			for _, s := range result.Sentences {
				lines = append(lines, ner.Mark(s.Text, s.Entities, isTerminal(a.stdout)))
			}
			return fromTestData(lines)
		},
		draw: func(dir string) error {
			var texts []string
			for _, s := range result.Sentences {
				texts = append(texts, s.Text)
			}
			return a.keepAttention(dir, result.Tagger, texts)
		},
		model: func() string {
			if adapter := result.Tagger.Adapter(); adapter != nil {
				return fmt.Sprintf("the tagger's adapter (%s) and head, on the base model that it names; --merge would save the whole", adapter.Config().Kind)
			}
			return "the tagger; transformers loads it too (AutoModelForTokenClassification)"
		},
		next: func() []string {
			next := []string{
				`predict %s "Angela Merkel met Tim Cook of Apple in Berlin."`,
				`explain %s "Angela Merkel met Tim Cook of Apple in Berlin."`,
			}
			if result.Dev != nil {
				next = append(next, "eval %s --split dev --strict")
			}
			return append(next, "train ner --preset full")
		},
	}
	if c.preset() {
		t.offline = func() (experiment.Config, error) {
			c.Model, c.Data = run.Scratch, task.Synthetic
			return c.config()
		}
	}
	return runTask(a, c.recipeFlags, config, t)
}

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/peft"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/run"
)

type trainCmd struct {
	NER      trainNERCmd      `cmd:"" name:"ner" help:"Fine-tune a named-entity tagger."`
	Classify trainClassifyCmd `cmd:"" help:"Fine-tune a classifier of texts."`
	LM       trainLMCmd       `cmd:"" name:"lm" help:"Train a language model."`
}

// recipeFlags are those of every task.
type recipeFlags struct {
	Epochs        int      `help:"Times to go through the data." placeholder:"N"`
	MaxUpdates    int      `help:"Stop after so many updates." placeholder:"N"`
	BatchSize     int      `help:"Sentences, texts or windows of a text a batch." placeholder:"N"`
	Accumulate    int      `help:"Batches an update." placeholder:"N"`
	LearningRate  *float64 `name:"lr" help:"Highest learning rate." placeholder:"RATE"`
	Patience      int      `help:"Stop after so many epochs without a better score on dev." placeholder:"N"`
	SaveEvery     int      `help:"Updates between checkpoints." placeholder:"N"`
	MaxLength     int      `help:"Longest training example in tokens." placeholder:"N"`
	RateFrom      string   `help:"Take rate, optimizer and factors by pattern from the best of earlier runs, by their score on dev: folders, by comma." placeholder:"RUNS" predictor:"path"`
	Optimizer     string   `help:"Update rule: adamw, lion, muon, prodigy, schedule_free_adamw, adafactor, sgd or another (a wrong name lists all); or a JSON object, or a file that holds one." placeholder:"RULE" predictor:"path"`
	Loss          string   `help:"Loss in place of plain cross-entropy: a JSON object with label_smoothing, focal_gamma, class_weights or balanced, r_drop, mixup (classify), penalties; or a file that holds one." placeholder:"LOSS" predictor:"path"`
	Schedule      string   `help:"Schedule of the learning rate: a kind such as linear, constant, cosine or wsd; or a JSON object, or a file that holds one." placeholder:"KIND" predictor:"path"`
	Control       string   `help:"Controllers of the learning rate: a JSON list, or a file that holds one." placeholder:"LIST" predictor:"path"`
	Unfreeze      string   `help:"When variables begin to train: epoch (one layer more after each, from the top), or a JSON object, or a file that holds one." placeholder:"STAGES" predictor:"path"`
	SkipNonFinite bool     `help:"Pass over updates whose loss or gradients are not finite, in place of ending the run."`
	Precision     string   `help:"Of products of matrices while training: f32, or bf16 with weights and updates in float32. bf16 is for hardware that has it; on most CPUs it is slower." placeholder:"KIND"`
	Attention     string   `help:"Attention in place of the model's: a JSON spec, or a file that holds one." placeholder:"SPEC" predictor:"path"`
	DropPath      float64  `help:"Probability that the last layer's parts are left out for a text while training; less below (stochastic depth)." placeholder:"RATE"`
	WordDropout   float64  `help:"Probability that a token is replaced by [MASK] while training." placeholder:"RATE"`
	Seed          *uint64  `help:"Seed of data order, fresh weights and dropout." placeholder:"N"`

	previewFlags

	Folder string `name:"run" help:"Run folder. Default: runs/TASK-PRESET-TIME." placeholder:"DIR" predictor:"path"`
	Resume bool   `help:"Continue an interrupted run: the one in --run, or the newest of this preset below runs/."`
	JSON   bool   `help:"Print the result as JSON."`
	notifyFlag
}

// set replaces a value where a flag gives one.
func set(into *int, value int) {
	if value != 0 {
		*into = value
	}
}

// apply changes a recipe as the flags say.
func (f recipeFlags) apply(recipe *train.Config, batchSize, maxLength *int, noise *run.Noise, attended **attention.Spec) error {
	set(&recipe.Epochs, f.Epochs)
	set(&recipe.MaxUpdates, f.MaxUpdates)
	set(&recipe.Accumulate, f.Accumulate)
	set(&recipe.Patience, f.Patience)
	set(&recipe.SaveEvery, f.SaveEvery)
	set(batchSize, f.BatchSize)
	set(maxLength, f.MaxLength)
	if f.LearningRate != nil {
		recipe.Schedule.Peak = *f.LearningRate
	}
	if f.Precision != "" {
		recipe.Precision = f.Precision
	}
	recipe.SkipNonFinite = recipe.SkipNonFinite || f.SkipNonFinite
	if f.DropPath != 0 {
		noise.DropPath = f.DropPath
	}
	if f.WordDropout != 0 {
		noise.WordDropout = f.WordDropout
	}
	if f.Seed != nil {
		recipe.Seed = *f.Seed
	}
	if err := errors.Join(
		f.checkPreview(),
		kindFlag("--optimizer", f.Optimizer, optim.Kinds(), &recipe.Optimizer),
		kindFlag("--schedule", f.Schedule, schedule.Kinds(), &recipe.Schedule),
		kindFlag("--loss", f.Loss, nil, &recipe.Loss),
		kindFlag("--control", f.Control, nil, &recipe.Control),
		unfreezeFlag(f.Unfreeze, &recipe.Unfreeze),
	); err != nil {
		return err
	}
	return spec("--attention", f.Attention, attended)
}

// takeRates takes the rates of earlier runs, before flags change them, and returns what the record says
// about them.
func (f recipeFlags) takeRates(task, model string, recipe *train.Config) (note string, err error) {
	if f.RateFrom == "" {
		return "", nil
	}
	if f.LearningRate != nil {
		return "", errors.New("--lr and --rate-from exclude each other")
	}
	found, err := run.BestRates(task, strings.Split(f.RateFrom, ","))
	if err != nil {
		return "", fmt.Errorf("--rate-from: %w", err)
	}
	note = found.Note
	if !slices.Contains(found.Models, model) {
		note += fmt.Sprintf("; those runs trained %s, not %s", strings.Join(found.Models, ", "), model)
	}
	recipe.Schedule, recipe.Optimizer = found.Schedule, found.Optimizer
	if f.Optimizer != "" {
		note += "; with another --optimizer, for which the rate may not fit"
	}
	recipe.Adapt.Gradient = found.Gradient
	return note, nil
}

// dir returns the run folder, for a run that is resumed the newest that fits.
func (f recipeFlags) dir(task, preset string) (string, error) {
	if f.Folder != "" {
		return f.Folder, nil
	}
	stem := filepath.Join("runs", task+"-"+preset+"-")
	if !f.Resume {
		return stem + time.Now().Format("20060102-150405"), nil
	}
	found, err := filepath.Glob(stem + "*")
	if err != nil || len(found) == 0 {
		return "", usageError{fmt.Errorf("no run %s* to resume: name its folder by --run", stem)}
	}
	return slices.Max(found), nil
}

type trainNERCmd struct {
	Preset string `help:"Recipe: quick (1 epoch), full (5 epochs at 1e-4) or seed (5 epochs at 2e-5, the article's)." enum:"${presets}" default:"${defaultPreset}"`

	Model string `help:"Pretrained model: ${models}, owner/name on the Hugging Face hub, a folder, or scratch." placeholder:"NAME" predictor:"resource"`
	Data  string `help:"Corpus: ${corpora}, or synthetic." placeholder:"NAME" predictor:"resource"`
	Train string `help:"Training file (CoNLL or UNER .iob2, plain or gzip), in place of --data." placeholder:"FILE" predictor:"path"`
	Dev   string `help:"Development file; the best epoch on it is kept." placeholder:"FILE" predictor:"path"`
	Test  string `help:"Test file." placeholder:"FILE" predictor:"path"`
	Types string `help:"Entity types to keep, by comma; others become O. \"all\" keeps every type." placeholder:"A,B"`
	Limit int    `help:"Take only the first sentences of each part." placeholder:"N"`

	Depth   string `help:"Depth that adapts, in JSON or a file: {\"kind\": \"early_exit\"} or {\"kind\": \"act\"}." placeholder:"SPEC" predictor:"path"`
	Experts string `help:"Experts in place of feed-forward parts, in JSON or a file: {\"count\": 4}." placeholder:"SPEC" predictor:"path"`
	Peft    string `help:"Train an adapter and the head only: ${adapters}, or a JSON spec, or a file that holds one." placeholder:"KIND" predictor:"path"`
	Merge   bool   `help:"Save the model with the adapter of --peft in its weights, in place of the adapter."`
	Adapt   string `help:"Strategy by which the model adapts while it is trained: a JSON object, or a file that holds one." placeholder:"STRATEGY" predictor:"path"`
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
  elastic train ner --depth '{"kind": "early_exit"}'    a head after each layer; predict and eval take --threshold
  elastic train ner --experts '{"count": 4, "balance": 0.01}'
  elastic train ner --peft lora                        an adapter and the head only; also dora, adalora, ia3, …
  elastic train ner --peft '{"kind": "lora", "rank": 16, "targets": ["*/query/weights"]}' --merge
  elastic train ner --adapt '{"gradient": [{"variables": ["/embeddings/*"], "factor": 0}], "converge": {"below": 1e-5}}'
  elastic train ner --optimizer lion --lr 3e-5          or prodigy with --lr 1, muon, schedule_free_adamw, …
  elastic train ner --optimizer '{"kind": "adamw", "weight_decay": 0.01, "layer_decay": 0.8}' --schedule cosine
  elastic train ner --loss '{"label_smoothing": 0.1, "class_weights": {"O": 0.5}}'
  elastic train ner --loss '{"r_drop": 1, "penalties": [{"variables": ["/head/*"], "l1": 1e-4}]}'
  elastic train ner --drop-path 0.1 --word-dropout 0.05
  elastic train ner --control '[{"spike": {}}, {"plateau": {"patience": 1}}]'
  elastic train ner --rate-from runs/a,runs/b,runs/c    the rate of the best of them
  elastic train ner --epochs 5 --unfreeze epoch         head first, then one layer more each epoch
  elastic train ner --optimizer lion --explain          which parameters learn how; trains nothing
  elastic train ner --range-test --plot rates.svg       how does the loss go with growing learning rates?
  elastic train ner --resume                           after Ctrl-C, a crash or kill -9; with the flags of before

Without a network and without a mirror, a run with the preset's model and data falls back to a
small transformer from scratch on a synthetic corpus, and says so.`
}

func (c trainNERCmd) config() (experiment.Config, error) {
	config, err := experiment.Preset(c.Preset)
	if err != nil {
		return config, usageError{err}
	}
	if c.Model == experiment.Scratch && c.Data == "" && c.Train == "" || c.Data == experiment.Synthetic && c.Model == "" {
		c.Model, c.Data = experiment.Scratch, experiment.Synthetic
	}
	if c.Model == experiment.Scratch {
		config = config.Offline()
	}
	if c.Model != "" {
		config.Model = c.Model
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
	if c.Types != "" {
		config.Data.Types = typeList(c.Types)
	}
	set(&config.Data.Limit, c.Limit)
	tagger := &config.Tagger
	if config.RateFrom, err = c.takeRates(hub.TaskNER, config.Model, &config.Train.Config); err != nil {
		return config, usageError{err}
	}
	if err := c.apply(&config.Train.Config, &config.Train.BatchSize, &tagger.MaxLength, &config.Train.Noise, &tagger.Attention); err != nil {
		return config, usageError{err}
	}
	if err := errors.Join(spec("--depth", c.Depth, &tagger.Depth),
		spec("--experts", c.Experts, &tagger.Experts), kindFlag("--peft", c.Peft, peft.Kinds(), &tagger.Adapter)); err != nil {
		return config, usageError{err}
	}
	if c.Peft != "" && c.LearningRate == nil && c.RateFrom == "" {
		config.Train.Schedule.Peak = adapterRate
	}
	config.Merge = c.Merge
	if c.Adapt != "" {
		if err := jsonFlag("--adapt", c.Adapt, &config.Train.Adapt); err != nil {
			return config, usageError{err}
		}
	}
	if err := config.Validate(); err != nil {
		return config, usageError{err}
	}
	return config, nil
}

// adapterRate is the learning rate of adapters, whose few weights want larger steps.
const adapterRate = 1e-3

// spec reads what a flag describes, from JSON or from a file that holds it. An empty text
// describes nothing.
func spec[T any](flag, text string, into **T) error {
	if text == "" {
		return nil
	}
	*into = new(T)
	if err := jsonFlag(flag, text, *into); err != nil {
		return err
	}
	return nil
}

// jsonFlag reads what a flag holds, a JSON object or list or the name of a file that holds one.
func jsonFlag(name, text string, into any) error {
	content, from, form := []byte(text), name, "a JSON object"
	if reflect.TypeOf(into).Elem().Kind() == reflect.Slice {
		form = "a JSON list"
	}
	if start := strings.TrimSpace(text); !strings.HasPrefix(start, "{") && !strings.HasPrefix(start, "[") {
		from = text
		var err error
		if content, err = os.ReadFile(text); err != nil {
			return fmt.Errorf("%s wants %s or a file that holds one: %w", name, form, err)
		}
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return fmt.Errorf("%s is empty, want %s", from, form)
	}
	if err := strictjson.Decode(content, into); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// kindFlag decodes a flag that names a kind, or holds JSON or the name of a file of it. What the JSON
// does not say stays as it is.
func kindFlag(name, text string, kinds []string, into any) error {
	if text == "" {
		return nil
	}
	if slices.Contains(kinds, text) {
		text = fmt.Sprintf(`{"kind": %q}`, text)
	} else if _, err := os.Stat(text); err != nil && kinds != nil && !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return fmt.Errorf("%s wants one of %s, a JSON object, or a file that holds one: %w", name, strings.Join(kinds, ", "), err)
	}
	return jsonFlag(name, text, into)
}

// unfreezeFlag reads when variables begin to train.
func unfreezeFlag(text string, into *train.Unfreeze) error {
	switch text {
	case "":
		return nil
	case "epoch":
		*into = train.Unfreeze{EveryEpochs: 1}
		return nil
	}
	return kindFlag("--unfreeze", text, []string{"epoch"}, into)
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

// preset reports whether model and data are left to the preset.
func (c trainNERCmd) preset() bool { return c.Model == "" && c.Data == "" && c.Train == "" }

// Run trains.
func (c trainNERCmd) Run(a *app) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	if c.previews() {
		options := experiment.Options{Client: &hub.Client{Progress: fetching(a.stderr)}}
		return preview(a, c.recipeFlags, config, options, experiment.Explain, experiment.RangeTest)
	}
	dir, err := c.dir(hub.TaskNER, c.Preset)
	if err != nil {
		return err
	}
	record, recordErr := run.ReadRecord[experiment.Config](dir) // an error is experiment.Run's to explain
	resumes := c.Resume && recordErr == nil
	if resumes && c.preset() && record.Config.Model == experiment.Scratch {
		config = config.Offline() // the run fell back to it when it began
	}
	a.tellRateFrom(config.RateFrom)
	progress := &trainProgress{w: a.stderr, started: time.Now()}
	engine, choice, err := a.open()
	if err != nil {
		return err
	}
	if resumes {
		a.tellBackend(record.Backend, choice)
	}
	client := &hub.Client{Progress: fetching(a.stderr)}
	options := experiment.Options{
		Dir: dir, Resume: c.Resume, Client: client, Backend: choice,
		Loaded: func(l experiment.Loaded) {
			a.tellLoaded(l, config.Model, dataName(config.Data.Name, config.Data.TrainFile), "sentences", dir, c.Resume)
			if config.Tagger.Adapter != nil {
				fmt.Fprintf(a.stderr, "adapter %s: %d parameters are trained, head included\n", config.Tagger.Adapter.Kind, l.Trained)
			}
		},
		Step: progress.step, Event: progress.event,
		Epoch: func(epoch int, dev ner.Report) {
			progress.pause()
			fmt.Fprintf(a.stderr, "epoch %d: dev F1 %.4f  precision %.4f  recall %.4f\n", epoch, dev.Micro.F1, dev.Micro.Precision, dev.Micro.Recall)
		},
		Progress: evaluation(a.stderr),
	}
	result, err := experiment.Run(a.ctx, engine, config, options)
	if errors.Is(err, hub.ErrUnavailable) && c.preset() {
		fmt.Fprintf(a.stderr, "\n%v\n\nFALLING BACK: neither network nor mirror has what the preset needs. Training a small transformer\nfrom scratch on a synthetic corpus instead; its scores say nothing about real text.\n\n", err)
		config = config.Offline()
		result, err = experiment.Run(a.ctx, engine, config, options)
	}
	progress.pause()
	progress.bar.finish()
	if err != nil {
		return err
	}
	if c.JSON {
		return a.printJSON(result)
	}
	fmt.Fprintf(a.stdout, "\n%s\n", result.Text())
	a.printSamples(result)
	fmt.Fprintf(a.stdout, "%d updates, compilations: %d, %s in all. ", result.Updates, result.Compilations, (time.Duration(result.Seconds) * time.Second))
	if result.BestEpoch > 0 {
		fmt.Fprintf(a.stdout, "The weights are those of epoch %d, the best on dev.", result.BestEpoch)
	}
	if result.Ended != "" {
		fmt.Fprintf(a.stdout, "Adaptation ended: %s; %s says more.\n", result.Ended, filepath.Join(dir, experiment.EventsFile))
	}
	model := "the tagger; transformers loads it too (AutoModelForTokenClassification)"
	if adapter := result.Tagger.Adapter(); adapter != nil {
		model = fmt.Sprintf("the tagger's adapter (%s) and head, on the base model that it names; --merge would save the whole", adapter.Config().Kind)
	}
	fmt.Fprintf(a.stdout, `
Run folder: %[1]s
  model/         %[3]s
  run.json       config, seed, checksums, versions
  journal.jsonl  what happened, for "elastic runs" and "elastic ui"
Try next:
  %[2]s predict %[1]s "Angela Merkel met Tim Cook of Apple in Berlin."
  %[2]s explain %[1]s "Angela Merkel met Tim Cook of Apple in Berlin."
  %[2]s eval %[1]s --split dev --strict
  %[2]s train ner --preset full
`, dir, program(), model)
	return nil
}

// tellRateFrom says where the learning rate is from, if it is from earlier runs.
func (a *app) tellRateFrom(note string) {
	if note != "" {
		fmt.Fprintf(a.stderr, "earlier runs: %s\n", note)
	}
}

func (a *app) printSamples(result experiment.Result) {
	if len(result.Sentences) == 0 {
		return
	}
	fmt.Fprintln(a.stdout, "From the test data:")
	for _, s := range result.Sentences {
		fmt.Fprintf(a.stdout, "  %s\n", ner.Mark(s.Text, s.Entities, isTerminal(a.stdout)))
	}
	fmt.Fprintln(a.stdout)
}

// dataName is what a corpus is called in messages.
func dataName(name, file string) string {
	if name != "" {
		return name
	}
	return filepath.Base(file)
}

// tellBackend warns of a run that goes on elsewhere than it began.
func (a *app) tellBackend(before any, choice backend.Choice) {
	if before, ok := before.(map[string]any); ok && before["name"] != choice.Name {
		fmt.Fprintf(a.stderr, "the run was on backend %v and continues on %s: its weights will not be, bit by bit, those of a run that stayed on one\n", before["name"], choice.Name)
	}
}

// manyLabels is from how many on only their number is told.
const manyLabels = 16

// tellLoaded says what a run is about to work on.
func (a *app) tellLoaded(l run.Loaded, model, data, items, dir string, resume bool) {
	a.ending.run = dir
	labels := ""
	switch n := len(l.Labels); {
	case n > manyLabels:
		labels = fmt.Sprintf("; %d labels", n)
	case n > 0:
		labels = "; labels " + strings.Join(l.Labels, " ")
	}
	fmt.Fprintf(a.stderr, "model %s: %.3g M parameters; data %s: %d %s to train on, %d dev, %d test%s\n",
		model, float64(l.Parameters)/1e6, data, l.Train, items, l.Dev, l.Test, labels)
	fmt.Fprintf(a.stderr, "%d batches an epoch in %d shapes, %.0f %% padding; run folder %s\n", l.Batches.Batches, l.Batches.Shapes, 100*l.Batches.Padding, dir)
	for _, err := range l.Skipped {
		fmt.Fprintf(a.stderr, "PASSED OVER: %v\n", err)
	}
	switch {
	case l.ResumedAt > 0:
		fmt.Fprintf(a.stderr, "continuing after update %d\n", l.ResumedAt)
	case resume:
		fmt.Fprintf(a.stderr, "%s has no checkpoint to continue from; beginning\n", dir)
	}
}

// noSuchRun explains a path that leads to no model.
func noSuchRun(path string) error {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is no folder: want that of a run, or of a model with config.json, model.safetensors and tokenizer.json", path)
	}
	if _, err := os.Stat(filepath.Join(path, run.RecordFile)); err == nil {
		return fmt.Errorf("%s holds a run that is not finished: continue it with the command that began it and --resume --run %s", path, path)
	}
	return nil
}

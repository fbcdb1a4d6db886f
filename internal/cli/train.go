package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/internal/plural"
	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task"
)

type trainCmd struct {
	NER      trainNERCmd      `cmd:"" name:"ner" help:"Fine-tune a named-entity tagger."`
	Classify trainClassifyCmd `cmd:"" help:"Fine-tune a classifier of texts."`
	LM       trainLMCmd       `cmd:"" name:"lm" help:"Train a language model."`
}

// sourceFlags say what a run learns from. Each command says what that is, by variables of its tags.
type sourceFlags struct {
	Data  string `help:"${data}, or synthetic." placeholder:"NAME" predictor:"resource"`
	Train string `help:"${train}" placeholder:"FILE" predictor:"path"`
	Dev   string `help:"Development ${kind}; the best epoch on it is kept." placeholder:"FILE" predictor:"path"`
	Test  string `help:"Test ${kind}." placeholder:"FILE" predictor:"path"`
	Limit *int   `help:"Take only ${limit}; 0 takes all." placeholder:"N"`
}

// files reports whether the flags name files in place of data by name.
func (f sourceFlags) files() (bool, error) {
	switch {
	case f.Train != "" && f.Data != "":
		return false, errors.New("--data and --train exclude each other")
	case f.Train == "" && (f.Dev != "" || f.Test != ""):
		return false, errors.New("--dev and --test need --train")
	}
	return f.Train != "", nil
}

// baseFlags are those of tasks that begin with a pretrained model.
type baseFlags struct {
	Model string `help:"Pretrained model${family}: ${models}, owner/name on the Hugging Face hub, a run (its folder, a part of its name, or latest), the folder of a model, or scratch (a small one, trained for 6 epochs at least where --epochs says nothing)." placeholder:"NAME" predictor:"resource"`
	sourceFlags
}

// preset reports whether model and data are left to the preset.
func (f baseFlags) preset() bool { return f.Model == "" && f.Data == "" && f.Train == "" }

// find replaces the name of a run by its folder.
func (f *baseFlags) find(a *app) error {
	var unknown *run.NameError
	if _, _, err := run.FindModel(f.Model); f.Model == "" || f.Model == run.Scratch || !errors.As(err, &unknown) {
		return nil
	}
	dir, err := a.meant("--model", f.Model, encoder)
	if err != nil && f.Model != "latest" {
		return usageError{fmt.Errorf("%w; %w", unknown, err)}
	}
	f.Model = dir
	return err
}

// encoder says what a folder lacks of a model that taggers and classifiers can begin with.
func encoder(dir string) error {
	if err := noModel(dir); err != nil {
		return err
	}
	if taskOf(dir) == hub.TaskLM {
		return fmt.Errorf("%s is a language model, with which taggers and classifiers cannot begin", dir)
	}
	return nil
}

// settle brings the model from scratch and the synthetic data together, and reports whether that is what is wanted.
func (f *baseFlags) settle() (scratch bool) {
	if f.Model == run.Scratch && f.Data == "" && f.Train == "" || f.Data == task.Synthetic && f.Model == "" {
		f.Model, f.Data = run.Scratch, task.Synthetic
	}
	return f.Model == run.Scratch
}

// teacherFlags let a model follow another one of its task.
type teacherFlags struct {
	Teacher     string   `help:"Follow this model too (distillation): a run of the same task, with the same labels and tokenizer: its folder, a part of its name, or latest." placeholder:"RUN" predictor:"path"`
	Temperature *float64 `help:"Temperature at which --teacher is followed. Default: 2." placeholder:"T"`
	Alpha       *float64 `help:"Share of --teacher in the loss, above 0; labels have the rest. Default: 0.5." placeholder:"SHARE"`
	Weigh       string   `help:"Learn the weights of labels and --teacher in place of --alpha: uncertainty or gradnorm; or a JSON object with kind, exponent, rate, or a file that holds one." placeholder:"KIND" predictor:"path"`
}

// find replaces the name of a run of a task by its folder.
func (f *teacherFlags) find(a *app, task string) (err error) {
	f.Teacher, err = a.meant("--teacher", f.Teacher, func(dir string) error {
		if err := noModel(dir); err != nil {
			return err
		}
		return wrongTask(dir, task)
	})
	return err
}

// wrongTask refuses a run or model of another task.
func wrongTask(dir, task string) error {
	if is := taskOf(dir); is != task {
		return fmt.Errorf("%s is of task %q, not %q", dir, is, task)
	}
	return nil
}

// distill returns what the flags say.
func (f teacherFlags) distill() (d run.Distill, err error) {
	if err := errors.Join(positive("--temperature", f.Temperature), positive("--alpha", f.Alpha)); err != nil {
		return d, err
	}
	if f.Teacher != "" { // the record's, from wherever the run is resumed
		if d.Teacher, err = filepath.Abs(f.Teacher); err != nil {
			return d, fmt.Errorf("--teacher: %w", err)
		}
	}
	given(&d.Temperature, f.Temperature)
	given(&d.Alpha, f.Alpha)
	if err := kindFlag("--weigh", f.Weigh, loss.Weighings(), &d.Weigh); err != nil {
		return d, err
	}
	if f.Alpha != nil && f.Weigh != "" {
		return d, errors.New("--alpha and --weigh exclude each other: the one fixes the share of --teacher in the loss, the other learns it")
	}
	return d, nil
}

// recipeFlags are those of every task.
type recipeFlags struct {
	Epochs           *int     `help:"Times to go through the data." placeholder:"N"`
	MaxUpdates       *int     `help:"Stop after so many updates; 0 sets no limit." placeholder:"N"`
	BatchSize        *int     `help:"Sentences, texts or windows of a text a batch." placeholder:"N"`
	Accumulate       *int     `help:"Batches an update." placeholder:"N"`
	LearningRate     *float64 `name:"lr" help:"Highest learning rate." placeholder:"RATE"`
	Patience         *int     `help:"Stop after so many epochs without a better score on dev; 0 never does." placeholder:"N"`
	SaveEvery        *int     `help:"Updates between checkpoints, beside those at the end of each epoch; 0 keeps to these." placeholder:"N"`
	MaxLength        *int     `help:"Longest training example in tokens." placeholder:"N"`
	RateFrom         string   `help:"Take rate, optimizer and factors by pattern from the best of earlier runs, by their score on dev: folders, parts of names, or latest, by comma." placeholder:"RUNS" predictor:"path"`
	Optimizer        string   `help:"Update rule: adamw, lion, muon, prodigy, schedule_free_adamw, adafactor, sgd or another (a wrong name lists all); or a JSON object, or a file that holds one." placeholder:"RULE" predictor:"path"`
	Loss             string   `help:"Loss in place of plain cross-entropy: a JSON object with label_smoothing, focal_gamma, class_weights or balanced, r_drop, mixup (classify), penalties; or a file that holds one." placeholder:"LOSS" predictor:"path"`
	Schedule         string   `help:"Schedule of the learning rate: a kind such as linear, constant, cosine or wsd; or a JSON object, or a file that holds one." placeholder:"KIND" predictor:"path"`
	Control          string   `help:"Controllers of the learning rate (plateau, spike, stop, noise_scale, trials): a JSON list, or a file that holds one." placeholder:"LIST" predictor:"path"`
	Unfreeze         string   `help:"When variables begin to train: epoch (one layer more after each, from the top), or a JSON object, or a file that holds one." placeholder:"STAGES" predictor:"path"`
	SkipNonFinite    bool     `help:"Pass over updates whose loss or gradients are not finite, in place of ending the run."`
	Precision        string   `help:"Of products of matrices while training: f32, or bf16 with weights and updates in float32. bf16 is for hardware that has it; on most CPUs it is slower." placeholder:"KIND"`
	CheckpointBlocks bool     `help:"Keep of each block of layers only its input for gradients, and compute the rest again: less memory for about a second forward pass."`
	Attention        string   `help:"Attention in place of the model's: a JSON spec, or a file that holds one." placeholder:"SPEC" predictor:"path"`
	DropPath         *float64 `help:"Probability that the last layer's parts are left out for a text while training; less below (stochastic depth)." placeholder:"RATE"`
	WordDropout      *float64 `help:"Probability that a token is replaced by [MASK] while training." placeholder:"RATE"`
	Seed             *uint64  `help:"Seed of data order, fresh weights and dropout." placeholder:"N"`

	previewFlags

	Folder   string `name:"run" help:"Run folder. Default: runs/TASK-PRESET-TIME." placeholder:"DIR" predictor:"path"`
	Resume   bool   `help:"Continue an interrupted run: the one in --run, or the newest of this preset below runs/." xor:"begin"`
	Continue bool   `help:"Continue the run in --run, or begin it if there is none: for programs that start a command again and again." xor:"begin"`
	From     string `help:"Run (its folder, a part of its name, or latest) whose weights, optimizer state and place in the data to begin with, at the end of its last epoch. Rate, schedule, loss, noise, lengths, precision and seed may differ, other settings not." placeholder:"RUN" predictor:"path"`
	JSON     bool   `help:"Print the result as JSON."`
	notifyFlag
}

// find replaces the names of runs of a task by their folders.
func (f *recipeFlags) find(a *app, task string) (err error) {
	if f.From, err = a.meant("--from", f.From, func(dir string) error {
		if err := noCheckpoint(dir); err != nil {
			return err
		}
		return wrongTask(dir, task)
	}); err != nil {
		return err
	}
	names := strings.Split(f.RateFrom, ",")
	for i, name := range names {
		if names[i], err = a.meant("--rate-from", name, func(dir string) error {
			_, err := run.BestRates(task, []string{dir})
			return err
		}); err != nil {
			return err
		}
	}
	f.RateFrom = strings.Join(names, ",")
	return nil
}

// recipe is what the flags of recipes change.
type recipe struct {
	*train.Config
	batchSize, maxLength *int
	noise                *run.Noise
	attention            **attention.Spec
}

// set replaces a value where a flag gives one.
func set[T comparable](into *T, value T) {
	var none T
	if value != none {
		*into = value
	}
}

// given replaces a value where a flag that may be 0 gives one.
func given[T any](into *T, value *T) {
	if value != nil {
		*into = *value
	}
}

// counted is a flag of which there must be one at least, if it is given: in a config 0 would be its default.
type counted struct {
	flag  string
	value *int
}

// some refuses flags that are 0 or less.
func some(flags ...counted) error {
	var problems []error
	for _, f := range flags {
		if f.value != nil && *f.value < 1 {
			problems = append(problems, fmt.Errorf("%s is %d, want 1 or more", f.flag, *f.value))
		}
	}
	return errors.Join(problems...)
}

// positive refuses a flag that is 0 or less, if it is given: in a config 0 would be its default.
func positive(flag string, value *float64) error {
	if value != nil && !(*value > 0) {
		return fmt.Errorf("%s is %g, want it above 0", flag, *value)
	}
	return nil
}

// apply changes the recipe of a task's run, which trains a model, as the flags say. It returns what the record
// says about rates of earlier runs.
func (f recipeFlags) apply(task, model string, r recipe) (note string, err error) {
	if note, err = f.takeRates(task, model, r.Config); err != nil {
		return "", err
	}
	if err := some(counted{"--epochs", f.Epochs}, counted{"--batch-size", f.BatchSize}, counted{"--accumulate", f.Accumulate}, counted{"--max-length", f.MaxLength}); err != nil {
		return "", err
	}
	given(&r.Epochs, f.Epochs)
	given(&r.MaxUpdates, f.MaxUpdates)
	given(&r.Accumulate, f.Accumulate)
	given(&r.Patience, f.Patience)
	given(&r.SaveEvery, f.SaveEvery)
	given(r.batchSize, f.BatchSize)
	given(r.maxLength, f.MaxLength)
	given(&r.noise.DropPath, f.DropPath)
	given(&r.noise.WordDropout, f.WordDropout)
	given(&r.Schedule.Peak, f.LearningRate)
	given(&r.Seed, f.Seed)
	set(&r.Precision, f.Precision)
	set(&r.SkipNonFinite, f.SkipNonFinite)
	set(&r.CheckpointBlocks, f.CheckpointBlocks)
	return note, errors.Join(
		f.check(),
		kindFlag("--optimizer", f.Optimizer, optim.Kinds(), &r.Optimizer),
		kindFlag("--schedule", f.Schedule, schedule.Kinds(), &r.Schedule),
		lossFlag(f.Loss, &r.Loss),
		kindFlag("--control", f.Control, nil, &r.Control),
		unfreezeFlag(f.Unfreeze, &r.Unfreeze),
		spec("--attention", f.Attention, r.attention),
	)
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

// begin makes ready the folder of a run, and reports whether there is a run in it to be continued.
func begin[C any](f recipeFlags, dir, task string, config C) (resume bool, err error) {
	_, err = os.Stat(filepath.Join(dir, run.RecordFile))
	begun := err == nil
	switch {
	case f.Resume && !begun:
		return false, fmt.Errorf("there is no run in %s to resume: leave --resume out to begin one, or name the folder of a run", dir)
	case f.From != "" && !(begun && f.Continue):
		return true, run.Fork(dir, f.From, task, config)
	}
	return f.Resume || f.Continue, nil
}

// training is what a command has of its own: C is the config of its task's experiments, S a score.
type training[C task.Config, S run.Score] struct {
	task, preset string
	data, items  string // what the data is called, and made of
	rateFrom     string // what the record says about rates of earlier runs
	// offline returns the config that needs no download, with the flags of the command; nil if model or data were chosen.
	offline func() (C, error)

	run       func(context.Context, compute.Backend, C, task.Options[S]) (task.Report[S], error)
	explain   func(context.Context, compute.Backend, C, task.Options[S]) (string, error)
	rangeTest func(context.Context, compute.Backend, C, task.Options[S], train.RateRange) (train.RateCurve, error)

	loaded func(C, run.Loaded) // says more about what is trained; may be nil
	epoch  func(dev S) string  // says how good an epoch is
	// The others say something of the result: samples, with their heading; what is in the folder of the
	// model; and what to try next, arguments of the program a line, in which %s is the run folder.
	samples func() string
	model   func() string
	next    func() []string
	draw    func(dir string) error // makes pictures in the run folder; may be nil
}

// keep returns a function that runs an experiment and keeps its result.
func keep[C any, S run.Score, R any, P interface {
	*R
	task.Report[S]
}](run func(context.Context, compute.Backend, C, task.Options[S]) (R, error), result P) func(context.Context, compute.Backend, C, task.Options[S]) (task.Report[S], error) {
	return func(ctx context.Context, engine compute.Backend, config C, options task.Options[S]) (_ task.Report[S], err error) {
		*result, err = run(ctx, engine, config, options)
		return result, err
	}
}

// runTask trains, or previews a training.
func runTask[C task.Config, S run.Score](a *app, f recipeFlags, config C, t training[C, S]) error {
	client := &hub.Client{Progress: fetching(a.stderr)}
	if f.previews() {
		return preview(a, f, config, task.Options[S]{Client: client}, t.explain, t.rangeTest)
	}
	dir, err := f.dir(t.task, t.preset)
	if err != nil {
		return err
	}
	if f.Resume, err = begin(f, dir, t.task, config); err != nil {
		return err
	}
	record, recordErr := run.ReadRecord[C](dir) // an error is the experiment's to explain
	resumes := f.Resume && recordErr == nil
	fallBack := func() (err error) {
		t.data = task.Synthetic
		if config, err = t.offline(); err != nil {
			return usageError{fmt.Errorf("the flags do not fit the small transformer from scratch that needs no network: %w", err)}
		}
		return nil
	}
	if resumes && t.offline != nil && record.Config.Base() == run.Scratch {
		if err := fallBack(); err != nil { // as the run did when it began
			return err
		}
	}
	if t.rateFrom != "" {
		fmt.Fprintf(a.stderr, "earlier runs: %s\n", t.rateFrom)
	}
	progress := newTrainProgress(a.stderr, dir)
	engine, choice, err := a.open()
	if err != nil {
		return err
	}
	if resumes {
		a.tellBackend(record.Backend, choice)
	}
	options := task.Options[S]{
		Dir: dir, Resume: f.Resume, Client: client, Backend: choice,
		Loaded: func(l run.Loaded) {
			a.tellLoaded(l, config.Base(), t.data, t.items, dir, f.Resume)
			if t.loaded != nil {
				t.loaded(config, l)
			}
		},
		Step: progress.step, Event: progress.event,
		Epoch: func(epoch int, dev S) {
			progress.pause()
			fmt.Fprintf(a.stderr, "epoch %d: dev %s\n", epoch, t.epoch(dev))
		},
		Progress: evaluation(a.stderr),
	}
	report, err := t.run(a.ctx, engine, config, options)
	if errors.Is(err, hub.ErrUnavailable) && t.offline != nil {
		fmt.Fprintf(a.stderr, "\n%v\n\nFALLING BACK: neither network nor mirror has what the preset needs. Training a small transformer\nfrom scratch on a synthetic corpus instead; its scores say nothing about real text.\n\n", err)
		if err := fallBack(); err != nil {
			return err
		}
		report, err = t.run(a.ctx, engine, config, options)
	}
	progress.pause()
	progress.bar.finish()
	if err != nil {
		return err
	}
	if f.JSON {
		return a.printJSON(report)
	}
	result := report.Common()
	fmt.Fprintf(a.stdout, "\n%s\n%s%d updates, ", report.Text(), t.samples(), result.Updates)
	if result.Compilations > 0 {
		fmt.Fprintf(a.stdout, "compilations: %d, ", result.Compilations)
	}
	fmt.Fprintf(a.stdout, "%s in all. ", time.Duration(result.Seconds)*time.Second)
	if result.BestEpoch > 0 {
		fmt.Fprintf(a.stdout, "The weights are those of epoch %d, the best on dev.", result.BestEpoch)
	}
	if result.Ended != "" {
		fmt.Fprintf(a.stdout, "Adaptation ended: %s; %s says more.\n", result.Ended, filepath.Join(dir, task.EventsFile))
	}
	fmt.Fprintf(a.stdout, `
Run folder: %s
  model/         %s
  run.json       config, seed, checksums, versions
  journal.jsonl  what happened, for "elastic runs" and "elastic ui"
`, dir, t.model())
	if t.draw != nil {
		if err := t.draw(dir); err != nil {
			fmt.Fprintf(a.stderr, "no pictures of attention: %v\n", err)
		} else {
			fmt.Fprintf(a.stdout, "  pictures/      what heads attend to in %s of the test data\n", t.items)
		}
	}
	fmt.Fprintln(a.stdout, "Try next:")
	for _, line := range t.next() {
		fmt.Fprintf(a.stdout, "  %s %s\n", program(), strings.Replace(line, "%s", quoted(dir), 1))
	}
	return nil
}

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
	if err := kindFlag("--unfreeze", text, []string{"epoch"}, into); err != nil || !into.IsZero() {
		return err
	}
	return errors.New("--unfreeze says nothing of when: want epoch, every_epochs, every_updates or stages, or leave it out")
}

// lossFlag reads a loss other than plain cross-entropy.
func lossFlag(text string, into *loss.Config) error {
	if err := kindFlag("--loss", text, nil, into); text == "" || err != nil || !into.IsZero() {
		return err
	}
	return errors.New("--loss changes nothing: leave it out for plain cross-entropy")
}

// fromTestData heads samples of the test data.
func fromTestData(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "From the test data:\n  " + strings.Join(lines, "\n  ") + "\n\n"
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
	fmt.Fprintf(a.stderr, "%s an epoch in %s, %.0f %% padding; run folder %s\n", plural.Of(l.Batches.Batches, "batch", "batches"), plural.Of(l.Batches.Shapes, "shape", "shapes"), 100*l.Batches.Padding, dir)
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

package experiment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// The files of a run folder, beside its checkpoints.
const (
	RecordFile = "run.json"
	ReportFile = "report.json"
	TextFile   = "report.txt"
	ModelDir   = "model"
	EventsFile = "events.jsonl" // only with a strategy of adaptation
)

// Options is what a run needs beside its config.
type Options struct {
	// Dir is the run folder.
	Dir string
	// Resume continues the run in Dir from its last checkpoint. The config must be the same.
	Resume bool
	// Client fetches model and data; nil means the default.
	Client *hub.Client
	// Backend describes the backend, for the record.
	Backend any

	// Custom computes the objective "custom" of the config's strategy, which has none without.
	Custom adapt.Custom

	// The callbacks report progress; each may be nil.
	Loaded   func(Loaded)
	Step     func(train.Step)
	Epoch    func(epoch int, dev ner.Report)
	Progress func(done, total int) // of an evaluation, in batches
}

// Loaded says what a run is about to work on.
type Loaded struct {
	Train, Dev, Test int // sentences
	Labels           []string
	Parameters       int
	Batches          batch.Stats
	Note             string
	ResumedAt        int     // update that the run continues from; 0 for a fresh one
	Skipped          []error // newer checkpoints that are damaged and were passed over
}

// Record is the content of run.json.
type Record struct {
	Config    Config            `json:"config"`
	Data      map[string]string `json:"data_sha256"`
	Model     map[string]string `json:"model_sha256"`
	Labels    []string          `json:"labels"`
	Versions  map[string]string `json:"versions"`
	Backend   any               `json:"backend,omitempty"`
	Started   time.Time         `json:"started"`
	Resumed   []time.Time       `json:"resumed,omitempty"`
	Seed      uint64            `json:"seed"`
	Sentences [3]int            `json:"sentences"` // train, dev, test
}

// Result is what a run found.
type Result struct {
	Dir          string         `json:"dir"`
	Dev          *ner.Report    `json:"dev,omitempty"`
	Test         *ner.Report    `json:"test,omitempty"`
	Note         string         `json:"note,omitempty"`
	Updates      int            `json:"updates"`
	BestEpoch    int            `json:"best_epoch"` // counted from 1; 0 without dev data
	Stopped      bool           `json:"stopped_early,omitempty"`
	Ended        string         `json:"ended,omitempty"` // why a strategy of adaptation ended training
	Compilations int            `json:"compilations"`
	Seconds      float64        `json:"seconds"` // of this process
	History      []train.Point  `json:"history,omitempty"`
	Metrics      []train.Metric `json:"metrics,omitempty"`
	// Tagger is the trained tagger.
	Tagger *ner.Tagger `json:"-"`
	// Sentences are some of the test data with what was found in them.
	Sentences []Sample `json:"samples,omitempty"`
}

// Sample is a sentence of the test data with what was found in it.
type Sample struct {
	ner.Document
	Gold []ner.Span `json:"gold"`
}

// Run makes an experiment from start to end. One process at a time may work on a run
// folder. When ctx is cancelled while it trains or evaluates, the run is saved, and the
// error wraps [train.ErrInterrupted]. An unknown name is a [*NameError].
func Run(ctx context.Context, backend compute.Backend, config Config, options Options) (Result, error) {
	begin := time.Now()
	if err := config.Validate(); err != nil {
		return Result{}, fmt.Errorf("experiment config: %w", err)
	}
	if options.Dir == "" {
		return Result{}, errors.New("experiment needs a run folder")
	}
	client := options.Client
	if client == nil {
		client = &hub.Client{}
	}
	if config.Model != Scratch {
		if _, _, err := findModel(config.Model); err != nil { // before anything is fetched
			return Result{}, err
		}
	}
	if _, _, err := readRecord(options.Dir, config, options.Resume); err != nil {
		return Result{}, err
	}
	corpus, err := config.Data.Load(ctx, client)
	if err != nil {
		return Result{}, err
	}
	labels, err := ner.LabelsOf(slices.Concat(corpus.Train, corpus.Dev, corpus.Test))
	if err != nil {
		return Result{}, err
	}
	if labels.Len() == 1 {
		return Result{}, errors.New("the data has no entity, only the tag O: there is nothing to learn")
	}
	unlock, err := lock(options.Dir)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	run := checkpoint.Run{Dir: options.Dir}
	record, begun, err := readRecord(options.Dir, config, options.Resume) // again, now that nobody else can change it
	if err != nil {
		return Result{}, err
	}
	var folder *checkpoint.Folder
	if begun {
		if err := sameData(options.Dir, record.Data, corpus.Checksums); err != nil {
			return Result{}, err
		}
		if folder, err = run.Latest(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Result{}, fmt.Errorf("looking for a checkpoint: %w", err)
		}
	}
	loaded := Loaded{Train: len(corpus.Train), Dev: len(corpus.Dev), Test: len(corpus.Test), Labels: labels.Tags(), Note: corpus.Note}
	var tagger *ner.Tagger
	resumeDir := ""
	if folder != nil {
		resumeDir = folder.Dir
		if tagger, err = ner.Load(backend, resumeDir); err != nil {
			return Result{}, err
		}
		state, err := train.ReadState(resumeDir)
		if err != nil {
			return Result{}, err
		}
		loaded.ResumedAt, loaded.Skipped = state.Update, folder.Skipped
		record.Resumed = append(record.Resumed, time.Now().UTC())
	} else {
		var sums map[string]string
		if tagger, sums, err = newTagger(ctx, backend, client, config, labels); err != nil {
			return Result{}, err
		}
		record = Record{
			Config: config, Data: corpus.Checksums, Model: sums, Labels: labels.Tags(), Versions: versions(), Seed: config.Train.Seed,
			Started: time.Now().UTC(), Sentences: [3]int{len(corpus.Train), len(corpus.Dev), len(corpus.Test)},
		}
	}
	loaded.Parameters = tagger.Model.Parameters()
	record.Backend = options.Backend
	if err := writeJSON(filepath.Join(options.Dir, RecordFile), record); err != nil {
		return Result{}, err
	}

	trained, err := tagger.Train(ctx, corpus.Train, corpus.Dev, config.Train, ner.TrainOptions{
		Run: run, Resume: resumeDir, Versions: record.Versions, Custom: options.Custom,
		Earlier: func(prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
			return earlier(ctx, backend, client, prior)
		},
		Plan: func(stats batch.Stats) {
			if loaded.Batches = stats; options.Loaded != nil {
				options.Loaded(loaded)
			}
		},
		Step: options.Step, Epoch: options.Epoch, Progress: options.Progress,
	})
	result := Result{
		Dir: options.Dir, Note: corpus.Note, Updates: trained.State.Update, Stopped: trained.Stopped, Ended: trained.State.Ended,
		BestEpoch: max(trained.State.Best.Epoch, 0), History: trained.State.History, Metrics: trained.State.Metrics, Tagger: tagger,
	}
	if logErr := writeEvents(options.Dir, trained.State.Adaptation); err == nil {
		err = logErr
	}
	if err != nil {
		return result, err
	}
	if len(corpus.Dev) > 0 {
		report, err := tagger.Evaluate(ctx, corpus.Dev, ner.Options{}, options.Progress)
		if err != nil {
			return result, stopped(ctx, fmt.Errorf("evaluating on dev: %w", err))
		}
		result.Dev = &report
	}
	if len(corpus.Test) > 0 {
		report, err := tagger.Evaluate(ctx, corpus.Test, ner.Options{}, options.Progress)
		if err != nil {
			return result, stopped(ctx, fmt.Errorf("evaluating on test: %w", err))
		}
		result.Test = &report
		if result.Sentences, err = samples(ctx, tagger, corpus); err != nil {
			return result, stopped(ctx, err)
		}
	}
	result.Compilations = trained.Compilations + tagger.Compilations()
	result.Seconds = time.Since(begin).Seconds()
	if err := tagger.Save(filepath.Join(options.Dir, ModelDir)); err != nil {
		return result, fmt.Errorf("saving the model: %w", err)
	}
	if err := writeJSON(filepath.Join(options.Dir, ReportFile), result); err != nil {
		return result, err
	}
	return result, atomicfile.Write(filepath.Join(options.Dir, TextFile), func(w io.Writer) error {
		_, err := io.WriteString(w, result.Text())
		return err
	})
}

// earlier returns the final weights of the run in a folder and, if a prior wants it, their
// Fisher information over the first sentences of that run's own training data.
func earlier(ctx context.Context, backend compute.Backend, client *hub.Client, prior adapt.Prior) (values, fisher map[string]*tensors.Tensor, err error) {
	tagger, err := ner.Load(backend, filepath.Join(prior.FromRun, ModelDir))
	if err != nil {
		return nil, nil, fmt.Errorf("from_run: %w", err)
	}
	if values, err = tagger.Values(); err != nil || prior.Fisher == 0 {
		return values, nil, err
	}
	path := filepath.Join(prior.FromRun, RecordFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("from_run: %w", err)
	}
	var record Record
	if err := json.Unmarshal(content, &record); err != nil {
		return nil, nil, fmt.Errorf("from_run: %s is not the record of a run: %w", path, err)
	}
	corpus, err := record.Config.Data.Load(ctx, client)
	if err != nil {
		return nil, nil, fmt.Errorf("from_run: the data of %s: %w", prior.FromRun, err)
	}
	if err := sameData(prior.FromRun, record.Data, corpus.Checksums); err != nil {
		return nil, nil, fmt.Errorf("from_run: %w", err)
	}
	fisher, err = tagger.Fisher(ctx, corpus.Train[:min(prior.Fisher, len(corpus.Train))])
	return values, fisher, err
}

// writeEvents writes the log of an adaptation, a JSON object a line. It is all that happened
// since the run began, also before it was resumed.
func writeEvents(dir string, events []adapt.Event) error {
	if len(events) == 0 {
		return nil
	}
	return atomicfile.Write(filepath.Join(dir, EventsFile), func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		for _, event := range events {
			if err := encoder.Encode(event); err != nil {
				return fmt.Errorf("writing events: %w", err)
			}
		}
		return nil
	})
}

// stopped says of an error after training that the run can be resumed, if a
// cancelled context is the cause.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", train.ErrInterrupted, err)
	}
	return err
}

// Text writes the scores as tables.
func (r Result) Text() string {
	var b strings.Builder
	for _, part := range []struct {
		name   string
		report *ner.Report
	}{{"dev", r.Dev}, {"test", r.Test}} {
		if part.report != nil {
			fmt.Fprintf(&b, "%s (%d sentences)\n\n%s\n", part.name, part.report.Sentences, part.report.Text(4))
		}
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "Note: %s.\n", r.Note)
	}
	return b.String()
}

// readRecord returns the record of the run in a folder, and whether there is one. It
// refuses a folder in which a run with this config may not begin or continue.
func readRecord(dir string, config Config, resume bool) (Record, bool, error) {
	path := filepath.Join(dir, RecordFile)
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a run that was killed before it wrote anything begins anew
		return Record{}, false, checkFresh(dir, resume)
	case err != nil:
		return Record{}, false, fmt.Errorf("reading run record: %w", err)
	case !resume:
		return Record{}, false, fmt.Errorf("%s holds a run already: add --resume to continue it, or name another folder", dir)
	}
	var record Record
	if err := json.Unmarshal(content, &record); err != nil {
		return Record{}, false, fmt.Errorf("%s is not the record of a run: %w", path, err)
	}
	if field := firstDifference(record.Config, config); field != "" {
		return Record{}, false, fmt.Errorf("%s was begun with another config: %s; resume with the same settings, or name another folder", dir, field)
	}
	return record, true, nil
}

// checkFresh refuses a folder without a record whose content a run would replace. One
// that is to be resumed must be empty.
func checkFresh(dir string, resume bool) error {
	checkpoints := filepath.Base(filepath.Dir(checkpoint.Run{Dir: dir}.Path(0)))
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking into the run folder: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case name == ModelDir || name == checkpoints || name == ReportFile || name == TextFile:
			return fmt.Errorf("%s holds no run (it has no %s) but %q, which a run would replace: name another folder", dir, RecordFile, name)
		case resume && !strings.HasPrefix(name, "."): // the lock, and what a killed process may have left, are hidden
			return fmt.Errorf("%s holds no run that could be resumed: it has no %s, but %q", dir, RecordFile, name)
		}
	}
	return nil
}

// lockFile is held while a process works on a run. The system lets it go when the
// process ends, in whatever way.
const lockFile = ".lock"

// lock makes the run folder and keeps other processes from it until unlock is called,
// which removes a folder in which no run has begun.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the run folder: %w", atomicfile.Explain(err, dir))
	}
	held := flock.New(filepath.Join(dir, lockFile))
	ours, err := held.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking the run folder: %w", atomicfile.Explain(err, dir))
	}
	if !ours {
		return nil, fmt.Errorf("another process is working on %s: wait for it or name another folder", dir)
	}
	return func() {
		if _, err := os.Stat(filepath.Join(dir, RecordFile)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(held.Path())
			_ = os.Remove(dir) // stays if it has anything else
		}
		_ = held.Close()
	}, nil
}

// sameData refuses data that has changed since the run began.
func sameData(dir string, was, is map[string]string) error {
	for _, part := range slices.Sorted(maps.Keys(is)) {
		if was[part] != is[part] {
			return fmt.Errorf("%s: the %s data has changed since the run began: its SHA-256 was %s and is %s; bring the old data back, or name another folder",
				dir, part, was[part], is[part])
		}
	}
	return nil
}

// firstDifference names the first field in which two configs differ, with both values.
func firstDifference(was, is Config) string {
	flat := func(c Config) map[string]any {
		out := map[string]any{}
		content, _ := json.Marshal(c)
		var tree map[string]any
		_ = json.Unmarshal(content, &tree)
		var walk func(prefix string, value any)
		walk = func(prefix string, value any) {
			if m, ok := value.(map[string]any); ok {
				for name, child := range m {
					walk(prefix+"."+name, child)
				}
				return
			}
			out[strings.TrimPrefix(prefix, ".")] = fmt.Sprint(value)
		}
		walk("", tree)
		return out
	}
	a, b := flat(was), flat(is)
	names := slices.Sorted(maps.Keys(a))
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if a[name] != b[name] {
			return fmt.Sprintf("%s was %v and is %v", name, orUnset(a[name]), orUnset(b[name]))
		}
	}
	return ""
}

func orUnset(value any) any {
	if value == nil {
		return "unset"
	}
	return value
}

// samples predicts the first test sentences that have entities of different kinds.
func samples(ctx context.Context, tagger *ner.Tagger, corpus Corpus) ([]Sample, error) {
	const most = 3
	var chosen []int
	for _, kinds := range []int{2, 1, 0} { // sentences with several types tell most
		for i, s := range corpus.Test {
			types := map[string]bool{}
			for _, span := range ner.FromTags(s.Tags) {
				types[span.Type] = true
			}
			if len(chosen) < most && len(types) >= kinds && len(s.Words) <= 30 && !slices.Contains(chosen, i) {
				chosen = append(chosen, i)
			}
		}
	}
	words := make([][]string, len(chosen))
	for i, at := range chosen {
		words[i] = corpus.Test[at].Words
	}
	tagged, err := tagger.Tag(ctx, words, nil) // together: a shape that evaluation has compiled
	if err != nil {
		return nil, fmt.Errorf("predicting samples: %w", err)
	}
	list := make([]Sample, len(chosen))
	for i, at := range chosen {
		s := corpus.Test[at]
		text, places := ner.Join(s.Words)
		if s.Text != "" {
			if located, err := ner.Locate(s.Text, s.Words); err == nil {
				text, places = s.Text, located
			}
		}
		entities, err := ner.Entities(text, places, ner.FromTags(tagged[i].Tags), tagged[i].Scores)
		if err != nil {
			return nil, fmt.Errorf("predicting samples: %w", err)
		}
		list[i] = Sample{Document: ner.Document{Text: text, Entities: entities}, Gold: ner.FromTags(s.Tags)}
	}
	return list, nil
}

// versions returns the versions that a result depends on.
func versions() map[string]string {
	out := map[string]string{"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		out["workbench"] = info.Main.Version
		for _, module := range info.Deps {
			if strings.HasPrefix(module.Path, "github.com/gomlx/") {
				out[module.Path] = module.Version
			}
		}
		for _, setting := range info.Settings {
			if setting.Key == "GOEXPERIMENT" || setting.Key == "vcs.revision" || setting.Key == "vcs.modified" {
				out[setting.Key] = setting.Value
			}
		}
	}
	return out
}

func writeJSON(path string, value any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(b.Bytes())
		return err
	})
}

// Package run has what every task's trainings share: the run folder with its record and its
// lock ([Begin]), its journal ([Journal]), the pretrained model that a run begins with ([FetchModel]), the teacher that it
// may follow ([Distill]), [Fit], which trains a model into the folder and takes it up again when a run is resumed, and [Predict], which computes what
// a model says about texts.
//
// A run folder holds
//
//	run.json              config, seed, checksums of model and data, versions, backend
//	journal.jsonl         what happened, for package track
//	code.diff             changes of the program's source that were not committed, if there were any
//	checkpoints/          the last states, and the best epoch's
//	model/                the final model, which transformers loads too
//	report.txt, .json     the scores on dev and test
//	pictures/             what was drawn of it
package run

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

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/internal/strictjson"
	"github.com/elastic-attention/workbench/pkg/data/batch"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/track"
)

// The files of a run folder, beside its checkpoints.
const (
	RecordFile = track.RecordFile
	ReportFile = "report.json"
	TextFile   = "report.txt"
	ModelDir   = "model"
	// PicturesDir has pictures that were made of the run, for "elastic ui".
	PicturesDir = "pictures"
)

// Record is the content of run.json; C is the config of the task's experiments.
type Record[C any] struct {
	// Task is what the model is for, as in [hub.Resource]. Records of before there was a second
	// task have none and are of [hub.TaskNER].
	Task      string            `json:"task"`
	Config    C                 `json:"config"`
	Data      map[string]string `json:"data_sha256"`
	Model     map[string]string `json:"model_sha256"`
	Labels    []string          `json:"labels"`
	Versions  map[string]string `json:"versions"`
	Backend   any               `json:"backend,omitempty"`
	Started   time.Time         `json:"started"`
	Resumed   []time.Time       `json:"resumed,omitempty"`
	Parent    *track.Parent     `json:"parent,omitempty"` // of a run that was made by [Fork]
	Seed      uint64            `json:"seed"`
	Sentences [3]int            `json:"sentences"` // sentences or texts of train, dev, test
}

// ReadRecord reads the record of the run in a folder. The error wraps [fs.ErrNotExist] if
// there is none.
func ReadRecord[C any](dir string) (Record[C], error) {
	var record Record[C]
	path := filepath.Join(dir, RecordFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return record, fmt.Errorf("reading run record: %w", err)
	}
	if err := strictjson.DecodeKnown(content, &record); err != nil {
		return record, fmt.Errorf("%s is not the record of a run: %w", path, err)
	}
	if record.Task == "" {
		record.Task = hub.TaskNER
	}
	return record, nil
}

// readRecordOf is [ReadRecord] of a run that must be one of a task: the config of another task is not read.
func readRecordOf[C any](dir, task string) (Record[C], error) {
	any, err := ReadRecord[json.RawMessage](dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Record[C]{}, fmt.Errorf("there is no run in %s: want the folder of one, with its %s: %w", dir, RecordFile, fs.ErrNotExist)
	}
	if err == nil && any.Task != task {
		err = fmt.Errorf("%s is a run of task %q, not %q", dir, any.Task, task)
	}
	if err != nil {
		return Record[C]{}, err
	}
	return ReadRecord[C](dir)
}

// Check returns the record of the run in a folder, and whether there is one. It refuses a
// folder in which a run with this config may not begin or, with resume, continue. A run that
// ended before it had saved anything, say for a mistake in its config, is in nobody's way.
func Check[C any](dir, task string, config C, resume bool) (record Record[C], begun bool, err error) {
	switch _, err := os.Stat(filepath.Join(dir, RecordFile)); {
	case errors.Is(err, fs.ErrNotExist):
		return record, false, checkFresh(dir, resume) // a run that was killed before it wrote anything begins anew
	case err != nil:
		return record, false, fmt.Errorf("%s cannot be a run folder: name another: %w", dir, err)
	}
	if !resume {
		if nothingSaved(dir) {
			return record, false, nil
		}
		return record, false, fmt.Errorf("%s holds a run already: add --resume to continue it, or name another folder", dir)
	}
	if any, err := ReadRecord[json.RawMessage](dir); err == nil && any.Task != task { // its config is another task's
		return record, false, fmt.Errorf("%s holds a run of task %q, not %q: name another folder", dir, any.Task, task)
	}
	if record, err = ReadRecord[C](dir); err != nil {
		return record, false, err
	}
	if field := firstDifference(record.Config, config); field != "" {
		return record, false, fmt.Errorf("%s was begun with another config: %s; resume with the same settings, or name another folder", dir, field)
	}
	return record, true, nil
}

// Loaded says what a run is about to work on.
type Loaded struct {
	Train, Dev, Test int // sentences or texts
	Labels           []string
	Parameters       int
	Trained          int // of them, the others stay as they are; 0 means all
	Batches          batch.Stats
	Note             string
	ResumedAt        int     // update that the run continues from; 0 for a fresh one
	Skipped          []error // newer checkpoints that are damaged and were passed over
}

// Begun is a run folder that this process holds.
type Begun[C any] struct {
	// Record is that of the run that is resumed; of a fresh one only its task, config and
	// data are set.
	Record Record[C]
	// Latest is the checkpoint to continue from; nil if there is none.
	Latest *checkpoint.Folder
	// Unlock lets other processes work on the folder, and removes one in which nothing has begun.
	Unlock func()
}

// Begin makes the run folder, keeps other processes from it, and finds what there is to
// continue. Checksums are those of the data, which must not have changed since the run began.
func Begin[C any](dir, task string, config C, resume bool, checksums map[string]string) (b Begun[C], err error) {
	unlock, err := lock(dir)
	if err != nil {
		return b, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	record, begun, err := Check(dir, task, config, resume) // now that nobody else can change it
	if err != nil {
		return b, err
	}
	if !begun {
		return Begun[C]{Record: Record[C]{Task: task, Config: config, Data: checksums}, Unlock: unlock}, nil
	}
	if err := SameData(dir, record.Data, checksums); err != nil {
		return b, err
	}
	latest, err := checkpoint.Run{Dir: dir}.Latest()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b, fmt.Errorf("looking for a checkpoint: %w", err)
	}
	return Begun[C]{Record: record, Latest: latest, Unlock: unlock}, nil
}

// Stopped says of an error after training that the run can be resumed, if a
// cancelled context is the cause.
func Stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", train.ErrInterrupted, err)
	}
	return err
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

// nothingSaved reports whether a folder has neither checkpoints nor a model nor a report.
func nothingSaved(dir string) bool {
	checkpoints := filepath.Dir(checkpoint.Run{Dir: dir}.Path(0))
	for _, path := range []string{checkpoints, filepath.Join(dir, ModelDir), filepath.Join(dir, ReportFile), filepath.Join(dir, TextFile)} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
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

// SameData refuses data that has changed since the run began.
func SameData(dir string, was, is map[string]string) error {
	for _, part := range slices.Sorted(maps.Keys(is)) {
		if was[part] != is[part] {
			return fmt.Errorf("%s: the %s data has changed since the run began: its SHA-256 was %s and is %s; bring the old data back, or name another folder",
				dir, part, was[part], is[part])
		}
	}
	return nil
}

// difference is a field in which two configs differ, with both values.
type difference struct {
	field   string
	was, is any
}

func (d difference) String() string {
	return fmt.Sprintf("%s was %v and is %v", d.field, orUnset(d.was), orUnset(d.is))
}

// firstDifference names the first field in which two configs differ, with both values.
func firstDifference(was, is any) string {
	if all := differences(was, is); len(all) > 0 {
		return all[0].String()
	}
	return ""
}

// differences lists the fields in which two configs differ: those that the first has, by name, then the others.
func differences(was, is any) (list []difference) {
	flat := func(c any) map[string]any {
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
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if a[name] != b[name] {
			list = append(list, difference{name, a[name], b[name]})
		}
	}
	return list
}

func orUnset(value any) any {
	if value == nil {
		return "unset"
	}
	return value
}

// Versions returns the versions that a result depends on. Of a program that was built from changes that were not committed, or
// does not say of what commit, the SHA-256 of its file is among them (executable_sha256) and, if the working directory is in
// its source, that of the changes (vcs.diff_sha256).
func Versions() map[string]string {
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
	c := uncommitted()
	for key, value := range map[string]string{"executable_sha256": c.executable, "vcs.diff_sha256": c.sum} {
		if value != "" {
			out[key] = value
		}
	}
	if out["vcs.revision"] == "" && c.revision != "" {
		out["vcs.revision"] = c.revision
	}
	return out
}

// WriteJSON writes a value as a file, complete or not at all.
func WriteJSON(path string, value any) error {
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

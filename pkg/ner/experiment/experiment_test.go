package experiment_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	runs "github.com/elastic-attention/workbench/pkg/run"
)

// tiny is an experiment of a second.
func tiny(t testing.TB) experiment.Config {
	t.Helper()
	config, err := experiment.Preset(experiment.DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	config = config.Offline()
	config.Data.Limit, config.Train.MaxUpdates, config.Train.SaveEvery = 32, 4, 1
	return config
}

func run(t *testing.T, config experiment.Config, options experiment.Options) error {
	t.Helper()
	_, err := experiment.Run(t.Context(), gxtest.Backend(t), config, options)
	return err
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func wants(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error is %v, want %q in it", what, err, part)
		}
	}
}

// TestRunFolders says which folders a run may begin or continue in.
func TestRunFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	var inside error
	err := run(t, tiny(t), experiment.Options{Dir: dir, Step: func(s train.Step) {
		if s.Update == 1 { // a second process meanwhile
			inside = run(t, tiny(t), experiment.Options{Dir: dir, Resume: true})
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "two at once", inside, "another process is working on "+dir)
	wants(t, "again", run(t, tiny(t), experiment.Options{Dir: dir}), "holds a run already", "--resume")

	other := tiny(t)
	other.Train.Schedule.Peak = 0.5
	wants(t, "other config", run(t, other, experiment.Options{Dir: dir, Resume: true}), "train.schedule.peak was 0.002 and is 0.5")

	weights := filepath.Join(dir, runs.ModelDir, "model.safetensors")
	before, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t, tiny(t), experiment.Options{Dir: dir, Resume: true}); err != nil {
		t.Errorf("resuming a finished run: %v", err)
	}
	if after, err := os.ReadFile(weights); err != nil || !slices.Equal(after, before) {
		t.Errorf("resuming a finished run changes its weights (%v)", err)
	}

	for name, foreign := range map[string]struct {
		file   string
		resume bool
		want   string
	}{
		"a model":          {"model/config.json", false, "which a run would replace"},
		"a report":         {"report.json", true, "which a run would replace"},
		"not a run":        {"letter.txt", true, "no run that could be resumed"},
		"a foreign record": {"run.json", true, "not the record of a run"},
	} {
		folder := t.TempDir()
		path := write(t, filepath.Join(folder, filepath.FromSlash(foreign.file)), "mine")
		wants(t, name, run(t, tiny(t), experiment.Options{Dir: folder, Resume: foreign.resume}), foreign.want, folder)
		if content, err := os.ReadFile(path); err != nil || string(content) != "mine" {
			t.Errorf("%s: %s is now %q (%v)", name, foreign.file, content, err)
		}
	}
}

// TestDamagedCheckpointIsTold continues from the checkpoint before a damaged one, and says so.
func TestDamagedCheckpointIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := experiment.Run(ctx, gxtest.Backend(t), tiny(t), experiment.Options{Dir: dir, Step: func(s train.Step) {
		if s.Update == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatal(err)
	}
	newest := filepath.Join(checkpoint.Run{Dir: dir}.Path(3), "model.safetensors")
	if err := os.Truncate(newest, 1000); err != nil {
		t.Fatal(err)
	}
	var told experiment.Loaded
	if err := run(t, tiny(t), experiment.Options{Dir: dir, Resume: true, Loaded: func(l experiment.Loaded) { told = l }}); err != nil {
		t.Fatal(err)
	}
	if told.ResumedAt != 2 || len(told.Skipped) != 1 || !strings.Contains(told.Skipped[0].Error(), "model.safetensors") {
		t.Errorf("resumed at %d, skipped %v; want 2, and the damaged one", told.ResumedAt, told.Skipped)
	}
}

// TestInterruptedEvaluation cancels while the finished model is evaluated: nothing is lost.
func TestInterruptedEvaluation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	ctx, cancel := context.WithCancel(t.Context())
	evaluations := 0
	config := tiny(t)
	_, err := experiment.Run(ctx, gxtest.Backend(t), config, experiment.Options{Dir: dir, Progress: func(done, total int) {
		if done == total {
			evaluations++
		}
		if evaluations == 3 { // two of training, and the final one on dev
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("error is %v", err)
	}
	if err := run(t, config, experiment.Options{Dir: dir, Resume: true}); err != nil {
		t.Error(err)
	}
}

func TestDataOfFiles(t *testing.T) {
	dir := t.TempDir()
	one := write(t, filepath.Join(dir, "a", "x.conll"), "Ann B-PER\n\nBonn B-LOC\n\nAcme B-ORG\n")
	two := write(t, filepath.Join(dir, "b", "x.conll"), "Bob B-PER\n")
	load := func(d experiment.Data) (experiment.Corpus, error) { return d.Load(t.Context(), &hub.Client{}) }

	corpus, err := load(experiment.Data{TrainFile: one, DevFile: two, Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(corpus.Train) != 2 || len(corpus.Checksums) != 2 || corpus.Checksums["train"] == corpus.Checksums["dev"] {
		t.Errorf("%d sentences, checksums %v; want 2, and one of each file, though their names are the same", len(corpus.Train), corpus.Checksums)
	}

	_, err = load(experiment.Data{TrainFile: one, Types: []string{"PER", "LOK"}})
	wants(t, "a type that does not occur", err, one, "no entity is of type LOK", "LOC, ORG, PER")
	_, err = load(experiment.Data{Name: experiment.Synthetic, Types: []string{"MISC"}})
	wants(t, "a type that the synthetic corpus has not", err, "no entity of type MISC", "LOC, ORG, PER")
	corpus, err = load(experiment.Data{Name: experiment.Synthetic, Types: []string{"PER"}})
	if err != nil {
		t.Fatal(err)
	}
	labels, err := ner.LabelsOf(slices.Concat(corpus.Train, corpus.Dev, corpus.Test))
	if err != nil || !slices.Equal(labels.Types(), []string{"PER"}) {
		t.Errorf("types %v (%v), want only PER", labels.Types(), err)
	}

	// An error behind the limit is still an error.
	_, err = load(experiment.Data{TrainFile: write(t, filepath.Join(dir, "late.conll"), "Ann B-PER\n\nBob\n"), Limit: 1})
	wants(t, "behind the limit", err, "late.conll:3")
}

// TestChangedData resumes a run whose training file has been edited.
func TestChangedData(t *testing.T) {
	model := filepath.Join(t.TempDir(), "first")
	if err := run(t, tiny(t), experiment.Options{Dir: model}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	config := tiny(t)
	file := write(t, filepath.Join(t.TempDir(), "x.conll"), strings.Repeat("Ann B-PER\nruns O\n\n", 20))
	config.Model = model // of a run: its model folder is meant
	config.Data = experiment.Data{TrainFile: file}
	if err := run(t, config, experiment.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	write(t, file, "Bob B-PER\n")
	wants(t, "changed data", run(t, config, experiment.Options{Dir: dir, Resume: true}), "the train data has changed")
}

func TestNothingToLearn(t *testing.T) {
	config := tiny(t)
	config.Model = t.TempDir()
	dir := filepath.Join(t.TempDir(), "run")
	config.Data = experiment.Data{TrainFile: write(t, filepath.Join(t.TempDir(), "o.conll"), "Ann O\n")}
	wants(t, "only O", run(t, config, experiment.Options{Dir: dir}), "nothing to learn")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a run folder was left")
	}
}

// TestModelThatCannotBeLoaded leaves no folder behind, and begins in one that was there.
func TestModelThatCannotBeLoaded(t *testing.T) {
	config := tiny(t)
	config.Model = t.TempDir()
	dir := filepath.Join(t.TempDir(), "run")
	wants(t, "empty model folder", run(t, config, experiment.Options{Dir: dir}), "config.json")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a run folder was left")
	}
}

// TestDataThatIsNoFile refuses what could be read only once, or not at all.
func TestDataThatIsNoFile(t *testing.T) {
	_, err := experiment.Data{TrainFile: t.TempDir()}.Load(t.Context(), &hub.Client{})
	wants(t, "a folder", err, "reading train data", "is a folder, want a file")
	if runtime.GOOS == "windows" {
		return
	}
	_, err = experiment.Data{TrainFile: os.DevNull}.Load(t.Context(), &hub.Client{})
	wants(t, "a device", err, os.DevNull+" is no file")
}

func TestUnknownNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	for _, name := range []string{"minilm-l7", hub.UNEREnglishEWT, "runs/nowhere/model", "./nowhere"} {
		config := tiny(t)
		config.Model, config.Data.Name = name, hub.UNEREnglishEWT
		err := run(t, config, experiment.Options{Dir: dir, Client: &hub.Client{Offline: true, CacheDir: t.TempDir()}})
		wants(t, name, err, name, hub.MiniLML6, "owner/name")
		if unknown := (*runs.NameError)(nil); !errors.As(err, &unknown) {
			t.Errorf("%s: error is %T, want a NameError", name, err)
		}
	}
	for _, name := range []string{"uner", hub.MiniLML6} {
		config := tiny(t)
		config.Model, config.Data.Name = hub.MiniLML6, name
		wants(t, name, config.Validate(), name, hub.UNEREnglishEWT, experiment.Synthetic)
	}
	if _, err := experiment.Preset("qick"); err == nil || !strings.Contains(err.Error(), "quick") {
		t.Errorf("preset: %v", err)
	}
}

func ExamplePreset() {
	config, err := experiment.Preset("quick")
	if err != nil {
		panic(err)
	}
	fmt.Println(config.Model, config.Data.Name, config.Train.Epochs)
	offline := config.Offline()
	fmt.Println(offline.Model, offline.Data.Name, offline.Train.Epochs)
	// Output:
	// minilm-l6 uner-en-ewt 1
	// scratch synthetic 6
}

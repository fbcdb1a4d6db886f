package experiment_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	nerexperiment "github.com/elastic-attention/workbench/pkg/ner/experiment"
	runs "github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
	"github.com/elastic-attention/workbench/pkg/track"
)

// tiny is an experiment of a second.
func tiny(t testing.TB) experiment.Config {
	t.Helper()
	config, err := experiment.Preset(experiment.DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	config = config.Offline()
	config.Classifier.Pooling = "attention"
	config.Data.Limit, config.Train.MaxUpdates, config.Train.SaveEvery = 32, 4, 1
	return config
}

func run(t *testing.T, config experiment.Config, options experiment.Options) error {
	t.Helper()
	_, err := experiment.Run(t.Context(), gxtest.Backend(t), config, options)
	return err
}

func wants(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error is %v, want %q in it", what, err, part)
		}
	}
}

// TestInterruptedRunEndsAlike stops a run after its second update and resumes it: the weights
// must be those of a run that was let be, bit by bit.
func TestInterruptedRunEndsAlike(t *testing.T) {
	whole, torn := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "torn")
	result, err := experiment.Run(t.Context(), gxtest.Backend(t), tiny(t), experiment.Options{Dir: whole})
	if err != nil {
		t.Fatal(err)
	}
	if result.Updates != 4 || result.Test.Items != 32 || result.Dev == nil || len(result.Samples) != 3 || !strings.Contains(result.Text(), "macro avg") {
		t.Errorf("result: %d updates\n%s", result.Updates, result.Text())
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = experiment.Run(ctx, gxtest.Backend(t), tiny(t), experiment.Options{Dir: torn, Step: func(s train.Step) {
		if s.Update == 2 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("cancelled run: %v", err)
	}
	at := 0
	if err := run(t, tiny(t), experiment.Options{Dir: torn, Resume: true, Loaded: func(l experiment.Loaded) { at = l.ResumedAt }}); err != nil || at != 2 {
		t.Fatalf("resumed at %d: %v", at, err)
	}
	read := func(dir string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, runs.ModelDir, "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	if !slices.Equal(read(whole), read(torn)) {
		t.Error("the resumed run has other weights")
	}
	for _, dir := range []string{whole, torn} { // both journals say the same
		r, err := track.ReadRun(dir)
		loss, _ := r.Metric("train/loss")
		accuracy, _ := r.Metric("final/test/accuracy")
		if err != nil || r.Status != track.Finished || loss.Count != 4 || loss.Step != 4 || accuracy.Last != result.Test.Accuracy || len(r.Artefacts) < 5 {
			t.Errorf("journal of %s: %+v, %v", dir, r, err)
		}
	}
	loaded, err := classify.Load(gxtest.Backend(t), torn) // a run folder
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded.Model.Config.Head.Pooling; got != "attention" {
		t.Errorf("the saved model has pooling %q", got)
	}

	wants(t, "again", run(t, tiny(t), experiment.Options{Dir: torn}), "holds a run already")
	other := tiny(t)
	other.Classifier.Pooling = "mean"
	wants(t, "another config", run(t, other, experiment.Options{Dir: torn, Resume: true}), "classifier.pooling was attention and is mean")
	entities, err := nerexperiment.Preset("quick")
	if err != nil {
		t.Fatal(err)
	}
	_, err = nerexperiment.Run(t.Context(), gxtest.Backend(t), entities.Offline(), nerexperiment.Options{Dir: torn, Resume: true})
	wants(t, "another task", err, `task "classify", not "ner"`)
}

// TestMixedRunEndsAlike does the same with texts that are mixed, compared and noisy.
func TestMixedRunEndsAlike(t *testing.T) {
	config := tiny(t)
	config.Train.Loss = loss.Config{Mixup: 0.4, RDrop: 1, ClassWeights: map[string]float64{"PER": 2}}
	config.Train.Noise = runs.Noise{DropPath: 0.2, WordDropout: 0.1}
	whole, torn := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "torn")
	if err := run(t, config, experiment.Options{Dir: whole}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := experiment.Run(ctx, gxtest.Backend(t), config, experiment.Options{Dir: torn, Step: func(s train.Step) {
		if s.Update == 2 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("cancelled run: %v", err)
	}
	if err := run(t, config, experiment.Options{Dir: torn, Resume: true}); err != nil {
		t.Fatal(err)
	}
	read := func(dir string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, runs.ModelDir, "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	if !slices.Equal(read(whole), read(torn)) {
		t.Error("the resumed run has other weights")
	}
}

func TestConfigIsChecked(t *testing.T) {
	config := experiment.Config{
		Data:       experiment.Data{Name: "banking78", TestFile: "x.csv", Limit: -1},
		Classifier: classify.Config{Pooling: "max"},
	}
	wants(t, "config", config.Validate(), "model is empty", "banking77", "files or columns as well", "data.limit is -1", "attention, cls, mean", "schedule.peak")
	if _, err := experiment.Preset("qick"); err == nil || !strings.Contains(err.Error(), "quick") {
		t.Errorf("preset: %v", err)
	}
	for _, name := range experiment.Presets() {
		if preset, err := experiment.Preset(name); err != nil || preset.Validate() != nil || preset.Offline().Validate() != nil {
			t.Errorf("preset %s: %v, %v, %v", name, err, preset.Validate(), preset.Offline().Validate())
		}
	}
}

// TestFiles reads tables of a user's own, and says where they are wrong.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	source := experiment.Data{
		TrainFile: file("train.tsv", "id\tquery\tintent\n1\twhere is it\tcard\n2\thow much\tfee\n3\thow long\tcard\n"),
		TestFile:  file("test.csv", "query,intent\n\"a, b\",fee\n"), TextColumn: "query", LabelColumn: "intent", Limit: 2,
	}
	corpus, err := source.Load(t.Context(), &hub.Client{})
	if err != nil {
		t.Fatal(err)
	}
	texts := func(list []data.Text) (out []string) {
		for _, text := range list {
			out = append(out, text.Text+"="+text.Label)
		}
		return out
	}
	if got := texts(corpus.Train); !slices.Equal(got, []string{"where is it=card", "how much=fee"}) {
		t.Errorf("train %q", got)
	}
	if got := texts(corpus.Test); !slices.Equal(got, []string{"a, b=fee"}) || corpus.Dev != nil || len(corpus.Checksums) != 2 {
		t.Errorf("test %q, dev %v, checksums %v", got, corpus.Dev, corpus.Checksums)
	}
	source.LabelColumn = "class"
	_, err = source.Load(t.Context(), &hub.Client{})
	wants(t, "another column", err, "reading train data", "train.tsv:1", `no column "class"`)
	config := tiny(t)
	config.Model, config.Data = dir, experiment.Data{TrainFile: file("one.csv", "text,label\na,x\nb,x\n")}
	out := filepath.Join(dir, "run")
	wants(t, "one class", run(t, config, experiment.Options{Dir: out}), "one class only", "x")
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a run folder was left")
	}
}

// TestUnseenClasses: a class that only test has is told, since it cannot be learned.
func TestUnseenClasses(t *testing.T) {
	dir := t.TempDir()
	first := tiny(t)
	first.Train.MaxUpdates = 1
	if err := run(t, first, experiment.Options{Dir: filepath.Join(dir, "first")}); err != nil {
		t.Fatal(err)
	}
	config := first
	config.Model, config.Data = filepath.Join(dir, "first"), experiment.Data{TrainFile: filepath.Join(dir, "train.csv"), TestFile: filepath.Join(dir, "test.csv")}
	for path, content := range map[string]string{config.Data.TrainFile: "text,label\na,card\nb,fee\n", config.Data.TestFile: "text,label\na,crad\nb,fee\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	result, err := experiment.Run(t.Context(), gxtest.Backend(t), config, experiment.Options{Dir: filepath.Join(dir, "second")})
	if err != nil || !strings.Contains(result.Note, `no training text has the class ["crad"]`) || !strings.Contains(result.Text(), "crad") {
		t.Errorf("note %q, error %v", result.Note, err)
	}
}

// TestCorpora reads the corpora of the catalogue from a folder of data sets.
func TestCorpora(t *testing.T) {
	t.Setenv(hub.DataDirEnv, filepath.Dir(golden.Shared(t, "data/cls_banking77")))
	client := &hub.Client{Offline: true, CacheDir: t.TempDir()}
	for _, test := range []struct {
		name    string
		sizes   [3]int
		classes int
	}{
		{hub.Banking77, [3]int{9003, 1000, 3080}, 77},
		{hub.CLINC150, [3]int{15000, 3000, 4500}, 150},
	} {
		corpus, err := experiment.Data{Name: test.name}.Load(t.Context(), client)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if got := [3]int{len(corpus.Train), len(corpus.Dev), len(corpus.Test)}; got != test.sizes {
			t.Errorf("%s has %d texts, want %d", test.name, got, test.sizes)
		}
		few, err := experiment.Data{Name: test.name, Limit: 300, TrainLimit: 800}.Load(t.Context(), client)
		if err != nil || len(few.Train) != 800 || len(few.Test) != 300 {
			t.Fatalf("%s, limited: %d and %d texts, %v", test.name, len(few.Train), len(few.Test), err)
		}
		if labels, err := classify.Labels(few.Train); err != nil || len(labels) != test.classes {
			t.Errorf("%s, limited: %d classes, %v; want all %d", test.name, len(labels), err, test.classes)
		}
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
	// minilm-l6 banking77 2
	// scratch synthetic 6
}

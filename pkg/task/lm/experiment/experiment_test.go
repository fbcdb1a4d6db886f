package experiment_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	runs "github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/lm"
	"github.com/elastic-attention/workbench/pkg/task/lm/experiment"
	"github.com/elastic-attention/workbench/pkg/track"
)

// tiny is an experiment of a second.
func tiny(t testing.TB) experiment.Config {
	t.Helper()
	config, err := experiment.Preset(experiment.DefaultPreset)
	if err != nil {
		t.Fatal(err)
	}
	config.Data = experiment.Data{Name: experiment.Synthetic, Limit: 1000}
	config.Model.Layers, config.Model.Hidden, config.Model.FeedForward, config.Model.MaxPositions = 1, 16, 32, 16
	config.Train.BatchSize, config.Train.MaxUpdates, config.Train.SaveEvery = 4, 20, 1
	config.Train.Epochs = 2
	return config
}

func wants(t *testing.T, what string, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error is %v, want %q in it", what, err, part)
		}
	}
}

// TestInterruptedRunEndsAlike stops a run in its second epoch and resumes it: weights, scores and what the model writes
// must be those of a run that was let be.
func TestInterruptedRunEndsAlike(t *testing.T) {
	whole, torn := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "torn")
	want, err := experiment.Run(t.Context(), gxtest.Backend(t), tiny(t), experiment.Options{Dir: whole})
	if err != nil {
		t.Fatal(err)
	}
	if want.Updates != 20 || want.Dev == nil || want.Test.Bytes != 999 || want.Sample == "" || want.BestEpoch != 2 || !strings.Contains(want.Text(), "bits per byte") || !strings.Contains(want.Text(), "synthetic") {
		t.Errorf("result: %+v\n%s", want, want.Text())
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = experiment.Run(ctx, gxtest.Backend(t), tiny(t), experiment.Options{Dir: torn, Step: func(s train.Step) {
		if s.Update == 17 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("cancelled run: %v", err)
	}
	var loaded experiment.Loaded
	got, err := experiment.Run(t.Context(), gxtest.Backend(t), tiny(t), experiment.Options{Dir: torn, Resume: true, Loaded: func(l experiment.Loaded) { loaded = l }})
	if err != nil || loaded.ResumedAt != 17 || loaded.Batches.Batches != 15 || loaded.Train != 1000 || loaded.Labels != nil {
		t.Fatalf("resumed with %+v: %v", loaded, err)
	}
	if got.Sample != want.Sample || got.Test.Loss != want.Test.Loss {
		t.Errorf("the resumed run has test loss %v and writes %q; want %v and %q", got.Test.Loss, got.Sample, want.Test.Loss, want.Sample)
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
	if _, err := lm.Load(gxtest.Backend(t), torn); err != nil {
		t.Errorf("loading the model of a run folder: %v", err)
	}
	r, err := track.ReadRun(torn)
	if bits, _ := r.Metric("final/test/bits_per_byte"); err != nil || r.Status != track.Finished || bits.Last != want.Test.BitsPerByte() {
		t.Errorf("journal: %+v, %v", r, err)
	}
	record, err := runs.ReadRecord[experiment.Config](torn)
	if err != nil || record.Task != hub.TaskLM || record.Model["model"] != "fresh weights" || record.Sentences != [3]int{1000, 1000, 1000} || len(record.Resumed) != 1 {
		t.Errorf("record: %+v, %v", record, err)
	}
	other := tiny(t)
	other.Model.Layers = 2
	_, err = experiment.Run(t.Context(), gxtest.Backend(t), other, experiment.Options{Dir: torn, Resume: true})
	wants(t, "another model", err, "model.layers was 1 and is 2")
	wide := tiny(t)
	wide.Model.MaxPositions = 1 << 40 // no machine has memory for it
	_, err = experiment.Run(t.Context(), gxtest.Backend(t), wide, experiment.Options{Dir: filepath.Join(t.TempDir(), "wide")})
	wants(t, "a context beyond the text", err, "model.max_positions is 1099511627776 bytes, want at most the 1000 of the text")
}

func TestConfigIsChecked(t *testing.T) {
	config := experiment.Config{Data: experiment.Data{Name: "shakespeare", DevFile: "x", Limit: -1}}
	wants(t, "config", config.Validate(), "tinyshakespeare", "want both or none", "files as well", "data.limit is -1 bytes", "schedule.peak")
	for _, name := range experiment.Presets() {
		if preset, err := experiment.Preset(name); err != nil || preset.Preset != name || preset.Validate() != nil {
			t.Errorf("preset %s: %v, %v", name, err, preset.Validate())
		}
	}
	_, err := experiment.Preset("qick")
	wants(t, "preset", err, "quick")
}

// TestFiles holds the end of a text out where nothing else is given.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	load := func(d experiment.Data) (experiment.Corpus, error) { return d.Load(t.Context(), &hub.Client{}) }
	whole := file("whole.txt", strings.Repeat("a", 54)+"bbb"+"ccc")
	corpus, err := load(experiment.Data{TrainFile: whole})
	if err != nil || len(corpus.Train) != 54 || string(corpus.Dev) != "bbb" || string(corpus.Test) != "ccc" || len(corpus.Checksums) != 1 {
		t.Errorf("%+v, %v", corpus, err)
	}
	corpus, err = load(experiment.Data{TrainFile: whole, DevFile: file("dev.txt", "dev"), TestFile: file("test.txt", "test"), Limit: 3})
	if err != nil || string(corpus.Train) != "aaa" || string(corpus.Dev) != "dev" || string(corpus.Test) != "tes" || len(corpus.Checksums) != 3 {
		t.Errorf("%+v, %v", corpus, err)
	}
	corpus, err = load(experiment.Data{TestFile: file("alone.txt", "alone")})
	if err != nil || len(corpus.Train) != 0 || len(corpus.Dev) != 0 || string(corpus.Test) != "alone" {
		t.Errorf("a text to score only: %+v, %v", corpus, err)
	}
	_, err = load(experiment.Data{TestFile: file("empty.txt", "")})
	wants(t, "an empty text to score", err, "empty.txt is too short")
	_, err = load(experiment.Data{TestFile: "nowhere.txt"})
	wants(t, "no text to score", err, "reading test data: ")
	var zipped strings.Builder
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write([]byte("\xef\xbb\xbf" + strings.Repeat("a", 60))); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	if corpus, err = load(experiment.Data{TrainFile: file("whole.txt.gz", zipped.String())}); err != nil || len(corpus.Train) != 54 || corpus.Train[0] != 'a' {
		t.Errorf("gzip: %+v, %v", corpus, err)
	}
	_, err = load(experiment.Data{TrainFile: file("cut.gz", zipped.String()[:zipped.Len()-5])})
	wants(t, "a file that is cut off", err, "cut.gz: reading: the gzip file is cut off")
	_, err = load(experiment.Data{TrainFile: file("wide.txt", "\xff\xfea\x00b\x00")})
	wants(t, "UTF-16", err, "wide.txt: the text is UTF-16")
	_, err = load(experiment.Data{TrainFile: file("short.txt", "abc")})
	wants(t, "a short text", err, "short.txt is too short")
	_, err = load(experiment.Data{TrainFile: dir + "/nowhere.txt"})
	wants(t, "no text", err, "nowhere.txt")
}

func ExamplePreset() {
	config, err := experiment.Preset("full")
	if err != nil {
		panic(err)
	}
	fmt.Println(config.Data.Name, config.Model.Layers, config.Train.Epochs)
	// Output:
	// tinyshakespeare 4 5
}

package run_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/track"
)

// finished makes a run folder as [run.Begin] and [run.Finish] leave it.
func finished(t *testing.T, name, data, train, metrics string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		run.RecordFile: `{"task": "ner", "config": {"model": "m", "train": ` + train + `}, "data_sha256": {"dev": "` + data + `"}}`,
		run.ReportFile: `{"metrics": [` + metrics + `]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestBestRates: the rates with the best mean count, not those of the luckiest run; and the note says how far to
// trust them.
func TestBestRates(t *testing.T) {
	lucky := finished(t, "lucky", "x", `{"schedule": {"peak": 3e-4}, "optimizer": "adamw"}`, `{"value": 0.9}`)
	unlucky := finished(t, "unlucky", "x", `{"schedule": {"peak": 3e-4}, "optimizer": "adamw"}`, `{"value": 0.3}`)
	steady := finished(t, "steady", "x", `{"schedule": {"peak": 1e-4}, "optimizer": {"kind": "lion", "groups": [{"variables": ["/head/*"], "rate": 10}]}, "adapt": {"gradient": [{"variables": ["/embeddings/*"], "factor": 0}]}}`, `{"value": 0.7}, {"value": 0.8}, {"value": 0.75}`)
	low := finished(t, "low", "x", `{"schedule": {"peak": 1e-5}, "optimizer": "adamw"}`, `{"value": 0.1}`)

	found, err := run.BestRates(hub.TaskNER, []string{lucky, unlucky, steady, low})
	if err != nil {
		t.Fatal(err)
	}
	want := "rate 0.0001 as in " + steady + ": mean score on dev 0.8000 over 1 runs, the best of 3 recipes in 4 runs"
	if found.Schedule.Peak != 1e-4 || found.Optimizer.Rule.Kind() != "lion" || len(found.Optimizer.Groups) != 1 || len(found.Gradient) != 1 || found.Models[0] != "m" || found.Note != want {
		t.Errorf("found %+v, want %q", found, want)
	}
	for what, test := range map[string]struct {
		dirs []string
		want string
	}{
		"highest": {[]string{lucky, low}, "the highest that was tried"},
		"lowest":  {[]string{unlucky, steady}, "the lowest that was tried"},
		"one":     {[]string{lucky, unlucky}, "no other rate was tried"},
	} {
		if found, err := run.BestRates(hub.TaskNER, test.dirs); err != nil {
			t.Error(err)
		} else {
			wants(t, what, noted(found.Note), test.want)
		}
	}
	_, err = run.BestRates(hub.TaskNER, []string{lucky, finished(t, "other", "y", `{"schedule": {"peak": 1}}`, `{"value": 1}`)})
	wants(t, "other data", err, "different data")
	alien := filepath.Join(t.TempDir(), "alien")
	if err := os.Mkdir(alien, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(alien, run.RecordFile), []byte(`{"task": "alien", "config": {"train": []}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = run.BestRates(hub.TaskNER, []string{alien})
	wants(t, "a config of another form", err, alien+` is a run of task "alien", not "ner"`)
	err = run.Fork(filepath.Join(t.TempDir(), "new"), alien, hub.TaskNER, struct {
		Train struct{ Epochs int } `json:"train"`
	}{})
	wants(t, "going on from a config of another form", err, `: `+alien+` is a run of task "alien", not "ner"`)
	_, err = run.BestRates(hub.TaskClassify, []string{lucky})
	wants(t, "other task", err, `of task "ner", not "classify"`)
	_, err = run.BestRates(hub.TaskNER, []string{finished(t, "unscored", "x", `{"schedule": {"peak": 1}}`, ``)})
	wants(t, "no score", err, "has no score on dev")
	_, err = run.BestRates(hub.TaskNER, []string{filepath.Join(t.TempDir(), "none")})
	wants(t, "no run", err, "run.json")
	_, err = run.BestRates(hub.TaskNER, nil)
	wants(t, "none", err, "no run is named")
}

// noted is a note that a test looks into.
type noted string

func (n noted) Error() string { return string(n) }

// TestOddFiles: what is wrong with the files of a run is told without types of Go.
func TestOddFiles(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []struct {
		file string
		read func() error
	}{
		{run.ReportFile, func() error { _, err := run.ReadCourse(dir); return err }},
		{run.RecordFile, func() error { _, err := run.ReadRecord[json.RawMessage](dir); return err }},
		{track.RecordFile, func() error { _, err := track.ReadRun(dir); return err }},
		{track.NotesFile, func() error { _, err := track.ReadNotes(dir); return err }},
	} {
		for content, want := range map[string]string{`[]`: "a JSON array, want an object", `"x"`: "a JSON string, want an object", ``: "it is empty"} {
			if err := os.WriteFile(filepath.Join(dir, f.file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := f.read(); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, f.file)) || !strings.HasSuffix(err.Error(), ": "+want) {
				t.Errorf("%s %s: error %v, want %s", f.file, content, err, want)
			}
		}
	}
}

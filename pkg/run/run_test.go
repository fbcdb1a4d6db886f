package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/track"
)

type config struct {
	Model string `json:"model"`
	Train struct {
		Epochs int `json:"epochs"`
	} `json:"train"`
}

func wants(t *testing.T, what string, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("%s: error is %v, want %q in it", what, err, part)
	}
}

// finish writes the end of a run of three updates that is resumed after the second.
func finish(t *testing.T, dir string) {
	t.Helper()
	for _, part := range []struct {
		from int
		end  error
	}{{0, fmt.Errorf("%w: %w", train.ErrInterrupted, context.Canceled)}, {2, nil}} {
		journal, err := run.NewJournal(dir, run.Record[config]{Task: hub.TaskClassify, Seed: 5}, part.from)
		if err != nil {
			t.Fatal(err)
		}
		for update := part.from + 1; update <= 3; update++ {
			journal.Step(train.Step{Update: update, Loss: 1 / float64(update), Positions: 50, Elapsed: time.Second / 2})
		}
		if part.end == nil {
			journal.Scores("dev", map[string]float64{"f1": 0.5})
			if err := os.MkdirAll(filepath.Join(dir, run.ModelDir), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := journal.Finish(map[string]int{"updates": 3}, "fine\n"); err != nil {
				t.Fatal(err)
			}
		}
		if err := journal.End(part.end); !errors.Is(err, part.end) {
			t.Fatal(err)
		}
		if r, err := track.ReadRun(dir); err != nil || part.end != nil && (r.Status != track.Interrupted || r.Ended.IsZero()) {
			t.Errorf("interrupted: %+v, %v", r, err)
		}
	}
}

// TestJournal says what package track finds of a training.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	finish(t, dir)
	r, err := track.ReadRun(dir)
	if err != nil || r.Status != track.Finished || r.Task != hub.TaskClassify || r.Seed != 5 || len(r.Machines) != 2 || len(r.Artefacts) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	series, err := r.Series()
	if err != nil {
		t.Fatal(err)
	}
	got, used := "", false
	for _, s := range series {
		if strings.HasPrefix(s.Name, "system/") { // what the process used
			used = used || s.Points[len(s.Points)-1].Step == 3
			continue
		}
		got += s.Name
		for _, p := range s.Points {
			got += fmt.Sprintf(" %d:%.2f", p.Step, p.Value)
		}
		got += "\n"
	}
	if !used && runtime.GOOS == "linux" {
		t.Error("the journal does not say what the process used")
	}
	want := `dev/f1 3:0.50
train/gradient_norm 1:0.00 2:0.00 3:0.00
train/loss 1:1.00 2:0.50 3:0.33
train/rate 1:0.00 2:0.00 3:0.00
train/tokens_per_second 1:100.00 2:100.00 3:100.00
`
	if got != want {
		t.Errorf("series\n%swant\n%s", got, want)
	}
	var none *run.Journal
	none.Step(train.Step{Update: 1})
	none.Scores("dev", nil)
	if err := none.End(context.Canceled); err != context.Canceled {
		t.Errorf("no journal: %v", err)
	}
}

// TestBegin says in which folders a run may begin or continue.
func TestBegin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	sums := map[string]string{"train": "abc"}
	first, err := run.Begin(dir, hub.TaskClassify, config{Model: "m"}, false, sums)
	if err != nil {
		t.Fatal(err)
	}
	if r := first.Record; first.Latest != nil || r.Task != hub.TaskClassify || r.Config.Model != "m" || r.Data["train"] != "abc" {
		t.Errorf("a fresh run: %+v", first)
	}
	_, err = run.Begin(dir, hub.TaskClassify, config{Model: "m"}, false, sums)
	wants(t, "two at once", err, "another process is working on "+dir)
	first.Unlock()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder in which nothing has begun is left: %v", err)
	}

	if first, err = run.Begin(dir, hub.TaskClassify, config{Model: "m"}, true, sums); err != nil {
		t.Fatal(err)
	}
	if err := run.WriteJSON(filepath.Join(dir, run.RecordFile), first.Record); err != nil {
		t.Fatal(err)
	}
	first.Unlock()
	again, err := run.Begin(dir, hub.TaskClassify, config{Model: "m"}, true, sums)
	if err != nil || again.Record.Config.Model != "m" {
		t.Fatalf("resumed: %+v, %v", again.Record, err)
	}
	again.Unlock()
	if _, begun, err := run.Check(dir, hub.TaskClassify, config{Model: "other"}, false); err != nil || begun {
		t.Errorf("over a run that saved nothing: begun %t, %v", begun, err)
	}
	if err := os.MkdirAll(filepath.Dir(checkpoint.Run{Dir: dir}.Path(0)), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, run.RecordFile)
	_, _, err = run.Check(file, hub.TaskClassify, config{Model: "m"}, false)
	wants(t, "a file", err, file+" cannot be a run folder")
	_, _, err = run.Check(dir, hub.TaskClassify, config{Model: "m"}, false)
	wants(t, "without resume", err, "holds a run already")
	_, _, err = run.Check(dir, hub.TaskNER, config{Model: "m"}, true)
	wants(t, "another task", err, `task "classify", not "ner"`)
	other := config{Model: "m"}
	other.Train.Epochs = 3
	_, _, err = run.Check(dir, hub.TaskClassify, other, true)
	wants(t, "another config", err, "train.epochs was 0 and is 3")
	_, err = run.Begin(dir, hub.TaskClassify, config{Model: "m"}, true, map[string]string{"train": "abd"})
	wants(t, "other data", err, "its SHA-256 was abc and is abd")

	finish(t, dir)
	content, err := os.ReadFile(filepath.Join(dir, run.ReportFile))
	var result map[string]int
	if err != nil || json.Unmarshal(content, &result) != nil || result["updates"] != 3 {
		t.Errorf("report %s, %v", content, err)
	}
	if err := os.Remove(filepath.Join(dir, run.RecordFile)); err != nil {
		t.Fatal(err)
	}
	_, _, err = run.Check(dir, hub.TaskClassify, config{}, false)
	wants(t, "a folder with a report alone", err, "which a run would replace")
}

func TestReadRecord(t *testing.T) {
	dir := t.TempDir()
	_, err := run.ReadRecord[config](dir)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
	write := func(content string) {
		if err := os.WriteFile(filepath.Join(dir, run.RecordFile), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"config": {"model": "old"}}`) // of before there was a second task
	if record, err := run.ReadRecord[config](dir); err != nil || record.Task != hub.TaskNER || record.Config.Model != "old" {
		t.Errorf("%+v, %v", record, err)
	}
	write(`{`)
	_, err = run.ReadRecord[config](dir)
	wants(t, "damaged", err, "is not the record of a run")
}

func TestFindModel(t *testing.T) {
	dir := t.TempDir()
	if found, _, err := run.FindModel(dir); err != nil || found != dir {
		t.Errorf("a folder: %q, %v", found, err)
	}
	if err := os.WriteFile(filepath.Join(dir, run.RecordFile), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err := run.FindModel(dir)
	wants(t, "a run without a journal", err, dir+" has no model: it did not finish (unknown); go on with it")
	wants(t, "an unfinished teacher", run.Distill{Teacher: dir}.Note(nil), "distill.teacher: the run in "+dir+" has no model")
	journal, err := track.Begin(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = run.FindModel(dir)
	wants(t, "a run that goes on", err, dir+" has no model yet: it goes on")
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = run.FindModel(dir)
	wants(t, "a run of a study", err, dir+" is finished and kept no model")
	if err := os.Mkdir(filepath.Join(dir, run.ModelDir), 0o755); err != nil {
		t.Fatal(err)
	}
	if found, _, err := run.FindModel(dir); err != nil || found != filepath.Join(dir, run.ModelDir) {
		t.Errorf("a run folder: %q, %v", found, err)
	}
	for _, name := range []string{hub.MiniLML6, "owner/name"} {
		if found, resource, err := run.FindModel(name); err != nil || found != "" || resource.Name != name {
			t.Errorf("%s: %q, %q, %v", name, found, resource.Name, err)
		}
	}
	_, _, err = run.FindModel("minilm")
	if unknown := (*run.NameError)(nil); !errors.As(err, &unknown) {
		t.Errorf("unknown: %T", err)
	}
	wants(t, "unknown", err, hub.MiniLML6)
	_, _, err = run.FetchModel(t.Context(), &hub.Client{}, "minilm")
	wants(t, "unknown", err, hub.MiniLML6)
	if found, sums, err := run.FetchModel(t.Context(), &hub.Client{}, t.TempDir()); err != nil || found == "" || len(sums) != 0 {
		t.Errorf("an empty folder: %q, %v, %v", found, sums, err)
	}
}

func TestStopped(t *testing.T) {
	cause := errors.New("evaluating")
	if err := run.Stopped(t.Context(), cause); !errors.Is(err, cause) || errors.Is(err, train.ErrInterrupted) {
		t.Errorf("not cancelled: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run.Stopped(ctx, cause); !errors.Is(err, cause) || !errors.Is(err, train.ErrInterrupted) {
		t.Errorf("cancelled: %v", err)
	}
}

func ExampleBegin() {
	parent, err := os.MkdirTemp("", "runs-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(parent)
	begun, err := run.Begin(filepath.Join(parent, "first"), hub.TaskClassify, struct{ Epochs int }{2}, false, nil)
	if err != nil {
		panic(err)
	}
	defer begun.Unlock()
	fmt.Println(begun.Record.Task, begun.Record.Config.Epochs, begun.Latest == nil)
	// Output:
	// classify 2 true
}

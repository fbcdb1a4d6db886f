package cli_test

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/cli"
	"github.com/elastic-attention/workbench/pkg/track"
)

// someRuns makes a folder of two finished runs and a dead one.
func someRuns(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for i, id := range []string{"one-1", "one-2", "dead"} {
		journal, err := track.Start(filepath.Join(root, id), track.Record{Task: "toy", Seed: uint64(i), Config: map[string]any{"train": map[string]any{"lr": float64(i+1) / 10}}})
		if err != nil {
			t.Fatal(err)
		}
		for step := 1; step <= 4; step++ {
			journal.Log(step, map[string]float64{"train/loss": float64(i+1) / float64(step), "dev/f1": float64(i+step) / 10, "odd": math.NaN()})
		}
		if id == "dead" {
			err = os.Remove(filepath.Join(root, id, ".journal.lock")) // nobody holds it any more
			t.Cleanup(func() { _ = journal.Close(nil) })
		} else {
			err = journal.Close(nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestBrokenRun: a run whose record is torn is shown as one, without a time that nobody wrote.
func TestBrokenRun(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "broken")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "run.json"), []byte("{"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls"}, {"ls", "--csv"}, {"show", "broken"}} {
		out := ok(t, append([]string{"runs"}, append(args, "--dir", root)...)...)
		if !strings.Contains(out.stdout, "unknown") || strings.Contains(out.stdout, "0001-01-01") {
			t.Errorf("%v: %s", args, out.stdout)
		}
	}
}

func TestRuns(t *testing.T) {
	root := someRuns(t)
	path := func(name string) string { return filepath.Join(root, name) }
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"ls", "--sort", "train/loss"}, []string{"run    status    started", "train/loss  dev/f1", "one-1  finished", "one-2  finished", "dead   killed", "0.25        0.4"}},
		{[]string{"ls", "--where", "status=killed", "--field", "config.train.lr"}, []string{"config.train.lr", "0.3"}},
		{[]string{"ls", "--sort=-config.train.lr", "--limit", "1"}, []string{"config.train.lr", "dead"}},
		{[]string{"note", "one-1", "a note", "--tag", "b", "--tag", "a"}, []string{"one-1: [a, b] a note"}},
		{[]string{"note", "one-1", "--untag", "b"}, []string{"one-1: [a] a note"}},
		{[]string{"ls", "--where", "tag=a"}, []string{"one-1", "a\n"}},
		{[]string{"show", "one-1"}, []string{"status   finished", "notes    [a] a note", "train.lr  0.1", "odd         4       4          NaN", "⠤", "one-1: 4 points from (1, 1) to (4, 0.25)"}},
		{[]string{"show", path("dead"), "--metric", "odd"}, []string{"killed: its process died", "dead: no points, 4 not drawn."}},
		{[]string{"show", "--json"}, []string{`"id": "dead"`}},
		{[]string{"compare", "one-1", "one-2"}, []string{"config.train.lr  0.1    0.2", "dev/f1      0.4     0.5 *", "train/loss  0.25 *  0.5"}},
		{[]string{"compare", "--where", "status=finished", "--json"}, []string{`"best": [`, `"name": "seed"`}},
		{[]string{"compare", "one-1", "one-2", "--metric", "train/loss", "--plot", path("x.svg"), "--json"}, []string{`"best": [`}},
		{[]string{"compare", "one-1", "one-2", "--plot", path("x.html"), "--smooth", "0.5", "--log"}, nil},
		{[]string{"export", "points", "one-1", "one-2"}, []string{"run,metric,step,time,value\none-1,dev/f1,1,", "one-2,odd,4,"}},
		{[]string{"export", "tensorboard", "--where", "id~one", "--to", path("logs")}, []string{filepath.Join("logs", "one-1", "events.out.tfevents.")}},
		{[]string{"rm", "dead"}, []string{filepath.Join(".trash", "dead")}},
	} {
		out := run(t, "", append(append([]string{"runs"}, test.args...), "--dir", root)...)
		if out.code != 0 {
			t.Errorf("%v: code %d, errors %q", test.args, out.code, out.stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(out.stdout, want) {
				t.Errorf("%v does not print %q:\n%s", test.args, want, out.stdout)
			}
		}
	}
	for name, want := range map[string]string{"x.svg": "one-1: 4 points", "x.html": "<title>dev/f1</title>"} {
		if content, err := os.ReadFile(path(name)); err != nil || !strings.Contains(string(content), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(run(t, "", "runs", "ls", "--dir", root, "--csv", "--sort", "id").stdout)).ReadAll()
	if err != nil || len(rows) != 3 || rows[1][0] != "one-1" || strings.Join(rows[0][len(rows[0])-4:], " ") != "config.train.lr dev/f1 odd train/loss" {
		t.Errorf("CSV %q, %v", rows, err)
	}
	var list []track.Run
	out := run(t, "", "runs", "ls", "--dir", root, "--json", "--where", "id=nothing")
	if err := json.Unmarshal([]byte(out.stdout), &list); err != nil || list == nil || len(list) != 0 {
		t.Errorf("an empty list is %q", out.stdout)
	}
}

// TestRunsColumns: a number stands below its name, also behind a run that has none.
func TestRunsColumns(t *testing.T) {
	root := t.TempDir()
	for i, metrics := range []map[string]float64{{"dev/accuracy": 0.5, "dev/f1": 0.25, "train/loss": 1}, {}, {"dev/f1": 0.75}} {
		journal, err := track.Start(filepath.Join(root, fmt.Sprint("run-", i)), track.Record{Task: "toy"})
		if err != nil {
			t.Fatal(err)
		}
		journal.Log(1, metrics)
		if err := journal.Close(nil); err != nil {
			t.Fatal(err)
		}
	}
	out := ok(t, "runs", "ls", "--dir", root, "--sort", "id").stdout
	lines := strings.Split(out, "\n")
	if at := strings.Index(lines[0], "dev/f1"); at < 0 || strings.Index(lines[3], "0.75") != at {
		t.Errorf("0.75 is not below dev/f1:\n%s", out)
	}
}

func TestRunsUsage(t *testing.T) {
	root := someRuns(t)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"runs", "ls", "--dir", filepath.Join(root, "nowhere")}, 1, "train something first"},
		{[]string{"runs", "ls", "--dir", root, "--limit=-1"}, 2, "limit is -1"},
		{[]string{"runs", "ls", "--dir", root, "--where", "finished"}, 2, "as in status=finished"},
		{[]string{"runs", "ls", "--dir", root, "--where", "stats=finished"}, 2, `no run has the field "stats"; there are status, `},
		{[]string{"runs", "ls", "--dir", root, "--sort=-f1"}, 2, `no run has the field "f1"; there are dev/f1, `},
		{[]string{"runs", "ls", "--dir", root, "--field", "config.train.rate"}, 2, "there are config.train.lr, "},
		{[]string{"runs", "ls", "--dir", root, "--csv", "--field", "devf1"}, 2, "there are dev/f1, "},
		{[]string{"runs", "compare", "--dir", root, "--where", "train/los<1"}, 2, "there are train/loss, "},
		{[]string{"runs", "show", "--dir", root, "four"}, 1, `"four" in its name`},
		{[]string{"runs", "show", "--dir", root, "one"}, 1, "means 2 runs"},
		{[]string{"runs", "show", "--dir", root, "dead", "--metric", "los"}, 2, `no run has the metric "los"; there are train/loss, odd, dev/f1`},
		{[]string{"runs", "show", "--dir", root, "dead", "--plot", "x.png"}, 2, "ends in .svg or .html"},
		{[]string{"runs", "show", "--dir", root, "dead", "--plot", "x.svg"}, 2, "choose one by --metric"},
		{[]string{"runs", "show", "--dir", root, "dead", "--smooth", "1"}, 2, "below 1"},
		{[]string{"runs", "compare", "--dir", root, "dead"}, 2, "two or more"},
		{[]string{"runs", "compare", "--dir", root, "one-1", "one-2", "--metric", "devf1"}, 2, "there are dev/f1, "},
		{[]string{"runs", "compare", "--dir", root, "one-1", "one-2", "--json", "--plot", "x.png"}, 2, "ends in .svg or .html"},
		{[]string{"runs", "compare", "--dir", root}, 2, "name some, or give --where"},
		{[]string{"runs", "note", "--dir", root, "dead", "--tag", "a,b"}, 2, "without commas"},
		{[]string{"runs", "export", "mlflow", "--dir", root, "dead", "--to", "127.0.0.1:1"}, 1, "want one as http://"},
		{[]string{"ui", "--dir", root, "--addr", "256.0.0.1:1"}, 1, "listening at"},
	} {
		if out := run(t, "", test.args...); out.code != test.code || !strings.Contains(out.stderr, test.want) || out.stdout != "" {
			t.Errorf("%v: code %d, errors %q, output %q; want %d, %q and none", test.args, out.code, out.stderr, out.stdout, test.code, test.want)
		}
	}
}

// TestTrainIsRecorded says that a training is found without anything having been done for it, and by which name.
func TestTrainIsRecorded(t *testing.T) {
	root := t.TempDir()
	if out := run(t, "", quickly(filepath.Join(root, "ner"))...); out.code != 0 {
		t.Fatal(out.stderr)
	}
	out := run(t, "", "runs", "show", "--dir", root, "--json")
	var r track.Run
	if err := json.Unmarshal([]byte(out.stdout), &r); err != nil {
		t.Fatal(err)
	}
	loss, _ := r.Metric("train/loss")
	if _, scored := r.Metric("final/test/f1"); r.ID != "ner" || r.Status != track.Finished || loss.Count != 16 || !scored || r.Field("config.train.max_updates") != "16" || len(r.Data) == 0 {
		t.Errorf("recorded is %s", out.stdout)
	}
}

// TestUI opens the address that the command prints.
func TestUI(t *testing.T) {
	root := someRuns(t)
	ctx, stop := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(ctx, []string{"ui", "--dir", root, "--addr", "127.0.0.1:0"}, strings.NewReader(""), writer, io.Discard)
	}()
	address, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get(strings.TrimSpace(address))
	if err != nil || response.StatusCode != http.StatusSeeOther {
		t.Errorf("%s: %v, %v", address, response, err)
	} else {
		_ = response.Body.Close()
	}
	stop()
	if code := <-done; code != 0 {
		t.Error(fmt.Sprint("code ", code))
	}
}

// TestModelsByTheNamesOfRuns: what takes the folder of a model takes the name of a run as well.
func TestModelsByTheNamesOfRuns(t *testing.T) {
	t.Chdir(t.TempDir())
	if out := run(t, "", "predict", "first", "Ann"); out.code != 1 || !strings.Contains(out.stderr, "first is no folder") {
		t.Errorf("without runs: code %d, errors %q", out.code, out.stderr)
	}
	if out := run(t, "", "predict", "latest", "Ann"); out.code != 2 || !strings.Contains(out.stderr, "there is no folder runs here") {
		t.Errorf("the latest of no runs: code %d, errors %q", out.code, out.stderr)
	}
	for _, name := range []string{"first", "fist"} {
		if out := run(t, "", quickly(filepath.Join("runs", name), "--max-updates", "1")...); out.code != 0 {
			t.Fatal(out.stderr)
		}
	}
	// The latest run is one of a study: it has a course, and no model.
	study := filepath.Join("runs", "pair", "runs", "third-1")
	journal, err := track.Start(study, track.Record{Task: "ner"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(study, "report.json"), []byte(`{"history": [{"update": 1, "loss": 2, "rate": 1}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	explains := func(more ...string) []string {
		return append([]string{"train", "ner", "--data", "synthetic", "--limit", "8", "--explain"}, more...)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"predict", "latest", "Ann"}, 0, "run runs/fist\npassed over: the run in " + study + " is finished and kept no model"},
		{[]string{"eval", "third-1"}, 1, study + " is finished and kept no model"},
		{[]string{"plot", "latest"}, 0, "run " + study + "\n"},
		{[]string{"explain", "latest", "--scalars"}, 1, "run runs/fist\n"},
		{[]string{"plot", "runs/nothing"}, 1, "runs/nothing is no folder: want that of a run, a part of the name of a run below runs, or latest\n"},
		{[]string{"predict", "", "Ann"}, 1, "'' is no folder"},
		{[]string{"predict", "rst", "Ann"}, 0, "run runs/first\n"},
		{[]string{"eval", "first", "--split", "dev"}, 0, "run runs/first\n"},
		{[]string{"explain", "first", "--steps", "2", "Ann"}, 0, "run runs/first\n"},
		{[]string{"plot", "first"}, 0, "run runs/first\n"},
		{explains("--model", "fir"), 0, "run runs/first\n"},
		{explains("--model", "latest"), 0, "run runs/fist\npassed over: the run in " + study},
		{explains("--model", "st"), 2, `"st" means 2 runs below runs: `},
		{explains("--model", "minilm"), 2, `model "minilm" is unknown, want minilm-l6, or scratch, or owner/name of a model of the Hugging Face hub, or a folder that exists; --model: minilm is no folder, nor the name of a run`},
		{explains("--teacher", "fir"), 0, "run runs/first\n"},
		{explains("--rate-from", "fir,latest"), 0, "run runs/first\nrun runs/fist\n"},
		{quickly("next", "--rate-from", "fourth"), 2, "--rate-from: fourth is no folder, nor the name of a run"},
		{quickly("next", "--from", "third-1"), 2, "--from: " + study + " is no run folder with a checkpoint"},
		{[]string{"train", "classify", "--teacher", "first"}, 2, `--teacher: runs/first is of task "ner", not "classify"`},
		{[]string{"train", "lm", "--from", "first"}, 2, `--from: runs/first is of task "ner", not "lm"`},
		{[]string{"predict", "st", "Ann"}, 2, `st is no folder, nor the name of a run: "st" means 2 runs below runs: `},
		{[]string{"generate", "fourth"}, 2, `fourth is no folder, nor the name of a run: no run below runs has "fourth" in its name`},
	} {
		if out := run(t, "", test.args...); out.code != test.code || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, errors %q, want code %d and %q", test.args, out.code, out.stderr, test.code, test.want)
		}
	}
}

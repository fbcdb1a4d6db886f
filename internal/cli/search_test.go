package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	elasticrun "github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/study/search"
	"github.com/elastic-attention/workbench/pkg/study/search/journal"
)

// rates searches for the rate of a small tagger on made sentences; ASHA pauses trials after an epoch, and resumes the better.
const rates = `{
	"name": "rates",
	"search": {
		"space": [
			{"name": "lr", "kind": "float", "low": 1e-4, "high": 1e-2, "log": true},
			{"name": "schedule", "kind": "categorical", "choices": ["linear", "constant"]}
		],
		"scheduler": {"kind": "asha", "max": 3}, "trials": 4, "maximize": true, "seed": 3
	},
	"command": ["{elastic}", "train", "ner", "--model", "scratch", "--data", "synthetic", "--limit", "40", "--epochs", "3", "--batch-size", "8",
		"--lr", "{lr}", "--schedule={schedule}", "--run", "{dir}/run", "--continue", "--json"],
	"result": "dev.micro.f1",
	"reports": "epoch (\\d+): dev F1 (\\S+)"
}`

func TestSearch(t *testing.T) {
	t.Setenv(asCommand, "1") // what {elastic} starts is this test binary
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	if err := os.WriteFile(path("rates.json"), []byte(rates), 0o644); err != nil {
		t.Fatal(err)
	}
	out := run(t, "", "search", "run", path("rates.json"), "--run", path("search"))
	if out.code != 0 || !strings.Contains(out.stdout, "search show "+path("search")) || strings.Count(out.stderr, "paused at 1: ") != 4 {
		t.Fatalf("code %d, output %q, errors %q", out.code, out.stdout, out.stderr)
	}
	if out = run(t, "", "search", "run", path("rates.json"), "--run", path("search")); out.code != 0 || strings.Contains(out.stderr, "trial ") {
		t.Errorf("a second time: code %d, errors %q, want no trial", out.code, out.stderr)
	}
	out = run(t, "", "search", "show", path("search"), "--plot", path("history.svg"))
	for _, want := range []string{"4 trials: 1 finished, 0 stopped, 3 paused, 0 failed, 0 not ended.", "Best: 0.", "  schedule = ", "%  lr", "| trial | outcome | lr | schedule |", "| 3 | "} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("show: code %d, output %q has no %q", out.code, out.stdout, want)
		}
	}
	if svg, err := os.ReadFile(path("history.svg")); err != nil || !strings.Contains(string(svg), "best so far: ") {
		t.Errorf("the plot: %v", err)
	}
	out = run(t, "", "search", "show", path("search"), "--json")
	var shown struct {
		Best   struct{ Trial int }
		Trials []struct {
			Reports []struct{ Resource int }
		}
	}
	if err := json.Unmarshal([]byte(out.stdout), &shown); err != nil || len(shown.Trials) != 4 || len(shown.Trials[shown.Best.Trial].Reports) != 3 {
		t.Errorf("show --json: %v, output %q", err, out.stdout)
	}
	for want, args := range map[string][]string{
		"no such file; known: ner-rate": {"search", "run", "nothing"},
		"--workers is 0":                {"search", "run", path("rates.json"), "--workers=0"},
		"want a name that ends in":      {"search", "show", path("search"), "--plot", path("history.png")},
		"trials is -1":                  {"search", "run", path("rates.json"), "--trials=-1"},
		"--trials is 0, want 1 or more": {"search", "run", path("rates.json"), "--trials=0"},
	} {
		if out := run(t, "", args...); out.code != 2 || !strings.Contains(out.stderr, want) {
			t.Errorf("%v: code %d, errors %q, want %s", args, out.code, out.stderr, want)
		}
	}
	if err := os.WriteFile(path("bad.json"), []byte(strings.Replace(rates, `"train"`, `"trian"`, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "", "search", "run", path("bad.json"), "--run", path("bad")); out.code != 1 || !strings.Contains(out.stderr, "all trials in "+path("bad")+" have failed; what the first printed is in "+path("bad/trials/0000/output.txt")) {
		t.Errorf("trials that all fail: code %d, errors %q", out.code, out.stderr)
	}
	out = run(t, "", "search", "show", path("bad"))
	for _, want := range []string{"4 trials: 0 finished, 0 stopped, 0 paused, 4 failed", "\nFailed\ntrial 0: ", "(its output: trials/0000/output.txt)", "bad/trials/0000/output.txt ends with\n    ", "unexpected argument trian", "and 1 more\n"} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("show of failed trials has no %q: %s", want, out.stdout)
		}
	}
	content, err := os.ReadFile(path("search/journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(content), "\n")
	lines[2] = strings.Replace(lines[2], ":", "", 1)
	if err := os.WriteFile(path("search/journal.jsonl"), []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "", "search", "show", path("search")); out.code != 1 || !strings.Contains(out.stderr, path("search/journal.jsonl")+":3: ") || !strings.Contains(out.stderr, "cut it off before that line (head -n 2)") {
		t.Errorf("a damaged journal: code %d, errors %q", out.code, out.stderr)
	}
	if err := os.WriteFile(path("search/journal.jsonl"), []byte(strings.Join(lines[:2], "")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "", "search", "show", path("search")); out.code != 0 || !strings.Contains(out.stdout, "1 trials") {
		t.Errorf("a journal that was cut off: code %d, %s, errors %q", out.code, out.stdout, out.stderr)
	}
	if out := run(t, "", "search", "show", folder); out.code != 1 || !strings.Contains(out.stderr, folder+" holds no search") {
		t.Errorf("a folder without a search: code %d, errors %q", out.code, out.stderr)
	}
}

// population trains small language models side by side; the worst is replaced by one that goes on from the best.
const population = `{
	"name": "population",
	"search": {
		"space": [{"name": "lr", "kind": "float", "low": 1e-5, "high": 3e-2, "log": true}],
		"sampler": {"kind": "random"},
		"scheduler": {"kind": "population", "size": 3, "interval": 1, "max": 3, "quantile": 0.34}, "seed": 2
	},
	"command": ["{elastic}", "train", "lm", "--data", "synthetic", "--limit", "1500", "--layers", "1", "--hidden", "16", "--context", "32", "--batch-size", "8",
		"--epochs", "3", "--schedule", "constant", "--lr", "{lr}", "--run", "{dir}/run", "--continue", "--from={parent}/run", "--json"],
	"result": "dev.loss",
	"reports": "epoch (\\d+): dev loss (\\S+)"
}`

// TestSearchWasStopped: a trial that nobody works on any more is not called running.
func TestSearchWasStopped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "search")
	config := search.Config{Space: search.Space{{Name: "lr", Kind: search.Float, Low: 0, High: 1}}, Trials: 2}
	folder, err := journal.Open(dir, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	trial, _, err := folder.Take()
	if err != nil || trial == nil {
		t.Fatal(trial, err)
	}
	if err := trial.Release(); err != nil {
		t.Fatal(err)
	}
	if out := ok(t, "search", "show", dir).stdout; !strings.Contains(out, "| 0 | not ended |") || strings.Contains(out, "running") {
		t.Error(out)
	}
}

func TestPopulation(t *testing.T) {
	t.Setenv(asCommand, "1") // what {elastic} starts is this test binary
	folder := t.TempDir()
	file, dir := filepath.Join(folder, "population.json"), filepath.Join(folder, "search")
	if err := os.WriteFile(file, []byte(population), 0o644); err != nil {
		t.Fatal(err)
	}
	out := run(t, "", "search", "run", file, "--run", dir)
	if out.code != 0 || strings.Contains(out.stderr, "failed") {
		t.Fatalf("code %d, errors %s", out.code, out.stderr)
	}
	_, trials, err := journal.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	table := regexp.MustCompile(`(?m)^(\| \w+ \|)[^|]*\|`).ReplaceAllString(run(t, "", "search", "show", dir).stdout, "$1")
	children := 0
	for _, trial := range trials {
		if trial.Parent == nil {
			continue
		}
		children++
		if row := fmt.Sprintf("| %d | %d |", trial.Number, *trial.Parent); !strings.Contains(table, row) { // the outcome's column is cut out
			t.Errorf("show has no row %q:\n%s", row, table)
		}
		parent := trials[*trial.Parent]
		record, err := elasticrun.ReadRecord[any](filepath.Join(journal.TrialDir(dir, trial.Number), "run"))
		if err != nil {
			t.Fatal(err)
		}
		if record.Parent == nil || record.Parent.Run != filepath.Join(journal.TrialDir(dir, parent.Number), "run") || record.Parent.Update == 0 {
			t.Errorf("trial %d, of parent %d, went on from %+v", trial.Number, parent.Number, record.Parent)
		}
		if len(trial.Reports) == 0 || trial.Reports[0].Resource < 2 || trial.Params["lr"] == parent.Params["lr"] {
			t.Errorf("trial %d, of parent %d, reports %v and has %v", trial.Number, parent.Number, trial.Reports, trial.Params)
		}
	}
	if best, found := search.Best(trials, false); children == 0 || !found || len(best.Reports) == 0 {
		t.Errorf("%d trials went on from others: %+v", children, trials)
	}
}

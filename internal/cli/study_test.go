package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tinyStudy compares two variants of a model on a few made sentences.
const tinyStudy = `{
	"name": "tiny", "task": "ner", "model": "MODEL", "layers": 1,
	"recipe": {"epochs": 1, "optimizer": {}, "schedule": {"peak": 0.001}, "seed": 1, "batch_size": 8, "shapes": 1, "max_length": 64, "lengths": [64]},
	"train": {"name": "train", "data": "synthetic", "split": "train", "limit": 16},
	"dev": {"name": "dev", "data": "synthetic", "split": "dev", "limit": 8},
	"sets": [{"name": "plain", "data": "synthetic", "split": "test", "limit": 8}],
	"variants": [{"name": "softmax"}, {"name": "sparse", "with": {"normalizer": "sparsemax"}}],
	"seeds": [1, 2]
}`

func TestStudy(t *testing.T) {
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	if out := run(t, "", quickly(path("model"), "--max-updates", "1")...); out.code != 0 {
		t.Fatalf("training the model: %s", out.stderr)
	}
	if err := os.WriteFile(path("tiny.json"), []byte(strings.ReplaceAll(tinyStudy, "MODEL", path("model"))), 0o644); err != nil {
		t.Fatal(err)
	}
	out := run(t, "", "study", "run", path("tiny.json"), "--run", path("study"))
	if out.code != 0 || !strings.Contains(out.stdout, "study show "+path("study")) || strings.Count(out.stderr, "/4  ") != 4 {
		t.Fatalf("code %d, output %q, errors %q", out.code, out.stdout, out.stderr)
	}
	if out = run(t, "", "study", "run", path("tiny.json"), "--run", path("study")); out.code != 0 || strings.Contains(out.stderr, "/4  ") {
		t.Errorf("a second time: code %d, errors %q, want no run", out.code, out.stderr)
	}
	out = run(t, "", "study", "show", path("study"), "--resamples", "100", "--plot", path("plain.svg"))
	if out.code != 0 || !strings.Contains(out.stdout, "4 of 4 runs") || !strings.Contains(out.stdout, "**plain** (8 examples)") || !strings.Contains(out.stdout, "| sparse | ") {
		t.Errorf("show: code %d, output %q, errors %q", out.code, out.stdout, out.stderr)
	}
	if svg, err := os.ReadFile(path("plain.svg")); err != nil || !strings.Contains(string(svg), "sparse: ") || !strings.Contains(string(svg), "difference in F1") {
		t.Errorf("the plot: %v", err)
	}
	// A study of one variant has only adaptations to draw.
	claim := filepath.Join("..", "..", "docs", "claim", "labels-ner")
	if out := run(t, "", "study", "show", claim, "--resamples", "100", "--plot", path("typos.svg"), "--set", "typos"); out.code != 0 {
		t.Errorf("show of adaptations: code %d, errors %q", out.code, out.stderr)
	} else if svg, err := os.ReadFile(path("typos.svg")); err != nil || !strings.Contains(string(svg), "labels, head: ") {
		t.Errorf("the plot of adaptations: %v", err)
	}
	out = run(t, "", "study", "show", path("study"), "--resamples", "100", "--json")
	var tables map[string]struct{ Rows []struct{ Name string } }
	if err := json.Unmarshal([]byte(out.stdout), &tables); err != nil || len(tables["variants"].Rows) != 2 {
		t.Errorf("show --json: %v, output %q", err, out.stdout)
	}
	out = run(t, "", "study", "data", path("tiny.json"), "--to", path("data"))
	if want := path("data/train.iob2") + "\n" + path("data/dev.iob2") + "\n" + path("data/plain.iob2") + "\n"; out.code != 0 || out.stdout != want {
		t.Errorf("data: code %d, output %q, errors %q, want %q", out.code, out.stdout, out.stderr, want)
	}
	if out = run(t, "", "study", "data", path("tiny.json"), "--to", path("data")); out.code != 1 || !strings.Contains(out.stderr, "file exists: name a folder without it by --to") {
		t.Errorf("data, a second time: code %d, errors %q", out.code, out.stderr)
	}
	for want, args := range map[string][]string{
		"no such file; known: claim-": {"study", "run", "nothing"},
		"--resamples is -1":           {"study", "show", path("study"), "--resamples=-1"},
		"--resamples is 0":            {"study", "show", path("study"), "--resamples=0"},
		"--resamples is 1, want 100":  {"study", "show", path("study"), "--resamples=1"},
		"want a name that ends in":    {"study", "show", path("study"), "--plot", path("x.png")},
		"--set goes with --plot":      {"study", "show", path("study"), "--set", "plain"},
		`no results on "moon"`:        {"study", "show", path("study"), "--plot", path("x.svg"), "--set", "moon"},
	} {
		if out := run(t, "", args...); out.code != 2 || !strings.Contains(out.stderr, want) {
			t.Errorf("%v: code %d, errors %q, want %s", args, out.code, out.stderr, want)
		}
	}
	if out := run(t, "", "study", "show", folder); out.code != 1 || !strings.Contains(out.stderr, folder+" holds no study") {
		t.Errorf("a folder without a study: code %d, errors %q", out.code, out.stderr)
	}
}

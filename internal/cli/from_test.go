package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFrom: a run that goes on from another one with the same recipe comes, bit by bit, where a run that was never parted comes,
// and with another rate elsewhere.
func TestFrom(t *testing.T) {
	root := t.TempDir()
	path := func(name string) string { return filepath.Join(root, name) }
	lm := func(name string, more ...string) output {
		return run(t, "", append([]string{"train", "lm", "--data", "synthetic", "--limit", "1500", "--layers", "1", "--hidden", "16", "--context", "32", "--batch-size", "8",
			"--schedule", "constant", "--run", path(name), "--json"}, more...)...)
	}
	weights := func(name string) []byte {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(path(name), "model", "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	for _, args := range [][]string{{"whole", "--epochs", "3"}, {"parent", "--epochs", "2"}, {"same", "--epochs", "3", "--from", path("parent")},
		{"other", "--epochs", "3", "--from", path("parent"), "--lr", "1e-4", "--seed", "7", "--checkpoint-blocks"}} {
		out := lm(args[0], args[1:]...)
		if out.code != 0 || strings.Contains(out.stderr, "continuing after update ") != (len(args) > 3) {
			t.Fatalf("%v: code %d\n%s", args, out.code, out.stderr)
		}
		if len(args) > 3 && (strings.Contains(out.stderr, "epoch 2: ") || !strings.Contains(out.stderr, "epoch 3: ")) {
			t.Errorf("%v makes other epochs than the third:\n%s", args, out.stderr)
		}
	}
	if !bytes.Equal(weights("same"), weights("whole")) {
		t.Error("parted and gone on alike, the weights are others")
	}
	if bytes.Equal(weights("other"), weights("whole")) {
		t.Error("another rate changes nothing")
	}
	record, err := os.ReadFile(filepath.Join(path("other"), "run.json"))
	if err != nil || !strings.Contains(string(record), `"parent": {`) || !strings.Contains(string(record), `"seed": 7`) {
		t.Errorf("record %s, %v", record, err)
	}
	if out := run(t, "", "runs", "show", "--dir", root, "other"); !strings.Contains(out.stdout, "from     "+path("parent")+" after update ") {
		t.Errorf("where it is from is not shown:\n%s", out.stdout)
	}
	if out := lm("other", "--epochs", "3", "--from", path("parent"), "--lr", "1e-4", "--seed", "7", "--checkpoint-blocks", "--continue"); out.code != 0 || strings.Contains(out.stderr, "epoch 3: ") {
		t.Errorf("to be continued: code %d\n%s", out.code, out.stderr)
	}
	if out := lm("stub", "--max-updates", "1", "--epochs", "3"); out.code != 0 {
		t.Fatal(out.stderr)
	}
	if err := os.Mkdir(path("empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"holds a run already":                     {"other", "--epochs", "3", "--from", path("parent")},
		"epochs is 2: nothing is left to do":      {"new", "--epochs", "2", "--from", path("parent")},
		"train.batch_size was 8 and is 4; of":     {"new", "--epochs", "3", "--from", path("parent"), "--batch-size", "4"},
		"model.layers was 1 and is 2; of":         {"new", "--epochs", "3", "--from", path("parent"), "--layers", "2"},
		"has no checkpoint of a whole epoch":      {"new", "--epochs", "3", "--from", path("stub")},
		"there is none: want the folder of a run": {"new", "--from", path("nothing")},
		"kind was adamw and is sgd: another rule": {"new", "--epochs", "3", "--from", path("parent"), "--optimizer", "sgd"},
		"there is no run in " + path("nowhere"):   {"nowhere", "--resume"},
		"there is no run in " + path("empty"):     {"empty", "--resume"},
		"leave --resume out to begin one, or na":  {"nowhere", "--resume"},
	} {
		if out := lm(args[0], args[1:]...); out.code != 1 || !strings.Contains(out.stderr, want) {
			t.Errorf("%v: code %d, errors %q; want %s", args, out.code, out.stderr, want)
		}
		if err := os.RemoveAll(path("new")); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(path(".*fork*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

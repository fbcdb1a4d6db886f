package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	runs "github.com/elastic-attention/workbench/pkg/run"
)

// TestRateFrom: a run takes the rate of the better of two, and says so in its log and record.
func TestRateFrom(t *testing.T) {
	dir := t.TempDir()
	slow, fast, next := filepath.Join(dir, "slow"), filepath.Join(dir, "fast"), filepath.Join(dir, "next")
	ok(t, quickly(slow, "--lr", "1e-7", "--optimizer", "sgd")...)
	ok(t, quickly(fast, "--lr", "4e-3", "--optimizer", `{"kind": "adamw", "layer_decay": 0.9}`)...)
	out := ok(t, quickly(next, "--rate-from", slow+","+fast)...)
	record, err := runs.ReadRecord[experiment.Config](next)
	if err != nil {
		t.Fatal(err)
	}
	recipe := record.Config.Train
	if recipe.Schedule.Peak != 4e-3 || recipe.Optimizer.LayerDecay != 0.9 || !strings.Contains(record.Config.RateFrom, "rate 0.004 as in "+fast) {
		t.Errorf("record: %+v, %q", recipe, record.Config.RateFrom)
	}
	if !strings.Contains(out.stderr, "earlier runs: rate 0.004 as in "+fast) || !strings.Contains(out.stderr, "a higher one may be better") {
		t.Errorf("log: %s", out.stderr)
	}
	if out := run(t, "", quickly(next+"2", "--rate-from", fast, "--lr", "1")...); out.code != 2 || !strings.Contains(out.stderr, "exclude each other") {
		t.Errorf("with --lr: code %d, %s", out.code, out.stderr)
	}
	if out := run(t, "", "train", "classify", "--rate-from", fast); out.code != 2 || !strings.Contains(out.stderr, `of task "ner", not "classify"`) {
		t.Errorf("of another task: code %d, %s", out.code, out.stderr)
	}
	if out := run(t, "", quickly(next+"2", "--rate-from", dir)...); out.code != 2 || !strings.Contains(out.stderr, "run.json") {
		t.Errorf("of no run: code %d, %s", out.code, out.stderr)
	}
	if _, err := os.Stat(next + "2"); err == nil {
		t.Error("a run folder was left")
	}
}

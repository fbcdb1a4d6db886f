package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// TestPreview explains a training and tries rates for it, for both tasks, and leaves no run behind.
func TestPreview(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, task := range []string{"ner", "classify"} {
		base := []string{"train", task, "--model", "scratch", "--limit", "64"}
		out := run(t, "", append(base, "--explain", "--optimizer", `{"kind": "adamw", "weight_decay": 0.5, "layer_decay": 0.5, "groups": [{"variables": ["/head/*"], "rate": 10}]}`)...)
		if out.code != 0 {
			t.Fatalf("%s --explain: code %d, %s", task, out.code, out.stderr)
		}
		for _, want := range []string{"group ", "rate ×", "decay", "state", "/head/*", "adamw", " 0.5 "} {
			if !strings.Contains(out.stdout, want) {
				t.Errorf("%s --explain does not print %q:\n%s", task, want, out.stdout)
			}
		}
		picture := filepath.Join(dir, task+".svg")
		tried := run(t, "", append(base, "--range-test", "--range-from", "1e-5", "--range-to", "1000", "--range-updates", "40", "--plot", picture)...)
		if tried.code != 0 || !strings.Contains(tried.stdout, "smoothed") || !strings.Contains(tried.stdout, "1.00e-05") || !strings.Contains(tried.stdout, "40 updates over 8.0 powers of ten are few") {
			t.Errorf("%s --range-test: code %d, %s%s", task, tried.code, tried.stdout, tried.stderr)
		}
		if strings.Contains(tried.stdout, "pretrained") {
			t.Errorf("%s --range-test takes a fresh model for a pretrained one:\n%s", task, tried.stdout)
		}
		svg, err := os.ReadFile(picture)
		if err != nil || !strings.Contains(string(svg), "<desc>loss (nats/target) over learning rate. smoothed loss: ") {
			t.Errorf("%s --plot: %v, %.300s", task, err, svg)
		}
	}
	out := run(t, "", "train", "ner", "--model", "scratch", "--limit", "64", "--range-test", "--range-from", "1e-4", "--range-to", "1e-3", "--range-updates", "12", "--json")
	var curve train.RateCurve
	if err := json.Unmarshal([]byte(out.stdout), &curve); err != nil || len(curve.Points) != 12 || curve.Diverged {
		t.Errorf("--json: %v, %s", err, out.stdout)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v; want the two pictures", entries, err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--range-from", "1"}, "go with --range-test"},
		{[]string{"--range-test", "--range-from", "2"}, "rates go from 2 to 1"},
		{[]string{"--range-test", "--range-from", "0"}, "--range-from is 0, want it above 0"},
		{[]string{"--range-test", "--range-updates", "0"}, "--range-updates is 0, want 1 or more"},
		{[]string{"--range-test", "--plot", "x.png"}, ".svg or .html"},
		{[]string{"--range-test", "--resume"}, "leave no run folder"},
		{[]string{"--range-test", "--explain"}, "explain"},
		{[]string{"--precision", "f16"}, `precision "f16" is unknown; known: f32, bf16`},
		{[]string{"--unfreeze", `{"every_epochs": 1, "stages": [{}]}`}, "unfreeze.stages[0].variables is empty"},
		{[]string{"--unfreeze", `{"evry": 1}`}, "evry"},
		{[]string{"--unfreeze", "epochs"}, "--unfreeze wants one of epoch, a JSON object"},
		{[]string{"--control", "no-such-file.json"}, "--control wants a JSON list or a file"},
		{[]string{"--explain", "--json"}, "prints a table"},
	} {
		if out := run(t, "", append([]string{"train", "ner"}, test.args...)...); out.code != 2 || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, %s; want 2 and %q", test.args, out.code, out.stderr, test.want)
		}
	}
}

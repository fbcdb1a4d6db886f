package cli_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTrainWithALoss trains both tasks with a loss of their own, which the record holds and a resumed
// run must have.
func TestTrainWithALoss(t *testing.T) {
	tagger, classifier := filepath.Join(t.TempDir(), "ner"), filepath.Join(t.TempDir(), "classify")
	file := filepath.Join(t.TempDir(), "loss.json")
	if err := os.WriteFile(file, []byte(`{"label_smoothing": 0.1, "class_weights": {"O": 0.5}, "r_drop": 0.5, "penalties": [{"variables": ["/head/*"], "l1": 1e-4}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	texts := []string{"train", "classify", "--model", "scratch", "--limit", "64", "--max-updates", "4", "--run", classifier}
	for _, test := range []struct {
		args []string
		dir  string
		want []string
	}{
		{quickly(tagger, "--loss", file), tagger, []string{`"label_smoothing": 0.1`, `"O": 0.5`, `"r_drop": 0.5`, `"l1": 0.0001`}},
		{append(texts, "--loss", `{"balanced": true, "focal_gamma": 2, "mixup": 0.2}`), classifier, []string{`"balanced": true`, `"focal_gamma": 2`, `"mixup": 0.2`}},
	} {
		if out := run(t, "", test.args...); out.code != 0 {
			t.Fatalf("%v: code %d\n%s", test.args, out.code, out.stderr)
		}
		record, err := os.ReadFile(filepath.Join(test.dir, "run.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(string(record), want) {
				t.Errorf("%s has no %s", filepath.Join(test.dir, "run.json"), want)
			}
		}
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{quickly(tagger, "--resume"), 1, `train.loss.class_weights.O was 0.5 and is unset`},
		{quickly(tagger, "--resume", "--loss", `{"label_smoothing": 0.2}`), 1, "train.loss."},
		{append(texts, "--resume", "--loss", `{"balanced": true, "focal_gamma": 1, "mixup": 0.2}`), 1, "train.loss.focal_gamma was 2 and is 1"},
		{quickly("fresh", "--loss", `{"mixup": 0.2}`), 2, "loss.mixup has no use in tagging"},
		{quickly("fresh", "--loss", `{"smoothing": 0.2}`), 2, `--loss: unknown field "smoothing"`},
		{quickly("fresh", "--loss", `{"focal_gamma": -2}`), 2, "loss.focal_gamma is -2, want 0 or more"},
		{quickly("fresh", "--loss", "no-such-file.json"), 2, "--loss wants a JSON object or a file that holds one"},
		{append(texts[:len(texts)-1], filepath.Join(t.TempDir(), "fresh"), "--loss", `{"class_weights": {"O": 2}}`), 1, `"O" is no class of the task`},
	} {
		if out := run(t, "", test.args...); out.code != test.code || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, errors %q; want %d and %q", test.args, out.code, out.stderr, test.code, test.want)
		}
	}
	if out := run(t, "", quickly(tagger, "--resume", "--loss", file)...); out.code != 0 {
		t.Errorf("resuming with the same loss: code %d\n%s", out.code, out.stderr)
	}
}

// TestTrainWithNoise trains both tasks with dropped words and parts.
func TestTrainWithNoise(t *testing.T) {
	tagger, classifier := filepath.Join(t.TempDir(), "ner"), filepath.Join(t.TempDir(), "classify")
	texts := []string{"train", "classify", "--model", "scratch", "--limit", "64", "--max-updates", "4", "--run", classifier}
	noise := []string{"--drop-path", "0.2", "--word-dropout", "0.1"}
	for dir, args := range map[string][]string{tagger: quickly(tagger, noise...), classifier: append(slices.Clone(texts), noise...)} {
		if out := run(t, "", args...); out.code != 0 {
			t.Fatalf("%v: code %d\n%s", args, out.code, out.stderr)
		}
		record, err := os.ReadFile(filepath.Join(dir, "run.json"))
		if err != nil || !strings.Contains(string(record), `"drop_path": 0.2`) || !strings.Contains(string(record), `"word_dropout": 0.1`) {
			t.Errorf("%s does not say which noise it had (%v)", dir, err)
		}
	}
	if out := run(t, "", append(texts, "--resume")...); out.code != 1 || !strings.Contains(out.stderr, "train.noise.drop_path was 0.2 and is unset") {
		t.Errorf("resuming without noise: code %d, %s", out.code, out.stderr)
	}
	if out := run(t, "", quickly("fresh", "--drop-path", "1")...); out.code != 2 || !strings.Contains(out.stderr, "noise.drop_path is 1, want 0 ≤ p < 1") {
		t.Errorf("--drop-path 1: code %d, %s", out.code, out.stderr)
	}
}

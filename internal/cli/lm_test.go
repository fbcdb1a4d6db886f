package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrainEvalGenerate goes the way of a newcomer with a text.
func TestTrainEvalGenerate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	train := []string{"train", "lm", "--data", "synthetic", "--limit", "6000", "--layers", "1", "--hidden", "32", "--context", "32", "--batch-size", "8", "--max-updates", "12",
		"--attention", `{"heads": 4, "mask": "causal", "scores": [{"kind": "temperature", "learned": true}]}`, "--run", dir}
	out := run(t, "", train...)
	if out.code != 0 {
		t.Fatalf("train: code %d\n%s", out.code, out.stderr)
	}
	for _, want := range []string{"bits per byte", "It writes:", "12 updates, ", "Run folder: " + dir, "journal.jsonl", "elastic generate", "a synthetic text"} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("train does not print %q:\n%s", want, out.stdout)
		}
	}
	if !strings.Contains(out.stderr, "epoch 1: dev loss") || !strings.Contains(out.stderr, "6000 bytes to train on") || strings.Contains(out.stderr, "labels") ||
		!strings.Contains(out.stderr, " batches an epoch in 1 shape, ") {
		t.Errorf("train does not show progress:\n%s", out.stderr)
	}
	if again := run(t, "", append(train, "--resume", "--json")...); again.code != 0 || !json.Valid([]byte(again.stdout)) || !strings.Contains(again.stderr, "continuing after update 12") {
		t.Errorf("resuming: code %d, %.200s\n%s", again.code, again.stdout, again.stderr)
	}
	if rates := run(t, "", append(train[:len(train)-2:len(train)-2], "--range-test", "--range-updates", "12", "--range-from", "1e-4")...); rates.code != 0 || !strings.Contains(rates.stdout, "smoothed") {
		t.Errorf("range test: code %d\n%s%s", rates.code, rates.stdout, rates.stderr)
	}
	next := filepath.Join(t.TempDir(), "next")
	if out := run(t, "", append(train[:len(train)-1:len(train)-1], next, "--rate-from", dir)...); out.code != 0 || !strings.Contains(out.stderr, "earlier runs: rate 0.002 as in "+dir) {
		t.Errorf("with the rates of an earlier run: code %d\n%s", out.code, out.stderr)
	}
	text := filepath.Join(t.TempDir(), "mine.txt")
	if err := os.WriteFile(text, []byte("We met Ann in Rome.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	scored := run(t, "", "eval", dir, "--file", text, "--json")
	var score struct {
		Bytes int
		Loss  float64
		Bits  float64 `json:"bits_per_byte"`
	}
	if err := json.Unmarshal([]byte(scored.stdout), &score); scored.code != 0 || err != nil || score.Bytes != 19 || !(score.Loss > 0) || score.Bits < score.Loss {
		t.Errorf("eval: code %d, %v\n%s%s", scored.code, err, scored.stdout, scored.stderr)
	}
	if plain := run(t, "", "eval", dir, "--split", "dev"); plain.code != 0 || !strings.Contains(plain.stdout, "bits per byte") {
		t.Errorf("eval: code %d\n%s%s", plain.code, plain.stdout, plain.stderr)
	}
	first := run(t, "", "generate", dir, "We met ", "--bytes", "20", "--seed", "1")
	if second := run(t, "", "generate", filepath.Join(dir, "model"), "We met ", "--bytes", "20", "--seed", "1"); first.code != 0 || !strings.HasPrefix(first.stdout, "We met ") || second.stdout != first.stdout {
		t.Errorf("generate: code %d, %q and %q\n%s", first.code, first.stdout, second.stdout, first.stderr)
	}
	if scalars := run(t, "", "explain", dir, "--scalars"); scalars.code != 0 || !strings.Contains(scalars.stdout, "temperature ") {
		t.Errorf("explain --scalars: code %d\n%s%s", scalars.code, scalars.stdout, scalars.stderr)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"eval", dir, "--strict"}, 2, "are not for language models"},
		{[]string{"predict", dir, "Ann"}, 2, "elastic generate " + dir},
		{[]string{"explain", dir, "Ann"}, 2, "--scalars shows what its heads learned about themselves"},
		{[]string{"explain", dir, "--heads"}, 2, "is a language model, which is not explained"},
		{[]string{"generate", dir, "--bytes", "0"}, 2, "--bytes is 0"},
		{[]string{"generate", dir, "--top-p", "2"}, 2, "top_p is 2"},
		{[]string{"generate", t.TempDir()}, 1, "config.json"},
		{[]string{"train", "ner", "--run", dir, "--resume"}, 1, `task "lm", not "ner"`},
		{[]string{"train", "lm", "--data", "shakespeare"}, 2, "tinyshakespeare"},
		{[]string{"train", "lm", "--dev", text}, 2, "need --train"},
		{[]string{"train", "lm", "--data", "synthetic", "--lr", "0"}, 2, "peak is 0"},
		{[]string{"train", "lm", "--data", "synthetic", "--hidden", "1000000"}, 2, "a model of 2.4e+13 parameters needs at least 384"},
		{[]string{"train", "lm", "--data", "synthetic", "--hidden=-4"}, 2, "--hidden is -4, want 1 or more"},
		{[]string{"train", "lm", "--data", "synthetic", "--epochs", "0", "--batch-size", "0", "--layers", "0"}, 2, "--layers is 0, want 1 or more"},
		{[]string{"train", "lm", "--data", "synthetic", "--epochs", "0", "--batch-size", "0"}, 2, "--epochs is 0, want 1 or more\n--batch-size is 0"},
		{[]string{"train", "lm", "--data", "synthetic", "--loss", "{}"}, 2, "--loss changes nothing"},
		{[]string{"train", "lm", "--data", "synthetic", "--unfreeze", "{}"}, 2, "--unfreeze says nothing of when"},
		{[]string{"train", "lm", "--data", "synthetic", "--resume", "--run", filepath.Join(t.TempDir(), "new")}, 1, "there is no run in "},
		{[]string{"train", "lm", "--data", "synthetic", "--continue"}, 2, "--continue wants the folder of the run"},
		{[]string{"train", "lm", "--data", "synthetic", "--continue", "--resume"}, 2, "can't be used together"},
		{[]string{"train", "lm", "--data", "synthetic", "--from", dir, "--resume", "--run", dir}, 2, "--from begins a run and --resume continues one"},
		{[]string{"train", "lm", "--data", "synthetic", "--from", dir, "--range-test"}, 2, "leave no run folder"},
		{[]string{"train", "lm", "--rate-from", text}, 2, "--rate-from: "},
		{[]string{"train", "lm", "--train", text}, 1, "too short"},
		{[]string{"train", "lm", "--data", "synthetic", "--attention", `{"mask": "none"}`, "--run", filepath.Join(t.TempDir(), "x")}, 1, "hides later keys"},
		{[]string{"train", "lm", "--data", "synthetic", "--max-length", "100", "--run", filepath.Join(t.TempDir(), "x")}, 1, "the context of the model"},
	} {
		if out := run(t, "", test.args...); out.code != test.code || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, errors %q; want %d and %q", test.args, out.code, out.stderr, test.code, test.want)
		}
	}
}

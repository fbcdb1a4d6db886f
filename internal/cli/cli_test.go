package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/cli"
	"github.com/elastic-attention/workbench/internal/fakekernel"
	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	elasticrun "github.com/elastic-attention/workbench/pkg/run"
)

// asCommand makes the test binary the command itself.
const asCommand = "ELASTIC_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	fakekernel.Main()
	if os.Getenv(asCommand) != "" {
		os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	if os.Getenv("GOMLX_BACKEND") == "" {
		os.Setenv("GOMLX_BACKEND", "go") // an installed plugin must not change what a test tests
	}
	os.Exit(m.Run())
}

type output struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, stdin string, args ...string) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := cli.Run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return output{code, stdout.String(), stderr.String()}
}

// quickly are the arguments of a training run that takes a second or two.
func quickly(dir string, more ...string) []string {
	return append([]string{"train", "ner", "--model", "scratch", "--limit", "96", "--max-updates", "16", "--save-every", "3", "--run", dir}, more...)
}

func TestHelpAndUsage(t *testing.T) {
	model := t.TempDir() // not of a run
	if err := os.WriteFile(filepath.Join(model, "config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--help"}, {"help"}, nil} {
		if out := run(t, "", args...); out.code != 0 || !strings.Contains(out.stdout, "train ner") {
			t.Errorf("%v: code %d, output %q", args, out.code, out.stdout)
		}
	}
	for _, args := range [][]string{{"train", "ner"}, {"eval"}, {"predict"}, {"fetch"}, {"backend", "install"}, {"doctor"}, {"nb", "run"}, {"nb", "kernel", "install"}} {
		out := run(t, "", append([]string{"help"}, args...)...)
		if out.code != 0 || !strings.Contains(out.stdout, "Usage: elastic "+strings.Join(args, " ")) {
			t.Errorf("help %v: code %d, output %q", args, out.code, out.stdout)
		}
	}
	if out := run(t, "", "completion", "--help"); out.code != 0 || strings.Contains(out.stdout, "complete -") {
		t.Errorf("completion --help: code %d, output %q", out.code, out.stdout)
	}
	if out := run(t, "", "explain", "--help"); !strings.Contains(out.stdout, "--steps=64") || !strings.Contains(out.stdout, "--words=8") {
		t.Errorf("explain --help does not tell its defaults: %q", out.stdout)
	}
	if out := run(t, "", "eval", "nowhere", "--split", "dev"); out.code != 1 || !strings.Contains(out.stderr, "nowhere is no folder") {
		t.Errorf("eval nowhere: code %d, errors %q", out.code, out.stderr)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"trian"}, "trian"},
		{[]string{"train", "ner", "--preset", "huge"}, "--preset"},
		{[]string{"train", "ner", "--epoch", "3"}, "--epochs"},
		{[]string{"train", "ner", "--dev", "x"}, "--dev and --test need --train"},
		{[]string{"train", "ner", "--data", "synthetic", "--train", "x"}, "exclude each other"},
		{[]string{"train", "ner", "--lr=-1"}, "schedule.peak is -1"},
		{[]string{"train", "ner", "--lr=inf"}, "schedule.peak is +Inf"},
		{[]string{"train", "ner", "--types", "PER,"}, "data.types"},
		{[]string{"train", "ner", "--data", "uner"}, "uner-en-ewt"},
		{[]string{"train", "ner", "--data", "minilm-l6"}, "uner-en-ewt"},
		{[]string{"train", "ner", "--model", "minilm-l7"}, "minilm-l6"},
		{[]string{"eval", model, "--data", "uner"}, "uner-en-ewt"},
		{[]string{"eval", t.TempDir(), "--digits=-1"}, "0 to 10"},
		{[]string{"train", "ner", "--resume", "--preset", "seed"}, "no run"},
		{[]string{"eval", model}, "--data or --file"},
		{[]string{"fetch", "minilm-l7"}, "minilm-l6"},
	} {
		if out := run(t, "", test.args...); out.code != 2 || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, errors %q; want 2 and %q", test.args, out.code, out.stderr, test.want)
		}
	}
}

// TestTrainEvalPredict goes the whole way of a newcomer without a network.
func TestTrainEvalPredict(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	out := run(t, "", quickly(dir)...)
	if out.code != 0 {
		t.Fatalf("train: code %d\n%s", out.code, out.stderr)
	}
	for _, want := range []string{"precision    recall  f1-score   support", "16 updates, ", "Run folder: " + dir, "elastic predict", "a synthetic corpus"} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("train does not print %q:\n%s", want, out.stdout)
		}
	}
	if !strings.Contains(out.stderr, "backend ") || !strings.Contains(out.stderr, "dev F1") {
		t.Errorf("train does not show backend and progress:\n%s", out.stderr)
	}
	for _, name := range []string{"run.json", "report.json", "report.txt", "model/config.json", "model/model.safetensors", "model/tokenizer.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	var record struct {
		Config   map[string]any    `json:"config"`
		Data     map[string]string `json:"data_sha256"`
		Versions map[string]string `json:"versions"`
		Backend  map[string]any    `json:"backend"`
		Seed     *uint64           `json:"seed"`
	}
	content, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &record); err != nil || len(record.Data) == 0 || record.Versions["go"] == "" || record.Backend["name"] == "" || record.Seed == nil {
		t.Errorf("run.json lacks something: %s (%v)", content, err)
	}

	if again := run(t, "", quickly(dir)...); again.code != 1 || !strings.Contains(again.stderr, "--resume") {
		t.Errorf("training into the same folder: code %d, %s", again.code, again.stderr)
	}
	if other := run(t, "", quickly(dir, "--resume", "--lr", "0.5")...); other.code != 1 || !strings.Contains(other.stderr, "train.schedule.peak was 0.002 and is 0.5") {
		t.Errorf("resuming with another rate: code %d, %s", other.code, other.stderr)
	}

	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.CopyFS(moved, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	name := fmt.Appendf(nil, `"name": %q`, record.Backend["name"])
	if !bytes.Contains(content, name) {
		t.Fatalf("run.json does not name the backend: %s", content)
	}
	if err := os.WriteFile(filepath.Join(moved, "run.json"), bytes.Replace(content, name, []byte(`"name": "other"`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if again := run(t, "", quickly(moved, "--resume", "--json")...); again.code != 0 || !json.Valid([]byte(again.stdout)) || !strings.Contains(again.stderr, "was on backend other and continues on") {
		t.Errorf("resuming on another backend: code %d, %.300s\n%s", again.code, again.stdout, again.stderr)
	}
	misc := filepath.Join(t.TempDir(), "misc.conll")
	if err := os.WriteFile(misc, []byte("Ann B-PER\n\nFord B-MISC\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	scored := run(t, "", "eval", dir, "--json")
	var report struct {
		Micro     struct{ F1 float64 }
		Sentences int
	}
	if err := json.Unmarshal([]byte(scored.stdout), &report); scored.code != 0 || err != nil || report.Sentences != 96 {
		t.Errorf("eval: code %d, %v\n%s%s", scored.code, err, scored.stdout, scored.stderr)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--types", "all"}, 0, ""},
		{[]string{"--types", "PER, LOC"}, 0, ""},
		{[]string{"--types", "FOO"}, 1, "LOC, ORG, PER"},
		{[]string{"--types", "FOO", "--file", misc}, 2, "LOC, ORG, PER"},
		{[]string{"--types", "all", "--file", misc}, 1, misc + ":3"},
		{[]string{"--types", "PER", "--file", misc}, 0, ""},
	} {
		out := run(t, "", append([]string{"eval", dir}, test.args...)...)
		if out.code != test.code || !strings.Contains(out.stderr, test.want) || test.code != 0 && out.stdout != "" {
			t.Errorf("eval %v: code %d\n%s%s; want %d and %q", test.args, out.code, out.stdout, out.stderr, test.code, test.want)
		}
	}
	other := filepath.Join(t.TempDir(), "other.conll")
	if err := os.WriteFile(other, []byte("Ann B-person\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if none := run(t, "", "eval", dir, "--types", "PER", "--file", other); none.code != 0 || !strings.Contains(none.stderr, "no entity of the types that count (PER)") {
		t.Errorf("eval without entities: code %d\n%s", none.code, none.stderr)
	}
	if text := run(t, "", "eval", dir, "--split", "dev", "--strict", "--digits", "2"); text.code != 0 || !strings.Contains(text.stdout, "micro avg") {
		t.Errorf("eval dev: code %d\n%s%s", text.code, text.stdout, text.stderr)
	}

	lines := run(t, "Ann lives here.\n\nBob does not.\n", "predict", dir, "--json")
	if lines.code != 0 || strings.Count(lines.stdout, "\n") != 3 || !strings.Contains(lines.stdout, `"text":"Bob does not."`) {
		t.Errorf("predict: code %d\n%s%s", lines.code, lines.stdout, lines.stderr)
	}
	if one := run(t, "", "predict", dir, "Ann lives here."); one.code != 0 || !strings.Contains(one.stdout, "lives") {
		t.Errorf("predict one: code %d\n%s%s", one.code, one.stdout, one.stderr)
	}
	testPredictInput(t, dir)
	testFullDisk(t, dir)
	if logits := run(t, "Ann lives\n", "predict", dir, "--logits"); logits.code != 0 || !strings.Contains(logits.stdout, `"input_ids":[`) {
		t.Errorf("predict --logits: code %d\n%s", logits.code, logits.stdout)
	}
}

// testPredictInput predicts odd inputs with the model of a run.
func testPredictInput(t *testing.T, dir string) {
	t.Helper()
	document := func(text string) string { return `{"text":"` + text + `","entities":[` }
	for _, test := range []struct {
		name, stdin    string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"nothing", "", []string{"--json"}, 0, "", ""},
		{"empty lines, CRLF, no line end", "\r\n \t\nAnn", []string{"--json"}, 0, document(`Ann`), ""},
		{"byte-order mark", "\ufeffAnn lives\n", []string{"--json"}, 0, document(`Ann lives`), ""},
		{"NUL", "A\x00b\n", []string{"--json"}, 0, document(`A\u0000b`), ""},
		{"not UTF-8", "Ann lives\nAndr\xe9\nBob\n", []string{"--json"}, 1, document(`Ann lives`), "line 2: not UTF-8"},
		{"not UTF-8 as an argument", "", []string{"Andr\xe9"}, 2, "", "is not UTF-8"},
		{"a long line", "Ann lives\n" + strings.Repeat("x", 17<<20), []string{"--json"}, 1, document(`Ann lives`), "line 2: longer than 16 MiB"},
		{"a long word", strings.Repeat("x", 1<<16), nil, 0, "xxx", ""},
		{"a file as text", "", []string{filepath.Join(dir, "run.json")}, 0, "run.json", "is taken as a text"},
		{"no logits", "\n", []string{"--logits"}, 0, "[]", ""},
	} {
		out := run(t, test.stdin, append([]string{"predict", dir}, test.args...)...)
		if out.code != test.code || !strings.Contains(out.stdout, test.stdout) || !strings.Contains(out.stderr, test.stderr) {
			t.Errorf("predict, %s: code %d\n%.300s\n%s; want %d, %q and %q", test.name, out.code, out.stdout, out.stderr, test.code, test.stdout, test.stderr)
		}
		for line := range strings.Lines(out.stdout) {
			if len(test.args) == 1 && test.args[0] == "--json" && !json.Valid([]byte(line)) {
				t.Errorf("predict, %s: not JSON: %.200s", test.name, line)
			}
		}
	}
	if out := run(t, "", "predict", filepath.Join(dir, "run.json"), "x"); out.code != 1 || !strings.Contains(out.stderr, "is no folder") {
		t.Errorf("predict with a file as model: code %d, %s", out.code, out.stderr)
	}
}

// fullDisk is an output that takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// testFullDisk wants each command to notice that its output is lost.
func testFullDisk(t *testing.T, dir string) {
	t.Helper()
	for _, args := range [][]string{{"version"}, {"version", "--json"}, {"backend", "show"}, {"fetch"}, {"predict", dir, "Ann"}, {"eval", dir}} {
		var stderr bytes.Buffer
		if code := cli.Run(t.Context(), args, strings.NewReader(""), fullDisk{}, &stderr); code != 1 || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%v with a full disk: code %d, %s", args, code, stderr.String())
		}
	}
}

func TestBadFilesAreExplained(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.conll", "Ann B-PER\nruns O\n\n")
	for _, test := range []struct {
		name, path string
		want       string
	}{
		{"empty", file("empty.conll", ""), "empty.conll"},
		{"columns", file("columns.conll", "Ann B-PER\nruns\n\n"), "columns.conll:2"},
		{"tag", file("tag.conll", "Ann PERSON-B-\nruns X-\n\n"), "tag.conll:1"},
		{"encoding", file("latin.conll", "Andr\xe9 B-PER\n\n"), "latin.conll:1"},
		{"missing", filepath.Join(dir, "nowhere.conll"), "nowhere.conll"},
	} {
		out := run(t, "", "train", "ner", "--model", "minilm-l6", "--train", test.path, "--types", "all", "--run", filepath.Join(dir, "run-"+test.name))
		if out.code != 1 || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%s: code %d, %s", test.name, out.code, out.stderr)
		}
		if _, err := os.Stat(filepath.Join(dir, "run-"+test.name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a run folder was left", test.name)
		}
	}
	out := run(t, "", "train", "ner", "--model", filepath.Join(dir, "no-model"), "--train", good, "--run", filepath.Join(dir, "r"))
	if out.code != 2 || !strings.Contains(out.stderr, "no-model") {
		t.Errorf("missing model: code %d, %s", out.code, out.stderr)
	}
	if out := run(t, "", "predict", filepath.Join(dir, "no-model"), "x"); out.code != 1 || !strings.Contains(out.stderr, "no-model is no folder") {
		t.Errorf("predict without a model: code %d, %s", out.code, out.stderr)
	}
}

// TestOfflineFallsBackToSynthetic: without cache, network and data folder the preset
// trains from scratch and says so.
func TestOfflineFallsBackToSynthetic(t *testing.T) {
	t.Setenv("ELASTIC_CACHE_DIR", t.TempDir())
	t.Setenv("ELASTIC_DATA_DIR", "")
	t.Setenv("ELASTIC_OFFLINE", "1")
	dir := filepath.Join(t.TempDir(), "run")
	out := run(t, "", "train", "ner", "--limit", "32", "--max-updates", "3", "--run", dir)
	if out.code != 0 || !strings.Contains(out.stderr, "FALLING BACK") || !strings.Contains(out.stdout, "a synthetic corpus") {
		t.Fatalf("code %d\n%s\n%s", out.code, out.stderr, out.stdout)
	}
	if again := run(t, "", "train", "ner", "--limit", "32", "--max-updates", "3", "--run", dir, "--resume"); again.code != 0 || !strings.Contains(again.stderr, "continuing after update 3") {
		t.Errorf("the same command with --resume: code %d, %s", again.code, again.stderr)
	}
	flags := run(t, "", "train", "ner", "--limit", "32", "--epochs", "2", "--lr", "1e-4", "--run", dir+"1")
	record, err := elasticrun.ReadRecord[experiment.Config](dir + "1")
	if err != nil || flags.code != 0 || record.Config.Train.Epochs != 2 || record.Config.Train.Schedule.Peak != 1e-4 {
		t.Errorf("flags must not be passed over: code %d, %v, %+v", flags.code, err, record.Config.Train)
	}
	if adapter := run(t, "", "train", "ner", "--peft", "lora", "--run", dir+"3"); adapter.code != 2 || !strings.Contains(adapter.stderr, "the flags do not fit") {
		t.Errorf("an adapter of no pretrained model: code %d, %s", adapter.code, adapter.stderr)
	}
	if named := run(t, "", "train", "ner", "--model", "minilm-l6", "--run", dir+"2"); named.code != 1 || !strings.Contains(named.stderr, "offline") {
		t.Errorf("a model asked for by name must not be replaced: code %d, %s", named.code, named.stderr)
	}
}

// TestKillAndResume kills a run at random moments until it is through; its weights must
// be those of a run that was let be, bit by bit.
func TestKillAndResume(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many processes")
	}
	whole := filepath.Join(t.TempDir(), "whole")
	if out := run(t, "", quickly(whole)...); out.code != 0 {
		t.Fatalf("code %d\n%s", out.code, out.stderr)
	}
	want, err := os.ReadFile(filepath.Join(whole, "model", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "killed")
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	kills := 0
	for attempt := 0; ; attempt++ {
		command := exec.Command(executable, quickly(dir, "--continue")...)
		command.Env = append(os.Environ(), asCommand+"=1")
		var stderr bytes.Buffer
		command.Stdout, command.Stderr = io.Discard, &stderr
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- command.Wait() }()
		// Later and later, so that the test ends.
		limit := time.Duration(200+random.IntN(1500)+attempt*300) * time.Millisecond
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("after %d kills: %v\n%s", kills, err, stderr.String())
			}
		case <-time.After(limit):
			if err := command.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-done
			kills++
			continue
		}
		break
	}
	got, err := os.ReadFile(filepath.Join(dir, "model", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("after %d kills the weights differ", kills)
	}
	t.Logf("%d kills", kills)
}

// TestInterruptSavesAndSaysHow cancels the context, as Ctrl-C does.
func TestInterruptSavesAndSaysHow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := filepath.Join(t.TempDir(), "run")
	var stdout bytes.Buffer
	stderr := &watcher{text: "first update", then: cancel}
	args := quickly(dir, "--epochs", "500", "--max-updates", "1000")
	code := cli.Run(ctx, args, strings.NewReader(""), &stdout, stderr)
	if code != 1 || !strings.Contains(stderr.String(), "--resume continues it") {
		t.Fatalf("code %d\n%s", code, stderr.String())
	}
	if steps, _ := filepath.Glob(filepath.Join(dir, "checkpoints", "step-*")); len(steps) == 0 {
		t.Error("no checkpoint was left")
	}
}

// watcher calls then when text is written.
type watcher struct {
	bytes.Buffer
	text string
	then func()
}

func (w *watcher) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.then()
	}
	return w.Buffer.Write(p)
}

func TestVersionAndDoctor(t *testing.T) {
	if out := run(t, "", "version", "--json"); out.code != 0 || !strings.Contains(out.stdout, `"go": "go1`) {
		t.Errorf("version: code %d, %s", out.code, out.stdout)
	}
	if out := run(t, "", "doctor", "--json"); out.code != 0 || !json.Valid([]byte(out.stdout)) {
		t.Errorf("doctor: code %d, %s", out.code, out.stdout)
	}
	if out := run(t, "", "fetch"); out.code != 0 || !strings.Contains(out.stdout, "CC-BY-SA-4.0") {
		t.Errorf("fetch: code %d, %s", out.code, out.stdout)
	}
}

// TestElasticAttention trains with an attention spec from a file, explains what the saved
// model finds, and is told what is wrong with bad specs.
func TestElasticAttention(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	spec := filepath.Join(t.TempDir(), "spec.json")
	const text = `{"normalizer": {"kind": "entmax", "learned": true}, "span": {"max": 32, "init": 0.5, "penalty": 0.001}, "gates": ["head_gate"]}`
	if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "", quickly(dir, "--attention", spec)...); out.code != 0 {
		t.Fatalf("train: code %d\n%s", out.code, out.stderr)
	}
	config, err := os.ReadFile(filepath.Join(dir, "model", "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(config, []byte(`"model_type": "elastic-bert"`)) || !bytes.Contains(config, []byte(`"head_gate"`)) {
		t.Errorf("the saved config does not hold the attention:\n%s", config)
	}
	if other := run(t, "", quickly(dir, "--resume", "--attention", `{"normalizer": "sparsemax"}`)...); other.code != 1 || !strings.Contains(other.stderr, "tagger.attention.") {
		t.Errorf("resuming with another attention: code %d, %s", other.code, other.stderr)
	}
	out := run(t, "", "explain", dir, "--json", "--steps", "8", "Ann Lee lives in Rome .", ".")
	if out.code != 0 {
		t.Fatalf("explain: code %d, %s", out.code, out.stderr)
	}
	lines := strings.Split(strings.TrimSpace(out.stdout), "\n")
	if len(lines) != 2 || !json.Valid([]byte(lines[0])) || lines[1] != "[]" {
		t.Errorf("explain prints %q", lines)
	}
	if out := run(t, "", "explain", dir, "."); out.code != 0 || out.stdout != "no entity in \".\"\n" {
		t.Errorf("explain without entities: code %d, %q", out.code, out.stdout)
	}
	for _, test := range []struct{ attention, want string }{
		{`{"normalizer": "walk"}`, `normalizer: kind "walk" is unknown`},
		{`{"mask": "window"}`, "attention.mask.size is 0"},
		{"no-such-file.json", "--attention wants a JSON object or a file that holds one"},
	} {
		fresh := filepath.Join(t.TempDir(), "fresh")
		if out := run(t, "", quickly(fresh, "--attention", test.attention)...); out.code == 0 || !strings.Contains(out.stderr, test.want) {
			t.Errorf("--attention %s: code %d, %s; want %q", test.attention, out.code, out.stderr, test.want)
		}
		if _, err := os.Stat(fresh); err == nil {
			t.Errorf("--attention %s left a run folder", test.attention)
		}
	}
	if out := run(t, "", "eval", dir, "--adapt", `{"method": "tent", "variables": ["*/entmax/alpha"], "rate": 0.01}`, "--json"); out.code != 0 || !json.Valid([]byte(out.stdout)) ||
		!strings.Contains(out.stderr, "adapted to ") {
		t.Errorf("eval --adapt: code %d, %.200s\n%s", out.code, out.stdout, out.stderr)
	}
	for adapt, want := range map[string]string{
		"hope": `method "hope" is unknown`, `{"method": "labels", "episodic": true}`: "would score what was told", `{"rates": 1}`: `unknown field "rates"`, `{"variables": ["*/temperature/*"]}`: "matches no variable",
	} {
		if out := run(t, "", "eval", dir, "--adapt", adapt); out.code != 2 || !strings.Contains(out.stderr, want) {
			t.Errorf("eval --adapt %s: code %d, %s; want %q", adapt, out.code, out.stderr, want)
		}
	}
	testExplain(t, dir)
}

// sure makes a model of that of a run that takes every word for a person.
func sure(t *testing.T, run string) string {
	t.Helper()
	engine, _, err := backend.Open(t.Context(), backend.Options{Config: backend.PureGo})
	if err != nil {
		t.Fatal(err)
	}
	tagger, err := ner.Load(engine, filepath.Join(run, "model"))
	if err != nil {
		t.Fatal(err)
	}
	bias := make([]float32, tagger.Labels().Len())
	person, _ := tagger.Labels().ID("B-PER")
	bias[person] = 20
	if err := tagger.Model.Store.GetVariable("/head/classifier/bias").SetValue(tensors.FromFlatDataAndDimensions(bias, len(bias))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "sure")
	if err := tagger.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// testExplain explains with the model of a run whose heads learn α, span and gate.
func testExplain(t *testing.T, trained string) {
	t.Helper()
	plots, sure := t.TempDir(), sure(t, trained)
	const text = "Ann runs"
	file := filepath.Join(plots, "one.conll")
	if err := os.WriteFile(file, []byte("Ann B-PER\nruns O\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want string // on standard output, else among the errors
	}{
		{[]string{text, "--method", "relevance", "--plot", "words.svg"}, 0, "evidence"},
		{[]string{text, "--method", "flow"}, 0, "evidence"},
		{[]string{text, "--attention", "--plot", "grid.svg"}, 0, ""},
		{[]string{text, "--attention", "--json"}, 0, `"tokens"`},
		{[]string{"--faithfulness", "--file", file, "--method", "gradient_input", "--plot", "curves.svg"}, 0, "completeness error   mean"},
		{[]string{"--faithfulness", "--file", file, "--method", "rollout", "--json"}, 0, `"deletion_better"`},
		{[]string{"--heads", "--limit", "1", "--removal", "--plot", "heads.html"}, 0, "importance"},
		{[]string{"--heads", "--limit", "1", "--json"}, 0, `"sparsity"`},
		{[]string{text, "--sanity", "--method", "relevance", "--plot", "sanity.svg"}, 0, "embeddings"},
		{[]string{"--scalars", "--plot", "scalars.html"}, 0, "α of entmax"},
		{[]string{"--scalars", "--json"}, 0, "/layer_0/attention/span/z"},
		{[]string{}, 2, "want a text to explain"},
		{[]string{text, "--heads"}, 2, "explain no text"},
		{[]string{text, "--steps", "0"}, 2, "--steps is 0"},
		{[]string{text, "--method", "guess"}, 2, `--method "guess" is unknown; known: ["integrated_gradients"`},
		{[]string{text, "--plot", "words.png"}, 2, "want a name that ends in .svg or .html"},
		{[]string{"--heads", "--plot", "heads.svg"}, 2, "want a name that ends in .html"},
		{[]string{"--heads", "--scalars"}, 2, "can't be used together"},
		{[]string{text, "--removal"}, 2, "--removal goes with --heads"},
		{[]string{text, text, "--attention", "--json"}, 2, "one text, not 2"},
		{[]string{text, "--attention"}, 2, "--plot FILE or --json"},
		{[]string{"--faithfulness", "--file", "nowhere.conll"}, 1, "nowhere.conll"},
		{[]string{text, "--plot", filepath.Join("no", "such", "words.svg")}, 2, "is no folder"},
	} {
		args := slices.Clone(test.args)
		var plot string
		if i := slices.Index(args, "--plot"); i >= 0 {
			plot = filepath.Join(plots, args[i+1])
			args[i+1] = plot
		}
		dir := sure
		if slices.Contains(args, "--heads") || slices.Contains(args, "--scalars") { // of the run, with its data
			dir = trained
		}
		out := run(t, "", append([]string{"explain", dir}, args...)...)
		said := out.stdout
		if test.code != 0 {
			said = out.stderr
		}
		if out.code != test.code || !strings.Contains(said, test.want) || test.code != 0 && out.stdout != "" && test.code == 2 {
			t.Errorf("explain %v: code %d\n%.600s\n%s; want %d and %q", test.args, out.code, out.stdout, out.stderr, test.code, test.want)
		}
		if plot != "" && test.code == 0 {
			if content, err := os.ReadFile(plot); err != nil || !bytes.Contains(content, []byte("<title>")) {
				t.Errorf("explain %v: picture %.100s (%v)", test.args, content, err)
			}
		}
	}
}

// TestAdapter trains an adapter on a saved model, and uses what was saved, apart from the base
// and merged into it.
func TestAdapter(t *testing.T) {
	base, dir := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "run")
	if out := run(t, "", quickly(base)...); out.code != 0 {
		t.Fatalf("code %d, %s", out.code, out.stderr)
	}
	adapted := func(dir string, more ...string) output {
		return run(t, "", append([]string{"train", "ner", "--model", base, "--data", "synthetic", "--limit", "96", "--max-updates", "6", "--run", dir}, more...)...)
	}
	out := adapted(dir, "--peft", `{"kind": "adalora", "rank": 4, "budget": {"target": 1, "every": 1}}`)
	if out.code != 0 || !strings.Contains(out.stderr, "adapter adalora: ") || !strings.Contains(out.stdout, "the tagger's adapter (adalora)") {
		t.Fatalf("code %d, %s\n%s", out.code, out.stderr, out.stdout)
	}
	config, err := os.ReadFile(filepath.Join(dir, "model", "adapter_config.json"))
	if err != nil || !strings.Contains(string(config), `"rank_pattern": {`) {
		t.Errorf("%v, %s", err, config)
	}
	if other := run(t, "", "eval", dir); other.code != 0 {
		t.Errorf("eval: code %d, %s", other.code, other.stderr)
	}
	if other := run(t, "", "predict", dir, "Angela met Tim."); other.code != 0 {
		t.Errorf("predict: code %d, %s", other.code, other.stderr)
	}
	// As Python's peft writes it, without what is ours.
	alien := filepath.Join(t.TempDir(), "alien")
	if err := os.CopyFS(alien, os.DirFS(filepath.Join(dir, "model"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.json", "manifest.json", "tagger.json"} {
		if err := os.Remove(filepath.Join(alien, name)); err != nil {
			t.Fatal(err)
		}
	}
	if other := run(t, "", "predict", alien, "Angela met Tim."); other.code != 0 {
		t.Errorf("predict with an adapter of another program: code %d, %s", other.code, other.stderr)
	}
	merged := filepath.Join(t.TempDir(), "merged")
	if other := adapted(merged, "--peft", "ia3", "--merge"); other.code != 0 {
		t.Fatalf("merge: code %d, %s", other.code, other.stderr)
	}
	if _, err := os.Stat(filepath.Join(merged, "model", "model.safetensors")); err != nil {
		t.Error(err)
	}
	for _, test := range []struct {
		want string
		args []string
	}{
		{"--peft wants one of adalora, dora, ", []string{"--peft", "lorra"}},
		{`unknown field "ranks"`, []string{"--peft", `{"kind": "lora", "ranks": 4}`}},
		{"tagger.adapter: rank is -1", []string{"--peft", `{"kind": "lora", "rank": -1}`}},
		{`pattern "*/nothing" matches no variable`, []string{"--peft", `{"kind": "lora", "targets": ["*/nothing"]}`}},
		{"merge wants a tagger.adapter", []string{"--merge"}},
		{"tagger.adapter: kind \"prefix\" cannot be merged", []string{"--peft", "prefix", "--merge"}},
	} {
		fresh := filepath.Join(t.TempDir(), "fresh")
		if out := adapted(fresh, test.args...); out.code == 0 || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, %s", test.args, out.code, out.stderr)
		}
	}
}

// TestTrainWithAStrategy: a run ends as its strategy says and leaves the log of it.
func TestTrainWithAStrategy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	file := filepath.Join(t.TempDir(), "strategy.json")
	if err := os.WriteFile(file, []byte(`{"objective": [{"kind": "attention_entropy", "weight": 0.01}], "budget": {"updates": 2}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out := run(t, "", quickly(dir, "--adapt", file)...)
	if out.code != 0 || !strings.Contains(out.stdout, "Adaptation ended: budget of 2 updates used") {
		t.Fatalf("code %d, %s\n%s", out.code, out.stdout, out.stderr)
	}
	events, err := os.ReadFile(filepath.Join(dir, experiment.EventsFile))
	if err != nil || strings.Count(string(events), "\n") != 3 {
		t.Errorf("events are %q (%v), want the start and two updates", events, err)
	}
	for strategy, want := range map[string]string{
		`{"objective": [{"kind": "hope", "weight": 1}]}`: `objective[0].kind "hope" is unknown`, `{"budgets": 1}`: `unknown field "budgets"`,
		"no-such-file.json": "--adapt wants a JSON object or a file that holds one",
	} {
		if out := run(t, "", quickly(filepath.Join(t.TempDir(), "fresh"), "--adapt", strategy)...); out.code != 2 || !strings.Contains(out.stderr, want) {
			t.Errorf("--adapt %s: code %d, %s; want %q", strategy, out.code, out.stderr, want)
		}
	}
}

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestNextOfNoDev: data without a dev part is not said to be scored on one next.
func TestNextOfNoDev(t *testing.T) {
	dir := t.TempDir()
	words := filepath.Join(dir, "words.conll")
	texts := filepath.Join(dir, "texts.csv")
	for path, content := range map[string]string{words: "Ada B-PER\nsat O\n\nBo B-PER\nran O\n", texts: "text,label\nwe met,A\nthey ran,B\nwe sat,A\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	base := filepath.Join(dir, "base")
	ok(t, quickly(base)...)
	for task, path := range map[string]string{"ner": words, "classify": texts} {
		out := ok(t, "train", task, "--model", base, "--train", path, "--max-updates", "1", "--run", filepath.Join(dir, task))
		if !strings.Contains(out.stdout, "Try next:") || strings.Contains(out.stdout, "--split dev") {
			t.Errorf("train %s proposes to score a dev part that there is not:\n%s", task, out.stdout)
		}
	}
}

// TestTrainEvalPredictClasses goes the way of a newcomer with texts to classify: no command
// needs to be told that the model is no tagger.
func TestTrainEvalPredictClasses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	train := []string{"train", "classify", "--model", "scratch", "--limit", "96", "--max-updates", "16", "--pooling", "attention", "--run", dir,
		"--attention", `{"normalizer": "entmax", "scores": [{"kind": "temperature", "learned": true}]}`}
	out := run(t, "", train...)
	if out.code != 0 {
		t.Fatalf("train: code %d\n%s", out.code, out.stderr)
	}
	for _, want := range []string{"precision    recall  f1-score   support", "macro F1", "ECE", "16 updates, ", "Run folder: " + dir, "elastic explain", "a synthetic corpus", "(gold: "} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("train does not print %q:\n%s", want, out.stdout)
		}
	}
	if !strings.Contains(out.stderr, "dev accuracy") || !strings.Contains(out.stderr, "labels LOC ORG PER") {
		t.Errorf("train does not show progress:\n%s", out.stderr)
	}
	if again := run(t, "", append(train, "--resume", "--json")...); again.code != 0 || !json.Valid([]byte(again.stdout)) || !strings.Contains(again.stderr, "continuing after update 16") {
		t.Errorf("resuming: code %d, %.200s\n%s", again.code, again.stdout, again.stderr)
	}

	scored := run(t, "", "eval", dir, "--split", "dev", "--json", "--adapt", `{"rate": 0.01, "variables": ["/head/pooling/w", "*/norm/*"]}`)
	var report struct {
		Accuracy   float64
		Items      int
		Labels     []string
		Confusion  [][3]int
		Adaptation []struct{ Moved float64 }
	}
	if err := json.Unmarshal([]byte(scored.stdout), &report); scored.code != 0 || err != nil || report.Items != 96 || len(report.Labels) != 3 || len(report.Adaptation) != 3 {
		t.Errorf("eval: code %d, %v\n%s%s", scored.code, err, scored.stdout, scored.stderr)
	}
	learned := run(t, "", "eval", dir, "--split", "dev", "--json", "--adapt", `{"method": "labels", "rate": 0.5, "variables": ["/head/*"], "guard": {"off": true}}`)
	if err := json.Unmarshal([]byte(learned.stdout), &report); learned.code != 0 || err != nil || report.Items != 96 || len(report.Adaptation) != 3 || !(report.Adaptation[0].Moved > 0) {
		t.Errorf("eval while learning: code %d, %v\n%s%s", learned.code, err, learned.stdout, learned.stderr)
	}
	if wild := run(t, "", "eval", dir, "--split", "dev", "--adapt", `{"method": "labels", "rate": 1000, "full_rows": 1, "variables": ["/head/*"], "guard": {"max_resets": 1}}`); wild.code != 0 ||
		!strings.Contains(wild.stderr, "batch 2: adaptation stopped") || !strings.Contains(wild.stderr, "adapted to 2 batches") {
		t.Errorf("eval while learning too fast: code %d\n%s", wild.code, wild.stderr)
	}
	table := filepath.Join(t.TempDir(), "mine.tsv")
	if err := os.WriteFile(table, []byte("query\tkind\nwe met in the river\tLOC\nshe bought a firm\tORG\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(t.TempDir(), "odd.csv")
	if err := os.WriteFile(odd, []byte("text,label\nwe met in the river,LOC\nshe bought a firm,ZZZ\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	columns := []string{"--file", table, "--text-column", "query", "--label-column", "kind"}
	if text := run(t, "", append([]string{"eval", dir, "--digits", "2"}, columns...)...); text.code != 0 || !strings.Contains(text.stdout, "accuracy") || !strings.Contains(text.stdout, "weighted avg") {
		t.Errorf("eval of a file: code %d\n%s%s", text.code, text.stdout, text.stderr)
	}
	moved := filepath.Join(t.TempDir(), "moved") // a model alone, without its run
	if err := os.CopyFS(moved, os.DirFS(filepath.Join(dir, "model"))); err != nil {
		t.Fatal(err)
	}
	if alone := run(t, "", append([]string{"eval", moved}, columns...)...); alone.code != 0 {
		t.Errorf("eval of a model folder: code %d\n%s", alone.code, alone.stderr)
	}

	brackets := filepath.Join(t.TempDir(), "[1]") // which a pattern would take for a choice
	if err := os.CopyFS(brackets, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if one := run(t, "", "predict", brackets, "Ann"); one.code != 0 {
		t.Errorf("a folder with brackets: code %d\n%s", one.code, one.stderr)
	}
	lines := run(t, "Ann lives here.\n\nA river.\n", "predict", moved, "--json")
	if lines.code != 0 || strings.Count(lines.stdout, "\n") != 3 || !strings.Contains(lines.stdout, `{"text":"A river.","label":"`) {
		t.Errorf("predict: code %d\n%s%s", lines.code, lines.stdout, lines.stderr)
	}
	if one := run(t, "", "predict", dir, "Ann lives here."); one.code != 0 || !strings.HasSuffix(one.stdout, "  Ann lives here.\n") {
		t.Errorf("predict one: code %d\n%s%s", one.code, one.stdout, one.stderr)
	}
	if one := run(t, "", "predict", dir, "Ann \x1b[31mlives"); one.code != 0 || !strings.HasSuffix(one.stdout, "  Ann ␛[31mlives\n") {
		t.Errorf("a text that commands terminals: %+v", one)
	}
	if logits := run(t, "", "predict", dir, "--logits", "Ann"); logits.code != 0 || strings.Count(logits.stdout, ",") != 2 {
		t.Errorf("predict --logits: code %d\n%s", logits.code, logits.stdout)
	}
	if why := run(t, "", "explain", dir, "Ann lives here.", "--words", "2"); why.code != 0 || strings.Count(why.stdout, "\n") != 3 || !strings.Contains(why.stdout, "evidence") {
		t.Errorf("explain: code %d\n%s%s", why.code, why.stdout, why.stderr)
	}
	heads := run(t, "", "explain", dir, "--attention", "--json", "--keep", "Ann lives here.")
	var attention struct{ Tokens []string }
	if err := json.Unmarshal([]byte(heads.stdout), &attention); heads.code != 0 || err != nil || len(attention.Tokens) < 5 {
		t.Errorf("explain --attention: code %d, %v\n%.300s%s", heads.code, err, heads.stdout, heads.stderr)
	}
	for _, name := range []string{"attention-1.svg", "attention-2.svg", "attention-ann-lives-here.svg"} {
		if content, err := os.ReadFile(filepath.Join(dir, "pictures", name)); err != nil || !strings.Contains(string(content), "layer 1") {
			t.Errorf("%s: %v, %.200s", name, err, content)
		}
	}

	picture := filepath.Join(t.TempDir(), "why.svg")
	why := run(t, "", append([]string{"explain", moved, "--words", "1", "--steps", "4", "--plot", picture}, columns...)...)
	if why.code != 0 || strings.Count(why.stdout, "\n") != 6 || !strings.HasPrefix(why.stdout, "we met in the river\n") || !strings.Contains(why.stdout, " (gold: LOC): evidence") || !strings.Contains(why.stdout, " (gold: ORG): evidence") {
		t.Errorf("explain of a file: code %d\n%s%s", why.code, why.stdout, why.stderr)
	}
	if content, err := os.ReadFile(picture); err != nil || !strings.Contains(string(content), ">river<") || !strings.Contains(string(content), "(gold: ORG)") {
		t.Errorf("picture of a file: %v, %.300s", err, content)
	}
	sorted := filepath.Join(t.TempDir(), "sorted.csv")
	if err := os.WriteFile(sorted, []byte("text,label\nwe met in the river,LOC\nthe sea,LOC\nshe bought a firm,ORG\nthe shop,ORG\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if spread := run(t, "", "explain", dir, "--file", sorted, "--limit", "2", "--words", "1", "--steps", "4"); spread.code != 0 || !strings.Contains(spread.stdout, "(gold: LOC)") || !strings.Contains(spread.stdout, "she bought a firm\n") {
		t.Errorf("explain of some of a sorted file: code %d\n%s%s; want texts of both classes", spread.code, spread.stdout, spread.stderr)
	}
	if why := run(t, "", "explain", dir, "--split", "dev", "--limit", "3", "--steps", "4", "--json", "--keep"); why.code != 0 || strings.Count(why.stdout, `"gold":`) != 3 || !strings.Contains(why.stderr, "kept in "+dir) {
		t.Errorf("explain of the run's own data: code %d\n%s%s", why.code, why.stdout, why.stderr)
	}

	// What a tagger's explanations can be asked, a classifier's can.
	plots := t.TempDir()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"Ann lives here.", "--method", "relevance"}, ": evidence "},
		{[]string{"Ann lives here.", "--sanity", "--steps", "4", "--plot", "sanity.svg"}, "embeddings"},
		{[]string{"--faithfulness", "--limit", "3", "--steps", "16", "--plot", "curves.svg", "--keep"}, "integrated_gradients: 3 of 3 texts\ncompleteness error   mean"},
		{[]string{"--faithfulness", "--split", "dev", "--limit", "2", "--method", "rollout", "--json"}, `"texts": 2`},
		{[]string{"--heads", "--limit", "2", "--removal", "--plot", "heads.html"}, "removal  entropy"},
		{[]string{"--heads", "--limit", "1", "--json"}, `"sparsity"`},
		{[]string{"--scalars", "--plot", "scalars.html"}, "temperature  "},
		{[]string{"--scalars", "--json"}, "/layer_1/attention/temperature/log_scale"},
	} {
		args := append([]string{"explain", dir}, test.args...)
		plot := slices.Index(args, "--plot") + 1
		if plot > 0 {
			args[plot] = filepath.Join(plots, args[plot])
		}
		if out := run(t, "", args...); out.code != 0 || !strings.Contains(out.stdout, test.want) {
			t.Errorf("%v: code %d\n%.600s%s; want %q", test.args, out.code, out.stdout, out.stderr, test.want)
		}
		if plot > 0 {
			if content, err := os.ReadFile(args[plot]); err != nil || !strings.Contains(string(content), "<title>") {
				t.Errorf("%v: picture %.100s (%v)", test.args, content, err)
			}
		}
	}
	if content, err := os.ReadFile(filepath.Join(dir, "pictures", "faithfulness.svg")); err != nil || !strings.Contains(string(content), "random") {
		t.Errorf("the picture that was kept: %v, %.200s", err, content)
	}

	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"eval", dir, "--strict"}, 2, "are for taggers"},
		{[]string{"eval", dir, "--types", "PER"}, 2, "are for taggers"},
		{[]string{"eval", dir, "--threshold", "0.5"}, 2, "are for taggers"},
		{[]string{"predict", dir, "--threshold", "0.5", "Ann"}, 2, "is for taggers"},
		{[]string{"predict", filepath.Dir(brackets), "Ann"}, 1, "holds neither a run nor a model"},
		{[]string{"explain", dir, "--types", "PER", "Ann"}, 2, "is for taggers"},
		{[]string{"explain", dir, "--sanity"}, 2, "one text, not 0"},
		{[]string{"explain", dir, "--heads", "Ann"}, 2, "explain no text"},
		{[]string{"explain", dir, "--heads", "--file", odd}, 1, odd + ":3: label \"ZZZ\" is none of the model's 3"},
		{[]string{"explain", dir, "--attention", "--json"}, 2, "one text, not 0"},
		{[]string{"explain", dir, "--file", table, "Ann"}, 2, "exclude each other"},
		{[]string{"explain", dir, "--file", table, "--data", "synthetic"}, 2, "exclude each other"},
		{[]string{"explain", moved}, 2, "--data or --file"},
		{[]string{"explain", dir, "--file", odd}, 1, odd + ":3: label \"ZZZ\" is none of the model's 3"},
		{[]string{"eval", dir, "--text-column", "query"}, 2, "need --file"},
		{[]string{"generate", dir, "Ann"}, 2, "elastic predict " + dir},
		{[]string{"explain", moved, "--keep", "Ann"}, 2, "is no run folder"},
		{[]string{"eval", dir, "--data", "uner-en-ewt"}, 2, "banking77"},
		{[]string{"eval", dir, "--file", table}, 1, `no column "text"`},
		{[]string{"eval", dir, "--adapt", "memo"}, 2, "augmentations"},
		{[]string{"eval", moved}, 2, "--data or --file"},
		{[]string{"train", "ner", "--run", dir, "--resume"}, 1, `task "classify", not "ner"`},
		{[]string{"train", "classify", "--pooling", "max"}, 2, "attention cls mean"},
		{[]string{"train", "classify", "--data", "banking"}, 2, "banking77"},
		{[]string{"train", "classify", "--text-column", "x"}, 2, "need --train"},
		{[]string{"train", "classify", "--preset", "seed"}, 2, "--preset"},
	} {
		if out := run(t, "", test.args...); out.code != test.code || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, errors %q; want %d and %q", test.args, out.code, out.stderr, test.code, test.want)
		}
	}
}

// TestClassifyOfflineFallsBackToSynthetic: without cache, network and data folder the preset
// trains from scratch and says so.
func TestClassifyOfflineFallsBackToSynthetic(t *testing.T) {
	t.Setenv("ELASTIC_CACHE_DIR", t.TempDir())
	t.Setenv("ELASTIC_DATA_DIR", "")
	t.Setenv("ELASTIC_OFFLINE", "1")
	dir := filepath.Join(t.TempDir(), "run")
	args := []string{"train", "classify", "--limit", "32", "--max-updates", "3", "--run", dir}
	if out := run(t, "", args...); out.code != 0 || !strings.Contains(out.stderr, "FALLING BACK") || !strings.Contains(out.stdout, "a synthetic corpus") {
		t.Fatalf("code %d\n%s\n%s", out.code, out.stderr, out.stdout)
	}
	if again := run(t, "", append(args, "--resume")...); again.code != 0 || !strings.Contains(again.stderr, "continuing after update 3") {
		t.Errorf("the same command with --resume: code %d, %s", again.code, again.stderr)
	}
}

package cli_test

import (
	"path/filepath"
	"strings"
	"testing"

	ner "github.com/elastic-attention/workbench/pkg/ner/experiment"
	runs "github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

// TestTeacher: both tasks follow a run of theirs, say so in their record, and refuse one of another task. A run that named
// its teacher by a relative path is resumed from another folder.
func TestTeacher(t *testing.T) {
	dir := t.TempDir()
	tagger, student := filepath.Join(dir, "tagger"), filepath.Join(dir, "student")
	ok(t, quickly(tagger)...)
	ok(t, quickly(student, "--teacher", tagger, "--temperature", "3", "--alpha", "0.25")...)
	record, err := runs.ReadRecord[ner.Config](student)
	if want := (runs.Distill{Teacher: tagger, Temperature: 3, Alpha: 0.25}); err != nil || record.Config.Train.Distill != want {
		t.Errorf("record: %+v, %v", record.Config.Train.Distill, err)
	}
	classify := func(name string, more ...string) output {
		return run(t, "", append([]string{"train", "classify", "--model", "scratch", "--limit", "32", "--max-updates", "2", "--run", filepath.Join(dir, name)}, more...)...)
	}
	if out := classify("classifier"); out.code != 0 {
		t.Fatalf("code %d: %s", out.code, out.stderr)
	}
	if out := classify("pupil", "--teacher", filepath.Join(dir, "classifier")); out.code != 0 {
		t.Errorf("code %d: %s", out.code, out.stderr)
	}
	t.Chdir(dir)
	if out := classify("near", "--teacher", "classifier"); out.code != 0 {
		t.Errorf("code %d: %s", out.code, out.stderr)
	}
	t.Chdir(tagger)
	if out := classify("near", "--teacher", filepath.Join("..", "classifier"), "--resume"); out.code != 0 || !strings.Contains(out.stderr, "continuing after update 2") {
		t.Errorf("resumed from another folder: code %d: %s", out.code, out.stderr)
	}
	if record, err := runs.ReadRecord[experiment.Config](filepath.Join(dir, "pupil")); err != nil || record.Config.Train.Distill.Teacher == "" {
		t.Errorf("record: %+v, %v", record.Config.Train.Distill, err)
	}
	if out := classify("wrong", "--teacher", tagger); out.code != 1 || !strings.Contains(out.stderr, "the model is no classifier of texts") {
		t.Errorf("a tagger as teacher: code %d, %s", out.code, out.stderr)
	}
	for want, flags := range map[string][]string{
		"but no teacher":     {"--alpha", "0.5"},
		"distill.alpha is 2": {"--teacher", tagger, "--alpha", "2"},
		"--alpha is 0, want": {"--teacher", tagger, "--alpha", "0"},
		"--temperature is 0": {"--teacher", tagger, "--temperature", "0"},
	} {
		if out := classify("wrong", flags...); out.code != 2 || !strings.Contains(out.stderr, want) {
			t.Errorf("%v: code %d, %s", flags, out.code, out.stderr)
		}
	}
}

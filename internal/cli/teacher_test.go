package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/loss"
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
		"but no teacher":                           {"--alpha", "0.5"},
		"distill.alpha is 2":                       {"--teacher", tagger, "--alpha", "2"},
		"--alpha is 0, want":                       {"--teacher", tagger, "--alpha", "0"},
		"--temperature is 0":                       {"--teacher", tagger, "--temperature", "0"},
		"a weighing, but no teacher":               {"--weigh", "gradnorm"},
		"--alpha and --weigh exclude each other":   {"--teacher", tagger, "--alpha", "0.5", "--weigh", "gradnorm"},
		"--weigh wants one of gradnorm, uncertain": {"--teacher", tagger, "--weigh", "alpha"},
		"distill: weigh.exponent is for weigh.kin": {"--teacher", tagger, "--weigh", `{"kind": "uncertainty", "exponent": 1}`},
		"--weigh: unknown field \"power\"":         {"--teacher", tagger, "--weigh", `{"kind": "gradnorm", "power": 1}`},
	} {
		if out := classify("wrong", flags...); out.code != 2 || !strings.Contains(out.stderr, want) {
			t.Errorf("%v: code %d, %s", flags, out.code, out.stderr)
		}
	}
}

// TestWeigh: students of both tasks learn how to weigh labels and teacher; the record says how, and the journal, the course and
// its picture what came of it.
func TestWeigh(t *testing.T) {
	dir := t.TempDir()
	for task, how := range map[string]loss.Weighing{"ner": {Kind: loss.ByGradNorm, Exponent: 0.12}, "classify": {Kind: loss.ByUncertainty}} {
		teacher, student := filepath.Join(dir, task+"-teacher"), filepath.Join(dir, task)
		train := func(into string, more ...string) output {
			return run(t, "", append([]string{"train", task, "--model", "scratch", "--limit", "32", "--max-updates", "3", "--run", into}, more...)...)
		}
		if out := train(teacher); out.code != 0 {
			t.Fatalf("%s: code %d: %s", task, out.code, out.stderr)
		}
		flag := how.Kind
		if how.Exponent != 0 {
			flag = `{"kind": "gradnorm", "exponent": 0.12}`
		}
		if out := train(student, "--teacher", teacher, "--weigh", flag); out.code != 0 {
			t.Fatalf("%s: code %d: %s", task, out.code, out.stderr)
		}
		record, err := runs.ReadRecord[struct {
			Train struct{ Distill runs.Distill }
		}](student)
		if want := (runs.Distill{Teacher: teacher, Weigh: how}); err != nil || record.Config.Train.Distill != want {
			t.Errorf("%s: record: %+v, %v", task, record.Config.Train.Distill, err)
		}
		course, err := runs.ReadCourse(student)
		if err != nil || len(course.History) == 0 || len(course.History[0].Terms) != 2 {
			t.Fatalf("%s: course %+v, %v", task, course, err)
		}
		for i, name := range []string{"labels", "teacher"} {
			term := course.History[0].Terms[i]
			if term.Name != name || term.Weight != 1 || !(term.Loss > 0) {
				t.Errorf("%s: term %d of the first update is %+v", task, i, term)
			}
			out := ok(t, "runs", "show", student, "--metric", "train/weight_"+name, "--json")
			if !strings.Contains(out.stdout, "train/weight_"+name) {
				t.Errorf("%s: the journal has no weights of %s: %s", task, name, out.stdout)
			}
		}
		out := ok(t, "plot", student)
		picture, err := os.ReadFile(filepath.Join(student, "course.svg"))
		if err != nil || !strings.Contains(string(picture), "weight of each term") || !strings.Contains(string(picture), "loss of each term") {
			t.Errorf("%s: the picture lacks the terms: %v; %s", task, err, out.stdout)
		}
	}
	out := run(t, "", "train", "classify", "--model", "scratch", "--limit", "32", "--teacher", filepath.Join(dir, "classify-teacher"), "--weigh", "gradnorm", "--explain")
	if want := "loss of labels and teacher weighed by gradnorm (exponent 1.5) on /layer_1/feed_forward/outer/weights, at a rate of 0.025"; out.code != 0 || !strings.Contains(out.stdout, want) {
		t.Errorf("code %d: %s%s", out.code, out.stdout, out.stderr)
	}
}

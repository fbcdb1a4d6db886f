package study_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/study"
)

// made is a folder with results that are known: b finds one entity in ten more than a, and
// adapting changes nothing.
func made() *study.Folder {
	outcomes := func(found int) eval.Outcomes {
		var o eval.Outcomes
		for i := range 100 {
			if i%10 < found {
				o.Add(1, 0, 0)
			} else {
				o.Add(0, 0, 1)
			}
		}
		return o
	}
	f := &study.Folder{Config: study.Config{
		Dev: study.Set{Name: "dev"}, Sets: []study.Set{{Name: "test"}}, Seeds: []uint64{1, 2, 3},
		Variants:    []study.Variant{{Name: "a"}, {Name: "b"}, {Name: "not run yet"}},
		Adaptations: []study.Adaptation{{Name: "tent"}},
	}}
	for i, variant := range []string{"a", "b"} {
		for seed := range uint64(3) {
			o := outcomes(4 + i)
			scores := []study.Score{{Set: "dev", Outcomes: o, CPUSeconds: 1}, {Set: "test", Outcomes: o, CPUSeconds: 2}}
			if i == 0 {
				scores = append(scores, study.Score{Set: "test", Adaptation: "tent", Outcomes: o, CPUSeconds: 5, Resets: 2, Stopped: seed == 0})
			}
			if i == 0 || seed < 2 { // b's last seed is still to come
				f.Results = append(f.Results, study.Result{Variant: variant, Seed: seed + 1, Scores: scores})
			}
		}
	}
	return f
}

func TestTables(t *testing.T) {
	variants, err := made().Variants(eval.Bootstrap{Resamples: 200})
	if err != nil {
		t.Fatal(err)
	}
	if len(variants.Rows) != 2 {
		t.Fatalf("%d rows, want dev and test for b", len(variants.Rows))
	}
	row := variants.On("test")[0]
	from, to := 2*0.4/1.4, 2*0.5/1.5
	if d := row.Difference; d.Seeds != 2 || d.Examples != 100 || fmt.Sprintf("%.6f %.6f", d.From, d.To) != fmt.Sprintf("%.6f %.6f", from, to) || row.Cost != 1 {
		t.Errorf("row is %+v, want %.4f → %.4f over two seeds at cost 1", row, from, to)
	}
	if row.P <= 0 || row.Adjusted != min(1, 2*row.P) {
		t.Errorf("p is %v, adjusted %v, want twice as much", row.P, row.Adjusted)
	}
	adaptations, err := made().Adaptations(eval.Bootstrap{Resamples: 200})
	if err != nil {
		t.Fatal(err)
	}
	if len(adaptations.Rows) != 1 {
		t.Fatalf("%d rows of adaptations, want 1", len(adaptations.Rows))
	}
	if row := adaptations.Rows[0]; row.Difference.Difference != 0 || row.Adjusted != 1 || row.Cost != 2.5 || !strings.Contains(row.Note, "6 times back, and stopped 1 of 3") {
		t.Errorf("adapting: %+v", row)
	}
	if text := variants.Markdown(); !strings.Contains(text, "| b | 57.1 | 66.7 | +9.52 |") {
		t.Errorf("Markdown:\n%s", text)
	}
}

// TestOpenRefuses: a line that is damaged in the middle is an error that names it.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config, err := study.Preset("claim-ner-quick")
	if err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	write(study.ConfigFile, string(content))
	write(study.RecordFile, "{}")
	for content, want := range map[string]string{
		"{\"variant\": \"a\"}\nnonsense\n{}\n":                            "results.jsonl:2",
		"{\"scores\": [{\"set\": \"x\", \"outcomes\": {\"tp\": [1]}}]}\n": "results.jsonl:1",
	} {
		write(study.ResultsFile, content)
		if _, err := study.Open(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want %s", content, err, want)
		}
	}
	if _, err := study.Open(t.TempDir()); err == nil {
		t.Error("an empty folder: want an error")
	}
}

func ExampleFolder_Variants() {
	folder := made() // study.Open("runs/study-claim-ner")
	table, err := folder.Variants(eval.Bootstrap{Resamples: 500})
	if err != nil {
		panic(err)
	}
	for _, row := range table.On("test") {
		fmt.Printf("%s: %+.1f points, from %+.1f to %+.1f\n", row.Name, 100*row.Difference.Difference, 100*row.Low, 100*row.High)
	}
	// Output: b: +9.5 points, from +3.7 to +15.7
}

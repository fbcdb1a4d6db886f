package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runs "github.com/elastic-attention/workbench/pkg/run"
)

// TestPlotARun: what controllers and unfreezing do is told while a run trains, is in its report, and is drawn over
// its loss and rate, also when it is not finished.
func TestPlotARun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	for _, task := range []string{"ner", "classify"} {
		folder := dir + task
		out := ok(t, "train", task, "--model", "scratch", "--limit", "96", "--max-updates", "16", "--save-every", "3", "--run", folder,
			"--control", `[{"plateau": {"signal": "loss", "patience": 1, "threshold": 0.9, "factor": 0.5}}]`,
			"--unfreeze", `{"stages": [{"variables": ["/embeddings/*"], "after_updates": 5}]}`)
		for _, want := range []string{"update 5: unfreeze: ", "(/embeddings/word, …) trains from here on", "plateau: reduce: loss did not improve 2 times"} {
			if !strings.Contains(out.stderr, want) {
				t.Errorf("%s does not tell %q:\n%s", task, want, out.stderr)
			}
		}
		drawn := ok(t, "plot", folder)
		for _, want := range []string{"updates 1 to ", "update 5: unfreeze: ", "plateau: reduce: ", "; factor of the learning rate 0.5\n"} {
			if !strings.Contains(drawn.stdout, want) {
				t.Errorf("plot does not tell %q:\n%s", want, drawn.stdout)
			}
		}
		svg, err := os.ReadFile(filepath.Join(folder, "course.svg"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Marked: ", "unfreeze at 5, ", ">plateau: reduce</text>", ">learning rate</text>", ">score on dev</text>"} {
			if !strings.Contains(string(svg), want) {
				t.Errorf("the picture has no %q: %.600s", want, svg)
			}
		}
		finished := ok(t, "plot", folder, "--json")
		var course runs.Course
		if err := json.Unmarshal([]byte(finished.stdout), &course); err != nil || len(course.History) == 0 || len(course.Control) < 2 || len(course.Metrics) == 0 {
			t.Errorf("course: %v, %s", err, finished.stdout)
		}
		if err := os.Remove(filepath.Join(folder, runs.ReportFile)); err != nil {
			t.Fatal(err)
		}
		if begun := ok(t, "plot", folder, "--json"); begun.stdout != finished.stdout {
			t.Errorf("from the checkpoint:\n%s\nfrom the report:\n%s", begun.stdout, finished.stdout)
		}
	}
	if out := run(t, "", "plot", t.TempDir()); out.code != 1 || !strings.Contains(out.stderr, "neither report.json nor a checkpoint, so it is no run, or one that has saved nothing yet") {
		t.Errorf("no run: code %d, %s", out.code, out.stderr)
	}
	if out := run(t, "", "plot", dir+"ner", "--plot", "x.png"); out.code != 2 {
		t.Errorf("x.png: code %d, %s", out.code, out.stderr)
	}
}

// ok runs a command that must succeed.
func ok(t *testing.T, args ...string) output {
	t.Helper()
	out := run(t, "", args...)
	if out.code != 0 {
		t.Fatalf("%v: code %d\n%s", args, out.code, out.stderr)
	}
	return out
}

package checkpoint_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
)

func saveSteps(t *testing.T, run checkpoint.Run, steps ...int) {
	t.Helper()
	for _, step := range steps {
		path, err := run.Save(sample(step))
		if err != nil || path != run.Path(step) {
			t.Fatalf("step %d: got %q, %v", step, path, err)
		}
	}
}

func TestRunKeepsTheLast(t *testing.T) {
	for keep, want := range map[int][]int{0: {3, 4, 5}, 1: {5}, 2: {4, 5}, 9: {1, 2, 3, 4, 5}, -1: {1, 2, 3, 4, 5}} {
		run := checkpoint.Run{Dir: t.TempDir(), Keep: keep}
		saveSteps(t, run, 1, 2, 3, 4, 5)
		got, err := run.Steps()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("keep %d: steps (-want +got):\n%s", keep, diff)
		}
		if names := entries(t, filepath.Dir(run.Path(0))); len(names) != len(want) {
			t.Errorf("keep %d: got %q, want nothing else", keep, names)
		}
	}
}

// TestRunKeepsWhatWasJustSaved: after going back to an earlier step there are newer ones.
func TestRunKeepsWhatWasJustSaved(t *testing.T) {
	run := checkpoint.Run{Dir: t.TempDir(), Keep: 2}
	saveSteps(t, run, 100, 200, 50)
	got, err := run.Steps()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{50, 100, 200}, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestLatest(t *testing.T) {
	run := checkpoint.Run{Dir: t.TempDir()}
	if _, err := run.Latest(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is no checkpoint in ") {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	saveSteps(t, run, 9, 10, 1000000) // the last has more digits than others
	f, err := run.Latest()
	if err != nil {
		t.Fatal(err)
	}
	checkSample(t, f, 1000000)
	if len(f.Skipped) > 0 {
		t.Errorf("got skipped %v, want none", f.Skipped)
	}
	// Things that are no checkpoints.
	folder := filepath.Dir(f.Dir)
	for _, name := range []string{".step-2000000.tmp-ABCDEFGHIJKL", "step-3000000x", "step-7", "step--00001", "step-+00001", "other"} {
		if err := os.Mkdir(filepath.Join(folder, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "step-4000000"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if f, err = run.Latest(); err != nil {
		t.Fatal(err)
	}
	checkSample(t, f, 1000000)
}

func TestLatestPassesOverDamage(t *testing.T) {
	run := checkpoint.Run{Dir: t.TempDir()}
	saveSteps(t, run, 1, 2, 3)
	if err := os.Truncate(filepath.Join(run.Path(3), "model.safetensors"), 10); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(run.Path(2), checkpoint.ManifestName)); err != nil {
		t.Fatal(err)
	}
	f, err := run.Latest()
	if err != nil {
		t.Fatal(err)
	}
	checkSample(t, f, 1)
	if len(f.Skipped) != 2 || !strings.Contains(f.Skipped[0].Error(), "step-000003: file model.safetensors has 10 bytes") || !strings.Contains(f.Skipped[1].Error(), "step-000002: file manifest.json is missing") {
		t.Errorf("got skipped %v, want steps 3 and 2 with the reasons", f.Skipped)
	}
	if err := os.RemoveAll(f.Dir); err != nil {
		t.Fatal(err)
	}
	_, err = run.Latest()
	if !errors.Is(err, checkpoint.ErrDamaged) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "all 2 checkpoints") {
		t.Errorf("got %v, want %v and not that there is none", err, checkpoint.ErrDamaged)
	}
}

// TestLatestOfANewerVersion: going on from an older checkpoint would lose work in silence.
func TestLatestOfANewerVersion(t *testing.T) {
	run := checkpoint.Run{Dir: t.TempDir()}
	saveSteps(t, run, 1, 2)
	content, err := checkpoint.EncodeManifest(checkpoint.Manifest{Schema: 99})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run.Path(2), checkpoint.ManifestName), content, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Latest(); !errors.Is(err, checkpoint.ErrNewerSchema) || !strings.Contains(err.Error(), "its schema is 99") {
		t.Errorf("got %v, want %v", err, checkpoint.ErrNewerSchema)
	}
}

func TestBest(t *testing.T) {
	run := checkpoint.Run{Dir: t.TempDir(), Keep: 1}
	if _, err := run.Best(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	if err := run.MarkBest(1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	saveSteps(t, run, 1)
	if err := run.MarkBest(1); err != nil {
		t.Fatal(err)
	}
	saveSteps(t, run, 2, 3) // removes step 1
	f, err := run.Best()
	if err != nil {
		t.Fatal(err)
	}
	checkSample(t, f, 1)
	if err := run.MarkBest(3); err != nil {
		t.Fatal(err)
	}
	if f, err = run.Best(); err != nil {
		t.Fatal(err)
	}
	checkSample(t, f, 3)
	if diff := cmp.Diff([]string{"best", "step-000003"}, entries(t, filepath.Dir(f.Dir))); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if latest, err := run.Latest(); err != nil || latest.Manifest.Step != 3 {
		t.Errorf("got %+v, %v, want step 3", latest, err)
	}
}

// TestRemovalIsFinishedLater: a process was killed after it put a folder aside and before it was gone.
func TestRemovalIsFinishedLater(t *testing.T) {
	run := checkpoint.Run{Dir: t.TempDir(), Keep: 1}
	saveSteps(t, run, 1)
	folder := filepath.Dir(run.Path(1))
	aside := filepath.Join(folder, ".step-000001.tmp-ABCDEFGHIJKL")
	if err := os.Rename(run.Path(1), aside); err != nil {
		t.Fatal(err)
	}
	saveSteps(t, run, 2)
	if diff := cmp.Diff([]string{"step-000002"}, entries(t, folder)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := checkpoint.RemoveFolder(run.Path(2)); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, folder); len(got) > 0 {
		t.Errorf("got %q, want nothing", got)
	}
}

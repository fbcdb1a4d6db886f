package track_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/elastic-attention/workbench/pkg/track"
)

// logged makes a run of one step.
func logged(t *testing.T, dir string, seed uint64, config any, values map[string]float64) {
	t.Helper()
	journal, err := track.Start(dir, track.Record{Task: "toy", Seed: seed, Config: config, Data: map[string]string{"train": "0123456789abcdef"}})
	if err != nil {
		t.Fatal(err)
	}
	journal.Log(int(seed), values)
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *track.Store {
	t.Helper()
	store, err := track.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func ids(t *testing.T, store *track.Store, q track.Query) string {
	t.Helper()
	runs, err := store.Runs(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]string, len(runs))
	for i, r := range runs {
		list[i] = r.ID
	}
	return strings.Join(list, " ")
}

// three makes a store's folder of three runs, one of them in a study.
func three(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	type settings struct {
		LR   float64 `json:"lr"`
		Rule struct {
			Kind string `json:"kind"`
		} `json:"rule"`
		Parts []string `json:"parts,omitempty"`
	}
	config := settings{LR: 0.1}
	config.Rule.Kind = "adamw"
	logged(t, filepath.Join(root, "one"), 1, config, map[string]float64{"loss": 0.5, "dev/f1": 0.8, "odd": math.NaN()})
	config.LR, config.Parts = 0.02, []string{"gate"}
	logged(t, filepath.Join(root, "two"), 2, config, map[string]float64{"loss": 0.25, "dev/f1": 0.7, "score": 1})
	config.Rule.Kind = "lion"
	logged(t, filepath.Join(root, "study-x", "runs", "base-3"), 3, config, map[string]float64{"loss": math.Inf(1)})
	if err := os.WriteFile(filepath.Join(root, "study-x", track.JournalFile), []byte("of a search\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := track.WriteNotes(filepath.Join(root, "two"), track.Notes{Tags: []string{"slow", "good", "slow"}, Text: "keep it"}); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestQuery(t *testing.T) {
	store := open(t, three(t))
	all := "one study-x/runs/base-3 two"
	for _, test := range []struct {
		sort, want string
		where      []string
	}{
		{"id", all, nil},
		{"-id", "two study-x/runs/base-3 one", nil},
		{"loss", "two one study-x/runs/base-3", nil},
		{"-loss", "study-x/runs/base-3 one two", nil},
		{"-dev/f1", "one two study-x/runs/base-3", nil}, // one has none
		{"-odd", all, nil},
		{"config.lr", "study-x/runs/base-3 two one", nil},
		{"-seed", "study-x/runs/base-3 two one", nil},
		{"id", "one", []string{"loss=0.50"}},
		{"id", "one", []string{"loss == 0.5"}},
		{"id", "two", []string{"loss<0.5"}},
		{"id", "one study-x/runs/base-3", []string{"loss >= 0.5"}},
		{"id", "study-x/runs/base-3", []string{"loss>1e300"}},
		{"id", "one", []string{"odd=nan"}},
		{"id", "study-x/runs/base-3 two", []string{"odd!=nan"}},
		{"id", "", []string{"odd<1"}},
		{"id", "two", []string{"tag=good"}},
		{"id", "one study-x/runs/base-3", []string{"tag!=slow"}},
		{"id", "one two", []string{"config.rule.kind=adamw"}},
		{"id", "two", []string{"config.rule.kind=adamw", "seed>1"}},
		{"id", "study-x/runs/base-3 two", []string{"config.parts.0=gate"}},
		{"id", "study-x/runs/base-3", []string{"id~study"}},
		{"id", "two", []string{"note~keep"}},
		{"id", all, []string{"status=finished", "task=toy"}},
		{"id", "study-x/runs/base-3", []string{"dev/f1="}},
	} {
		if got := ids(t, store, track.Query{Where: test.where, Sort: test.sort}); got != test.want {
			t.Errorf("%v by %s: %q, want %q", test.where, test.sort, got, test.want)
		}
	}
	if got := ids(t, store, track.Query{Sort: "id", Limit: 2}); got != "one study-x/runs/base-3" {
		t.Errorf("limit 2: %q", got)
	}
	for _, bad := range []string{"", "finished", "=x"} {
		if _, err := store.Runs(t.Context(), track.Query{Where: []string{bad}}); err == nil || !strings.Contains(err.Error(), "status=finished") {
			t.Errorf("condition %q: %v", bad, err)
		}
	}
	for bad, want := range map[string]string{
		"status=done": `status "done" is none; there are running, finished,`, "loss<low": `"low" is no number`, "seed>=": `"" is no number`, "config.lr>O.1": `"O.1" is no number`,
	} {
		if _, err := store.Runs(t.Context(), track.Query{Where: []string{bad}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("condition %q: %v, want %q", bad, err, want)
		}
	}
	if got := ids(t, store, track.Query{Sort: "id", Where: []string{"started>2000-01-01", "config.rule.kind>=adam"}}); got != all {
		t.Errorf("order of words: %q", got)
	}
}

func TestFind(t *testing.T) {
	root := three(t)
	store := open(t, root)
	for name, want := range map[string]string{
		"one": "one", "base": "study-x/runs/base-3", "tw": "two", "latest": "study-x/runs/base-3", filepath.Join(root, "two") + "/": "two",
	} {
		if r, err := store.Find(t.Context(), name); err != nil || r.ID != want {
			t.Errorf("%q: %q, %v", name, r.ID, err)
		}
	}
	for name, want := range map[string]string{"o": "means 2 runs", "four": `"four" in its name`, "": `"" in its name`} {
		if _, err := store.Find(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestStoreFollows says that an index that is open, or was made before, has what the folders have.
func TestStoreFollows(t *testing.T) {
	root := three(t)
	store := open(t, root)
	journal, err := track.Start(filepath.Join(root, "four"), track.Record{})
	if err != nil {
		t.Fatal(err)
	}
	journal.Log(1, map[string]float64{"loss": 3})
	if err := errors.Join(os.RemoveAll(filepath.Join(root, "one")), track.WriteNotes(filepath.Join(root, "two"), track.Notes{}), store.Update(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, store, track.Query{Sort: "id"}); got != "four study-x/runs/base-3 two" {
		t.Errorf("after a change: %q", got)
	}
	if got := ids(t, store, track.Query{Where: []string{"tag=good"}}) + ids(t, store, track.Query{Where: []string{"status=running"}}); got != "four" {
		t.Errorf("tagged good or running: %q", got)
	}
	version := func() string {
		if err := store.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		v, err := store.Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	before := version()
	if same := version(); same != before {
		t.Errorf("version %s, then %s without a change", before, same)
	}
	journal.Log(2, map[string]float64{"loss": 2})
	if after := version(); after == before {
		t.Errorf("version %s after a change too", after)
	}
	if err := journal.Close(errors.New("no more")); err != nil {
		t.Fatal(err)
	}
	again := open(t, root) // another process
	for _, s := range []*track.Store{store, again} {
		if err := s.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := s.Find(t.Context(), "four")
		if m, _ := r.Metric("loss"); err != nil || r.Status != track.Failed || r.Error != "no more" || m.Last != 2 || m.Max != 3 {
			t.Errorf("four: %+v, %v", r, err)
		}
	}
}

// TestIndexIsMadeAnew spoils the index in ways in which it may be found.
func TestIndexIsMadeAnew(t *testing.T) {
	root := three(t)
	path := filepath.Join(root, track.IndexFile)
	want := ids(t, open(t, root), track.Query{Sort: "loss"})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"empty": {}, "text": []byte("no database, but long enough to be looked at as the header of one: it is none"), "half": whole[:len(whole)/2],
		"later version": slices.Concat(whole[:60], []byte{0, 0, 0, 99}, whole[64:]),
		"zeros":         slices.Concat(whole[:4096], make([]byte, len(whole)-4096)),
	} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		store, err := track.Open(t.Context(), root)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := ids(t, store, track.Query{Sort: "loss"}); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "x"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, open(t, root), track.Query{Sort: "loss"}); got != want { // in memory
		t.Errorf("no place for an index: %q", got)
	}
	if _, err := track.Open(t.Context(), filepath.Join(root, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// TestManyAtOnce opens the index of a folder from many places at once, while runs come and go on.
func TestManyAtOnce(t *testing.T) {
	root := three(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			journal, err := track.Start(filepath.Join(root, fmt.Sprint("more-", i)), track.Record{})
			if err != nil {
				t.Error(err)
				return
			}
			store, err := track.Open(t.Context(), root)
			if err != nil {
				t.Error(err)
				return
			}
			for step := 1; step <= 5; step++ {
				journal.Log(step, map[string]float64{"loss": 1})
				if err := store.Update(t.Context()); err != nil {
					t.Error(err)
				}
				r, err := store.Find(t.Context(), fmt.Sprint("more-", i))
				if m, _ := r.Metric("loss"); err != nil || m.Count != step || r.Status != track.Running {
					t.Errorf("run %d has %d steps, want %d: %v", i, m.Count, step, err)
				}
			}
			if err := errors.Join(journal.Close(nil), store.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := ids(t, open(t, root), track.Query{Sort: "id", Where: []string{"status=finished"}}); strings.Count(got, "more-") != 6 || strings.Count(got, " ") != 8 {
		t.Errorf("finished are %q", got)
	}
}

// TestUnreadableRun keeps one bad folder from hiding the others.
func TestUnreadableRun(t *testing.T) {
	root := three(t)
	if err := errors.Join(os.WriteFile(filepath.Join(root, "one", track.RecordFile), []byte("{"), 0o644), os.Remove(filepath.Join(root, "two", track.JournalFile))); err != nil {
		t.Fatal(err)
	}
	store := open(t, root)
	if got := ids(t, store, track.Query{Sort: "id", Where: []string{"status=unknown"}}); got != "one two" {
		t.Errorf("unknown are %q", got)
	}
	if r, err := store.Find(t.Context(), "one"); err != nil || !strings.Contains(r.Error, track.RecordFile) {
		t.Errorf("one: %q, %v", r.Error, err)
	}
	if _, err := track.ReadRun(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder without a run: %v", err)
	}
	file := filepath.Join(root, "a-file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := track.ReadRun(file); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "a-file holds no run, it is no folder") {
		t.Errorf("a file: %v", err)
	}
}

func TestRemove(t *testing.T) {
	root := three(t)
	store := open(t, root)
	trash, err := store.Remove(t.Context(), "base-3")
	if err != nil || trash != filepath.Join(root, track.TrashDir, "study-x", "runs", "base-3") {
		t.Fatalf("%q, %v", trash, err)
	}
	if got := ids(t, store, track.Query{Sort: "id"}); got != "one two" {
		t.Errorf("left are %q", got)
	}
	if r, err := track.ReadRun(trash); err != nil || r.Status != track.Finished {
		t.Errorf("in the trash: %+v, %v", r, err)
	}
	journal, err := track.Start(filepath.Join(root, "study-x", "runs", "base-3"), track.Record{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Remove(t.Context(), "base-3"); !errors.Is(err, track.ErrRunning) {
		t.Errorf("removing one that runs: %v", err)
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	if second, err := store.Remove(t.Context(), "base-3"); err != nil || second == trash || !strings.HasPrefix(second, trash+"-") {
		t.Errorf("a second one of that name: %q, %v", second, err)
	}
}

func TestHeadlines(t *testing.T) {
	var r track.Run
	for i, name := range []string{"a/f1", "dev/accuracy", "dev/precision", "final/dev/f1", "final/test/f1", "final/test/macro_f1", "train/loss", "train/rate"} {
		r.Metrics = append(r.Metrics, track.Metric{Name: name, Count: 1 + i%2})
	}
	if got := strings.Join(track.Headlines(r), " "); got != "train/loss final/test/f1 final/dev/f1 dev/accuracy" {
		t.Errorf("headlines %s", got)
	}
	if got := strings.Join(track.Curves(r), " "); got != "final/dev/f1 dev/accuracy" {
		t.Errorf("curves %s", got)
	}
}

func TestCompare(t *testing.T) {
	root := three(t)
	store := open(t, root)
	runs, err := store.Runs(t.Context(), track.Query{Sort: "seed"})
	if err != nil {
		t.Fatal(err)
	}
	c := track.Compare(runs...)
	got := map[string]track.Row{}
	for _, row := range slices.Concat(c.Differing, c.Metrics) {
		got[row.Name] = row
	}
	for _, want := range []track.Row{
		{Name: "config.lr", Values: []string{"0.1", "0.02", "0.02"}},
		{Name: "config.rule.kind", Values: []string{"adamw", "adamw", "lion"}},
		{Name: "config.parts.0", Values: []string{"", "gate", "gate"}},
		{Name: "seed", Values: []string{"1", "2", "3"}},
		{Name: "loss", Values: []string{"0.5", "0.25", "+Inf"}, Best: []int{1}},
		{Name: "dev/f1", Values: []string{"0.8", "0.7", ""}, Best: []int{0}},
		{Name: "score", Values: []string{"", "1", ""}},
		{Name: "odd", Values: []string{"NaN", "", ""}},
	} {
		row := got[want.Name]
		if !slices.Equal(row.Values, want.Values) || !slices.Equal(row.Best, want.Best) {
			t.Errorf("%s: %+v, want %+v", want.Name, row, want)
		}
		delete(got, want.Name)
	}
	if len(got) != 0 { // the task and the data are the same
		t.Errorf("also %v", got)
	}
	if same := track.Compare(runs[0], runs[0]); len(same.Differing) != 0 || same.Metrics[0].Best != nil {
		t.Errorf("a run differs from itself: %+v", same)
	}
	if _, err := json.Marshal(c); err != nil {
		t.Errorf("as JSON: %v", err)
	}
	for name, want := range map[string]int{"train/loss": -1, "dev/bits_per_byte": -1, "dev/macro_f1": 1, "lossless": 0, "rate": 0, "seconds": -1} {
		if track.Direction(name) != want {
			t.Errorf("direction of %s is %d", name, track.Direction(name))
		}
	}
}

// BenchmarkOpen opens the store of 300 runs with 20 metrics each: whose index is to be made, and is there.
func BenchmarkOpen(b *testing.B) {
	root := b.TempDir()
	values := map[string]float64{}
	for i := range 20 {
		values[fmt.Sprint("metric/", i)] = float64(i)
	}
	for i := range 300 {
		journal, err := track.Start(filepath.Join(root, fmt.Sprintf("run-%03d", i)), track.Record{Config: map[string]int{"i": i}})
		if err != nil {
			b.Fatal(err)
		}
		for step := 1; step <= 10; step++ {
			journal.Log(step, values)
		}
		if err := journal.Close(nil); err != nil {
			b.Fatal(err)
		}
	}
	for _, name := range []string{"made", "there"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if name == "made" {
					if err := os.RemoveAll(filepath.Join(root, track.IndexFile)); err != nil {
						b.Fatal(err)
					}
				}
				store, err := track.Open(b.Context(), root)
				if err != nil {
					b.Fatal(err)
				}
				if runs, err := store.Runs(b.Context(), track.Query{Sort: "-metric/3"}); err != nil || len(runs) != 300 {
					b.Fatalf("%d runs, %v", len(runs), err)
				}
				if err := store.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestUnknownName: a field that no run has is told from one that some have not.
func TestUnknownName(t *testing.T) {
	root := t.TempDir()
	config := map[string]any{"train": map[string]any{"batch_size": 8}}
	logged(t, filepath.Join(root, "one"), 1, config, map[string]float64{"final/test/f1": 0.5, "train/loss": 1})
	logged(t, filepath.Join(root, "two"), 2, config, map[string]float64{"train/loss": 2})
	store, err := track.Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for name, want := range map[string]string{"f1": "final/test/f1", "stat": "status", "Train/Loss": "train/loss", "train_loss": "train/loss", "config.batch_size": "config.train.batch_size", "tags": "tag"} {
		for _, query := range []track.Query{{Where: []string{name + "=1"}}, {Sort: name}, {Sort: "-" + name}, {Show: []string{"id", name}}} {
			var unknown *track.NameError
			if _, err := store.Runs(t.Context(), query); !errors.As(err, &unknown) || unknown.Name != name || unknown.Known[0] != want {
				t.Errorf("%+v: %v; want %s first", query, err, want)
			}
		}
	}
	if runs, err := store.Runs(t.Context(), track.Query{Where: []string{"final/test/f1>0"}, Sort: "-final/test/f1", Show: []string{"config.train.batch_size"}}); err != nil || len(runs) != 1 {
		t.Errorf("a field that one run has: %d runs, %v", len(runs), err)
	}
	empty, err := track.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if runs, err := empty.Runs(t.Context(), track.Query{Where: []string{"final/test/f1>0"}}); err != nil || len(runs) != 0 {
		t.Errorf("no runs at all: %d runs, %v", len(runs), err)
	}
}

// TestOldWord reads the end of an interrupted run as it was written before there was the word: killed.
func TestOldWord(t *testing.T) {
	dir := t.TempDir()
	journal := ""
	for _, line := range []string{`{"event":"begin","time_ms":1`, `{"event":"end","time_ms":2,"status":"killed","error":"context canceled"`} {
		journal += fmt.Sprintf("%s,\"crc32c\":\"%08x\"}\n", line, crc32.Checksum([]byte(line), crc32.MakeTable(crc32.Castagnoli)))
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "run.json"), []byte("{}"), 0o644), os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(journal), 0o644)); err != nil {
		t.Fatal(err)
	}
	if r, err := track.ReadRun(dir); err != nil || r.Status != track.Interrupted || r.Damaged != 0 {
		t.Errorf("status %s, %d damaged, %v", r.Status, r.Damaged, err)
	}
}

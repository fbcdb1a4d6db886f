package track_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
)

// asWriter makes the test binary a process that logs into a run folder until it is killed.
const asWriter = "ELASTIC_TEST_WRITE_JOURNAL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asWriter); dir != "" {
		from, _ := strconv.Atoi(os.Getenv(asWriter + "_FROM"))
		writeForEver(dir, from)
	}
	os.Exit(m.Run())
}

func writeForEver(dir string, from int) {
	journal, err := track.Begin(dir, from)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for step := from + 1; ; step++ {
		journal.Log(step, expected(step))
		fmt.Println(step) // it is logged
	}
}

// expected are the values of a step, of which some lines are long.
func expected(step int) map[string]float64 {
	values := map[string]float64{"loss": 1 / float64(step), "odd": math.NaN()}
	for i := range step % 50 {
		values[fmt.Sprintf("layer/%02d/norm", i)] = math.Sqrt(float64(step * i))
	}
	return values
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

// checkPrefix wants the points of steps 1 to n and no others, and returns n.
func checkPrefix(t *testing.T, h *track.History) int {
	t.Helper()
	got := map[int]map[string]float64{}
	for _, s := range h.Series() {
		for _, p := range s.Points {
			if got[p.Step] == nil {
				got[p.Step] = map[string]float64{}
			}
			if _, ok := got[p.Step][s.Name]; ok {
				t.Errorf("step %d has %s twice", p.Step, s.Name)
			}
			got[p.Step][s.Name] = p.Value
		}
	}
	for step := 1; step <= len(got); step++ {
		want := expected(step)
		if len(got[step]) != len(want) {
			t.Fatalf("step %d of %d has %d values, want %d", step, len(got), len(got[step]), len(want))
		}
		for name, v := range want {
			if !same(got[step][name], v) {
				t.Fatalf("step %d: %s is %v, want %v", step, name, got[step][name], v)
			}
		}
	}
	return len(got)
}

// TestKilled kills processes at 100 random moments. The store must open and hold all that was logged before.
func TestKilled(t *testing.T) {
	root := t.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	steps, resumed := 0, 0
	dir, from := "", 0
	for i := range 100 {
		if i%3 == 0 { // else another process goes on, from a step in the middle
			dir, from = filepath.Join(root, fmt.Sprintf("run-%02d", i)), 0
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, track.RecordFile), []byte("{}"), 0o644)); err != nil {
				t.Fatal(err)
			}
		} else {
			resumed++
		}
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), asWriter+"="+dir, fmt.Sprintf("%s_FROM=%d", asWriter, from))
		var stderr bytes.Buffer
		command.Stderr = &stderr
		output, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(output)
		acknowledged := from
		for range random.IntN(4) * random.IntN(200) { // none: while it starts
			if !lines.Scan() {
				t.Fatalf("the writer ended: %s", stderr.String())
			}
			acknowledged, _ = strconv.Atoi(lines.Text())
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it had printed before it died
			if n, err := strconv.Atoi(lines.Text()); err == nil && n > acknowledged && !strings.HasSuffix(lines.Text(), "\x00") {
				acknowledged = max(acknowledged, n-1) // the last line may be cut
			}
		}
		_ = command.Wait()

		store, err := track.Open(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		h, err := track.ReadHistory(dir)
		if errors.Is(err, fs.ErrNotExist) { // it did not come so far
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n := checkPrefix(t, h)
		if n < acknowledged && acknowledged > from {
			t.Fatalf("%d steps were logged and %d are there", acknowledged, n)
		}
		r, err := store.Find(t.Context(), filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		if m, _ := r.Metric("loss"); r.Status != track.Killed || m.Count != n || h.Damaged != 0 {
			t.Errorf("status %s, %d steps in the index, %d in the journal, %d damaged", r.Status, m.Count, n, h.Damaged)
		}
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		steps += n
		from = n / 2
	}
	t.Logf("100 processes killed, %d of them had resumed, %d steps", resumed, steps)
}

// writeSome logs n steps and ends.
func writeSome(t testing.TB, dir string, n int) {
	t.Helper()
	journal, err := track.Start(dir, track.Record{Task: "ner", Seed: 7, Config: map[string]any{"train": map[string]any{"lr": 0.1, "layers": []int{1, 2}}}})
	if err != nil {
		t.Fatal(err)
	}
	for step := 1; step <= n; step++ {
		journal.Log(step, expected(step))
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
}

// TestTornAnywhere cuts a journal at each byte: a prefix is read, and a process can go on.
func TestTornAnywhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	writeSome(t, dir, 4)
	path := filepath.Join(dir, track.JournalFile)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before := 0
	for cut := range len(content) {
		if err := os.WriteFile(path, content[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		h, err := track.ReadHistory(dir)
		if err != nil {
			t.Fatal(err)
		}
		n := checkPrefix(t, h)
		if n < before || h.Damaged != 0 {
			t.Fatalf("cut at %d: %d steps after %d, %d damaged", cut, n, before, h.Damaged)
		}
		before = n
		if cut%97 != 0 {
			continue
		}
		journal, err := track.Begin(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		journal.Log(n+1, expected(n+1))
		if err := journal.Close(nil); err != nil {
			t.Fatal(err)
		}
		if h, err = track.ReadHistory(dir); err != nil || checkPrefix(t, h) != n+1 || h.Status != track.Finished || h.Damaged != 0 {
			t.Fatalf("cut at %d and continued: %+v, %v", cut, h, err)
		}
	}
	if before != 4 {
		t.Errorf("the last cut left %d steps", before)
	}
}

// TestDamage flips each bit of one line: it is passed over and counted, and all others are read.
func TestDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	writeSome(t, dir, 3)
	path := filepath.Join(dir, track.JournalFile)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(content, []byte("\n"))
	begin := len(lines[0]) + len(lines[1]) // of step 2
	for bit := range 8 * (len(lines[2]) - 1) {
		flipped := slices.Clone(content)
		flipped[begin+bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, flipped, 0o644); err != nil {
			t.Fatal(err)
		}
		h, err := track.ReadHistory(dir)
		if err != nil {
			t.Fatal(err)
		}
		loss := h.Series()[slices.IndexFunc(h.Series(), func(s track.Series) bool { return s.Name == "loss" })]
		if h.Damaged == 0 || len(loss.Points) != 2 || loss.Points[1].Step != 3 {
			t.Fatalf("bit %d: %d damaged, loss %v", bit, h.Damaged, loss.Points)
		}
	}
}

// TestJournal says what a journal keeps of a whole life: two processes, numbers that JSON lacks, artefacts, an end.
func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	journal, err := track.Start(dir, track.Record{Config: map[string]int{"a": 1}})
	if err != nil {
		t.Fatal(err)
	}
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 5e-324, math.MaxFloat64, 0.1, 1e21}
	for i, v := range odd {
		journal.Log(i+1, map[string]float64{`a "quoted" <näme>` + "\n": v})
	}
	if err := track.AddArtefact(dir, "run.json"); err == nil || !strings.Contains(err.Error(), "another process is writing") {
		t.Errorf("an artefact of a run that goes on: %v", err)
	}
	if _, err := track.Begin(dir, 0); err == nil || !strings.Contains(err.Error(), "another process is writing") {
		t.Errorf("two writers: %v", err)
	}
	r, err := track.ReadRun(dir)
	if err != nil || r.Status != track.Running || r.Started.IsZero() {
		t.Errorf("while it runs: %+v, %v", r, err)
	}
	if err := journal.Close(fmt.Errorf("stopped: %w", context.Canceled)); err != nil {
		t.Fatal(err)
	}
	journal.Log(99, map[string]float64{"late": 1})
	if err := journal.Sync(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("logging after the end: %v", err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "late.svg"), []byte("<svg/>"), 0o644), track.AddArtefact(dir, "late.svg")); err != nil {
		t.Fatal(err)
	}
	if r, err := track.ReadRun(dir); err != nil || len(r.Artefacts) != 1 || r.Artefacts[0].Bytes != 6 {
		t.Errorf("an artefact of later: %+v, %v", r.Artefacts, err)
	}
	if err := track.AddArtefact(t.TempDir(), "late.svg"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an artefact of no run: %v", err)
	}
	if r, err := track.ReadRun(dir); err != nil || r.Status != track.Interrupted || r.Error != "stopped: context canceled" {
		t.Errorf("cancelled: %s %q, %v", r.Status, r.Error, err)
	}

	if journal, err = track.Begin(dir, 8); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model/a.txt", "model/b/c.txt"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte("abc"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(journal.Artefact("model"), journal.Artefact("model/a.txt")); err != nil {
		t.Fatal(err)
	}
	if err := journal.Artefact("nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an artefact that is not there: %v", err)
	}
	if err := journal.Close(errors.New("boom")); err != nil {
		t.Fatal(err)
	}
	h, err := track.ReadHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	points := h.Series()[0].Points
	if len(points) != len(odd) || h.Series()[0].Name != `a "quoted" <näme>`+"\n" || h.Rewound != 0 {
		t.Fatalf("series %v", h.Series())
	}
	for i, p := range points {
		if p.Step != i+1 || math.Float64bits(p.Value) != math.Float64bits(odd[i]) && !math.IsNaN(odd[i]) || !same(p.Value, odd[i]) || p.Time.IsZero() {
			t.Errorf("point %d is %v, want %v", i, p, odd[i])
		}
	}
	if h.Status != track.Failed || h.Error != "boom" || len(h.Machines) != 2 || h.Machines[0].PID != os.Getpid() || h.Ended.Before(h.Begun) {
		t.Errorf("history %+v", h)
	}
	abc := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if a := h.Artefacts; len(a) != 3 || a[1] != (track.Artefact{Path: "model/b/c.txt", SHA256: abc, Bytes: 3}) || a[2].Path != "model/a.txt" {
		t.Errorf("artefacts %v", a)
	}
	if m := h.Metrics()[0]; !math.IsInf(m.Min, -1) || !math.IsInf(m.Max, 1) || m.Last != 1e21 || m.Count != 8 || m.Step != 8 {
		t.Errorf("metric %+v", m)
	}
	if _, err := track.Start(dir, track.Record{}); err == nil || !strings.Contains(err.Error(), "holds a run already") {
		t.Errorf("starting again: %v", err)
	}

	// A process that goes on from step 3 makes the later ones again.
	if journal, err = track.Begin(dir, 3); err != nil {
		t.Fatal(err)
	}
	journal.Log(4, map[string]float64{"x": 4})
	if err := h.Update(); err != nil || h.Rewound != 1 || len(h.Series()[0].Points) != 3 || h.Status != track.Running || h.Error != "" {
		t.Errorf("followed: %+v, %v", h, err)
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
}

// TestConcurrent logs from several goroutines while another one reads.
func TestConcurrent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	journal, err := track.Start(dir, track.Record{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := track.ReadHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for step := 1; step <= 200; step++ {
				journal.Log(step, map[string]float64{fmt.Sprint("m", g): float64(step)})
			}
		})
	}
	for range 20 {
		if err := h.Update(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := errors.Join(journal.Close(nil), h.Update()); err != nil || h.Damaged != 0 || len(h.Series()) != 4 {
		t.Fatalf("%v, %d damaged, %d series", err, h.Damaged, len(h.Series()))
	}
	for _, s := range h.Series() {
		if len(s.Points) != 200 || !slices.IsSortedFunc(s.Points, func(a, b track.Point) int { return a.Step - b.Step }) {
			t.Errorf("%s has %d points", s.Name, len(s.Points))
		}
	}
}

func FuzzHistory(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "run")
	writeSome(f, dir, 2)
	content, err := os.ReadFile(filepath.Join(dir, track.JournalFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add([]byte("{}\n\n" + `{"event":"end","crc32c":"00000000"}` + "\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, track.JournalFile), content, 0o644); err != nil {
			t.Fatal(err)
		}
		h, err := track.ReadHistory(dir)
		if err != nil {
			t.Fatal(err)
		}
		h.Metrics()
	})
}

func ExampleStart() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for seed := range uint64(2) {
		journal, err := track.Start(filepath.Join(dir, fmt.Sprint("seed-", seed)), track.Record{Task: "toy", Seed: seed, Config: map[string]float64{"lr": 0.1}})
		if err != nil {
			panic(err)
		}
		for step := 1; step <= 3; step++ {
			journal.Log(step, map[string]float64{"loss": float64(seed+1) / float64(step)})
		}
		if err := journal.Close(nil); err != nil {
			panic(err)
		}
	}
	store, err := track.Open(context.Background(), dir)
	if err != nil {
		panic(err)
	}
	defer store.Close()
	runs, err := store.Runs(context.Background(), track.Query{Where: []string{"status=finished", "config.lr=0.1"}, Sort: "loss"})
	if err != nil {
		panic(err)
	}
	for _, r := range runs {
		loss, _ := r.Metric("loss")
		fmt.Printf("%s  %s  loss %.3f after %d steps\n", r.ID, r.Status, loss.Last, loss.Step)
	}
	// Output:
	// seed-0  finished  loss 0.333 after 3 steps
	// seed-1  finished  loss 0.667 after 3 steps
}

// BenchmarkLog is the cost of a step with 100 metrics. Its goal is at most 1 % of a step of 50 ms, 0.5 ms.
func BenchmarkLog(b *testing.B) {
	journal, err := track.Start(filepath.Join(b.TempDir(), "run"), track.Record{})
	if err != nil {
		b.Fatal(err)
	}
	values := map[string]float64{}
	for i := range 100 {
		values[fmt.Sprintf("layer/%02d/gradient_norm", i)] = rand.Float64()
	}
	b.ReportAllocs()
	step := 0
	for b.Loop() {
		step++
		journal.Log(step, values)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(50*time.Millisecond)*100, "%_of_50ms_step")
	if err := journal.Close(nil); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReadHistory reads a run of 1,000 steps with 100 metrics.
func BenchmarkReadHistory(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "run")
	journal, err := track.Start(dir, track.Record{})
	if err != nil {
		b.Fatal(err)
	}
	values := map[string]float64{}
	for step := range 1000 {
		for i := range 100 {
			values[fmt.Sprintf("layer/%02d/gradient_norm", i)] = rand.Float64()
		}
		journal.Log(step, values)
	}
	if err := journal.Close(nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := track.ReadHistory(dir); err != nil {
			b.Fatal(err)
		}
	}
}

// TestPause: the time between an interruption and the resuming is none that a run took.
func TestPause(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		journal, err := track.Start(dir, track.Record{Task: "toy"})
		for _, pause := range []time.Duration{time.Hour, 24 * time.Hour, 0} {
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			journal.Log(1, map[string]float64{"loss": 1})
			if pause == 0 {
				err = journal.Close(nil)
				break
			}
			if err := journal.Close(context.Canceled); err != nil {
				t.Fatal(err)
			}
			time.Sleep(pause)
			journal, err = track.Begin(dir, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	r, err := track.ReadRun(dir)
	if err != nil || r.Took() != 30*time.Second || r.PausedSeconds != 25*3600 || r.Field("seconds") != "30" {
		t.Errorf("took %s, paused %g s, field %q, %v; want 30s and 90000", r.Took(), r.PausedSeconds, r.Field("seconds"), err)
	}
}

// TestClockPutBack: a run does not take less than nothing.
func TestClockPutBack(t *testing.T) {
	dir := t.TempDir()
	journal, err := track.Start(dir, track.Record{Started: time.Now().Add(time.Hour)})
	if err == nil {
		err = journal.Close(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r, err := track.ReadRun(dir); err != nil || r.Took() != 0 || r.Field("seconds") != "0" {
		t.Errorf("took %s, field %q, %v", r.Took(), r.Field("seconds"), err)
	}
}

// TestPauseOfAnotherRun: what stood in the folder before a run began there anew, as after a mistake, is no pause of it.
func TestPauseOfAnotherRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		journal, err := track.Start(dir, track.Record{Task: "toy"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := journal.Close(errors.New("a mistake")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		record, err := json.Marshal(track.Record{Task: "toy", Started: time.Now().UTC()})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, track.RecordFile), record, 0o644)
		}
		for _, pause := range []time.Duration{time.Minute, 0} {
			if err == nil {
				journal, err = track.Begin(dir, 0) // once anew, once resumed before anything was saved
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			err = journal.Close(context.Canceled)
			time.Sleep(pause)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	r, err := track.ReadRun(dir)
	if err != nil || r.Took() != 20*time.Second || r.PausedSeconds != 60 {
		t.Errorf("took %s, paused %g s, %v; want 20s and 60", r.Took(), r.PausedSeconds, err)
	}
}

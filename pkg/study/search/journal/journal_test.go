package journal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/elastic-attention/workbench/pkg/study/search"
	"github.com/elastic-attention/workbench/pkg/study/search/journal"
)

var config = search.Config{
	Space:  search.Space{{Name: "x", Kind: search.Float, High: 1}, {Name: "n", Kind: search.Int, Low: 1, High: 9}, {Name: "kind", Kind: search.Categorical, Choices: []string{"a", "b"}}},
	Trials: 32, Seed: 7,
}

func quadratic(p search.Params) float64 {
	return math.Pow(p["x"].(float64)-0.3, 2) + float64(p["n"].(int))
}

func Example() {
	dir, err := os.MkdirTemp("", "search")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	study, err := journal.Open(dir, config, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = study.Work(context.Background(), func(_ context.Context, t *journal.Trial) (float64, error) { return quadratic(t.Params), nil }, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, trials, err := journal.Read(dir)
	best, _ := search.Best(trials, false)
	fmt.Println(len(trials), err, best.Params["n"])
	// Output: 32 <nil> 1
}

// workerEnv names the folder in which the test binary is to be a worker.
const workerEnv = "SEARCH_TEST_WORKER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerEnv); dir != "" {
		if err := worker(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// worker says "trial N" as it begins one, and waits for a line on standard input in the middle of each.
func worker(dir string) error {
	study, err := journal.Open(dir, config, nil)
	if err != nil {
		return err
	}
	return study.Work(context.Background(), func(_ context.Context, t *journal.Trial) (float64, error) {
		fmt.Println("trial", t.Number)
		if _, err := fmt.Scanln(new(string)); err != nil {
			return 0, err
		}
		return quadratic(t.Params), nil
	}, nil)
}

// TestKilledWorkers: three of the processes that work on a search of 32 trials are killed in the middle of one, and one
// of them while it writes; the search ends with 32 results, none twice.
func TestKilledWorkers(t *testing.T) {
	dir := t.TempDir()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := func() (*exec.Cmd, func() string, func()) {
		cmd := exec.Command(executable)
		cmd.Env = append(os.Environ(), workerEnv+"="+dir)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		read := func() string {
			var number string
			if _, err := fmt.Fscanf(out, "trial %s\n", &number); err != nil {
				return ""
			}
			return number
		}
		return cmd, read, func() { fmt.Fprintln(in, "go") }
	}
	killed := map[string]bool{}
	for kill := range 3 {
		// Two at a time: the first is killed after a few trials, the second goes on and ends the trial of the dead one.
		cmd, next, goOn := start()
		for range 4 {
			next()
			goOn()
		}
		victim := next()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		killed[victim] = true
		if kill == 1 { // as if it had died while it wrote
			file, err := os.OpenFile(filepath.Join(dir, journal.JournalFile), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(file, `{"event":"finish","trial":%s,"val`, victim)
			file.Close()
		}
	}
	var again []string
	var mutex sync.Mutex
	var both sync.WaitGroup
	for range 2 {
		cmd, next, goOn := start()
		both.Go(func() {
			for number := next(); number != ""; number = next() {
				mutex.Lock()
				again = append(again, number)
				mutex.Unlock()
				goOn()
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	content, err := os.ReadFile(filepath.Join(dir, journal.JournalFile))
	if err != nil {
		t.Fatal(err)
	}
	begun, finished := map[int]int{}, map[int]int{}
	for line := range bytes.Lines(content) {
		var event search.Event
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		switch event.Kind {
		case search.Begin:
			begun[event.Trial]++
		case search.Finish:
			finished[event.Trial]++
		}
	}
	if len(begun) != 32 || len(finished) != 32 {
		t.Errorf("%d trials began and %d have results, want 32", len(begun), len(finished))
	}
	for number := range 32 {
		if begun[number] != 1 || finished[number] != 1 {
			t.Errorf("trial %d began %d times and has %d results", number, begun[number], finished[number])
		}
	}
	// A killed worker's trial is taken up by the next one, which may be killed as well.
	last := again[:min(2, len(again))]
	found := 0
	for number := range killed {
		if slices.Contains(last, number) {
			found++
		}
	}
	if found == 0 {
		t.Errorf("killed in trials %v, but %v came first after that", killed, last)
	}
}

func TestSameTrialsAsAlone(t *testing.T) {
	study, err := journal.Open(t.TempDir(), config, nil)
	if err != nil {
		t.Fatal(err)
	}
	objective := func(_ context.Context, t *journal.Trial) (float64, error) { return quadratic(t.Params), nil }
	if err := study.Work(context.Background(), objective, nil); err != nil {
		t.Fatal(err)
	}
	trials, err := study.Trials()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := search.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for i := range trials {
		event, _ := alone.Ask()
		if fmt.Sprint(event.Params) != fmt.Sprint(trials[i].Params) {
			t.Fatalf("trial %d has %v, want %v", i, trials[i].Params, event.Params)
		}
		value := quadratic(event.Params)
		for _, e := range []search.Event{event, {Kind: search.Finish, Trial: i, Value: &value}} {
			if err := alone.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	again, err := journal.Open(study.Dir, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	if trials, err := again.Trials(); err != nil || len(trials) != 32 || trials[31].State != search.Finished {
		t.Errorf("opened again: %d trials, %v", len(trials), err)
	}
}

func TestSeveralWorkersAtOnce(t *testing.T) {
	dir := t.TempDir()
	var mutex sync.Mutex
	seen := map[int]int{}
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			study, err := journal.Open(dir, config, nil)
			if err != nil {
				t.Error(err)
				return
			}
			err = study.Work(context.Background(), func(_ context.Context, trial *journal.Trial) (float64, error) {
				mutex.Lock()
				seen[trial.Number]++
				mutex.Unlock()
				return quadratic(trial.Params), nil
			}, nil)
			if err != nil {
				t.Error(err)
			}
		})
	}
	workers.Wait()
	for number := range 32 {
		if seen[number] != 1 {
			t.Errorf("trial %d was worked on %d times", number, seen[number])
		}
	}
}

func TestTornLine(t *testing.T) {
	dir := t.TempDir()
	few := config
	few.Trials = 3
	study, err := journal.Open(dir, few, nil)
	if err != nil {
		t.Fatal(err)
	}
	objective := func(_ context.Context, t *journal.Trial) (float64, error) { return quadratic(t.Params), nil }
	if err := study.Work(context.Background(), objective, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, journal.JournalFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for length := range len(whole) { // wherever the writer died
		if err := os.WriteFile(path, whole[:length], 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := journal.Read(dir); err != nil {
			t.Fatalf("%d bytes: %v", length, err)
		}
		if length%13 != 0 {
			continue
		}
		study, err := journal.Open(dir, few, nil)
		if err != nil {
			t.Fatal(err)
		}
		var warned []string
		study.Warn = func(message string) { warned = append(warned, message) }
		if err := study.Work(context.Background(), objective, nil); err != nil {
			t.Fatalf("%d bytes: %v", length, err)
		}
		if torn := length > 0 && whole[length-1] != '\n'; torn != (len(warned) == 1) {
			t.Errorf("%d bytes: warned %q", length, warned)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, whole) {
			t.Errorf("%d bytes: the journal became\n%s\nwant\n%s", length, now, whole)
		}
	}
}

func TestPausesAreResumedInPlace(t *testing.T) {
	halving := search.Config{Space: config.Space, Trials: 9, Seed: 1, Sampler: search.Random{}, Scheduler: search.Halving{Rungs: search.Rungs{Max: 9}}}
	study, err := journal.Open(t.TempDir(), halving, nil)
	if err != nil {
		t.Fatal(err)
	}
	used, again := map[int]int{}, 0
	objective := func(_ context.Context, t *journal.Trial) (float64, error) {
		if t.Again {
			again++
		}
		for epoch := used[t.Number] + 1; epoch <= 9; epoch++ {
			used[t.Number] = epoch
			goOn, err := t.Report(epoch, quadratic(t.Params))
			if err != nil || !goOn {
				return 0, errors.Join(err, journal.ErrEnded)
			}
		}
		return quadratic(t.Params), nil
	}
	if err := study.Work(context.Background(), objective, nil); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range used {
		total += n
	}
	if want := 9*1 + 3*2 + 1*6; total != want || again != 4 {
		t.Errorf("%d epochs were used and trials taken up again %d times, want %d and 4", total, again, want)
	}
	trials, err := study.Trials()
	if err != nil {
		t.Fatal(err)
	}
	best, _ := search.Best(trials, false)
	for _, trial := range trials {
		if quadratic(trial.Params) < best.Value {
			t.Errorf("trial %d is better than the one that finished", trial.Number)
		}
	}
}

func TestFailuresAndInterruption(t *testing.T) {
	few := config
	few.Trials = 4
	study, err := journal.Open(t.TempDir(), few, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	err = study.Work(ctx, func(ctx context.Context, trial *journal.Trial) (float64, error) {
		switch trial.Number {
		case 0:
			return 0, errors.New("no memory")
		case 1:
			return math.NaN(), nil
		case 2:
			goOn, err := trial.Report(3, math.Inf(1))
			return 0, errors.Join(err, map[bool]error{true: errors.New("went on")}[goOn])
		}
		cancel(errors.New("Ctrl-C"))
		return 0, ctx.Err()
	}, nil)
	if err == nil || !strings.Contains(err.Error(), "Ctrl-C") {
		t.Errorf("interrupted: %v", err)
	}
	trials, err := study.Trials()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"no memory", "the value is NaN", "it diverged: the value is +Inf after 3"} {
		if trials[i].State != search.Failed || trials[i].Error != want {
			t.Errorf("trial %d is %s: %q, want %q", i, trials[i].State, trials[i].Error, want)
		}
	}
	if trials[3].State != search.Running {
		t.Errorf("the interrupted trial is %s", trials[3].State)
	}
	taken := []int{}
	err = study.Work(context.Background(), func(_ context.Context, t *journal.Trial) (float64, error) {
		taken = append(taken, t.Number)
		return 1, nil
	}, nil)
	if err != nil || !slices.Equal(taken, []int{3}) {
		t.Errorf("went on with %v, %v", taken, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := journal.Read(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "holds no search") {
		t.Errorf("an empty folder: %v", err)
	}
	earlier := []search.Trial{{Params: search.Params{"x": 0.5, "n": 2.0, "kind": "a"}, State: search.Finished, Value: 1}}
	if _, err := journal.Open(dir, config, earlier); err != nil {
		t.Fatal(err)
	}
	more := config
	more.Trials = 64
	if _, err := journal.Open(dir, more, nil); err != nil {
		t.Errorf("more trials: %v", err)
	}
	other := config
	other.Seed++
	if _, err := journal.Open(dir, other, nil); err == nil || !strings.Contains(err.Error(), "another config") {
		t.Errorf("another seed: %v", err)
	}
	bad := earlier
	bad[0].Params = search.Params{"x": 5.0, "n": 2.0, "kind": "a"}
	if _, err := journal.Open(t.TempDir(), config, bad); err == nil || !strings.Contains(err.Error(), "x is 5") {
		t.Errorf("an earlier trial out of bounds: %v", err)
	}
	run := t.TempDir()
	if err := os.WriteFile(filepath.Join(run, journal.JournalFile), []byte(`{"event":"begin","time_ms":1}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(run, config, nil); err == nil || !strings.Contains(err.Error(), "no search's") {
		t.Errorf("the folder of a run: %v", err)
	}
	if left, err := os.ReadDir(run); err != nil || len(left) != 1 {
		t.Errorf("left in the folder of a run: %v, %v", left, err)
	}
	path := filepath.Join(dir, journal.JournalFile)
	for content, want := range map[string]string{
		"{}\n":                                ":1: event \"\" of trial 0: there is no such trial",
		"[]\n":                                ":1: a JSON array",
		`{"event":"finish","trial":3}` + "\n": ":1: event \"finish\" of trial 3",
		`{"event":"begin","param":{"x":1}}` + "\n": `:1: unknown field "param"`,
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := journal.Read(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", content, err, want)
		}
	}
}

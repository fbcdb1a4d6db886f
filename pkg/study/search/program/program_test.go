package program_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/elastic-attention/workbench/pkg/study/search"
	"github.com/elastic-attention/workbench/pkg/study/search/journal"
	"github.com/elastic-attention/workbench/pkg/study/search/program"
)

// The test binary is also the program of a trial, and a process that searches, if its first argument is one of these.
const (
	asTrial    = "trial"
	asSearcher = "searcher"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case asTrial:
			os.Exit(trial(os.Args[2:]))
		case asSearcher:
			spec, err := program.ReadSpec(os.Args[2])
			if err == nil {
				err = program.Run(context.Background(), spec, program.Options{Dir: os.Args[3]})
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// trial "trains" for nine epochs: DIR X [hang]. It notes each epoch in DIR/epochs and goes on from there; an interrupt ends
// it. With "hang" it stops in the middle until it is ended.
func trial(args []string) int {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	x, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	done, _ := os.ReadFile(filepath.Join(args[0], "epochs"))
	for epoch := len(done) + 1; epoch <= 9; epoch++ {
		file, err := os.OpenFile(filepath.Join(args[0], "epochs"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return 3
		}
		fmt.Fprint(file, "x")
		file.Close()
		fmt.Fprintf(os.Stderr, "\repoch %d: loss %v\n", epoch, math.Abs(x-0.3)+1/float64(epoch))
		if len(args) > 2 && epoch == 5 {
			fmt.Println("hanging")
			<-interrupted
			return 130
		}
		if len(done)+1 == epoch && epoch == 9 {
			break
		}
		select {
		case <-interrupted:
			return 130
		default:
			if stop, err := os.ReadFile(filepath.Join(args[0], "wait")); err == nil && strconv.Itoa(epoch) == string(stop) {
				<-interrupted // a scheduler pauses it here: do not race past
				return 130
			}
		}
	}
	fmt.Printf("{\"scores\": [{\"loss\": %v}]}\n", math.Abs(x-0.3))
	return 0
}

func spec(t *testing.T) program.Spec {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program.Spec{
		Name:    "test",
		Search:  search.Config{Space: search.Space{{Name: "x", Kind: search.Float, High: 1}}, Trials: 6, Seed: 2},
		Command: []string{executable, asTrial, "{dir}", "{x}"}, Result: "scores.0.loss", Reports: `epoch (\d+): loss (\S+)`,
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	var told atomic.Int32
	if err := program.Run(context.Background(), spec(t), program.Options{Dir: dir, Workers: 2, Done: func(search.Trial) { told.Add(1) }}); err != nil {
		t.Fatal(err)
	}
	_, trials, err := journal.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(trials) != 6 || told.Load() != 6 {
		t.Fatalf("%d trials, told of %d", len(trials), told.Load())
	}
	for _, trial := range trials {
		want := math.Abs(trial.Params["x"].(float64) - 0.3)
		if trial.State != search.Finished || math.Abs(trial.Value-want) > 1e-12 || len(trial.Reports) != 9 {
			t.Errorf("trial %+v, want a value of %g and nine reports", trial, want)
		}
		output, err := os.ReadFile(filepath.Join(journal.TrialDir(dir, trial.Number), program.OutputFile))
		if err != nil || !bytes.Contains(output, []byte("epoch 9: loss")) || !bytes.Contains(output, []byte(`{"scores"`)) {
			t.Errorf("trial %d left %q, %v", trial.Number, output, err)
		}
	}
	other := spec(t)
	other.Command = append(other.Command, "more")
	if err := program.Run(context.Background(), other, program.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another command") {
		t.Errorf("another command: %v", err)
	}
}

// TestPausedProgramsGoOn: each epoch is made once, over all pauses.
func TestPausedProgramsGoOn(t *testing.T) {
	dir := t.TempDir()
	s := spec(t)
	s.Search.Trials, s.Search.Scheduler = 9, search.ASHA{Rungs: search.Rungs{Max: 9}}
	for number := range 9 { // each waits where it may be paused
		if err := os.MkdirAll(journal.TrialDir(dir, number), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.Command = append([]string{}, s.Command...)
	// A trial that will pause is told where, so that it stands still there until it is interrupted.
	s.Command = []string{"sh", "-c", `printf %s "$3" > "$1/wait"; exec "$0" trial "$1" "$2"`, s.Command[0], "{dir}", "{x}", "{until}"}
	if err := program.Run(context.Background(), s, program.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	_, trials, err := journal.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	best, found := search.Best(trials, false)
	if !found {
		t.Fatalf("none has finished: %+v", trials)
	}
	epochs := map[int]int{}
	for _, trial := range trials {
		done, err := os.ReadFile(filepath.Join(journal.TrialDir(dir, trial.Number), "epochs"))
		if err != nil {
			t.Fatal(err)
		}
		if trial.State != search.Finished && trial.State != search.Paused || len(trial.Reports) != len(done) {
			t.Errorf("trial %d is %s (%s) after %d epochs and %d reports", trial.Number, trial.State, trial.Error, len(done), len(trial.Reports))
		}
		if value := math.Abs(trial.Params["x"].(float64) - 0.3); value < best.Value {
			t.Errorf("trial %d would have been better than the best", trial.Number)
		}
		epochs[len(done)]++
	}
	if epochs[1] < 4 || epochs[9] < 1 || epochs[1]+epochs[3]+epochs[9] != 9 {
		t.Errorf("trials by epochs: %v", epochs)
	}
}

func TestFailures(t *testing.T) {
	s := spec(t)
	s.Search.Trials, s.Search.Sampler = 1, search.Random{}
	for want, change := range map[string]func(*program.Spec){
		"exit status 3: no memory (its output: trials/0000/output.txt)": func(s *program.Spec) { s.Command = []string{"sh", "-c", "echo {x}; echo no memory >&2; exit 3"} },
		"no-such-program": func(s *program.Spec) { s.Command = []string{"no-such-program", "{x}"} },
		"result: its output has no scores.0.accuracy": func(s *program.Spec) { s.Result = "scores.0.accuracy" },
		"scores.7 is not in its output":               func(s *program.Spec) { s.Result = "scores.7" },
		"want a number":                               func(s *program.Spec) { s.Result = "scores.0" },
		`the last line of its output is "{\"scores\"`: func(s *program.Spec) { s.Result = "" },
		"is JSON":                               func(s *program.Spec) { s.Command = []string{"echo", "hello {x}"} },
		"it diverged: the value is NaN after 4": func(s *program.Spec) { s.Command = []string{"echo", "epoch 4: loss nan {x}"} },
		"reports finds no numbers in the line":  func(s *program.Spec) { s.Command = []string{"echo", "epoch 4: loss high {x}"} },
	} {
		s := s
		change(&s)
		dir := t.TempDir()
		if err := program.Run(context.Background(), s, program.Options{Dir: dir}); err != nil {
			t.Errorf("%s: the search ends with %v", want, err)
		}
		_, trials, err := journal.Read(dir)
		if err != nil || len(trials) != 1 || trials[0].State != search.Failed || !strings.Contains(trials[0].Error, want) {
			t.Errorf("%s: %+v, %v", want, trials, err)
		}
	}
	s.Result, s.Command = "", []string{"sh", "-c", "echo begun; echo 0.25; : {x}"}
	dir := t.TempDir()
	if err := program.Run(context.Background(), s, program.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if _, trials, err := journal.Read(dir); err != nil || trials[0].Value != 0.25 {
		t.Errorf("a number as the last line: %+v, %v", trials, err)
	}
}

// TestInterruptAndGoOn: a cancelled search interrupts its program and can be taken up where that stood.
func TestInterruptAndGoOn(t *testing.T) {
	dir := t.TempDir()
	s := spec(t)
	s.Search.Trials = 1
	s.Command = append(s.Command, "hang")
	ctx, cancel := context.WithCancelCause(context.Background())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			if _, trials, err := journal.Read(dir); err == nil && len(trials) == 1 && len(trials[0].Reports) == 5 {
				cancel(errors.New("Ctrl-C"))
			}
		}
	}()
	if err := program.Run(ctx, s, program.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "Ctrl-C") {
		t.Fatalf("interrupted: %v", err)
	}
	<-watched
	if err := program.Run(context.Background(), s, program.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	_, trials, err := journal.Read(dir)
	if err != nil || trials[0].State != search.Finished || len(trials[0].Reports) != 9 {
		t.Errorf("taken up again: %+v, %v", trials, err)
	}
}

// TestProgramsEndWithTheirProcess: when a searching process is killed, so is its program, and the next one goes on.
func TestProgramsEndWithTheirProcess(t *testing.T) {
	if !endsWithParent {
		t.Skip("only Linux ends a program with the process that started it")
	}
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "spec.json")
	s := spec(t)
	content := fmt.Sprintf(`{"name": "test", "search": {"space": [{"name": "x", "kind": "float", "high": 1}], "trials": 1},
		"command": [%q, "trial", "{dir}", "{x}", "hang"], "result": "scores.0.loss", "reports": "epoch (\\d+): loss (\\S+)"}`, s.Command[0])
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	searcher := exec.Command(s.Command[0], asSearcher, file, dir)
	if err := searcher.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		if _, trials, err := journal.Read(dir); err == nil && len(trials) == 1 && len(trials[0].Reports) == 5 {
			break
		}
	}
	if err := searcher.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = searcher.Wait()
	read, err := program.ReadSpec(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Run(context.Background(), read, program.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	done, err := os.ReadFile(filepath.Join(journal.TrialDir(dir, 0), "epochs"))
	if err != nil || len(done) != 9 {
		t.Errorf("%d epochs were made, %v; want each once", len(done), err)
	}
}

// TestSeveralProcesses: processes that search in the same folder at once share the trials out, and each is made once.
func TestSeveralProcesses(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "spec.json")
	executable := spec(t).Command[0]
	content := fmt.Sprintf(`{"name": "test", "search": {"space": [{"name": "x", "kind": "float", "high": 1}], "trials": 12},
		"command": [%q, "trial", "{dir}", "{x}"], "result": "scores.0.loss", "reports": "epoch (\\d+): loss (\\S+)"}`, executable)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	var searchers []*exec.Cmd
	for range 3 {
		searcher := exec.Command(executable, asSearcher, file, dir)
		searcher.Stderr = os.Stderr
		if err := searcher.Start(); err != nil {
			t.Fatal(err)
		}
		searchers = append(searchers, searcher)
	}
	for _, searcher := range searchers {
		if err := searcher.Wait(); err != nil {
			t.Error(err)
		}
	}
	_, trials, err := journal.Read(dir)
	if err != nil || len(trials) != 12 {
		t.Fatalf("%d trials, %v", len(trials), err)
	}
	for _, trial := range trials {
		done, err := os.ReadFile(filepath.Join(journal.TrialDir(dir, trial.Number), "epochs"))
		if err != nil || len(done) != 9 || trial.State != search.Finished || len(trial.Reports) != 9 {
			t.Errorf("trial %d is %s after %d epochs and %d reports (%v)", trial.Number, trial.State, len(done), len(trial.Reports), err)
		}
	}
}

// TestTail: of an output the last lines of the last start are shown.
func TestTail(t *testing.T) {
	dir := t.TempDir()
	if _, err := program.Tail(dir, 0, 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a trial that never ran: %v", err)
	}
	if err := os.MkdirAll(journal.TrialDir(dir, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{
		"": "", "$ [a]\nbefore\n$ [a]\none\n\n": "one", "$ [a]\n1\n2\r3\n\n4": "2 3 4",
		"$ [a]\nfirst\n" + strings.Repeat(strings.Repeat("x", 999)+"\n", 100) + "last": strings.Repeat("x", 999) + " " + strings.Repeat("x", 999) + " last",
	} {
		if err := os.WriteFile(program.OutputPath(dir, 0), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if last, err := program.Tail(dir, 0, 3); err != nil || strings.Join(last, " ") != want {
			t.Errorf("%.40q: %q, %v", content, last, err)
		}
	}
}

func TestEarlier(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	s := spec(t)
	s.Search.Trials = 12
	if err := program.Run(context.Background(), s, program.Options{Dir: first, Workers: 2}); err != nil {
		t.Fatal(err)
	}
	s.Earlier, s.Search.Trials, s.Search.Seed = []string{first}, 1, 9
	if err := program.Run(context.Background(), s, program.Options{Dir: second}); err != nil {
		t.Fatal(err)
	}
	_, before, err := journal.Read(first)
	if err != nil {
		t.Fatal(err)
	}
	want, err := search.New(s.Search, before...)
	if err != nil {
		t.Fatal(err)
	}
	event, _ := want.Ask()
	_, trials, err := journal.Read(second)
	if err != nil || len(trials) != 1 || trials[0].Params["x"] != event.Params["x"] {
		t.Errorf("with experience the first trial is %+v, want %v (%v)", trials, event.Params, err)
	}
	s.Search.Maximize = true
	if err := program.Run(context.Background(), s, program.Options{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "maximize is false in") {
		t.Errorf("experience of the other direction: %v", err)
	}
	s.Earlier = []string{t.TempDir()}
	if err := program.Run(context.Background(), s, program.Options{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "holds no search") {
		t.Errorf("experience from nowhere: %v", err)
	}
}

func TestSpecValidate(t *testing.T) {
	const x = `{"space": [{"name": "x", "kind": "float", "high": 1}], "trials": 1}`
	for content, want := range map[string]string{
		``:   "is empty, want a search in JSON",
		`{}`: "command is empty",
		`{"name": "a/b", "search": ` + x + `, "command": ["run", "{x}"]}`:                                                                      `name is "a/b"`,
		`{"name": "a", "search": ` + x + `, "command": ["run", "{y}"]}`:                                                                        "command.1: {y} is no parameter of the space",
		`{"name": "a", "search": ` + x + `, "command": ["run"]}`:                                                                               "search.space.0: the command never says {x}",
		`{"name": "a", "search": ` + x + `, "command": ["run", "{x}"], "reports": "("}`:                                                        "reports: error parsing regexp",
		`{"name": "a", "search": ` + x + `, "command": ["run", "{x}"], "reports": "(a)"}`:                                                      "reports has 1 groups, want 2",
		`{"name": "a", "search": ` + x + `, "command": ["run", "{x}"], "metric": "f1"}`:                                                        `unknown field "metric"`,
		`{"name": "a", "search": {"space": [], "trials": 1}, "command": ["run"]}`:                                                              "search: space is empty",
		`{"name": "a", "search": ` + strings.Replace(x, "{", `{"scheduler": {"kind": "asha", "max": 9}, `, 1) + `, "command": ["run", "{x}"]}`: "a scheduler needs what trials report",
	} {
		file := filepath.Join(t.TempDir(), "spec.json")
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := program.ReadSpec(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", content, err, want)
		}
	}
	for _, name := range program.Presets() {
		if s, err := program.Preset(name); err != nil || s.Name != name {
			t.Errorf("preset %s is called %q: %v", name, s.Name, err)
		}
	}
	if _, err := program.Preset("nothing"); err == nil || !strings.Contains(err.Error(), "known: ner-rate") {
		t.Errorf("an unknown preset: %v", err)
	}
}

func Example() {
	spec := program.Spec{
		Name:    "square",
		Search:  search.Config{Space: search.Space{{Name: "n", Kind: search.Int, Low: -2, High: 2}}, Sampler: search.Grid{}, Trials: 5},
		Command: []string{"sh", "-c", "echo $(({n} * {n} + 3))"},
	}
	dir, err := os.MkdirTemp("", "search")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := program.Run(context.Background(), spec, program.Options{Dir: dir}); err != nil {
		fmt.Println(err)
		return
	}
	_, trials, _ := journal.Read(dir)
	best, _ := search.Best(trials, false)
	fmt.Println(best.Params["n"], best.Value)
	// Output: 0 3
}

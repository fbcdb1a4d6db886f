package memo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// cacheOf returns a cache of a test, and what it tells.
func cacheOf(t *testing.T) (*Cache, *[]string) {
	t.Helper()
	var lines []string
	return &Cache{Dir: t.TempDir(), Tell: func(line string) { lines = append(lines, line) }}, &lines
}

type result struct {
	Losses []float64
	Best   *float64
	At     time.Time
	ByName map[string]complex128
}

type params struct {
	Rate  float64
	Steps int
}

func TestOf(t *testing.T) {
	c, lines := cacheOf(t)
	ctx := context.Background()
	calls := 0
	best := 0.25
	want := result{[]float64{math.NaN(), math.Inf(1), 0.1}, &best, time.Unix(5, 7).UTC(), map[string]complex128{"a": 1i}}
	get := func(p params) result {
		t.Helper()
		got, err := Of(ctx, c, "train", p, func() (result, error) { calls++; return want, nil })
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for range 3 {
		got := get(params{0.1, 20})
		if len(got.Losses) != 3 || !math.IsNaN(got.Losses[0]) || !math.IsInf(got.Losses[1], 1) || got.Losses[2] != 0.1 ||
			*got.Best != best || !got.At.Equal(want.At) || got.ByName["a"] != 1i {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if calls != 1 {
		t.Errorf("computed %d times, want once", calls)
	}
	get(params{0.2, 20})
	if calls != 2 {
		t.Errorf("computed %d times for two parameters", calls)
	}
	if told := strings.Join(*lines, "\n"); !strings.Contains(told, "memo train: computing: for the first time") ||
		!strings.Contains(told, "s saved") || !strings.Contains(told, `memo train: computing: not yet for {"Rate":0.2,"Steps":20}`) {
		t.Errorf("told %q", *lines)
	}
	entries, err := c.Entries()
	if err != nil || len(entries) != 2 || entries[0].Name != "train" || entries[0].Type != "memo.result" || entries[0].Bytes == 0 || entries[0].Used.IsZero() {
		t.Errorf("entries %+v, %v", entries, err)
	}
	if err := c.Clear("other"); err == nil {
		t.Error("cleared what is not there")
	}
	if err := c.Clear("train"); err != nil {
		t.Fatal(err)
	}
	if get(params{0.1, 20}); calls != 3 {
		t.Errorf("computed %d times, want again after Clear", calls)
	}
}

func TestOtherFunctionComputesAgain(t *testing.T) {
	c, lines := cacheOf(t)
	ctx := context.Background()
	one, err := Of(ctx, c, "n", nil, func() (int, error) { return 1, nil })
	if err != nil || one != 1 {
		t.Fatalf("%d, %v", one, err)
	}
	two, err := Of(ctx, c, "n", nil, func() (int, error) { return 2, nil })
	if err != nil || two != 2 {
		t.Fatalf("%d, %v: the first function's value?", two, err)
	}
	if told := strings.Join(*lines, "\n"); !strings.Contains(told, "code has changed: function literal") {
		t.Errorf("told %s", told)
	}
	three, err := Of(ctx, c, "n", nil, func() (int64, error) { return 3, nil })
	if err != nil || three != 3 || !strings.Contains((*lines)[len(*lines)-2], "its type was int") {
		t.Errorf("%d, %v, %q", three, err, *lines)
	}
}

func TestErrorsAreNotKept(t *testing.T) {
	c, _ := cacheOf(t)
	broken := errors.New("no network")
	calls := 0
	get := func() (int, error) {
		return Of(context.Background(), c, "n", nil, func() (int, error) {
			if calls++; calls == 1 {
				return 9, broken
			}
			return 5, nil
		})
	}
	if v, err := get(); v != 0 || err != broken {
		t.Errorf("%d, %v, want the error itself", v, err)
	}
	if v, err := get(); v != 5 || err != nil {
		t.Errorf("%d, %v after an error", v, err)
	}
	_, err := c.Folder(context.Background(), "d", nil, func(string) error { return broken })
	if err != broken {
		t.Errorf("folder: %v, want the error itself", err)
	}
}

func TestDamagedIsComputedAgain(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"a bit":         func(dir string) error { return flip(filepath.Join(dir, valueFile)) },
		"cut":           func(dir string) error { return os.Truncate(filepath.Join(dir, valueFile), 3) },
		"no value":      func(dir string) error { return os.Remove(filepath.Join(dir, valueFile)) },
		"no record":     func(dir string) error { return os.Remove(filepath.Join(dir, recordFile)) },
		"record":        func(dir string) error { return os.WriteFile(filepath.Join(dir, recordFile), []byte("{"), 0o644) },
		"empty record":  func(dir string) error { return os.WriteFile(filepath.Join(dir, recordFile), []byte("{}"), 0o644) },
		"another value": func(dir string) error { return os.WriteFile(filepath.Join(dir, valueFile), []byte("abc"), 0o644) },
	} {
		c, lines := cacheOf(t)
		calls := 0
		get := func() {
			v, err := Of(context.Background(), c, "n", 3, func() ([]int, error) { calls++; return []int{4}, nil })
			if err != nil || len(v) != 1 || v[0] != 4 {
				t.Errorf("%s: %v, %v", name, v, err)
			}
		}
		get()
		entries, err := c.Entries()
		if err != nil || len(entries) != 1 {
			t.Fatalf("%v, %v", entries, err)
		}
		if err := damage(entries[0].Dir); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Entries(); err != nil || len(got) != 1 || got[0].Name != "n" {
			t.Errorf("%s: entries %v, %v", name, got, err)
		}
		get()
		get()
		if calls != 2 || !strings.Contains(strings.Join(*lines, "\n"), "is damaged") {
			t.Errorf("%s: computed %d times, want twice; told %q", name, calls, *lines)
		}
	}
}

func flip(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text[len(text)/2] ^= 1
	return os.WriteFile(path, text, 0o644)
}

func TestFolder(t *testing.T) {
	c, _ := cacheOf(t)
	calls := 0
	get := func() string {
		dir, err := c.Folder(context.Background(), "model", params{1, 2}, func(dir string) error {
			calls++
			if err := os.Mkdir(filepath.Join(dir, "deep"), 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "deep", "weights"), []byte("1 2 3"), 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "deep", "weights")); err != nil || string(text) != "1 2 3" {
			t.Errorf("%q, %v", text, err)
		}
		return dir
	}
	first := get()
	if again := get(); again != first || calls != 1 {
		t.Errorf("filled %d times, in %s and %s", calls, first, again)
	}
	if err := os.WriteFile(filepath.Join(first, "deep", "weights"), []byte("1 2 4"), 0o644); err != nil {
		t.Fatal(err)
	}
	if get(); calls != 2 {
		t.Error("a folder that was changed is taken for good")
	}
}

func TestRefused(t *testing.T) {
	c, _ := cacheOf(t)
	ctx := context.Background()
	never := func() (int, error) { t.Error("computed"); return 0, nil }
	for want, call := range map[string]func() error{
		"steps is not exported": func() error {
			_, err := Of(ctx, c, "n", struct{ steps int }{1}, never)
			return err
		},
		"hidden is not exported": func() error {
			_, err := Of(ctx, c, "n", map[string]any{"x": []any{struct{ hidden int }{1}}}, never)
			return err
		},
		"left out of JSON": func() error {
			_, err := Of(ctx, c, "n", struct {
				A int `json:"-"`
			}{1}, never)
			return err
		},
		"unsupported value": func() error { _, err := Of(ctx, c, "n", math.NaN(), never); return err },
		"want a name":       func() error { _, err := Of(ctx, c, "../n", nil, never); return err },
		"field count of memo.hidden": func() error {
			_, err := Of(ctx, c, "n", nil, func() (hidden, error) { t.Error("computed"); return hidden{1, 2}, nil })
			return err
		},
		"func() cannot be kept": func() error {
			_, err := Of(ctx, c, "n", nil, func() (map[string][]func(), error) { t.Error("computed"); return nil, nil })
			return err
		},
		"params.Next.Next leads back to itself": func() error {
			type node struct{ Next *node }
			round := &node{&node{}}
			round.Next.Next = round
			_, err := Of(ctx, c, "n", round, never)
			return err
		},
		"params[self] leads back to itself": func() error {
			round := map[string]any{}
			round["self"] = round
			_, err := Of(ctx, c, "n", round, never)
			return err
		},
		"params[0] leads back to itself": func() error {
			round := []any{nil}
			round[0] = round
			_, err := Of(ctx, c, "n", round, never)
			return err
		},
		"not nil": func() error { _, err := Of[int](ctx, c, "n", nil, nil); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

type hidden struct {
	Seen  int
	count int // what would be lost
}

func TestTrim(t *testing.T) {
	c, lines := cacheOf(t)
	c.MaxBytes = 5 << 10
	ctx := context.Background()
	calls := map[int]int{}
	get := func(n int) {
		v, err := Of(ctx, c, "n", n, func() (string, error) { calls[n]++; return strings.Repeat("x", 2000), nil })
		if err != nil || len(v) != 2000 {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // times of files must differ
	}
	get(1)
	get(2)
	get(1) // so 2 goes first
	get(3)
	get(1)
	if calls[1] != 1 || !strings.Contains(strings.Join(*lines, "\n"), "is dropped") {
		t.Errorf("computed %v; told %q", calls, *lines)
	}
	if get(2); calls[2] != 2 {
		t.Errorf("computed %v, want 2 twice", calls)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "stray"), nil, 0o644); err != nil { // a file that is no value
		t.Fatal(err)
	}
	c.MaxBytes = 1 // one value alone stays
	get(4)
	if entries, err := c.Entries(); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
}

func TestUnwritableStillComputes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := &Cache{Dir: filepath.Join(file, "below")}
	if _, err := Of(context.Background(), c, "n", nil, func() (int, error) { return 1, nil }); err == nil {
		t.Error("no error of a cache that cannot be")
	}
	// A value whose encoding fails only when it is tried.
	c, lines := cacheOf(t)
	v, err := Of(context.Background(), c, "n", nil, func() ([]*int, error) { return []*int{nil}, nil })
	if err != nil || len(v) != 1 || !strings.Contains(strings.Join(*lines, "\n"), "it is not kept") {
		t.Errorf("%v, %v; told %q", v, err, *lines)
	}
}

const helperEnv = "ELASTIC_TEST_MEMO"

// slow is what the processes of TestProcessesShare want; each computation leaves a line.
func slow(dir string) (int, error) {
	return Of(context.Background(), &Cache{Dir: dir}, "slow", nil, func() (int, error) {
		file, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return 0, err
		}
		defer file.Close()
		time.Sleep(300 * time.Millisecond)
		_, err = fmt.Fprintln(file, os.Getpid())
		return 7, err
	})
}

func TestProcessesShare(t *testing.T) {
	if dir := os.Getenv(helperEnv); dir != "" {
		if v, err := slow(dir); v != 7 || err != nil {
			t.Fatal(v, err)
		}
		return
	}
	dir := t.TempDir()
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestProcessesShare$")
			cmd.Env = append(os.Environ(), helperEnv+"="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wait.Wait()
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || strings.Count(string(log), "\n") != 1 {
		t.Errorf("computed by %q, %v, want one process", log, err)
	}
}

func TestWaitingEndsWithContext(t *testing.T) {
	c, _ := cacheOf(t)
	ctx, cancel := context.WithCancel(context.Background())
	inside, leave := make(chan bool), make(chan bool)
	get := func(ctx context.Context) (int, error) {
		return Of(ctx, &Cache{Dir: c.Dir}, "n", nil, func() (int, error) { inside <- true; <-leave; return 1, nil })
	}
	done := make(chan error)
	go func() { _, err := get(context.Background()); done <- err }()
	<-inside
	cancel()
	if _, err := get(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the context is cancelled", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestVisibleTakesMarshalers(t *testing.T) {
	shared := &params{1, 2} // twice, but in no circle
	for _, v := range []any{[]any{shared, shared, []any{}, []any{}}, map[string]*params{"a": shared, "b": shared}, nil, 3, "x", time.Now(), []any{map[string]int{"a": 1}}, &params{1, 2}, (*params)(nil)} {
		if err := visible(reflect.ValueOf(v), "params"); err != nil {
			t.Errorf("%v: %v", v, err)
		}
	}
}

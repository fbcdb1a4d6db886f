package kernel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/fakekernel"
	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

func TestMain(m *testing.M) {
	fakekernel.Main()
	os.Exit(m.Run())
}

func start(t *testing.T, o kernel.Options) *kernel.Kernel {
	t.Helper()
	k, err := kernel.Start(t.Context(), fakekernel.Spec(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// execute returns the kinds of the messages that a cell publishes, and the texts of its streams.
func execute(ctx context.Context, k *kernel.Kernel, code string) (reply kernel.Reply, kinds []string, text string, err error) {
	grace := time.Minute // however slow the machine is
	if strings.HasSuffix(code, "stubborn") {
		grace = 300 * time.Millisecond
	}
	reply, err = k.Execute(ctx, kernel.Request{Code: code, Grace: grace, Output: func(m kernel.Message) {
		kinds = append(kinds, m.Header.Type)
		var stream struct{ Text string }
		if m.Header.Type == "stream" && json.Unmarshal(m.Content, &stream) == nil {
			text += stream.Text
		}
	}})
	return reply, kinds, text, err
}

func TestExecute(t *testing.T) {
	k := start(t, kernel.Options{Env: map[string]string{"NB_STEPS": "7"}})
	reply, kinds, text, err := execute(t.Context(), k, "print one\nwarn two\nenv NB_STEPS\nshow a x\nclear\n%magic")
	if err != nil || reply.Status != "ok" || reply.Count != 1 || text != "one\ntwo\n7\n" {
		t.Errorf("reply %+v, text %q, error %v", reply, text, err)
	}
	if diff := cmp.Diff([]string{"stream", "stream", "stream", "display_data", "clear_output"}, kinds); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if reply, _, _, err := execute(t.Context(), k, "error no such thing"); err != nil || reply.Status != "error" || reply.Value != "no such thing" || reply.Count != 2 {
		t.Errorf("reply %+v, error %v", reply, err)
	}
}

// TestLateOutputs: outputs that come behind the reply are waited for as long as they come, however many there are.
func TestLateOutputs(t *testing.T) {
	k := start(t, kernel.Options{})
	k.SetIdleWait(2 * time.Second)
	if _, _, text, err := execute(t.Context(), k, "late 60"); err != nil || text != strings.Repeat("late\n", 60) {
		t.Errorf("%d lines, want 60, error %v", strings.Count(text, "\n"), err)
	}
}

func TestComplete(t *testing.T) {
	k := start(t, kernel.Options{})
	code := "print ä\ne" // places are counted in code points, not bytes
	got, err := k.Complete(t.Context(), code, 9)
	if diff := cmp.Diff(kernel.Completion{Status: "ok", Matches: []string{"env", "exit", "error"}, Start: 8, End: 9}, got); err != nil || diff != "" {
		t.Errorf("error %v, completion (-want +got):\n%s", err, diff)
	}
	if got, err := k.Complete(t.Context(), "x", 1); err != nil || len(got.Matches) > 0 {
		t.Errorf("completion %+v, error %v", got, err)
	}
}

func TestInspect(t *testing.T) {
	k := start(t, kernel.Options{})
	if got, err := k.Inspect(t.Context(), "print a", 5); err != nil || !got.Found || got.Text() != "**print** is a command" {
		t.Errorf("inspection %+v, error %v", got, err)
	}
	if got, err := k.Inspect(t.Context(), "pr", 2); err != nil || got.Found || got.Text() != "" {
		t.Errorf("inspection %+v, error %v", got, err)
	}
}

// TestAskBusy: a cell that hangs keeps the kernel from answering, and the caller's patience ends.
func TestAskBusy(t *testing.T) {
	k := start(t, kernel.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, _, err := execute(ctx, k, "stubborn"); err == nil {
		t.Fatal("the stubborn cell ended")
	}
	if _, err := k.Complete(ctx, "e", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	k.Kill()
	if _, err := k.Inspect(t.Context(), "e", 1); !errors.Is(err, kernel.ErrDead) {
		t.Errorf("error %v", err)
	}
}

// TestMeasure: a kernel that knows nothing of our packages is not measured as if it did.
func TestMeasure(t *testing.T) {
	var told []kernel.Timing
	timings, err := kernel.Measure(t.Context(), fakekernel.Spec(), kernel.MeasureOptions{Times: 2, Done: func(m kernel.Timing) { told = append(told, m) }})
	if err == nil || !strings.Contains(err.Error(), "measuring: completion: ") || !strings.Contains(err.Error(), "want Spec") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(told, timings); diff != "" || len(timings) != 2 || timings[0].Goal != 1 || timings[0].First <= 0 || timings[1].Times != 2 {
		t.Errorf("timings %+v, told %+v", timings, told)
	}
}

func TestInterrupt(t *testing.T) {
	k := start(t, kernel.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, _, text, err := execute(ctx, k, "print before\nhang")
	var stopped *kernel.StoppedError
	if !errors.As(err, &stopped) || stopped.Stuck || !errors.Is(err, context.DeadlineExceeded) || text != "before\nsignal: interrupt\n" {
		t.Errorf("text %q, error %v", text, err)
	}
	if _, _, text, err := execute(t.Context(), k, "print alive"); err != nil || text != "alive\n" {
		t.Errorf("after the interrupt: text %q, error %v", text, err)
	}
}

func TestStubborn(t *testing.T) {
	k := start(t, kernel.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, _, text, err := execute(ctx, k, "print before\nstubborn")
	var stopped *kernel.StoppedError
	if !errors.As(err, &stopped) || !stopped.Stuck || text != "before\n" {
		t.Errorf("text %q, error %v", text, err)
	}
}

func TestDeath(t *testing.T) {
	k := start(t, kernel.Options{})
	if _, _, _, err := execute(t.Context(), k, "die"); !errors.Is(err, kernel.ErrDead) {
		t.Errorf("error %v", err)
	}
	spec := fakekernel.Spec()
	spec.Argv = []string{os.Args[0], "no such file"}
	var log bytes.Buffer
	if _, err := kernel.Start(t.Context(), spec, kernel.Options{Log: &log}); !errors.Is(err, kernel.ErrDead) || !strings.Contains(log.String(), "no such file") {
		t.Errorf("error %v, log %q", err, log.String())
	}
	spec.Argv = []string{filepath.Join(t.TempDir(), "none")}
	if _, err := kernel.Start(t.Context(), spec, kernel.Options{}); err == nil || !strings.Contains(err.Error(), "elastic doctor") {
		t.Errorf("error %v", err)
	}
}

func TestMessages(t *testing.T) {
	m, err := kernel.NewMessage("s", "status", kernel.Header{ID: "p"}, map[string]string{"execution_state": "idle"})
	if err != nil {
		t.Fatal(err)
	}
	m.Identities = [][]byte{[]byte("a"), []byte("b")}
	frames, err := m.Encode([]byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := kernel.Decode(frames, []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	m.Metadata = map[string]any{}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if _, err := kernel.Decode(frames, []byte("other")); err == nil {
		t.Error("a wrong signature passes")
	}
	if _, err := kernel.Decode(frames[:4], []byte("key")); err == nil {
		t.Error("half a message passes")
	}
}

func TestFind(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if _, err := kernel.Find("go", []string{first, second}); !errors.Is(err, kernel.ErrNoKernel) {
		t.Errorf("error %v", err)
	}
	if err := fakekernel.Install(second, "go"); err != nil {
		t.Fatal(err)
	}
	spec, err := kernel.Find("go", []string{first, second})
	if err != nil || spec.Name != "go" || spec.Dir != filepath.Join(second, "kernels", "go") {
		t.Errorf("spec %+v, error %v", spec, err)
	}
	t.Setenv("FAKE_A", "here")
	spec.Env = map[string]string{"X": "${FAKE_A}:${FAKE_NONE}"}
	if got := spec.Lookup("X"); got != "here:${FAKE_NONE}" {
		t.Errorf("X = %q", got)
	}
}

func ExampleStart() {
	spec, err := kernel.Find("gonb", kernel.DataDirs())
	if err != nil {
		return // the kernel is not installed here
	}
	k, err := kernel.Start(context.Background(), spec, kernel.Options{})
	if err != nil {
		panic(err)
	}
	defer k.Close()
	_, err = k.Execute(context.Background(), kernel.Request{Code: "%%\nfmt.Println(6 * 7)"})
	if err != nil {
		panic(err)
	}
}

package nb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// withStack is an error that says where it began, when it is printed by %+v, as those of pkg/errors do.
type withStack struct{ words, stack string }

func (e withStack) Error() string { return e.words }

func (e withStack) Format(s fmt.State, verb rune) {
	text := e.words
	if s.Flag('+') {
		text += e.stack
	}
	_, _ = fmt.Fprint(s, text)
}

func TestWriteTrace(t *testing.T) {
	err := withStack{"shapes differ", `
github.com/gomlx/gomlx/core/graph.Add
	/lib/ops.go:12
main.attend
	/tmp/gonb_1/main.go:33
github.com/gomlx/gomlx/core/graph.build
	/lib/exec.go:9
`}
	const stack = `goroutine 1 [running]:
runtime/debug.Stack()
	/go/stack.go:26 +0x5e
github.com/janpfeifer/must.M1[...](...)
	/must.go:12
main.run.func1({0x1, 0x2})
	/tmp/gonb_1/main.go:50 +0x1d
main.attend(...)
	/tmp/gonb_1/main.go:33 +0x2
main.main()
	/tmp/gonb_1/main.go:60 +0x13
`
	var out strings.Builder
	writeTrace(&out, err, stack)
	want := "shapes differ\nat\n  /tmp/gonb_1/main.go:33 in attend\n  /tmp/gonb_1/main.go:50 in run.func1({0x1,\n  /tmp/gonb_1/main.go:60 in main()\n\n"
	want = strings.NewReplacer("run.func1({0x1,", "run.func1", "main()", "main").Replace(want)
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	writeTrace(&out, "words", "")
	if out.String() != "words\n\n" {
		t.Errorf("%q", out.String())
	}
}

// TestTrace runs a program that panics.
func TestTrace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(`package main

import "github.com/elastic-attention/workbench/pkg/viz/nb"

func deep(values []int) int { return values[3] }

func main() {
	defer nb.Trace()
	println(deep([]int{1}))
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program.exe")
	if out, err := exec.Command("go", "build", "-o", program, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program)
	out, err := cmd.CombinedOutput()
	text := string(out)
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(text, "panic: ") {
		t.Errorf("%v, want the exit code and the word of a panic\n%s", err, text)
	}
	first, _, _ := strings.Cut(text, "panic: ")
	inner, outer := strings.Index(first, "main.go:5 in deep\n"), strings.Index(first, "main.go:9 in main\n")
	if !strings.HasPrefix(text, "runtime error: index out of range") || inner < 0 || outer < inner {
		t.Errorf("got\n%s", text)
	}
}

package nb

import (
	"errors"
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
	/cells/main.go:33
github.com/gomlx/gomlx/core/graph.build
	/lib/exec.go:9
`}
	const stack = `goroutine 1 [running]:
runtime/debug.Stack()
	/go/stack.go:26 +0x5e
github.com/janpfeifer/must.M1[...](...)
	/must.go:12
main.run.func1({0x1, 0x2})
	/cells/main.go:50 +0x1d
main.attend(...)
	/cells/main.go:33 +0x2
main.main()
	/cells/main.go:60 +0x13
`
	var out strings.Builder
	writeTrace(&out, err, stack)
	const want = `shapes differ
  at /cells/main.go:33 in attend
  at /cells/main.go:50 in run.func1
  at /cells/main.go:60 in main

`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	writeTrace(&out, errors.New("words"), "")
	if out.String() != "words\n\n" {
		t.Errorf("%q", out.String())
	}
}

// TestMust runs a program that fails.
func TestMust(t *testing.T) {
	Must(nil)
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(`package main

import (
	"os"

	"github.com/elastic-attention/workbench/pkg/viz/nb"
	"github.com/janpfeifer/must"
)

func init() { must.M = nb.Must }

func deep() []byte { return must.M1(os.ReadFile("nowhere")) }

func main() {
	println(deep())
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
	inner, outer := strings.Index(first, "main.go:12 in deep\n"), strings.Index(first, "main.go:15 in main\n")
	if !strings.HasPrefix(text, "open nowhere: ") || inner < 0 || outer < inner {
		t.Errorf("got\n%s", text)
	}
}

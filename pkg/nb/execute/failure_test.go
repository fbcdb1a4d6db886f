package execute

import (
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/nb"
)

// TestPanicSpeaksOfCells has what the kernel wrote of a cell whose graph could not be built: must prints the error with
// its stack, and then the runtime its own.
func TestPanicSpeaksOfCells(t *testing.T) {
	const cell = "\n\t \x1b[7m[[ Cell [6] Line %d ]]\x1b[0m /cells/main.go:%d +0x4d4\n"
	at := func(line string) string {
		return strings.NewReplacer("%d ]]", line+" ]]", "%d", line+"0").Replace(cell)
	}
	library := strings.Repeat("github.com/gomlx/gomlx/core/graph.build(0x1)\n\t/lib/graph.go:12 +0x5\n", 30)
	stderr := "2026/11/26 01:11:28 Must not error: shapes differ\n" + library + "main.attend" + at("3") + library +
		"Panicking ...\n\npanic: shapes differ: [2 3]\nand [3 2]\n\ngoroutine 1 [running]:\n" + library +
		"main.run.func1({0x1, 0x2})" + at("21") + library + "main.run(...)" + at("21") + "main.main()" + at("27") + "exit status 2\n"
	c := &nb.Cell{Kind: nb.Code, Outputs: []*nb.Output{{Kind: nb.Stream, Name: "stdout", Text: "many\nlines\n"}, {Kind: nb.Stream, Name: "stderr", Text: stderr}}}
	err := failure(c)
	want := `exit status 2
    panic: shapes differ: [2 3]
    and [3 2]
    at Cell [6] Line 3, in attend
    at Cell [6] Line 21, in run.func1
    at Cell [6] Line 21, in run
    at Cell [6] Line 27, in main`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	// The same with nb.Must, which says the lines of the notebook only.
	c.Outputs[1].Text = "shapes differ\n  at  \x1b[7m[[ Cell [6] Line 3 ]]\x1b[0m /cells/main.go:30 in attend\n  at  \x1b[7m[[ Cell [6] Line 21 ]]\x1b[0m /cells/main.go:210 in run.func1\n\n" +
		"panic: shapes differ: [2 3]\nand [3 2]\n\ngoroutine 1 [running]:\n" + library +
		"main.run.func1({0x1, 0x2})" + at("21") + library + "main.run(...)" + at("21") + "main.main()" + at("27") + "exit status 2\n"
	if err := failure(c); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	c.Outputs[1].Text = "panic: elsewhere\n\ngoroutine 7 [running]:\n/lib/graph.go:12\nexit status 2\n"
	if err = failure(c); err == nil || !strings.Contains(err.Error(), "many") || !strings.Contains(err.Error(), "goroutine 7") {
		t.Errorf("a panic without a line of the notebook: %v", err)
	}
}

package nb

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
	"strings"
)

// Trace makes a panic of a cell speak of the cell first: its message, and the lines of the notebook that led to it, the
// innermost first, before the frames of all libraries. Of an error that carries where it began, as those from building a
// graph do, it has these lines too. Call it at the beginning of a cell:
//
//	%%
//	defer nb.Trace()
func Trace() {
	if r := recover(); r != nil {
		writeTrace(os.Stderr, r, string(debug.Stack()))
		panic(r)
	}
}

// mainFrame is a function of the program's own, and below it its file and line, as in stacks of the runtime and of
// errors.
var mainFrame = regexp.MustCompile(`(?m)^main\.([^\s(]+).*\n\s+(\S+\.go:\d+)`)

func writeTrace(w io.Writer, reason any, stack string) {
	var lines []string
	seen := map[string]bool{}
	add := func(stack string) {
		for _, frame := range mainFrame.FindAllStringSubmatch(stack, -1) {
			if !seen[frame[2]] {
				seen[frame[2]] = true
				lines = append(lines, fmt.Sprintf("  %s in %s", frame[2], frame[1]))
			}
		}
	}
	message := fmt.Sprint(reason)
	if err, ok := reason.(error); ok {
		add(fmt.Sprintf("%+v", err))
	}
	add(stack)
	fmt.Fprintf(w, "%s\n", message)
	if len(lines) > 0 {
		fmt.Fprintf(w, "at\n%s\n", strings.Join(lines, "\n"))
	}
	fmt.Fprintln(w)
}

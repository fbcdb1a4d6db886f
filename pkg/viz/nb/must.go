package nb

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/debug"
)

// Must panics if there is an error, and says first which lines of the notebook led to it, the innermost first. Errors
// from building a graph carry where it was built; must, which notebooks use, prints that as forty frames of libraries.
// It takes this in its place in all cells below
//
//	func init_must() { must.M = nb.Must }
//
// If the cell was interrupted and err comes of that, it ends as by [EndInterrupted].
func Must(err error) {
	if err != nil {
		EndInterrupted(err)
		writeTrace(os.Stderr, err, string(debug.Stack()))
		panic(err)
	}
}

// mainFrame is a function of the program's own, and below it its file and line, as in stacks of the runtime and of
// errors.
var mainFrame = regexp.MustCompile(`(?m)^main\.([^\s(]+).*\n\s+(\S+\.go:\d+)`)

// writeTrace writes an error, and the frames of the program's own in the error's stack and in that of the call.
func writeTrace(w io.Writer, err error, stack string) {
	fmt.Fprintln(w, err)
	seen := map[string]bool{}
	for _, stack := range []string{fmt.Sprintf("%+v", err), stack} {
		for _, frame := range mainFrame.FindAllStringSubmatch(stack, -1) {
			if !seen[frame[2]] {
				seen[frame[2]] = true
				fmt.Fprintf(w, "  at %s in %s\n", frame[2], frame[1])
			}
		}
	}
	fmt.Fprintln(w)
}

package execute

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/elastic-attention/workbench/pkg/nb"
)

// What GoNB writes when a cell's program fails, on a line of its own or, if the program's last words lack a newline, at
// the end of the stream.
var (
	failedLine = regexp.MustCompile(`(?m)^(?:exit status \d+|signal: [a-z ]+(?: \(core dumped\))?)[ \t]*$`)
	failedEnd  = regexp.MustCompile(`(?:exit status \d+|signal: [a-z ]+(?: \(core dumped\))?)\s*\z`)
	ansi       = regexp.MustCompile(`\x1b\[[0-9;]*m`)
)

// words is how many of a failing cell's last lines go into the report.
const words = 12

// failure returns what went wrong in an executed cell. Up to v0.11.3 GoNB said ok of a program that panicked, exited
// or failed its tests, later versions refuse the cell; both write the same line to standard error.
func failure(c *nb.Cell) error {
	stdout, stderr := c.Text("stdout"), c.Text("stderr")
	what := failedEnd.FindString(stderr)
	if what == "" {
		what = failedLine.FindString(stderr)
	}
	for _, o := range c.Outputs {
		if o.Kind == nb.Error && what == "" {
			what = "does not compile or the kernel refused it:" + indented(strings.Join(append([]string{o.Name + ": " + o.Text}, o.Traceback...), "\n"))
		} else if o.Kind == nb.Error {
			what = o.Text
		}
	}
	switch {
	case c.Tagged(nb.RaisesTag) && what == "":
		return errors.New("was expected to fail (tag " + nb.RaisesTag + "), but did not")
	case c.Tagged(nb.RaisesTag) || what == "":
		return nil
	}
	if words := indented(last(stdout, 2000) + last(stderr, 4000)); strings.TrimSpace(words) != "" {
		what = strings.TrimSpace(what) + words
	}
	return errors.New(what)
}

func last(text string, n int) string { return text[max(0, len(text)-n):] }

// indented returns the last lines of a text, each on a new line and set in.
func indented(text string) string {
	lines := strings.Split(strings.TrimSpace(ansi.ReplaceAllString(text, "")), "\n")
	var b strings.Builder
	for _, line := range lines[max(0, len(lines)-words):] {
		fmt.Fprintf(&b, "\n    %s", strings.ToValidUTF8(line, "�"))
	}
	return b.String()
}

package execute

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
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
	words := panicked(stderr)
	if words == "" {
		words = last(stdout, 2000) + last(stderr, 4000)
	}
	if words = indented(words); strings.TrimSpace(words) != "" {
		what = strings.TrimSpace(what) + words
	}
	return errors.New(what)
}

var (
	panicLine = regexp.MustCompile(`(?m)^(?:panic: |fatal error: )`)
	// GoNB writes the place in the notebook before that in the file, of a frame of the runtime's and of one of an error
	// that says where it began; also of what nb.Must in package viz/nb writes.
	cellFrame = regexp.MustCompile(`(?m)^(?:main\.([^\s(]+).*\n\s*\[\[ (Cell .*?) \]\]|\s*at\s+\[\[ (Cell .*?) \]\] \S+ in (\S+))`)
)

// panicked returns what a program said when it panicked, and the lines of the notebook that led there, the innermost
// first, without the frames of libraries. It returns "" if there was no panic, or none that the notebook led to.
func panicked(stderr string) string {
	text := ansi.ReplaceAllString(stderr, "")
	at := panicLine.FindStringIndex(text)
	if at == nil {
		return ""
	}
	message, _, _ := strings.Cut(text[at[0]:], "\n\ngoroutine ")
	message = strings.TrimSpace(message)
	lines := strings.Split(message, "\n")
	lines = lines[:min(len(lines), words/2)]
	places := len(lines)
	for _, frame := range cellFrame.FindAllStringSubmatch(text, -1) {
		line := fmt.Sprintf("at %s, in %s", frame[2]+frame[3], frame[1]+frame[4])
		if !slices.Contains(lines, line) && len(lines) < words {
			lines = append(lines, line)
		}
	}
	if len(lines) == places {
		return ""
	}
	return strings.Join(lines, "\n")
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

package nb

import "regexp"

// noise is what differs between two runs that computed the same, and what stands for it.
var noise = []struct {
	pattern *regexp.Regexp
	stands  string
}{
	{regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?`), "<time>"},
	{regexp.MustCompile(`\b\d{1,2}:\d{2}:\d{2}(?:\.\d+)?\b`), "<time>"},
	{regexp.MustCompile(`\b\d+(?:\.\d+)?(?:e[+-]?\d+)? ?\w*/(?:s|sec|second)\b`), "<rate>"},
	{regexp.MustCompile(`\b(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?(?:e[+-]?\d+)? ?(?:ns|µs|us|ms|s|sec|seconds?|min|minutes?|h|hours?)\b`), "<time>"},
	{regexp.MustCompile(`\b0x[0-9a-f]{6,}\b`), "<address>"},
	{regexp.MustCompile(`\b(gonb|live|id)_[0-9a-f]{6,}\b`), "${1}_<id>"},
}

// Scrub replaces what differs between two runs that computed the same: times, rates per second, addresses, and the
// identifiers that the kernel draws.
func Scrub(text string) string {
	for _, n := range noise {
		text = n.pattern.ReplaceAllString(text, n.stands)
	}
	return text
}

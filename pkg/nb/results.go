package nb

import (
	"math"
	"regexp"
	"strconv"
)

var resultLine = regexp.MustCompile(`(?m)^result: *([A-Za-z_][\w.\-/]*) *= *(\S+) *$`)

// ParseResults returns the numbers that a text declares by lines "result: name=number"; of one declared twice the last.
// What is no number is NaN.
func ParseResults(text string) map[string]float64 {
	found := map[string]float64{}
	for _, m := range resultLine.FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			value = math.NaN()
		}
		found[m[1]] = value
	}
	return found
}

// Results returns the numbers that the notebook's saved outputs declare; see [ParseResults].
func (n *Notebook) Results() map[string]float64 {
	found := map[string]float64{}
	for _, c := range n.Cells {
		for name, value := range ParseResults(c.Text("stdout")) {
			found[name] = value
		}
	}
	return found
}

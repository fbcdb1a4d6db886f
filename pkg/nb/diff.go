package nb

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Change is one difference between two notebooks.
type Change struct {
	Old  int    `json:"old"`  // index of the cell in the first notebook; -1 if it is new
	New  int    `json:"new"`  // index in the second notebook; -1 if it is gone
	Kind string `json:"kind"` // of the cell; "metadata" for that of the notebook, where both indices are -1
	Text string `json:"text"` // lines that begin with +, - or a space
}

// String writes the change with a line above that says where it is.
func (c Change) String() string {
	where := fmt.Sprintf("cell %d", c.Old)
	switch {
	case c.Kind == "metadata":
		where = "notebook"
	case c.Old < 0:
		where = fmt.Sprintf("cell %d, new", c.New)
	case c.New < 0:
		where += ", gone"
	case c.Old != c.New:
		where += fmt.Sprintf(", now cell %d", c.New)
	}
	return fmt.Sprintf("@@ %s (%s)\n%s", where, c.Kind, c.Text)
}

// Diff compares two notebooks cell by cell and leaves out what says nothing: identifiers and execution counts of cells, how
// long an execution took, what a front end keeps about the look of a cell, and outputs, unless they are asked for; then
// without the noise that [Scrub] knows.
func Diff(a, b *Notebook, outputs bool) []Change {
	var changes []Change
	if old, now := metadataText(a.Metadata), metadataText(b.Metadata); old != now {
		changes = append(changes, Change{-1, -1, "metadata", lineDiff(old, now)})
	}
	texts := func(n *Notebook) (list []string) {
		for _, c := range n.Cells {
			list = append(list, c.compared(outputs))
		}
		return list
	}
	old, now := texts(a), texts(b)
	i, j := 0, 0
	for _, pair := range append(common(old, now), [2]int{len(old), len(now)}) {
		// Between two pairs of equal cells: what stands in the same place and is of the same kind has changed.
		for i < pair[0] || j < pair[1] {
			switch {
			case i < pair[0] && j < pair[1] && a.Cells[i].Kind == b.Cells[j].Kind:
				changes = append(changes, Change{i, j, a.Cells[i].Kind, lineDiff(old[i], now[j])})
				i, j = i+1, j+1
			case i < pair[0]:
				changes = append(changes, Change{i, -1, a.Cells[i].Kind, lineDiff(old[i], "")})
				i++
			default:
				changes = append(changes, Change{-1, j, b.Cells[j].Kind, lineDiff("", now[j])})
				j++
			}
		}
		i, j = pair[0]+1, pair[1]+1
	}
	return changes
}

// look are fields of a cell's metadata that are about its look or its last execution.
var look = []string{"collapsed", "editable", "execution", "jupyter", "scrolled", "slideshow", "trusted"}

// compared returns what of a cell is compared, as text.
func (c *Cell) compared(outputs bool) string {
	var b strings.Builder
	b.WriteString(c.Source)
	if !strings.HasSuffix(c.Source, "\n") {
		b.WriteByte('\n')
	}
	metadata := maps.Clone(c.Metadata)
	maps.DeleteFunc(metadata, func(name string, _ any) bool { return slices.Contains(look, name) })
	if len(metadata) > 0 {
		fmt.Fprintf(&b, "metadata: %s\n", jsonText(metadata))
	}
	if !outputs {
		return b.String()
	}
	for _, o := range c.Outputs {
		text := o.Text
		switch o.Kind {
		case Display, Result:
			text = ""
			for _, mime := range slices.Sorted(maps.Keys(o.Data)) {
				value, ok := o.Data[mime].(string)
				if !ok {
					value = jsonText(o.Data[mime])
				}
				text += mime + "\n" + value + "\n"
			}
		case Error:
			text += "\n" + strings.Join(o.Traceback, "\n")
		}
		fmt.Fprintf(&b, "output: %s %s\n%s\n", o.Kind, o.Name, strings.TrimSuffix(Scrub(text), "\n"))
	}
	return b.String()
}

// metadataText writes a notebook's metadata without what an execution measured.
func metadataText(metadata map[string]any) string {
	kept := maps.Clone(metadata)
	if house, ok := kept[planField].(map[string]any); ok {
		house = maps.Clone(house)
		delete(house, "measured")
		kept[planField] = house
	}
	return jsonText(kept) + "\n"
}

func jsonText(value any) string {
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// lineDiff returns the lines of both texts with their signs, unchanged ones only near changes, without headings.
func lineDiff(old, now string) string {
	text := udiff.Unified("", "", old, now)
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "--- ") && !strings.HasPrefix(line, "+++ ") && !strings.HasPrefix(line, "@@ ") && !strings.HasPrefix(line, `\ No newline`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// common returns the index pairs of a longest common subsequence.
func common(a, b []string) (pairs [][2]int) {
	length := make([][]int, len(a)+1) // of a[i:] and b[j:]
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			pairs = append(pairs, [2]int{i, j})
			i, j = i+1, j+1
		case length[i+1][j] >= length[i][j+1]:
			i++
		default:
			j++
		}
	}
	return pairs
}

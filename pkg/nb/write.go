package nb

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Write writes the notebook as Jupyter does.
func (n *Notebook) Write(w io.Writer) error {
	tree := with(n.rest, map[string]any{"metadata": object(n.Metadata), "nbformat": 4, "nbformat_minor": n.Minor})
	cells := make([]any, len(n.Cells))
	for i, c := range n.Cells {
		cells[i] = c.tree()
	}
	tree["cells"] = cells
	e := encoder{w: bufio.NewWriter(w)}
	e.value(tree, 0)
	e.w.WriteByte('\n') // an error stays in the writer
	if e.err != nil {
		return e.err
	}
	return e.w.Flush()
}

func (c *Cell) tree() map[string]any {
	tree := with(c.rest, map[string]any{"cell_type": c.Kind, "metadata": object(c.Metadata), "source": split(c.Source)})
	if c.ID != "" {
		tree["id"] = c.ID
	}
	if c.Kind == Code {
		tree["execution_count"] = count(c.Count)
		outputs := make([]any, len(c.Outputs))
		for i, o := range c.Outputs {
			outputs[i] = o.tree()
		}
		tree["outputs"] = outputs
	}
	return tree
}

func (o *Output) tree() map[string]any {
	tree := with(o.rest, map[string]any{"output_type": o.Kind})
	switch o.Kind {
	case Stream:
		tree["name"], tree["text"] = o.Name, split(o.Text)
	case Display, Result:
		data := map[string]any{}
		for mime, value := range o.Data {
			if text, ok := value.(string); ok && isSplit(mime) {
				value = split(text)
			}
			data[mime] = value
		}
		tree["data"], tree["metadata"] = data, object(o.Metadata)
		if o.Kind == Result {
			tree["execution_count"] = count(o.Count)
		}
	case Error:
		lines := make([]any, len(o.Traceback))
		for i, line := range o.Traceback {
			lines[i] = line
		}
		tree["ename"], tree["evalue"], tree["traceback"] = o.Name, o.Text, lines
	}
	return tree
}

func with(rest, known map[string]any) map[string]any {
	tree := maps.Clone(rest)
	if tree == nil {
		tree = map[string]any{}
	}
	maps.Copy(tree, known)
	return tree
}

func object(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

func count(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// isJSON says which representations are values rather than texts.
func isJSON(mime string) bool {
	return mime == "application/json" || strings.HasPrefix(mime, "application/") && strings.HasSuffix(mime, "+json")
}

// isSplit says which representations Jupyter writes as lists of lines.
func isSplit(mime string) bool {
	return strings.HasPrefix(mime, "text/") || mime == "application/javascript" || mime == "image/svg+xml"
}

// split cuts a text after each end of a line, as Python's splitlines(keepends=True).
func split(text string) []any {
	lines, start := []any{}, 0
	for i, r := range text {
		if !strings.ContainsRune("\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029", r) || r == '\r' && strings.HasPrefix(text[i+1:], "\n") {
			continue
		}
		end := i + utf8.RuneLen(r)
		lines, start = append(lines, text[start:end]), end
	}
	if start < len(text) {
		lines = append(lines, text[start:])
	}
	return lines
}

// encoder writes JSON as Python's json.dumps(indent=1, sort_keys=True, ensure_ascii=False).
type encoder struct {
	w   *bufio.Writer
	err error
}

func (e *encoder) value(value any, depth int) {
	switch value := value.(type) {
	case nil:
		e.w.WriteString("null")
	case bool:
		e.w.WriteString(strconv.FormatBool(value))
	case string:
		e.text(value)
	case int:
		e.w.WriteString(strconv.Itoa(value))
	case float64:
		e.float(value)
	case json.Number:
		e.w.WriteString(value.String())
	case []any:
		e.list('[', ']', len(value), depth, func(i int) { e.value(value[i], depth+1) })
	case map[string]any:
		keys := slices.Sorted(maps.Keys(value))
		e.list('{', '}', len(keys), depth, func(i int) {
			e.text(keys[i])
			e.w.WriteString(": ")
			e.value(value[keys[i]], depth+1)
		})
	default:
		e.err = fmt.Errorf("a notebook cannot hold a %T", value)
	}
}

func (e *encoder) list(open, end byte, n, depth int, item func(int)) {
	e.w.WriteByte(open)
	for i := range n {
		if i > 0 {
			e.w.WriteByte(',')
		}
		e.newline(depth + 1)
		item(i)
	}
	if n > 0 {
		e.newline(depth)
	}
	e.w.WriteByte(end)
}

func (e *encoder) newline(depth int) {
	e.w.WriteByte('\n')
	for range depth {
		e.w.WriteByte(' ')
	}
}

func (e *encoder) text(text string) {
	e.w.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			e.w.WriteByte('\\')
			e.w.WriteRune(r)
		case r >= 0x20:
			e.w.WriteRune(r)
		case strings.ContainsRune("\b\f\n\r\t", r):
			e.w.WriteByte('\\')
			e.w.WriteByte(map[rune]byte{'\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't'}[r])
		default:
			fmt.Fprintf(e.w, `\u%04x`, r)
		}
	}
	e.w.WriteByte('"')
}

// float writes the shortest number that reads back the same, with a point or an exponent.
func (e *encoder) float(x float64) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		e.err = fmt.Errorf("a notebook cannot hold the number %g", x)
		return
	}
	format := byte('f')
	if a := math.Abs(x); a != 0 && (a < 1e-4 || a >= 1e16) {
		format = 'e'
	}
	text := strconv.FormatFloat(x, format, -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	e.w.WriteString(text)
}

package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/data"
)

// CLINC reads one part of a file in the layout of CLINC150: a JSON object whose members are
// parts of a data set ("train", "val", "oos_test"), each a list of pairs [text, label]. Name
// stands in messages and in [data.Text.File]. The iterator can be used once; it holds one pair
// at a time. It is an error when there is no such part or it is empty or there twice, when a
// pair is none, and when a text or label is empty. Other parts are read over, but must be JSON.
func CLINC(name string, r io.Reader, part string) iter.Seq2[data.Text, error] {
	return func(yield func(data.Text, error) bool) {
		plain, err := decompress(r)
		if err != nil {
			yield(data.Text{}, &ParseError{File: name, Err: err})
			return
		}
		c := &pairs{name: name, part: part, yield: yield, lines: &lineCounter{r: plain}}
		c.decoder = json.NewDecoder(c.lines)
		if err := c.read(); err != nil && !errors.Is(err, errStop) {
			at := c.lines.at(c.decoder.InputOffset())
			if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
				at = c.lines.at(syntax.Offset)
			}
			if errors.Is(err, io.EOF) || err == io.ErrUnexpectedEOF { // as it is: gzip's own is explained already
				at = c.lines.at(math.MaxInt64)
				err = errors.New("the file ends before its JSON does")
			}
			yield(data.Text{}, &ParseError{File: name, Line: at, Err: err})
		}
	}
}

// CLINCFile reads a part of a file as [CLINC] does. The file is opened anew by each use of
// the iterator.
func CLINCFile(path, part string) iter.Seq2[data.Text, error] {
	return textsOf(path, func(r io.Reader) iter.Seq2[data.Text, error] { return CLINC(path, r, part) })
}

// pairs reads the JSON.
type pairs struct {
	name, part string
	yield      func(data.Text, error) bool
	lines      *lineCounter
	decoder    *json.Decoder
}

func (c *pairs) read() error {
	if err := c.expect(json.Delim('{'), "an object of parts"); err != nil {
		return err
	}
	found := false
	for c.decoder.More() {
		token, err := c.decoder.Token()
		if err != nil {
			return err
		}
		if token != c.part {
			var other json.RawMessage
			if err := c.decoder.Decode(&other); err != nil {
				return err
			}
			continue
		}
		if found {
			return fmt.Errorf("part %q is there twice", c.part)
		}
		found = true
		if err := c.list(); err != nil {
			return err
		}
	}
	if err := c.expect(json.Delim('}'), "the end of the object"); err != nil {
		return err
	}
	if _, err := c.decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the object")
	}
	if !found {
		return fmt.Errorf("no part %q", c.part)
	}
	return nil
}

// list reads the pairs of the part.
func (c *pairs) list() error {
	if err := c.expect(json.Delim('['), "a list of pairs"); err != nil {
		return err
	}
	count := 0
	for ; c.decoder.More(); count++ {
		var raw json.RawMessage
		begin := c.decoder.InputOffset()
		if err := c.decoder.Decode(&raw); err != nil {
			return err
		}
		if !utf8.Valid(raw) { // the decoder would put replacement characters in its place
			return errors.New("the pair is not UTF-8: convert the file to UTF-8 first")
		}
		var pair []string
		if err := json.Unmarshal(raw, &pair); err != nil {
			var kind *json.UnmarshalTypeError
			if errors.As(err, &kind) {
				return fmt.Errorf("want a pair [text, label], got JSON %s", kind.Value)
			}
			return err
		}
		if len(pair) != 2 {
			return fmt.Errorf("%d strings, want a pair [text, label]", len(pair))
		}
		t := data.Text{Text: pair[0], Label: pair[1], File: c.name, Line: c.lines.first(begin, c.decoder.InputOffset())}
		if err := errors.Join(checkText(t.Text), checkText(t.Label)); err != nil {
			return err
		}
		if err := checkFilled(t, true); err != nil {
			return err
		}
		if !c.yield(t, nil) {
			return errStop
		}
	}
	if count == 0 {
		return fmt.Errorf("part %q is empty", c.part)
	}
	return c.expect(json.Delim(']'), "the end of the list")
}

func (c *pairs) expect(want json.Delim, what string) error {
	token, err := c.decoder.Token()
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("got %v, want %s, %q", token, what, want)
	}
	return nil
}

// lineCounter knows on which line a byte of a text lies. Offsets must be asked for in
// ascending order; what lies before the last is forgotten.
type lineCounter struct {
	r       io.Reader
	pending []byte // read but not asked for yet
	offset  int64  // of pending
	line    int    // of the first byte of pending, from 0
}

func (l *lineCounter) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.pending = append(l.pending, p[:n]...)
	if err != nil && !errors.Is(err, io.EOF) {
		err = readError(err)
	}
	return n, err
}

// at returns the line of the byte at an offset, from 1.
func (l *lineCounter) at(offset int64) int {
	n := min(max(offset-l.offset, 0), int64(len(l.pending)))
	l.line += bytes.Count(l.pending[:n], []byte{'\n'})
	l.pending, l.offset = l.pending[n:], l.offset+n
	return l.line + 1
}

// first returns the line of the first byte between two offsets that is neither white space
// nor a comma.
func (l *lineCounter) first(begin, end int64) int {
	l.at(begin)
	between := l.pending[:min(end-l.offset, int64(len(l.pending)))]
	skip := len(between) - len(bytes.TrimLeft(between, " \t\r\n,"))
	return l.at(l.offset + int64(skip))
}

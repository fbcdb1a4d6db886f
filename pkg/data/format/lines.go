package format

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

var byteOrderMark = []byte("\xef\xbb\xbf")

// lines gives the lines of a text, checked to be UTF-8 without NUL.
type lines struct {
	scanner *bufio.Scanner
	max     int
	number  int // of the line that next has given
}

// decompress looks at the first bytes of r: gzip is decompressed, a byte-order mark dropped.
func decompress(r io.Reader) (*bufio.Reader, error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := buffered.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		zipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fmt.Errorf("opening gzip: %w", err)
		}
		buffered = bufio.NewReaderSize(zipped, 1<<16)
	}
	switch mark, _ := buffered.Peek(3); {
	case bytes.Equal(mark, byteOrderMark):
		_, _ = buffered.Discard(len(byteOrderMark))
	case bytes.HasPrefix(mark, []byte{0xff, 0xfe}), bytes.HasPrefix(mark, []byte{0xfe, 0xff}):
		return nil, errors.New("the text is UTF-16, want UTF-8: convert it first")
	}
	return buffered, nil
}

func newLines(r io.Reader, max int) (*lines, error) {
	buffered, err := decompress(r)
	if err != nil {
		return nil, err
	}
	scanner := bufio.NewScanner(buffered)
	// Room for the line end, so that a line of exactly max bytes passes.
	scanner.Buffer(make([]byte, 0, min(1<<16, max+2)), max+2)
	return &lines{scanner: scanner, max: max}, nil
}

func readError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading: the gzip file is cut off, get it again: %w", err)
	}
	return fmt.Errorf("reading: %w", err)
}

// next returns a line without its end; the bytes are valid until the next call.
// At the end of the text the error is io.EOF. The column of an error is 0 or that of the byte.
func (l *lines) next() (line []byte, column int, err error) {
	if !l.scanner.Scan() {
		l.number++
		switch err := l.scanner.Err(); {
		case err == nil:
			return nil, 0, io.EOF
		case errors.Is(err, bufio.ErrTooLong):
			return nil, 0, fmt.Errorf("the line is longer than %d bytes (is it a text with line ends? MaxLine raises the limit)", l.max)
		default:
			return nil, 0, readError(err)
		}
	}
	l.number++
	line = l.scanner.Bytes()
	if len(line) > l.max {
		return nil, 0, fmt.Errorf("the line is longer than %d bytes (is it a text with line ends? MaxLine raises the limit)", l.max)
	}
	if !utf8.Valid(line) {
		if err := l.scanner.Err(); err != nil { // the line is cut off by that error
			return nil, 0, readError(err)
		}
		for i := 0; i < len(line); {
			r, size := utf8.DecodeRune(line[i:])
			if r == utf8.RuneError && size == 1 {
				return nil, i + 1, fmt.Errorf("byte 0x%02x is not UTF-8 here: convert the file to UTF-8 first", line[i])
			}
			i += size
		}
	}
	if i := bytes.IndexByte(line, 0); i >= 0 {
		return nil, i + 1, errors.New("NUL byte: this is not a text file")
	}
	if i := bytes.IndexByte(line, '\r'); i >= 0 {
		return nil, i + 1, errors.New("carriage return inside a line: want line ends LF or CR LF")
	}
	return line, 0, nil
}

// Plain reads a whole text, byte by byte: gzip is decompressed, a byte-order mark dropped, UTF-16 refused; nothing else is
// looked at.
func Plain(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening text: %w", err)
	}
	defer file.Close()
	r, err := decompress(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, readError(err))
	}
	return text, nil
}

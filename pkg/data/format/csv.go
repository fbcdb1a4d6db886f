package format

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/data"
)

// CSVOptions says which columns of a table are wanted. The zero value takes the columns
// "text" and "label" of a table with commas.
type CSVOptions struct {
	// Text and Label are the names of columns, as the header has them.
	Text  string `json:"text,omitempty"`
	Label string `json:"label,omitempty"`
	// Unlabelled says that there is no column of labels.
	Unlabelled bool `json:"unlabelled,omitempty"`
	// Separator stands between columns: one character, "," if empty.
	Separator string `json:"separator,omitempty"`
}

func (o CSVOptions) withDefaults() CSVOptions {
	if o.Text == "" {
		o.Text = "text"
	}
	if o.Label == "" {
		o.Label = "label"
	}
	if o.Separator == "" {
		o.Separator = ","
	}
	return o
}

// CSV reads labelled texts from a table whose first record is a header; name stands in
// messages and in [data.Text.File]. The iterator can be used once.
//
// Records are those of RFC 4180: a field in double quotes may hold separators, line ends and
// doubled quotes; CR LF (or CR CR LF) inside one is read as LF. Labels are taken as they are written. It is
// an error when a column is not in the header or there twice, a record has another number of
// fields than the header, a text or label is empty, a field is not UTF-8 or has a NUL, and when
// there is no record. Lines of errors and texts are those on which a record begins.
func CSV(name string, r io.Reader, options CSVOptions) iter.Seq2[data.Text, error] {
	return func(yield func(data.Text, error) bool) {
		if err := readCSV(name, r, options.withDefaults(), yield); err != nil && !errors.Is(err, errStop) {
			var located *ParseError
			if !errors.As(err, &located) {
				err = &ParseError{File: name, Err: err}
			}
			yield(data.Text{}, err)
		}
	}
}

// CSVFile reads texts from a file as [CSV] does. The file is opened anew by each use of the
// iterator.
func CSVFile(path string, options CSVOptions) iter.Seq2[data.Text, error] {
	return textsOf(path, func(r io.Reader) iter.Seq2[data.Text, error] { return CSV(path, r, options) })
}

// textsOf reads a file by a reader of texts.
func textsOf(path string, read func(io.Reader) iter.Seq2[data.Text, error]) iter.Seq2[data.Text, error] {
	return func(yield func(data.Text, error) bool) {
		file, err := os.Open(path)
		if err != nil {
			yield(data.Text{}, fmt.Errorf("opening corpus: %w", err))
			return
		}
		defer file.Close()
		read(file)(yield)
	}
}

func readCSV(name string, r io.Reader, options CSVOptions, yield func(data.Text, error) bool) error {
	separator, size := utf8.DecodeRuneInString(options.Separator)
	if size != len(options.Separator) || separator == '"' || separator == '\n' || separator == '\r' || separator == utf8.RuneError {
		return fmt.Errorf("separator %q: want one character, and no quote or line end", options.Separator)
	}
	plain, err := decompress(r)
	if err != nil {
		return err
	}
	reader := csv.NewReader(plain)
	reader.Comma, reader.ReuseRecord = separator, true
	record := func() ([]string, int, error) {
		fields, err := reader.Read()
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF):
			return nil, 0, io.EOF
		case errors.As(err, &bad) && errors.Is(bad.Err, csv.ErrFieldCount):
			return nil, 0, &ParseError{File: name, Line: bad.StartLine, Err: fmt.Errorf("%d fields, want %d as in the header", len(fields), reader.FieldsPerRecord)}
		case errors.As(err, &bad):
			return nil, 0, &ParseError{File: name, Line: bad.StartLine, Err: fmt.Errorf("line %d, column %d: %w", bad.Line, bad.Column, bad.Err)}
		case err != nil:
			return nil, 0, readError(err)
		}
		line, _ := reader.FieldPos(0)
		for i, field := range fields {
			if err := checkText(field); err != nil {
				at, column := reader.FieldPos(i)
				return nil, 0, &ParseError{File: name, Line: at, Column: column, Err: err}
			}
			fields[i] = lineEnds.ReplaceAllString(field, "\n")
		}
		return fields, line, nil
	}

	header, line, err := record()
	if errors.Is(err, io.EOF) {
		return errors.New("no records, not even a header")
	}
	if err != nil {
		return err
	}
	header = slices.Clone(header)
	column := func(name string) (int, error) {
		at := slices.Index(header, name)
		if at < 0 {
			return 0, fmt.Errorf("no column %q; the header has %q", name, header)
		}
		if slices.Contains(header[at+1:], name) {
			return 0, fmt.Errorf("two columns are called %q", name)
		}
		return at, nil
	}
	text, err := column(options.Text)
	label := -1
	if err == nil && !options.Unlabelled {
		label, err = column(options.Label)
	}
	if err != nil {
		return &ParseError{File: name, Line: line, Err: err}
	}
	for count := 0; ; count++ {
		fields, line, err := record()
		if errors.Is(err, io.EOF) && count == 0 {
			return errors.New("no records behind the header")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		t := data.Text{Text: fields[text], File: name, Line: line}
		if label >= 0 {
			t.Label = fields[label]
		}
		if err := checkFilled(t, label >= 0); err != nil {
			return &ParseError{File: name, Line: line, Err: err}
		}
		if !yield(t, nil) {
			return errStop
		}
	}
}

// lineEnds are those that encoding/csv leaves: of CR CR LF, which a file converted twice has,
// it takes one CR only.
var lineEnds = regexp.MustCompile(`\r+\n`)

// checkText refuses what is no text.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("the field is not UTF-8: convert the file to UTF-8 first")
	}
	if strings.ContainsRune(s, 0) {
		return errors.New("NUL byte: this is not a text file")
	}
	return nil
}

// checkFilled refuses a text that says nothing, or that lacks its label.
func checkFilled(t data.Text, labelled bool) error {
	switch {
	case strings.TrimSpace(t.Text) == "":
		return errors.New("the text is empty")
	case labelled && t.Label == "":
		return errors.New("the label is empty")
	}
	return nil
}

// WriteCSV writes labelled texts as [CSV] reads them: a header and a record each. Line ends
// are LF. A text that CSV would refuse, or read otherwise (CR LF inside it), is an error.
func WriteCSV(w io.Writer, texts iter.Seq[data.Text], options CSVOptions) error {
	options = options.withDefaults()
	separator, size := utf8.DecodeRuneInString(options.Separator)
	if size != len(options.Separator) {
		return fmt.Errorf("separator %q: want one character", options.Separator)
	}
	writer := csv.NewWriter(w)
	writer.Comma = separator
	header := []string{options.Text, options.Label}
	if options.Unlabelled {
		header = header[:1]
	}
	if err := writer.Write(header); err != nil {
		return fmt.Errorf("writing header: %w", err)
	}
	count := 0
	for t := range texts {
		count++
		err := errors.Join(checkText(t.Text), checkText(t.Label), checkFilled(t, !options.Unlabelled))
		if err == nil && strings.Contains(t.Text+"\x00"+t.Label, "\r\n") {
			err = errors.New("CR LF inside a field is read as LF: replace it first")
		}
		if err == nil {
			err = writer.Write([]string{t.Text, t.Label}[:len(header)])
		}
		if err != nil {
			return fmt.Errorf("writing text %d (%s): %w", count, t.Place(), err)
		}
	}
	writer.Flush()
	if err := writer.Error(); err != nil {
		return fmt.Errorf("writing texts: %w", err)
	}
	return nil
}

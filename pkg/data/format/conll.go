package format

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/internal/plural"
	"github.com/elastic-attention/workbench/pkg/data"
)

// CoNLLOptions says how a column file is laid out and what of it is wanted. The
// zero value finds the layout by itself and keeps every tag as it is.
type CoNLLOptions struct {
	// WordColumn and TagColumn count from 1, or from the end if negative (-1 is
	// the last). 0 means: found out. If either is set, no token numbers are
	// looked for, and the other, if 0, is the first (word) or the last (tag).
	WordColumn int `json:"word_column,omitempty"`
	TagColumn  int `json:"tag_column,omitempty"`
	// Unlabelled says that there is no column of tags.
	Unlabelled bool `json:"unlabelled,omitempty"`
	// Separator is what stands between columns: a string such as "\t", or " " for
	// any run of spaces and tabs. "" means: a tab if the first token line has one, else " ".
	Separator string `json:"separator,omitempty"`
	// NoComments says that lines that begin with "#" are tokens everywhere.
	NoComments bool `json:"no_comments,omitempty"`
	// Types are the entity types to keep; tags of other types become O, before
	// Scheme is applied. Without any, all are kept. With RefuseOther they are an error instead.
	Types       []string `json:"types,omitempty"`
	RefuseOther bool     `json:"refuse_other,omitempty"`
	// Scheme says what to do with tags that break IOB2; the default keeps them.
	Scheme SchemeCheck `json:"scheme,omitempty"`
	// MaxLine is the longest line in bytes, 1 MiB by default; MaxWords the longest
	// sentence in lines, 65,536 by default. They keep a file that is not what it
	// seems from filling the memory.
	MaxLine  int `json:"max_line,omitempty"`
	MaxWords int `json:"max_words,omitempty"`
}

const (
	defaultMaxLine  = 1 << 20
	defaultMaxWords = 1 << 16
	maxBlockBytes   = 1 << 24 // of one sentence with its comments
	docStart        = "-DOCSTART-"
)

// CoNLL reads sentences with one token a line from r; name stands in error
// messages and in [data.Sentence.File]. The iterator can be used once.
//
// Sentences are separated by blank lines (empty, or only spaces and tabs) and by
// lines whose word is -DOCSTART-. Two layouts are known:
//
//   - numbered, as in UNER's .iob2 files: number, word, tag, and perhaps further
//     columns, with tabs between. Numbers count from 1 in each sentence; lines
//     numbered like 3-4 or 3.1 (Universal Dependencies' joined words and empty
//     nodes) are skipped. A line has three columns or as many as the first line
//     that has more (UNER drafts leave out the last two on O tokens). A sentence
//     whose tags are all "_" is unlabelled.
//   - plain: the word first and the tag last, or where the options say, the same
//     number of columns in each line, with tabs or with spaces between.
//
// Without options the first sentence decides: a file is numbered if the first
// column counts 1, 2, … and the third one holds tags, and either there is more
// than one token or a comment of the UNER kind (# sent_id, # text, # newdoc).
//
// Comments stand before the first token of a sentence. There, in a numbered file,
// every line that begins with "#" is one. In a plain file words may begin with
// "#" ("#golang", or "#" itself), so a line is a comment only if it begins with
// "# " and has no tab and does not look like a token line: as many columns as the
// other lines, a tag where the tag is, and not the form "# key = value". Behind
// the first token every line is a token. NoComments turns comments off. From
// comments "# sent_id = …" and "# text = …" come ID and Text.
//
// A tag is O, or a prefix (B, I, and E, S, L, U, M of other schemes), a hyphen and
// a type; anything else is an error, as are: no sentence at all, a line with too
// few or too many columns, an empty word, invalid UTF-8, NUL.
func CoNLL(name string, r io.Reader, options CoNLLOptions) iter.Seq2[data.Sentence, error] {
	return func(yield func(data.Sentence, error) bool) {
		p := &parser{name: name, options: options, yield: yield}
		if err := p.parse(r); err != nil && !errors.Is(err, errStop) {
			var located *ParseError
			if !errors.As(err, &located) {
				err = &ParseError{File: name, Err: err}
			}
			yield(data.Sentence{}, err)
		}
	}
}

// CoNLLFile reads sentences from a file as [CoNLL] does. The file is opened anew
// by each use of the iterator.
func CoNLLFile(path string, options CoNLLOptions) iter.Seq2[data.Sentence, error] {
	return func(yield func(data.Sentence, error) bool) {
		file, err := os.Open(path)
		if err != nil {
			yield(data.Sentence{}, fmt.Errorf("opening corpus: %w", err))
			return
		}
		defer file.Close()
		CoNLL(path, file, options)(yield)
	}
}

// errStop says that the loop over the iterator has ended early.
var errStop = errors.New("stop")

// parser reads block by block: the lines between two blank lines.
type parser struct {
	name    string
	options CoNLLOptions
	yield   func(data.Sentence, error) bool
	tags    *tagger

	// The block at hand; its memory serves the next one too.
	bytes []byte
	lines []lineSpan

	// What the first sentence has decided.
	decided    bool
	numbered   bool
	tabs       bool   // columns are separated by exactly one tab
	separator  string // other separator than tab and white space
	columns    int    // of a token line; 0 while unknown
	firstLine  int    // the line from which columns was taken
	sentences  int
	fieldSpace [][]byte
	wordEnds   []int
}

type lineSpan struct{ start, end, number int }

func (p *parser) parse(r io.Reader) error {
	if err := p.prepare(); err != nil {
		return err
	}
	input, err := newLines(r, p.options.MaxLine)
	if err != nil {
		return err
	}
	for {
		line, column, err := input.next()
		switch {
		case err == io.EOF:
			if err := p.block(); err != nil {
				return err
			}
			if p.sentences == 0 {
				return errors.New("no sentences: the file is empty or has only comments")
			}
			return nil
		case err != nil:
			// What came before the error is whole only up to the last blank line.
			return &ParseError{File: p.name, Line: input.number, Column: column, Err: err}
		case isBlank(line) || isDocStart(line):
			if err := p.block(); err != nil {
				return err
			}
			continue
		}
		if len(p.lines) >= p.options.MaxWords || len(p.bytes)+len(line) > max(maxBlockBytes, p.options.MaxLine) {
			return p.fault(input.number, fmt.Errorf("the sentence from line %d on has more than %d lines or %d bytes (are its blank lines missing? MaxWords raises the limit)",
				p.lines[0].number, p.options.MaxWords, max(maxBlockBytes, p.options.MaxLine)))
		}
		start := len(p.bytes)
		p.bytes = append(p.bytes, line...)
		p.lines = append(p.lines, lineSpan{start, len(p.bytes), input.number})
	}
}

func (p *parser) prepare() error {
	o := &p.options
	if o.MaxLine == 0 {
		o.MaxLine = defaultMaxLine
	}
	if o.MaxWords == 0 {
		o.MaxWords = defaultMaxWords
	}
	if o.MaxLine < 0 || o.MaxWords < 0 {
		return fmt.Errorf("MaxLine %d and MaxWords %d, want no negative number", o.MaxLine, o.MaxWords)
	}
	if o.Unlabelled && o.TagColumn != 0 {
		return fmt.Errorf("TagColumn %d and Unlabelled, want only one of them", o.TagColumn)
	}
	if strings.ContainsAny(o.Separator, "\r\n") {
		return fmt.Errorf("separator %q has a line end", o.Separator)
	}
	var err error
	p.tags, err = newTagger(*o)
	return err
}

func (p *parser) fault(line int, err error) error {
	return &ParseError{File: p.name, Line: line, Err: err}
}

func (p *parser) line(i int) []byte { return p.bytes[p.lines[i].start:p.lines[i].end] }

// block hands out the sentence of the lines that were gathered.
func (p *parser) block() error {
	if len(p.lines) == 0 {
		return nil
	}
	if !p.decided {
		p.decide()
	}
	sentence := data.Sentence{File: p.name}
	first := p.comments(&sentence)
	if first < len(p.lines) {
		var err error
		if p.numbered {
			err = p.numberedTokens(&sentence, first)
		} else {
			err = p.plainTokens(&sentence, first)
		}
		if err != nil {
			return err
		}
		if len(sentence.Words) > 0 {
			p.sentences++
			if !p.yield(sentence, nil) {
				return errStop
			}
		}
	}
	p.bytes, p.lines = p.bytes[:0], p.lines[:0]
	return nil
}

var (
	unerComment  = regexp.MustCompile(`^# ?(sent_id|text|newdoc|newpar)\b`)
	joinedNumber = regexp.MustCompile(`^[0-9]+[-.][0-9]+$`)
	// keyComment is the form of comments that carry a value: "# key = value", "# key lang = value".
	keyComment = regexp.MustCompile(`^# *[^ ]+( [^ ]+)? =( |$)`)
)

// decide looks at the first block that may hold tokens. A block of comments decides nothing.
func (p *parser) decide() {
	first := 0
	uner := false
	for ; first < len(p.lines) && p.line(first)[0] == '#' && !p.options.NoComments; first++ {
		uner = uner || unerComment.Match(p.line(first))
	}
	p.numbered = p.options.WordColumn == 0 && p.options.TagColumn == 0 && !p.options.Unlabelled &&
		(p.options.Separator == "" || p.options.Separator == "\t") && first < len(p.lines) && p.looksNumbered(first, uner)

	sample := first // a line that is surely a token's, else one that may be
	if sample == len(p.lines) {
		sample = slices.IndexFunc(p.lines, func(l lineSpan) bool {
			text := p.bytes[l.start:l.end]
			return !bytes.HasPrefix(text, []byte("# ")) || bytes.IndexByte(text, '\t') >= 0
		})
		if sample < 0 && p.numberOfFields(p.line(len(p.lines)-1)) == 2 {
			sample = len(p.lines) - 1 // "# O"
		}
		if sample < 0 {
			return
		}
	}
	switch p.options.Separator {
	case "":
		p.tabs = bytes.IndexByte(p.line(sample), '\t') >= 0
	case "\t":
		p.tabs = true
	case " ":
	default:
		p.separator = p.options.Separator
	}
	p.decided = true
	if !p.numbered {
		p.columns, p.firstLine = len(p.fields(p.line(sample))), p.lines[sample].number
	}
}

func (p *parser) numberOfFields(line []byte) int {
	return len(bytes.FieldsFunc(line, isSpace))
}

// looksNumbered reports whether the lines from first on are number, word, tag.
func (p *parser) looksNumbered(first int, uner bool) bool {
	count := 0
	for i := first; i < len(p.lines); i++ {
		fields := bytes.SplitN(p.line(i), []byte("\t"), 4)
		if len(fields) < 3 {
			return false
		}
		if joinedNumber.Match(fields[0]) {
			continue
		}
		count++
		if string(fields[0]) != strconv.Itoa(count) {
			return false
		}
		if _, _, ok := parseTag(string(fields[2])); !ok && string(fields[2]) != unlabelled {
			return false
		}
	}
	return uner && count > 0 || count > 1
}

// comments takes the comments of the block at hand and returns the index of its first token line.
func (p *parser) comments(sentence *data.Sentence) int {
	for i := range p.lines {
		line := p.line(i)
		if p.options.NoComments || line[0] != '#' || !p.numbered && p.isToken(line) {
			return i
		}
		if id, ok := cutComment(line, "sent_id"); ok {
			sentence.ID = id
		}
		if text, ok := cutComment(line, "text"); ok {
			sentence.Text = text
		}
	}
	return len(p.lines)
}

// isToken decides about a line of a plain file that begins with "#" and stands where comments stand.
func (p *parser) isToken(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("# ")) && p.separator == "" {
		return true // "#golang O", "#\tO"
	}
	if bytes.IndexByte(line, '\t') >= 0 {
		return true // "# 1\tO": the word has a space
	}
	if p.tabs || !p.decided || keyComment.Match(line) {
		return false
	}
	fields := p.fields(line)
	if len(fields) != p.columns {
		return false
	}
	if p.options.Unlabelled {
		return true
	}
	_, tag, err := p.wordAndTag(fields)
	if err != nil {
		return false
	}
	_, _, ok := parseTag(string(tag))
	return ok
}

func cutComment(line []byte, key string) (string, bool) {
	rest, ok := bytes.CutPrefix(line, []byte("# "+key+" ="))
	if !ok {
		return "", false
	}
	return string(bytes.TrimPrefix(rest, []byte(" "))), true
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' }

func isBlank(line []byte) bool { return len(bytes.Trim(line, " \t")) == 0 }

func isDocStart(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte(docStart))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t')
}

// fields splits a line into columns; the slice is valid until the next call.
func (p *parser) fields(line []byte) [][]byte {
	separator := p.separator
	if p.tabs {
		separator = "\t"
	}
	out := p.fieldSpace[:0]
	if separator != "" {
		for {
			field, rest, more := bytes.Cut(line, []byte(separator))
			out = append(out, field)
			if !more {
				break
			}
			line = rest
		}
	} else { // only ASCII white space: a no-break space belongs to its word
		for start, i := -1, 0; i <= len(line); i++ {
			switch space := i == len(line) || isSpace(rune(line[i])); {
			case !space && start < 0:
				start = i
			case space && start >= 0:
				out = append(out, line[start:i])
				start = -1
			}
		}
	}
	p.fieldSpace = out
	return out
}

// column resolves a column number of the options.
func column(fields [][]byte, number int) ([]byte, error) {
	index := number - 1
	if number < 0 {
		index = len(fields) + number
	}
	if index < 0 || index >= len(fields) {
		return nil, fmt.Errorf("%s, want at least %d (for column %d)", plural.Of(len(fields), "column", "columns"), max(number, -number), number)
	}
	return fields[index], nil
}

func (p *parser) wordAndTag(fields [][]byte) (word, tag []byte, err error) {
	wordColumn, tagColumn := p.options.WordColumn, p.options.TagColumn
	if wordColumn == 0 {
		wordColumn = 1
	}
	if tagColumn == 0 {
		tagColumn = -1
	}
	if word, err = column(fields, wordColumn); err != nil || p.options.Unlabelled {
		return word, nil, err
	}
	if tag, err = column(fields, tagColumn); err != nil {
		return nil, nil, err
	}
	if len(fields) == 1 {
		return nil, nil, errors.New("1 column, want a word and a tag with a tab or spaces between")
	}
	return word, tag, nil
}

func (p *parser) plainTokens(sentence *data.Sentence, first int) error {
	for i := first; i < len(p.lines); i++ {
		fields, number := p.fields(p.line(i)), p.lines[i].number
		if len(fields) != p.columns {
			return p.fault(number, fmt.Errorf("%s, want %d as in line %d%s",
				plural.Of(len(fields), "column", "columns"), p.columns, p.firstLine, p.hint(p.line(i))))
		}
		word, tag, err := p.wordAndTag(fields)
		if err == nil {
			err = p.add(sentence, i == first, number, word, tag)
		}
		if err != nil {
			return p.fault(number, err)
		}
	}
	p.finish(sentence)
	return nil
}

func (p *parser) numberedTokens(sentence *data.Sentence, first int) error {
	count, blanks := 0, 0
	for i := first; i < len(p.lines); i++ {
		fields, number := p.fields(p.line(i)), p.lines[i].number
		if joinedNumber.Match(fields[0]) {
			continue
		}
		if len(fields) > 3 && p.columns == 0 {
			p.columns, p.firstLine = len(fields), number
		}
		if len(fields) != 3 && len(fields) != p.columns {
			want := "want 3 or more"
			if p.columns != 0 {
				want = fmt.Sprintf("want 3, or %d as in line %d", p.columns, p.firstLine)
			}
			return p.fault(number, fmt.Errorf("%s, %s%s", plural.Of(len(fields), "column", "columns"), want, p.hint(p.line(i))))
		}
		count++
		if string(fields[0]) != strconv.Itoa(count) {
			return p.fault(number, fmt.Errorf("token number %q, want %d", fields[0], count))
		}
		tag := fields[2]
		if string(tag) == unlabelled {
			blanks++
			tag = nil
		}
		if blanks > 0 && blanks != count {
			return p.fault(number, fmt.Errorf("tag %q in a sentence that has tags and empty fields (_), want only one of both", fields[2]))
		}
		if err := p.add(sentence, count == 1, number, fields[1], tag); err != nil {
			return p.fault(number, err)
		}
	}
	p.finish(sentence)
	return nil
}

func (p *parser) hint(line []byte) string {
	if p.tabs && bytes.IndexByte(line, '\t') < 0 {
		return " (the file has tabs between columns, this line has none)"
	}
	return ""
}

// add appends a token to the sentence. Words gather in the block's memory, behind its lines, until finish.
func (p *parser) add(sentence *data.Sentence, first bool, line int, word, tag []byte) error {
	if first {
		sentence.Line = line
		p.wordEnds = p.wordEnds[:0]
	}
	if len(word) == 0 {
		return errors.New("the word is empty")
	}
	end := len(word)
	if len(p.wordEnds) > 0 {
		end += p.wordEnds[len(p.wordEnds)-1]
	}
	p.wordEnds = append(p.wordEnds, end)
	p.bytes = append(p.bytes, word...)
	if tag == nil {
		return nil
	}
	if sentence.Tags == nil {
		sentence.Tags = make([]string, 0, len(p.lines))
	}
	previous := ""
	if n := len(sentence.Tags); n > 0 {
		previous = sentence.Tags[n-1]
	}
	clean, err := p.tags.tag(tag)
	if err == nil {
		clean, err = p.tags.next(previous, clean)
	}
	sentence.Tags = append(sentence.Tags, clean)
	return err
}

// finish makes the words of a sentence: slices of one string, which holds nothing else.
func (p *parser) finish(sentence *data.Sentence) {
	if len(p.wordEnds) == 0 || sentence.Line == 0 {
		return
	}
	total := p.wordEnds[len(p.wordEnds)-1]
	all := string(p.bytes[len(p.bytes)-total:])
	sentence.Words = make([]string, len(p.wordEnds))
	start := 0
	for i, end := range p.wordEnds {
		sentence.Words[i] = all[start:end]
		start = end
	}
}

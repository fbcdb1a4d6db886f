package format_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/google/go-cmp/cmp"
)

type options = format.CoNLLOptions

// parse gives the sentences as "word/tag word/tag", each with its line, and the error as text.
func parse(text string, o options) (sentences []string, failure string) {
	for sentence, err := range format.CoNLL("x", strings.NewReader(text), o) {
		if err != nil {
			return sentences, err.Error()
		}
		var tokens []string
		for i, word := range sentence.Words {
			if sentence.Labelled() {
				word += "/" + sentence.Tags[i]
			}
			tokens = append(tokens, word)
		}
		sentences = append(sentences, fmt.Sprintf("%d: %s", sentence.Line, strings.Join(tokens, " ")))
	}
	return sentences, ""
}

const uner = `# newdoc id = weblog
# sent_id = weblog-0001
# text = Ada is in Paris.
1	Ada	B-PER	-	jo
2	is	O
3	in	O
4	Paris	B-LOC	-	jo
5	.	B-O	-	jo

# sent_id = weblog-0002
# text = # 1
1	#	O
2	1	B-OTH	-	jo

`

func TestCoNLLLayouts(t *testing.T) {
	tests := []struct {
		name, text string
		options    options
		want       []string
	}{
		{"numbered", uner, options{}, []string{"4: Ada/B-PER is/O in/O Paris/B-LOC ./B-O", "12: #/O 1/B-OTH"}},
		{"numbered, types", uner, options{Types: []string{"PER", "ORG", "LOC"}}, []string{"4: Ada/B-PER is/O in/O Paris/B-LOC ./O", "12: #/O 1/O"}},
		{"numbered, other columns asked", uner, options{WordColumn: 2, TagColumn: 3, Separator: "\t"}, nil},
		{"numbered, no comments", "1\tAda\tB-PER\n2\truns\tO\n", options{}, []string{"1: Ada/B-PER runs/O"}},
		{"numbered, one token with comment", "# sent_id = 1\n1\tAda\tB-PER\n", options{}, []string{"2: Ada/B-PER"}},
		{"numbered, joined words and empty nodes", "1-2\tdel\t_\t-\t-\n1\tde\tO\t-\t-\n2\tel\tO\t-\t-\n2.1\tno\t_\t-\t-\n3\tRey\tB-PER\t-\t-\n", options{}, []string{"2: de/O el/O Rey/B-PER"}},
		{"numbered, comment with a tab", "# text = a\tb\n1\ta\tO\n2\tb\tO\n", options{}, []string{"2: a/O b/O"}},
		{"numbered, unlabelled", "1\tAda\t_\t-\t-\n2\truns\t_\t-\t-\n\n1\tBob\tB-PER\t-\t-\n", options{}, []string{"1: Ada runs", "4: Bob/B-PER"}},
		{"numbered, word with spaces", "1\t3 1/2\tO\n2\tcm\tO\n", options{}, []string{"1: 3 1/2/O cm/O"}},
		{"tabs", "Ada\tB-PER\nruns\tO\n\nBob\tB-PER\n", options{}, []string{"1: Ada/B-PER runs/O", "4: Bob/B-PER"}},
		{"spaces", "Ada B-PER\nruns O\n\nBob B-PER\n", options{}, []string{"1: Ada/B-PER runs/O", "4: Bob/B-PER"}},
		{"runs of spaces and tabs", "Ada   B-PER\nruns\t O \n", options{Separator: " "}, []string{"1: Ada/B-PER runs/O"}},
		{"four columns", "-DOCSTART- -X- -X- O\n\nAda NNP I-NP B-PER\nruns VBZ I-VP O\n\n-DOCSTART- -X- O\n\nBob NNP I-NP B-PER\n", options{},
			[]string{"3: Ada/B-PER runs/O", "8: Bob/B-PER"}},
		{"document mark without blank lines", "Ada O\n-DOCSTART- -X-\nBob O\n", options{}, []string{"1: Ada/O", "3: Bob/O"}},
		{"word that begins like a document mark", "-DOCSTART-ED O\n", options{}, []string{"1: -DOCSTART-ED/O"}},
		{"columns asked", "B-PER x Ada\nO y runs\n", options{WordColumn: -1, TagColumn: 1}, []string{"1: Ada/B-PER runs/O"}},
		{"only the word's column asked", "1 Ada B-PER\n2 runs O\n", options{WordColumn: 2}, []string{"1: Ada/B-PER runs/O"}},
		{"other separator", "Ada|B-PER\nruns|O\n", options{Separator: "|"}, []string{"1: Ada/B-PER runs/O"}},
		{"words alone", "Ada\nruns\n\n#golang\n", options{Unlabelled: true}, []string{"1: Ada runs", "4: #golang"}},
		{"other schemes", "a S-PER\nb B-LOC\nc E-LOC\nd U-ORG\ne L-ORG\nf M-ORG\n", options{}, []string{"1: a/S-PER b/B-LOC c/E-LOC d/U-ORG e/L-ORG f/M-ORG"}},
		{"type with hyphens", "a B-creative-work\n", options{Types: []string{"creative-work"}}, []string{"1: a/B-creative-work"}},
		{"first word is a number", "1 CD O\n", options{}, []string{"1: 1/O"}},
		{"first words count, third column is no tag", "1\tCD\tI-NP\tO\n2\tCD\tI-NP\tO\nx\tCD\tI-NP\tO\n", options{}, []string{"1: 1/O 2/O x/O"}},
		{"no-break space is part of a word", "3\u00a0km O\n", options{}, []string{"1: 3\u00a0km/O"}},

		{"byte-order mark", "\ufeffAda O\n", options{}, []string{"1: Ada/O"}},
		{"CR LF", "# sent_id = 1\r\n1\tAda\tB-PER\r\n\r\n# sent_id = 2\r\n1\tBob\tB-PER\r\n", options{}, []string{"2: Ada/B-PER", "5: Bob/B-PER"}},
		{"no final newline", "Ada B-PER\nruns O", options{}, []string{"1: Ada/B-PER runs/O"}},
		{"many blank lines", "\n\n \nAda O\n\t\n\n\nBob O\n\n\n", options{}, []string{"4: Ada/O", "8: Bob/O"}},

		{"# as a word, tabs", "#\tO\n1\tO\n", options{}, []string{"1: #/O 1/O"}},
		{"# as a word, spaces", "# O\n1 O\n", options{}, []string{"1: #/O 1/O"}},
		{"# as the only word, spaces", "# O\n", options{}, []string{"1: #/O"}},
		{"# as a word, four columns", "Ada NNP I-NP O\n\n# SYM I-NP O\n1 CD I-NP O\n", options{}, []string{"1: Ada/O", "3: #/O 1/O"}},
		{"# inside a sentence", "Ada O\n# O\n#x O\n", options{}, []string{"1: Ada/O #/O #x/O"}},
		{"hashtags", "#golang\tO\n#go\tB-product\n", options{}, []string{"1: #golang/O #go/B-product"}},
		{"hashtags, spaces", "#golang O\nis O\n\n#go B-product\n", options{}, []string{"1: #golang/O is/O", "4: #go/B-product"}},
		{"word with # and a space", "is\tO\n\n# 1\tO\n", options{}, []string{"1: is/O", "3: # 1/O"}},
		{"comments in a plain file", "# by hand, 2024\n\n# id = 7\nAda O\nruns O\n\n# a note about O\nBob O\n", options{}, []string{"4: Ada/O runs/O", "8: Bob/O"}},
		{"comments in a plain file, tabs", "# O\nAda\tO\n", options{}, []string{"2: Ada/O"}},
		{"key = value is a comment though it fits", "Ada x y O\n\n# id = O\nBob x y O\n", options{}, []string{"1: Ada/O", "4: Bob/O"}},
		{"no comments wanted", "# = x O\nAda x y O\n", options{NoComments: true}, []string{"1: #/O Ada/O"}},

		{"kept", "a I-PER\nb I-LOC\nc B-LOC\nd I-PER\n", options{}, []string{"1: a/I-PER b/I-LOC c/B-LOC d/I-PER"}},
		{"repaired", "a I-PER\nb I-PER\nc I-LOC\nd B-LOC\ne I-PER\nf O\ng I-PER\n", options{Scheme: format.SchemeRepair},
			[]string{"1: a/B-PER b/I-PER c/B-LOC d/B-LOC e/B-PER f/O g/B-PER"}},
		{"repaired anew in each sentence", "a B-PER\n\nb I-PER\n", options{Scheme: format.SchemeRepair}, []string{"1: a/B-PER", "3: b/B-PER"}},
		{"checked after types were dropped", "a B-PER\nb I-PER\nc I-MISC\n", options{Scheme: format.SchemeError, Types: []string{"PER"}}, []string{"1: a/B-PER b/I-PER c/O"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, failure := parse(test.text, test.options)
			if test.want == nil {
				if failure == "" {
					t.Errorf("got %q, want an error: three columns here, five there", got)
				}
				return
			}
			if failure != "" {
				t.Fatal(failure)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCoNLLComments(t *testing.T) {
	got, err := data.Collect(format.CoNLL("x.iob2", strings.NewReader(uner), options{}))
	if err != nil {
		t.Fatal(err)
	}
	want := []data.Sentence{
		{ID: "weblog-0001", Text: "Ada is in Paris.", File: "x.iob2", Line: 4,
			Words: []string{"Ada", "is", "in", "Paris", "."}, Tags: []string{"B-PER", "O", "O", "B-LOC", "B-O"}},
		{ID: "weblog-0002", Text: "# 1", File: "x.iob2", Line: 12, Words: []string{"#", "1"}, Tags: []string{"O", "B-OTH"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCoNLLBadInput(t *testing.T) {
	tests := []struct {
		name, text string
		options    options
		want       string // the start of the message
		before     int    // sentences that come before the error
	}{
		{"empty file", "", options{}, "x: no sentences", 0},
		{"only blank lines", "\n\n \n", options{}, "x: no sentences", 0},
		{"only comments", "# sent_id = 1\n# text = a\n", options{}, "x: no sentences", 0},
		{"only a document mark", "-DOCSTART- -X- O\n", options{}, "x: no sentences", 0},
		{"only a byte-order mark", "\ufeff", options{}, "x: no sentences", 0},

		{"fewer columns", "Ada\tNNP\tO\n\nBob\tO\n", options{}, "x:3: 2 columns, want 3 as in line 1", 1},
		{"more columns", "Ada O\nBob Smith O\n", options{}, "x:2: 3 columns, want 2 as in line 1", 0},
		{"spaces among tabs", "Ada\tO\nBob O\n", options{}, "x:2: 1 column, want 2 as in line 1 (the file has tabs between columns, this line has none)", 0},
		{"one column", "Ada\nruns\n", options{}, "x:1: 1 column, want a word and a tag", 0},
		{"column out of reach", "Ada O\n", options{TagColumn: 4}, "x:1: 2 columns, want at least 4", 0},
		{"negative column out of reach", "Ada O\n", options{WordColumn: -3}, "x:1: 2 columns, want at least 3", 0},
		{"numbered, two columns", "1\tAda\tO\n2\truns\tO\n3\tO\n", options{}, "x:3: 2 columns, want 3 as in line 1", 0}, // not taken for numbered
		{"numbered, later sentence", uner + "1\tBob\n", options{}, "x:15: 2 columns, want 3, or 5 as in line 4", 2},
		{"numbered, four columns", uner + "1\tBob\tO\t-\n", options{}, "x:15: 4 columns, want 3, or 5 as in line 4", 2},
		{"numbered, gap", uner + "1\tBob\tO\n3\truns\tO\n", options{}, `x:16: token number "3", want 2`, 2},
		{"numbered, comment inside", uner + "1\tBob\tO\n# text\n", options{}, "x:16: 1 column, want 3", 2},
		{"numbered, tags half missing", uner + "1\tBob\tB-PER\n2\truns\t_\n", options{}, `x:16: tag "_" in a sentence`, 2},
		{"numbered, tag behind missing", uner + "1\tBob\t_\n2\truns\tO\n", options{}, `x:16: tag "O" in a sentence`, 2},
		{"empty word", "Ada\tO\n\tO\n", options{}, "x:2: the word is empty", 0},

		{"unknown tag", "Ada PERSON\n", options{}, `x:1: unknown tag "PERSON": want O`, 0},
		{"tag without type", "Ada B\n", options{}, `x:1: unknown tag "B"`, 0},
		{"tag with empty type", "Ada B-\n", options{}, `x:1: unknown tag "B-"`, 0},
		{"tag with underscore", "Ada B_PER\n", options{}, `x:1: unknown tag "B_PER"`, 0},
		{"tag with unknown prefix", "Ada X-PER\n", options{}, `x:1: unknown tag "X-PER"`, 0},
		{"lower-case o", "Ada o\n", options{}, `x:1: unknown tag "o"`, 0},
		{"two tags", "Ada\tB-person,B-group\n", options{}, `x:1: unknown tag "B-person,B-group"`, 0},
		{"empty tag", "Ada\tO\nruns\t\n", options{}, `x:2: unknown tag ""`, 0},
		{"type not allowed", "Ada B-PER\nx B-OTH\n", options{Types: []string{"PER", "LOC"}, RefuseOther: true}, `x:2: tag "B-OTH" has a type that is not one of PER, LOC`, 0},

		{"I- at the start", "a O\n\nb I-PER\n", options{Scheme: format.SchemeError}, `x:3: tag "I-PER" begins a sentence, want "B-PER"`, 1},
		{"I- after O", "a O\nb I-PER\n", options{Scheme: format.SchemeError}, `x:2: tag "I-PER" follows "O", want "B-PER"`, 0},
		{"I- after another type", "a B-LOC\nb I-PER\n", options{Scheme: format.SchemeError}, `x:2: tag "I-PER" follows "B-LOC"`, 0},
		{"other scheme", "a S-LOC\n", options{Scheme: format.SchemeRepair}, `x:1: tag "S-LOC" is not of the IOB2 scheme`, 0},

		{"invalid UTF-8", "Ada O\n\nJos\xe9 B-PER\n", options{}, "x:3:4: byte 0xe9 is not UTF-8 here", 1},
		{"cut rune", "Jos\xc3", options{}, "x:1:4: byte 0xc3", 0},
		{"NUL", "Ada O\nB\x00b O\n", options{}, "x:2:2: NUL byte", 0},
		{"UTF-16", "\xff\xfeA\x00", options{}, "x: the text is UTF-16", 0},
		{"UTF-16, big-endian", "\xfe\xff\x00A", options{}, "x: the text is UTF-16", 0},
		{"carriage returns as line ends", "Ada O\rBob O\r", options{}, "x:1:6: carriage return inside a line", 0},
		{"long line", "a O\n\n" + strings.Repeat("x", 2<<20), options{}, "x:3: the line is longer than 1048576 bytes", 1},
		{"line over own limit", "abcdef O\n", options{MaxLine: 7}, "x:1: the line is longer than 7 bytes", 0},
		{"line one over own limit", "abcdef O", options{MaxLine: 7}, "x:1: the line is longer than 7 bytes", 0},
		{"endless sentence", strings.Repeat("a O\n", 70_000), options{}, "x:65537: the sentence from line 1 on has more than 65536 lines", 0},
		{"endless sentence of long lines", strings.Repeat(strings.Repeat("a", 1<<20-2)+" O\n", 17), options{}, "x:17: the sentence from line 1 on", 0},
		{"cut gzip", string(zipped(uner)[:80]), options{}, "x:4: reading: the gzip file is cut off", 0},
		{"broken gzip header", "\x1f\x8b\x00", options{}, "x: opening gzip", 0},

		{"bad scheme option", "a O\n", options{Scheme: "strict"}, `x: scheme check "strict", want`, 0},
		{"tag column of the unlabelled", "a O\n", options{Unlabelled: true, TagColumn: 2}, "x: TagColumn 2 and Unlabelled", 0},
		{"no types to refuse by", "a O\n", options{RefuseOther: true}, "x: RefuseOther without Types", 0},
		{"negative limit", "a O\n", options{MaxLine: -1}, "x: MaxLine -1", 0},
		{"line end as separator", "a O\n", options{Separator: "\n"}, "x: separator", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, failure := parse(test.text, test.options)
			if failure == "" || !strings.HasPrefix(failure, test.want) {
				t.Errorf("got error %q, want it to begin with %q", failure, test.want)
			}
			if len(got) != test.before {
				t.Errorf("got %d sentences before the error, want %d", len(got), test.before)
			}
		})
	}
}

// TestCoNLLErrorEnds makes sure that nothing follows an error.
func TestCoNLLErrorEnds(t *testing.T) {
	var seen []string
	for sentence, err := range format.CoNLL("x", strings.NewReader("a O\n\nb ?\n\nc O\n"), options{}) {
		seen = append(seen, fmt.Sprint(sentence.Words, err != nil))
	}
	if diff := cmp.Diff([]string{"[a] false", "[] true"}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseError(t *testing.T) {
	_, err := data.Collect(format.CoNLL("x", strings.NewReader("a O\nb\xff O\n"), options{}))
	var at *format.ParseError
	if !errors.As(err, &at) || at.File != "x" || at.Line != 2 || at.Column != 2 {
		t.Errorf("got %#v", err)
	}
	broken := errors.New("cable pulled")
	_, err = data.Collect(format.CoNLL("x", io.MultiReader(strings.NewReader("a O\n"), failing{broken}), options{}))
	if !errors.Is(err, broken) || err.Error() != "x:2: reading: cable pulled" {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func zipped(text string) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return out.Bytes()
}

func TestCoNLLFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string][]byte{"plain.gz": []byte(uner), "zipped.iob2": zipped(uner)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		sentences := format.CoNLLFile(path, options{})
		for range 2 { // the iterator opens the file anew
			all, err := data.Collect(sentences)
			if err != nil || len(all) != 2 || all[0].File != path {
				t.Errorf("%s: got %d sentences, %v", name, len(all), err)
			}
		}
		for range sentences {
			break // leaving early closes the file
		}
	}
	_, err := data.Collect(format.CoNLLFile(filepath.Join(dir, "absent"), options{}))
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "opening corpus: ") {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	if _, err := data.Collect(format.CoNLLFile(dir, options{})); err == nil {
		t.Error("a folder was read as a corpus")
	}
}

func TestWriteCoNLL(t *testing.T) {
	sentences := []data.Sentence{
		{Words: []string{"One"}, Tags: []string{"O"}},
		{ID: "s-2", Text: " # of\tthings = 1 ", Words: []string{"#", "of", "3 1/2", "-DOCSTART-", "\u00a0", "="}, Tags: []string{"O", "B-PER", "I-PER", "S-x-y", "O", "B-O"}},
		{ID: "bare", Words: []string{"no", "tags"}},
	}
	var out strings.Builder
	if err := format.WriteCoNLL(&out, slices.Values(sentences)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sentences, reread(t, out.String())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// reread reads what was written, without the places.
func reread(t *testing.T, text string) []data.Sentence {
	t.Helper()
	all, err := data.Collect(format.CoNLL("x", strings.NewReader(text), options{}))
	if err != nil {
		t.Fatalf("%v\nin %q", err, text)
	}
	for i := range all {
		all[i].File, all[i].Line = "", 0
	}
	return all
}

func TestWriteCoNLLRefuses(t *testing.T) {
	tests := []struct {
		sentence data.Sentence
		want     string
	}{
		{data.Sentence{ID: "s1"}, "writing CoNLL: s1: no words"},
		{data.Sentence{Words: []string{"a"}, Tags: []string{"O", "O"}}, "writing CoNLL: sentence: 2 tags for 1 words"},
		{data.Sentence{Words: []string{""}}, "writing CoNLL: sentence: word 0 is empty"},
		{data.Sentence{Words: []string{"a\tb"}}, `writing CoNLL: sentence: word 0: "a\tb" has a character '\t', which the format cannot hold`},
		{data.Sentence{Words: []string{"a\nb"}}, `writing CoNLL: sentence: word 0: "a\nb" has a character '\n', which the format cannot hold`},
		{data.Sentence{Words: []string{"\xff"}}, `writing CoNLL: sentence: word 0: "\xff" is not UTF-8`},
		{data.Sentence{Words: []string{"a"}, Tags: []string{"PER"}}, `writing CoNLL: sentence: word 0: unknown tag "PER", want O or a tag such as B-PER`},
		{data.Sentence{Words: []string{"a"}, Tags: []string{"B-\t"}}, `writing CoNLL: sentence: tag 0: "B-\t" has a character '\t', which the format cannot hold`},
		{data.Sentence{ID: "a\nb", Words: []string{"a"}}, "writing CoNLL: a\nb: sent_id: \"a\\nb\" has a character '\\n', which the format cannot hold"},
		{data.Sentence{Text: "a\nb", Words: []string{"a"}}, `writing CoNLL: sentence: text: "a\nb" has a character '\n', which the format cannot hold`},
	}
	for _, test := range tests {
		err := format.WriteCoNLL(io.Discard, slices.Values([]data.Sentence{test.sentence}))
		if err == nil || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
	full := errors.New("disk full")
	err := format.WriteCoNLL(failingWriter{full}, slices.Values([]data.Sentence{{Words: []string{"a"}}}))
	if !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// repeated gives one text over and over, up to a number of bytes.
type repeated struct {
	text []byte
	rest []byte
	left int
}

func (r *repeated) Read(out []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.left <= 0 {
			return 0, io.EOF
		}
		r.rest = r.text
		r.left -= len(r.text)
	}
	n := copy(out, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// TestCoNLLStreams reads a corpus that is far larger than the memory that it may take.
func TestCoNLLStreams(t *testing.T) {
	size := 100 << 20
	if testing.Short() {
		size = 20 << 20
	}
	for name, text := range map[string]string{
		"numbered": uner,
		"plain":    "Ada NNP I-NP B-PER\nruns VBZ I-VP O\nto TO I-PP O\nParis NNP I-NP B-LOC\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			var before, now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			input := &repeated{text: []byte(strings.Repeat(text, 100)), left: size}
			count, grown := 0, uint64(0)
			for _, err := range format.CoNLL("big", input, options{}) {
				if err != nil {
					t.Fatal(err)
				}
				if count++; count%500_000 == 0 {
					runtime.GC()
					runtime.ReadMemStats(&now)
					grown = max(grown, now.HeapAlloc-min(before.HeapAlloc, now.HeapAlloc))
				}
			}
			if per := strings.Count(text, "\n\n"); count < size/len(text)*per {
				t.Errorf("got %d sentences of %d bytes", count, size)
			}
			if limit := uint64(2 << 20); grown > limit {
				t.Errorf("the heap has grown by %d bytes while reading %d, want at most %d", grown, size, limit)
			}
		})
	}
}

// TestCoNLLAllocations bounds what a sentence costs: nothing is allocated for each word.
func TestCoNLLAllocations(t *testing.T) {
	text := strings.Repeat(uner, 1000)
	reader := strings.NewReader(text)
	per := testing.AllocsPerRun(5, func() {
		reader.Reset(text)
		for _, err := range format.CoNLL("x", reader, options{}) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}) / 2000
	// Words: one string and one slice. Tags: one slice. ID and Text: one string each.
	if per > 6 {
		t.Errorf("%.1f allocations a sentence, want at most 6", per)
	}
}

// corpus is one file with what its README says that it holds.
type corpus struct {
	path      string
	sentences int
	spans     map[string]int
}

// checkCorpora counts sentences and spans; a span starts at B-, S-, U- or an I- that continues nothing.
func checkCorpora(t *testing.T, o options, corpora []corpus) {
	t.Helper()
	for _, c := range corpora {
		path := golden.Shared(t, "data/"+c.path)
		t.Run(c.path, func(t *testing.T) {
			sentences, spans := 0, map[string]int{}
			for sentence, err := range format.CoNLLFile(path, o) {
				if err != nil {
					t.Fatal(err)
				}
				if err := sentence.Validate(); err != nil {
					t.Fatal(err)
				}
				sentences++
				previous := "O"
				for _, tag := range sentence.Tags {
					if tag != "O" && (tag[0] == 'B' || tag[0] == 'S' || tag[0] == 'I' && (previous == "O" || previous[2:] != tag[2:])) {
						spans[tag[2:]]++
					}
					previous = tag
				}
			}
			if sentences != c.sentences {
				t.Errorf("got %d sentences, want %d", sentences, c.sentences)
			}
			if diff := cmp.Diff(c.spans, spans); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUNER reads the real corpus; the counts are those of the README beside it.
func TestUNER(t *testing.T) {
	const folder = "ner_uner_en_ewt/en_ewt-ud-"
	train := map[string]int{"PER": 2873, "LOC": 2698, "ORG": 1434}
	raw := maps.Clone(train)
	raw["OTH"], raw["O"] = 888, 540
	checkCorpora(t, options{}, []corpus{
		{folder + "train.clean.iob2.gz", 12543, train},
		{folder + "train.first-commit.iob2.gz", 12543, raw},
		{folder + "dev.iob2.gz", 2001, map[string]int{"LOC": 399, "PER": 343, "ORG": 224}},
		{folder + "test.iob2.gz", 2077, map[string]int{"PER": 449, "ORG": 322, "LOC": 317}},
	})

	// The option that drops other types makes the cleaned file out of the raw one.
	types := options{Types: []string{"PER", "ORG", "LOC"}, Scheme: format.SchemeError}
	clean, err := data.Collect(format.CoNLLFile(golden.Shared(t, "data/"+folder+"train.clean.iob2.gz"), options{}))
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for sentence, err := range format.CoNLLFile(golden.Shared(t, "data/"+folder+"train.first-commit.iob2.gz"), types) {
		if err != nil {
			t.Fatal(err)
		}
		sentence.File, clean[i].File = "", ""
		if !reflect.DeepEqual(clean[i], sentence) {
			t.Fatalf("sentence %d (-clean +raw with Types):\n%s", i, cmp.Diff(clean[i], sentence))
		}
		i++
	}

	var out bytes.Buffer
	if err := format.WriteCoNLL(&out, slices.Values(clean)); err != nil {
		t.Fatal(err)
	}
	for i := range clean {
		clean[i].File, clean[i].Line = "", 0
	}
	again := reread(t, out.String())
	if len(again) != len(clean) {
		t.Fatalf("written %d sentences, read %d", len(clean), len(again))
	}
	for i, got := range again {
		if !reflect.DeepEqual(clean[i], got) {
			t.Fatalf("written and read again, sentence %d (-want +got):\n%s", i, cmp.Diff(clean[i], got))
		}
	}
}

// TestOtherCorpora reads files of other makers and layouts, all without options.
func TestOtherCorpora(t *testing.T) {
	disease := func(n int) map[string]int { return map[string]int{"Disease": n} }
	checkCorpora(t, options{}, []corpus{
		{"ner_wnut17/wnut17train.conll", 3394, map[string]int{"person": 660, "location": 548, "group": 264, "corporation": 221, "product": 142, "creative-work": 140}},
		{"ner_wnut17/emerging.dev.conll", 1009, map[string]int{"person": 470, "product": 114, "creative-work": 105, "location": 74, "group": 39, "corporation": 34}},
		{"ner_wnut17/emerging.test.annotated", 1287, map[string]int{"person": 429, "group": 165, "location": 150, "creative-work": 142, "product": 127, "corporation": 66}},
		{"ner_uner_zh_gsdsimp/zh_gsdsimp-ud-train.iob2.gz", 3997, map[string]int{"LOC": 2858, "PER": 2148, "ORG": 1112}},
		{"ner_uner_zh_gsdsimp/zh_gsdsimp-ud-dev.iob2", 500, map[string]int{"LOC": 375, "PER": 245, "ORG": 133}},
		{"ner_uner_zh_gsdsimp/zh_gsdsimp-ud-test.iob2", 500, map[string]int{"LOC": 429, "PER": 205, "ORG": 129}},
		{"ner_ncbi_disease_iobes/iob/train.tsv.gz", 5424, disease(5134)},
		{"ner_ncbi_disease_iobes/iobes/train.tsv.gz", 5424, disease(5134)},
		{"ner_ncbi_disease_iobes/iobes/test.tsv", 940, disease(960)},
		{"ner_wikigold/wikigold.conll.txt.gz", 1696, map[string]int{"LOC": 1014, "PER": 934, "ORG": 898, "MISC": 712}},
		{"ner_sec_filings/FIN5.txt.gz", 1164, map[string]int{"PER": 747, "ORG": 243, "LOC": 171, "MISC": 7}},
		{"ner_sec_filings/FIN3.txt", 303, map[string]int{"PER": 216, "ORG": 56, "LOC": 39, "MISC": 7}},
	})
}

func FuzzCoNLL(f *testing.F) {
	for _, seed := range []string{
		uner, "", "\n", "Ada B-PER\nruns O\n\n# O\n", "#golang\tO\n#\tO\n", "\ufeff# text = x\r\n1\ta\t_\r\n", "1-2\tdel\t_\n1\tde\tO\n2\tel\tO\n",
		"-DOCSTART- -X- O O\n\nx y z I-LOC\n", "a\xff O\n", "a\x00 O\n", "# a\n\nb O\n# b\nc O\n", "\u00a0\tO\n \tO\n",
	} {
		f.Add([]byte(seed), uint8(0))
	}
	f.Add(zipped(uner), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, choice uint8) {
		o := options{MaxLine: 1 << 12, MaxWords: 1 << 8}
		o.Scheme = []format.SchemeCheck{format.SchemeKeep, format.SchemeError, format.SchemeRepair, format.SchemeKeep}[choice&3]
		if choice&4 != 0 {
			o.Types = []string{"PER", "LOC"}
		}
		o.Unlabelled = choice&8 != 0
		o.NoComments = choice&16 != 0
		if choice&32 != 0 {
			o.Separator = " "
		}
		var kept []data.Sentence
		for sentence, err := range format.CoNLL("fuzz", bytes.NewReader(text), o) {
			if err != nil {
				if !strings.HasPrefix(err.Error(), "fuzz:") {
					t.Errorf("an error without its place: %v", err)
				}
				break
			}
			if err := sentence.Validate(); err != nil {
				t.Fatal(err)
			}
			sentence.File, sentence.Line = "", 0
			kept = append(kept, sentence)
		}
		if len(kept) == 0 {
			return
		}
		var out strings.Builder
		if err := format.WriteCoNLL(&out, slices.Values(kept)); err != nil {
			t.Fatalf("a sentence that was read cannot be written: %v", err)
		}
		if diff := cmp.Diff(kept, reread(t, out.String())); diff != "" {
			t.Errorf("written and read again (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkCoNLL(b *testing.B) {
	text := []byte(strings.Repeat(uner, 1000))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range format.CoNLL("x", bytes.NewReader(text), options{}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func ExampleCoNLL() {
	const text = `# sent_id = example-1
# text = Ada lives in New York
1	Ada	B-PER	-	-
2	lives	O	-	-
3	in	O	-	-
4	New	B-LOC	-	-
5	York	I-LOC	-	-
`
	for sentence, err := range format.CoNLL("example.iob2", strings.NewReader(text), format.CoNLLOptions{Types: []string{"LOC"}}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(sentence.ID, sentence.Words, sentence.Tags)
	}
	// Output:
	// example-1 [Ada lives in New York] [O O O B-LOC I-LOC]
}

func ExampleCoNLL_errors() {
	const text = "Ada B-PER\nlives O\nhere\n"
	for sentence, err := range format.CoNLL("example.conll", strings.NewReader(text), format.CoNLLOptions{}) {
		fmt.Println(sentence.Words, err)
	}
	// Output:
	// [] example.conll:3: 1 column, want 2 as in line 1
}

func ExampleWriteCoNLL() {
	sentences := []data.Sentence{{ID: "1", Words: []string{"Hello", "Oslo"}, Tags: []string{"O", "B-LOC"}}}
	_ = format.WriteCoNLL(os.Stdout, slices.Values(sentences))
	// Output:
	// # sent_id = 1
	// 1	Hello	O	-	-
	// 2	Oslo	B-LOC	-	-
}

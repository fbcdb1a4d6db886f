package tokenizer_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
)

// A goldenWindow is an encoding as the reference made it.
type goldenWindow struct {
	IDs  []int32         `json:"ids"`
	Off  []int           `json:"off"`  // start, end, start, end …
	Type json.RawMessage `json:"type"` // a list, or 0 when all are 0
	Spec []int           `json:"spec"` // positions of special tokens
	Word []*int32        `json:"word"`
}

type goldenRow struct {
	goldenWindow
	Kind      string         `json:"kind"`
	Text      string         `json:"text"`
	Pair      *string        `json:"pair"`
	Words     []string       `json:"words"`
	MaxLength int            `json:"max_length"`
	Stride    int            `json:"stride"`
	Dec       *string        `json:"dec"`
	Overflow  []goldenWindow `json:"overflow"`
}

// encoding brings a window into the form of the package.
func (w goldenWindow) encoding(t *testing.T) *tokenizer.Encoding {
	t.Helper()
	n := len(w.IDs)
	e := &tokenizer.Encoding{
		IDs: w.IDs, TypeIDs: make([]int32, n), Offsets: make([][2]int, n),
		Words: make([]int32, n), Special: make([]bool, n),
	}
	if string(w.Type) != "0" {
		e.TypeIDs = nil
		if err := json.Unmarshal(w.Type, &e.TypeIDs); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.Off) != 2*n || len(w.Word) != n {
		t.Fatalf("bad golden row: %d ids, %d offsets, %d words", n, len(w.Off), len(w.Word))
	}
	for i := range n {
		e.Offsets[i] = [2]int{w.Off[2*i], w.Off[2*i+1]}
		e.Words[i] = -1
		if w.Word[i] != nil {
			e.Words[i] = *w.Word[i]
		}
	}
	for _, i := range w.Spec {
		e.Special[i] = true
	}
	if e.IDs == nil {
		e.IDs = []int32{}
	}
	return e
}

// encode does to a row what the reference did.
func (r goldenRow) encode(tok *tokenizer.Tokenizer) (*tokenizer.Encoding, error) {
	o := tokenizer.Options{
		NoSpecial: strings.HasSuffix(r.Kind, "_nospecial"),
		MaxLength: r.MaxLength, Stride: r.Stride,
	}
	switch {
	case r.Words != nil:
		return tok.EncodeWords(r.Words, o)
	case r.Pair != nil:
		return tok.EncodePair(r.Text, *r.Pair, o)
	}
	return tok.Encode(r.Text, o)
}

// TestGoldenTokenizers compares every row of every family with what Hugging Face
// tokenizers made of it: ids, offsets, type ids, special tokens, words, windows, decoded text.
func TestGoldenTokenizers(t *testing.T) {
	// What lies in testdata is ours; the full set beside the checkout also has rows that may not be copied.
	dirs := []string{golden.Dir(t, "tokenizers")}
	if os.Getenv(golden.DirEnv) == "" {
		t.Run("shared", func(t *testing.T) { goldenFolder(t, golden.Shared(t, "golden/tokenizers")) })
	}
	for _, dir := range dirs {
		goldenFolder(t, dir)
	}
}

func goldenFolder(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	families := 0
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		kind := modelKind(t, file)
		if kind != "WordPiece" {
			t.Logf("%s: left out, models of type %s are not supported yet", name, kind)
			continue
		}
		families++
		t.Run(name, func(t *testing.T) { goldenFamily(t, filepath.Dir(file)) })
	}
	if families == 0 {
		t.Errorf("no WordPiece family among the %d tokenizers in %s", len(files), dir)
	}
}

func modelKind(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var head struct {
		Model struct {
			Type string `json:"type"`
		} `json:"model"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		t.Fatal(err)
	}
	return head.Model.Type
}

func goldenFamily(t *testing.T, dir string) {
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, name := range []string{"golden.jsonl", "own.jsonl"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		found = true
		checkRows(t, tok, path)
	}
	if !found {
		t.Error("neither golden.jsonl nor own.jsonl")
	}
}

// checkRows compares every row of a file and logs how many there were of each kind.
func checkRows(t *testing.T, tok *tokenizer.Tokenizer, path string) {
	t.Helper()
	kinds := map[string]int{}
	rows, mismatches := 0, 0
	for line, r := range readRows(t, path) {
		rows++
		kinds[r.Kind]++
		if diff := r.diff(t, tok); diff != "" {
			mismatches++
			if mismatches <= 5 {
				t.Errorf("%s:%d: %s %+q %+q: (-want +got)\n%s", filepath.Base(path), line+1, r.Kind, r.Text, r.Words, diff)
			}
		}
	}
	t.Logf("%s: %d rows %v, %d mismatches", filepath.Base(path), rows, kinds, mismatches)
	if rows == 0 {
		t.Errorf("%s: no rows", path)
	}
}

// diff encodes the row and describes how the result differs from the reference.
func (r goldenRow) diff(t *testing.T, tok *tokenizer.Tokenizer) string {
	t.Helper()
	switch r.Kind {
	case "single", "single_nospecial", "pair", "words", "trunc":
	default:
		return "unknown kind " + r.Kind
	}
	want := r.encoding(t)
	for _, w := range r.Overflow {
		want.Overflow = append(want.Overflow, w.encoding(t))
	}
	got, err := r.encode(tok)
	if err != nil {
		return err.Error()
	}
	diff := cmp.Diff(want, got)
	if r.Dec != nil {
		diff += cmp.Diff(*r.Dec, tok.Decode(got.IDs, true))
	}
	return diff
}

func readRows(t testing.TB, path string) []goldenRow {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []goldenRow
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r goldenRow
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%s:%d: %v", path, len(rows)+1, err)
		}
		rows = append(rows, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

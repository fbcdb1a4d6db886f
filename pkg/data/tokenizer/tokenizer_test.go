package tokenizer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
)

const familyDir = "testdata/golden/tokenizers/"

func load(t testing.TB, family string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Load(familyDir + family)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// change returns the small tokenizer.json of the cased family with changes made to it.
func change(t testing.TB, edit func(file map[string]any)) []byte {
	t.Helper()
	data, err := os.ReadFile(familyDir + "bert-cased-small/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	edit(file)
	if data, err = json.Marshal(file); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseErrors(t *testing.T) {
	type object = map[string]any
	set := func(path string, value any) []byte {
		return change(t, func(file object) {
			keys := strings.Split(path, ".")
			for _, k := range keys[:len(keys)-1] {
				file = file[k].(object)
			}
			if value == nil {
				delete(file, keys[len(keys)-1])
			} else {
				file[keys[len(keys)-1]] = value
			}
		})
	}
	nest := object{"type": "Lowercase"}
	for range 20 {
		nest = object{"type": "Sequence", "normalizers": []any{nest}}
	}
	template := func(single []any) object {
		return object{"type": "TemplateProcessing", "single": single, "pair": []any{}, "special_tokens": object{}}
	}
	sequence := func(id string) object { return object{"Sequence": object{"id": id, "type_id": 0}} }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "x.json: not valid JSON"},
		{"no JSON", []byte("vocab"), "x.json: not valid JSON at byte 1"},
		{"cut short", []byte(`{"version": "1.0", "model": {"ty`), "x.json: not valid JSON"},
		{"array", []byte(`[]`), "x.json: got a JSON array, want an object"},
		{"no model", []byte(`{}`), "x.json: model: missing"},
		{"model null", []byte(`{"model": null}`), "x.json: model: missing"},
		{"version", set("version", "2.0"), `x.json: version: got "2.0", want "1.0"`},
		{"model kind", set("model.type", "BPE"), `x.json: model.type: unsupported kind "BPE"; supported: WordPiece`},
		{"model kind missing", []byte(`{"model": {"vocab": {}}}`), `x.json: model.type: missing; supported: WordPiece`},
		{"normalizer kind", set("normalizer", object{"type": "Nmt"}), `x.json: normalizer.type: unsupported kind "Nmt"; supported: BertNormalizer, Lowercase, NFC,`},
		{"nested kind", set("normalizer", object{"type": "Sequence", "normalizers": []any{object{"type": "NFC"}, object{"type": "Prepend"}}}),
			`x.json: normalizer.normalizers[1].type: unsupported kind "Prepend"`},
		{"too deep", set("normalizer", nest), "nested more than 16 deep"},
		{"pre-tokenizer kind", set("pre_tokenizer.type", "ByteLevel"), `x.json: pre_tokenizer.type: unsupported kind "ByteLevel"; supported: BertPreTokenizer, Punctuation,`},
		{"pre-tokenizer not an object", set("pre_tokenizer", 3), `x.json: pre_tokenizer: got a JSON number, want an object`},
		{"post-processor kind", set("post_processor.type", "RobertaProcessing"), `x.json: post_processor.type: unsupported kind "RobertaProcessing"; supported: BertProcessing, TemplateProcessing`},
		{"decoder kind", set("decoder.type", "Metaspace"), `x.json: decoder.type: unsupported kind "Metaspace"; supported: WordPiece`},
		{"punctuation", set("pre_tokenizer", object{"type": "Punctuation", "behavior": "Odd"}), `x.json: pre_tokenizer.behavior: unknown behaviour "Odd"`},
		{"normalizer setting", set("normalizer.lowercase", "yes"), "x.json: normalizer.lowercase: got a JSON string, want true or false"},
		{"normalizer setting missing", set("normalizer.clean_text", nil), "x.json: normalizer.clean_text: missing"},
		{"vocabulary missing", set("model.vocab", nil), "x.json: model.vocab: missing"},
		{"vocabulary list", set("model.vocab", []any{"a"}), "x.json: model.vocab: got a JSON array, want an object"},
		{"negative id", set("model.vocab", object{"[UNK]": 0, "a": -1}), `x.json: model.vocab: token "a" has id -1, want a whole number`},
		{"huge id", set("model.vocab", object{"[UNK]": 0, "a": 1e12}), `x.json: model.vocab: token "a" has id 1000000000000`},
		{"fractional id", set("model.vocab", object{"[UNK]": 0, "a": 1.5}), `x.json: model.vocab: token "a" has id 1.5`},
		{"no unknown token", set("model.unk_token", "<unk>"), `x.json: model.unk_token: "<unk>" is not in the vocabulary of 2500 tokens`},
		{"negative word length", set("model.max_input_chars_per_word", -1), "x.json: model.max_input_chars_per_word: got a JSON number -1, want a whole number from 0"},
		{"added token", set("added_tokens", []any{object{"id": 0, "content": "[PAD]"}}), "x.json: added_tokens[0].single_word: missing"},
		{"added tokens", set("added_tokens", object{}), "x.json: added_tokens: got a JSON object, want an array"},
		{"bert sep", set("post_processor.sep", "[SEP]"), `x.json: post_processor.sep: got "[SEP]", want a token and its id`},
		{"bert cls", set("post_processor.cls", []any{"[CLS]", -2}), `x.json: post_processor.cls: got ["[CLS]",-2], want a token and its id`},
		{"special id", set("post_processor.cls", []any{"[CLS]", 2500}), "x.json: post_processor: adds the token id 2500, which is not in the vocabulary"},
		{"template token", set("post_processor", template([]any{object{"SpecialToken": object{"id": "[X]", "type_id": 0}}})),
			`x.json: post_processor.single[0].SpecialToken.id: "[X]" is not among special_tokens`},
		{"template B", set("post_processor", template([]any{sequence("B")})), `x.json: post_processor.single[0].Sequence.id: got "B", want A`},
		{"template twice", set("post_processor", template([]any{sequence("A"), sequence("A")})), `x.json: post_processor.single[1].Sequence.id: sequence A stands there twice`},
		{"template empty piece", set("post_processor", template([]any{object{}})), `x.json: post_processor.single[0]: neither Sequence nor SpecialToken`},
		{"template type id", set("post_processor", template([]any{object{"Sequence": object{"id": "A", "type_id": 1 << 31}}})),
			`x.json: post_processor.single[0].type_id: got 2147483648`},
		{"padding id", set("padding", object{"strategy": "BatchLongest", "pad_id": 9999}), "x.json: padding.pad_id: got 9999, which is not in the vocabulary"},
		{"truncation", set("truncation", object{"max_length": "long"}), "x.json: truncation.max_length: got a JSON string, want a whole number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tokenizer.Parse("x.json", c.data)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := tokenizer.Load(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "neither tokenizer.json nor vocab.txt") {
		t.Errorf("empty folder: got error %v", err)
	}
	path := filepath.Join(dir, "tokenizer.json")
	write(t, path, "{")
	if _, err := tokenizer.Load(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("broken file: error %v does not name it", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := tokenizer.Load(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder named tokenizer.json: got error %v", err)
	}
}

func write(t testing.TB, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOptionErrors(t *testing.T) {
	tok := load(t, "bert-cased-small")
	for _, c := range []struct {
		o    tokenizer.Options
		pair bool
		want string
	}{
		{tokenizer.Options{MaxLength: -1}, false, "MaxLength is -1"},
		{tokenizer.Options{Stride: -1}, false, "stride is -1"},
		{tokenizer.Options{MaxLength: 2}, false, "MaxLength 2 has no room for text besides 2 special tokens: want at least 3"},
		{tokenizer.Options{MaxLength: 3}, true, "MaxLength 3 has no room for text besides 3 special tokens: want at least 4"},
		{tokenizer.Options{MaxLength: 10, Stride: 8}, false, "stride 8 is not less than the 8 tokens that fit besides 2 special ones"},
		{tokenizer.Options{MaxLength: 11, Stride: 4}, true, "stride 4 is not less than the 4 tokens of a pair's text"},
		{tokenizer.Options{MaxLength: 3}, false, ""},
		{tokenizer.Options{MaxLength: 2, Stride: 1, NoSpecial: true}, false, ""},
		{tokenizer.Options{Stride: 100}, false, ""},
	} {
		text := "one two three four five six seven eight nine ten"
		var err error
		if c.pair {
			_, err = tok.EncodePair(text, text, c.o)
		} else {
			_, err = tok.Encode(text, c.o)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v, pair %t: got error %v, want %q", c.o, c.pair, err, c.want)
		}
	}
}

// A family with vocab.txt alone must be the one with tokenizer.json.
func TestVocabTxt(t *testing.T) {
	want := load(t, "bert-minilm")
	var vocab strings.Builder
	for id := range int32(want.VocabSize()) {
		vocab.WriteString(want.Token(id) + "\n")
	}
	rows := readRows(t, familyDir+"bert-minilm/own.jsonl")
	for _, c := range []struct{ name, vocab, config string }{
		{"alone", vocab.String(), ""},
		{"with settings", vocab.String(), `{"do_lower_case": true, "unk_token": "[UNK]", "cls_token": {"content": "[CLS]", "lstrip": false}, "strip_accents": null}`},
		{"CRLF", strings.ReplaceAll(vocab.String(), "\n", "\r\n"), "{}"},
		{"no last newline", strings.TrimSuffix(vocab.String(), "\n"), "{}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "vocab.txt"), c.vocab)
			if c.config != "" {
				write(t, filepath.Join(dir, "tokenizer_config.json"), c.config)
			}
			tok, err := tokenizer.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := tok.VocabSize(), want.VocabSize(); got != want {
				t.Errorf("got %d tokens, want %d", got, want)
			}
			if got, want := tok.SpecialIDs(), want.SpecialIDs(); !slices.Equal(got, want) {
				t.Errorf("got special ids %d, want %d", got, want)
			}
			for i, r := range rows {
				if diff := r.diff(t, tok); diff != "" {
					t.Fatalf("row %d: %+q (-want +got)\n%s", i, r.Text, diff)
				}
			}
			again, err := tokenizer.Parse("again", tok.Raw())
			if err != nil {
				t.Fatalf("Raw cannot be read again: %v", err)
			}
			if diff := rows[0].diff(t, again); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestGoldenVocabTxt reads families from the vocab.txt that was published with them, if
// their settings are those that a vocab.txt alone stands for, BERT uncased.
func TestGoldenVocabTxt(t *testing.T) {
	dir := golden.Shared(t, "golden/tokenizers")
	files, err := filepath.Glob(filepath.Join(dir, "*", "vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	families := 0
	for _, file := range files {
		family := filepath.Dir(file)
		if modelKind(t, filepath.Join(family, "tokenizer.json")) != "WordPiece" {
			continue
		}
		vocab, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		alone := t.TempDir()
		write(t, filepath.Join(alone, "vocab.txt"), string(vocab))
		tok, err := tokenizer.Load(alone)
		if err != nil {
			t.Logf("%s: left out: %v", filepath.Base(family), err)
			continue
		}
		data, err := os.ReadFile(filepath.Join(family, "tokenizer.json"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(settings(t, data), settings(t, tok.Raw())); diff != "" {
			t.Logf("%s: left out, is not BERT uncased (-tokenizer.json +vocab.txt)\n%s", filepath.Base(family), diff)
			continue
		}
		families++
		checkRows(t, tok, filepath.Join(family, "golden.jsonl"))
	}
	if families == 0 {
		t.Skipf("no uncased WordPiece family with vocab.txt in %s", dir)
	}
}

// settings returns what a tokenizer.json says besides its vocabulary, truncation and padding.
func settings(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"version", "truncation", "padding", "added_tokens"} {
		delete(file, name)
	}
	delete(file["model"].(map[string]any), "vocab")
	if processor, ok := file["post_processor"].(map[string]any); ok {
		delete(processor, "special_tokens") // ids, which the rows compare
	}
	return file
}

func TestVocabTxtCased(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vocab.txt"), "<pad>\n<unk>\n<s>\n</s>\nÉté\né\n##t\n##é\n中\n")
	for _, c := range []struct {
		config string
		want   []int32
	}{
		{`{"do_lower_case": false, "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}`, []int32{2, 4, 8, 3}},
		{`{"strip_accents": false, "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}`, []int32{2, 5, 6, 7, 8, 3}},
		{`{"do_lower_case": false, "tokenize_chinese_chars": false, "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}`, []int32{2, 1, 3}},
	} {
		write(t, filepath.Join(dir, "tokenizer_config.json"), c.config)
		tok, err := tokenizer.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		enc, err := tok.Encode("Été中", tokenizer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, enc.IDs); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.config, diff)
		}
		if tok.PadID() != 0 {
			t.Errorf("pad id %d, want 0", tok.PadID())
		}
	}
	for vocab, want := range map[string]string{
		"":                          "no line [UNK] among 0",
		"a\nb\n":                    "no line [UNK] among 2",
		"[UNK]\n[CLS]\n":            "no line [SEP] among 2",
		"[UNK]\n[CLS]\n[SEP]\n\xff": "not valid UTF-8",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "vocab.txt"), vocab)
		if _, err := tokenizer.Load(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "vocab.txt") {
			t.Errorf("%q: got error %v, want one with %q", vocab, err, want)
		}
	}
	write(t, filepath.Join(dir, "tokenizer_config.json"), `{"do_lower_case": 1}`)
	if _, err := tokenizer.Load(dir); err == nil || !strings.Contains(err.Error(), "tokenizer_config.json: do_lower_case: got a JSON number") {
		t.Errorf("got error %v", err)
	}
}

func TestLookups(t *testing.T) {
	tok := load(t, "bert-minilm")
	if got := tok.VocabSize(); got != 30522 {
		t.Errorf("VocabSize is %d, want 30522", got)
	}
	if id, ok := tok.TokenID("##ing"); !ok || tok.Token(id) != "##ing" {
		t.Errorf("##ing has id %d, %t, which is token %q", id, ok, tok.Token(id))
	}
	if id, ok := tok.TokenID("no such token"); ok {
		t.Errorf("a token that is not there has id %d", id)
	}
	for _, id := range []int32{-1, 30522, 1 << 30} {
		if got := tok.Token(id); got != "" {
			t.Errorf("id %d is token %q, want none", id, got)
		}
	}
	if got, want := tok.SpecialIDs(), []int32{0, 100, 101, 102, 103}; !slices.Equal(got, want) {
		t.Errorf("special ids %d, want %d", got, want)
	}
	if !tok.IsSpecial(101) || tok.IsSpecial(1000) || tok.IsSpecial(-1) {
		t.Error("IsSpecial is wrong")
	}
	if got := tok.PadID(); got != 0 {
		t.Errorf("pad id %d, want 0", got)
	}
	raw, err := os.ReadFile(familyDir + "bert-minilm/tokenizer.json")
	if err != nil || !bytes.Equal(tok.Raw(), raw) {
		t.Errorf("Raw is not the file (%v)", err)
	}
	if got := tok.Decode([]int32{-5, 101, 7592, 99999, 2088, 102}, true); got != "hello world" {
		t.Errorf("decoded %q", got)
	}
}

// The file's own settings are shown, not applied.
func TestFileSettings(t *testing.T) {
	tok := load(t, "bert-minilm")
	trunc, ok := tok.Truncation()
	if want := (tokenizer.Truncation{MaxLength: 128, Strategy: "LongestFirst"}); !ok || trunc != want {
		t.Errorf("truncation %+v, %t, want %+v", trunc, ok, want)
	}
	pad, ok := tok.Padding()
	if want := (tokenizer.Padding{Fixed: 128, Direction: "Right", PadToken: "[PAD]"}); !ok || pad != want {
		t.Errorf("padding %+v, %t, want %+v", pad, ok, want)
	}
	enc, err := tok.Encode(strings.Repeat("word ", 500), tokenizer.Options{})
	if err != nil || len(enc.IDs) != 502 {
		t.Errorf("got %d ids, %v, want 502", len(enc.IDs), err)
	}
	cased := load(t, "bert-cased-small")
	if _, ok := cased.Truncation(); ok {
		t.Error("the cased family has no truncation")
	}
	if _, ok := cased.Padding(); ok {
		t.Error("the cased family has no padding")
	}
	data := change(t, func(file map[string]any) {
		file["padding"] = map[string]any{"strategy": "BatchLongest", "direction": "Left", "pad_id": 4, "pad_type_id": 1, "pad_token": "[MASK]"}
	})
	if tok, err := tokenizer.Parse("x", data); err != nil || tok.PadID() != 4 {
		t.Errorf("pad id %d, %v, want 4", tok.PadID(), err)
	}
	none := change(t, func(file map[string]any) {
		file["added_tokens"] = nil
		delete(file["model"].(map[string]any)["vocab"].(map[string]any), "[PAD]")
	})
	if tok, err := tokenizer.Parse("x", none); err != nil || tok.PadID() != -1 {
		t.Errorf("without [PAD]: got %v, %v, want -1", tok.PadID(), err)
	}
}

// A model whose ids are far apart, or shared, loads without a table as long as the largest id.
func TestOddIDs(t *testing.T) {
	data := []byte(`{"model": {"unk_token": "u", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9,
		"vocab": {"u": 7, "a": 2147483647, "b": 2147483647, "": 12}}}`)
	tok, err := tokenizer.Parse("x", data)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := tok.Encode("b", tokenizer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int32{2147483647}; !slices.Equal(enc.IDs, want) {
		t.Errorf("got ids %d, want %d", enc.IDs, want)
	}
	if got := tok.Decode([]int32{2147483647, 7, 8, 12, 7}, true); got != "a u  u" {
		t.Errorf("decoded %q", got)
	}
}

// Bytes that are not UTF-8 count as one code point each and read as U+FFFD, which BERT drops.
func TestInvalidUTF8(t *testing.T) {
	cleaning, keeping := load(t, "bert-cased-small"), func() *tokenizer.Tokenizer {
		tok, err := tokenizer.Parse("x", change(t, func(file map[string]any) { file["normalizer"] = nil }))
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}()
	const text = "\xffa\xe4\xb8 \xed\xa0\x80the\x80[SEP]\xc3"
	for _, c := range []struct {
		name string
		tok  *tokenizer.Tokenizer
		want [][2]int
	}{
		{"dropped", cleaning, [][2]int{{1, 2}, {8, 11}, {12, 17}}},
		{"kept", keeping, [][2]int{{0, 4}, {5, 12}, {12, 17}, {17, 18}}},
	} {
		enc, err := c.tok.Encode(text, tokenizer.Options{NoSpecial: true})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, enc.Offsets); diff != "" {
			t.Errorf("%s: offsets (-want +got)\n%s", c.name, diff)
		}
		// The same with the replacement character itself.
		same, err := c.tok.Encode(string([]rune(text)), tokenizer.Options{NoSpecial: true})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(same, enc); diff != "" {
			t.Errorf("%s: differs from text with U+FFFD (-want +got)\n%s", c.name, diff)
		}
	}
}

func TestEncodeWordsEmpty(t *testing.T) {
	tok := load(t, "bert-cased-small")
	enc, err := tok.EncodeWords([]string{"the", "", "\u200b", "the"}, tokenizer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int32{-1, 0, 3, -1}; !slices.Equal(enc.Words, want) {
		t.Errorf("words %d, want %d", enc.Words, want)
	}
	enc, err = tok.EncodeWords(nil, tokenizer.Options{NoSpecial: true})
	if err != nil || len(enc.IDs) != 0 {
		t.Errorf("no words: got %d, %v", enc.IDs, err)
	}
}

func TestConcurrentUse(t *testing.T) {
	tok := load(t, "bert-minilm")
	rows := readRows(t, familyDir+"bert-minilm/own.jsonl")[:300]
	var wg sync.WaitGroup
	errs := make(chan string, 8)
	for range 8 {
		wg.Go(func() {
			for _, r := range rows {
				if diff := r.diff(t, tok); diff != "" {
					errs <- fmt.Sprintf("%+q: %s", r.Text, diff)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		t.Error(e)
	}
}

// An encoding must not share memory with a later one.
func TestEncodingsAreSeparate(t *testing.T) {
	tok := load(t, "bert-cased-small")
	first, err := tok.Encode("the the the the the the", tokenizer.Options{MaxLength: 5})
	if err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprint(first, first.Overflow[0])
	if _, err := tok.Encode("1 2 3 4 5 6 7 8 9", tokenizer.Options{MaxLength: 5}); err != nil {
		t.Fatal(err)
	}
	first.IDs = append(first.IDs, 99)
	if first.TypeIDs[0] != 0 {
		t.Error("appending to IDs changed TypeIDs")
	}
	first.IDs = first.IDs[:5]
	if after := fmt.Sprint(first, first.Overflow[0]); after != before {
		t.Errorf("changed from %s to %s", before, after)
	}
}

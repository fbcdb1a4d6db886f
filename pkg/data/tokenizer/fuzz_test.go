package tokenizer_test

import (
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
)

// checkEncoding verifies what must hold for any text.
func checkEncoding(t *testing.T, tok *tokenizer.Tokenizer, text string, e *tokenizer.Encoding, monotone bool) {
	t.Helper()
	n := len(e.IDs)
	if len(e.TypeIDs) != n || len(e.Offsets) != n || len(e.Words) != n || len(e.Special) != n {
		t.Fatalf("lengths differ: %d ids, %d type ids, %d offsets, %d words, %d special",
			n, len(e.TypeIDs), len(e.Offsets), len(e.Words), len(e.Special))
	}
	points := utf8.RuneCountInString(text)
	start, end, word := 0, 0, int32(-1)
	for i, o := range e.Offsets {
		if id, ok := tok.TokenID(tok.Token(e.IDs[i])); !ok || id != e.IDs[i] {
			t.Errorf("token %d: id %d is not in the vocabulary", i, e.IDs[i])
		}
		if e.Special[i] {
			if o != [2]int{} || e.Words[i] != -1 {
				t.Errorf("special token %d has offsets %d and word %d", i, o, e.Words[i])
			}
			continue
		}
		if o[0] < 0 || o[0] > o[1] || o[1] > points {
			t.Errorf("token %d has offsets %d in a text of %d code points", i, o, points)
		}
		if monotone && (o[0] < start || o[1] < end || e.Words[i] < word) {
			t.Errorf("token %d with offsets %d and word %d stands after one with %d, %d and %d", i, o, e.Words[i], start, end, word)
		}
		start, end, word = o[0], o[1], e.Words[i]
	}
	tok.Decode(e.IDs, true)
	tok.Decode(e.IDs, false)
}

func FuzzEncode(f *testing.F) {
	for _, name := range []string{"bert-minilm", "bert-cased-small"} {
		for i, r := range readRows(f, familyDir+name+"/own.jsonl") {
			if i%10 == 0 {
				f.Add(r.Text, byte(i), byte(i/10))
			}
		}
	}
	f.Add("\xff\xfe[SEP]\x80\xed\xa0\x80 [MASK", byte(4), byte(1))
	v := readVectors(f)
	toks := []*tokenizer.Tokenizer{load(f, "bert-minilm"), load(f, "bert-cased-small")}
	for _, variant := range v.Variants {
		tok, err := tokenizer.Parse(variant.Name, v.patched(f, variant.Patch))
		if err != nil {
			f.Fatal(err)
		}
		toks = append(toks, tok)
	}
	f.Fuzz(func(t *testing.T, text string, which, limit byte) {
		tok := toks[int(which)%len(toks)]
		whole, err := tok.Encode(text, tokenizer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		checkEncoding(t, tok, text, whole, true)
		if limit == 0 {
			return
		}
		// Windows must give back the whole.
		o := tokenizer.Options{NoSpecial: true, MaxLength: int(limit), Stride: int(limit) / 4}
		windowed, err := tok.Encode(text, o)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := tok.Encode(text, tokenizer.Options{NoSpecial: true})
		if err != nil {
			t.Fatal(err)
		}
		ids := slices.Clone(windowed.IDs)
		for _, w := range windowed.Overflow {
			if len(w.IDs) > o.MaxLength {
				t.Errorf("window of %d tokens, want at most %d", len(w.IDs), o.MaxLength)
			}
			checkEncoding(t, tok, text, w, true)
			ids = append(ids, w.IDs[o.Stride:]...)
		}
		if !slices.Equal(ids, plain.IDs) {
			t.Errorf("windows hold %d, the whole is %d", ids, plain.IDs)
		}
		words, err := tok.EncodeWords([]string{text, "b", text}, tokenizer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		checkEncoding(t, tok, text+"b", words, false)
		if len(text) > 200 {
			return // a pair has a window for every combination
		}
		if pair, err := tok.EncodePair(text, "b "+text, tokenizer.Options{MaxLength: 8}); err == nil {
			checkEncoding(t, tok, "b "+text, pair, false)
		}
	})
}

func FuzzParse(f *testing.F) {
	v := readVectors(f)
	for _, variant := range v.Variants {
		patch := variant.Patch
		if patch["model"] == nil {
			// A small vocabulary lets the fuzzer see the rest.
			patch["model"] = []byte(`{"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"a":4,"##a":5,"é":6}}`)
		}
		f.Add(v.patched(f, patch))
	}
	f.Add([]byte(`{"model":{"type":"WordPiece","vocab":{"u":2147483647},"unk_token":"u","continuing_subword_prefix":"","max_input_chars_per_word":18446744073709551615}}`))
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{},"merges":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := tokenizer.Parse("fuzz.json", data)
		if err != nil {
			return
		}
		for _, text := range []string{"", "a aa É\xff [SEP]  <l> 中\u0301", "x"} {
			e, err := tok.Encode(text, tokenizer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			tok.Decode(e.IDs, true)
			if _, err := tok.EncodePair(text, text, tokenizer.Options{MaxLength: tok.VocabSize() + 5, Stride: 1}); err != nil {
				continue
			}
			tok.Decode([]int32{-1, 0, 1, 1 << 30}, false)
		}
		if _, err := tokenizer.Parse("again", tok.Raw()); err != nil {
			t.Errorf("Raw cannot be read again: %v", err)
		}
	})
}

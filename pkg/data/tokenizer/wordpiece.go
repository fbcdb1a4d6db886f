package tokenizer

import (
	"encoding/json"
	"math"
	"strings"
	"unicode/utf8"
)

// A piece is a token of a word, in bytes of the word.
type piece struct {
	id     int32
	lo, hi int
}

// A model cuts words into tokens of its vocabulary.
type model interface {
	// tokenize appends the tokens of word, which is not empty, to dst.
	tokenize(word []byte, dst []piece) []piece
	tokenID(token string) (int32, bool)
	token(id int32) (string, bool)
	size() int
}

// wordPiece takes from the left the longest vocabulary entry, again and again; entries within
// a word carry a prefix, "##". A word that cannot be cut so, or is too long, is the
// unknown token as a whole.
type wordPiece struct {
	*vocabulary
	entries  *trie
	within   int32 // node of entries after the prefix, -1 if no entry has it
	unknown  int32
	maxRunes int
}

func newWordPiece(p *part) (model, error) {
	var spec struct {
		Vocab    vocabJSON `json:"vocab"`
		Unknown  string    `json:"unk_token"`
		Prefix   string    `json:"continuing_subword_prefix"`
		MaxRunes uint64    `json:"max_input_chars_per_word"`
	}
	if err := p.decode(&spec, "vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"); err != nil {
		return nil, err
	}
	v, err := newVocabulary(p, spec.Vocab)
	if err != nil {
		return nil, err
	}
	w := &wordPiece{vocabulary: v, maxRunes: int(min(spec.MaxRunes, math.MaxInt32))}
	var ok bool
	if w.unknown, ok = v.tokenID(spec.Unknown); !ok {
		return nil, p.errorf("unk_token", "%q is not in the vocabulary of %d tokens", spec.Unknown, v.size())
	}
	entries := make([]keyValue, 0, len(v.ids))
	for token, id := range v.ids {
		entries = append(entries, keyValue{token, id})
	}
	w.entries = newTrie(entries)
	w.within = w.entries.walk(0, spec.Prefix)
	return w, nil
}

func (w *wordPiece) tokenize(word []byte, dst []piece) []piece {
	if len(word) > w.maxRunes && utf8.RuneCount(word) > w.maxRunes {
		return append(dst, piece{w.unknown, 0, len(word)})
	}
	if id, ok := w.ids[string(word)]; ok {
		return append(dst, piece{id, 0, len(word)})
	}
	before := len(dst)
	for lo, node := 0, int32(0); lo < len(word); node = w.within {
		size, id := 0, int32(-1)
		if node >= 0 {
			size, id = longest(w.entries, node, word[lo:])
		}
		if size == 0 {
			return append(dst[:before], piece{w.unknown, 0, len(word)})
		}
		dst = append(dst, piece{id, lo, lo + size})
		lo += size
	}
	return dst
}

type vocabJSON map[string]json.Number

// A vocabulary maps tokens to ids and back.
type vocabulary struct {
	ids    map[string]int32
	tokens []string         // by id, where ids are dense
	sparse map[int32]string // by id, where they are not
}

func newVocabulary(p *part, spec vocabJSON) (*vocabulary, error) {
	v := &vocabulary{ids: make(map[string]int32, len(spec))}
	top := int32(-1)
	for token, number := range spec {
		n, err := number.Int64()
		if err != nil || n < 0 || n > math.MaxInt32 {
			return nil, p.errorf("vocab", "token %q has id %s, want a whole number from 0 to %d", token, number, math.MaxInt32)
		}
		v.ids[token] = int32(n)
		top = max(top, int32(n))
	}
	if int(top) < 2*len(spec)+1024 {
		v.tokens = make([]string, top+1)
	} else {
		v.sparse = make(map[int32]string, len(spec))
	}
	for token, id := range v.ids {
		// Two tokens may share an id; the smaller one then stands for it, so that runs agree.
		if old, ok := v.token(id); ok && old < token {
			continue
		}
		if v.tokens != nil {
			v.tokens[id] = token
		} else {
			v.sparse[id] = token
		}
	}
	return v, nil
}

func (v *vocabulary) size() int { return len(v.ids) }

func (v *vocabulary) tokenID(token string) (int32, bool) {
	id, ok := v.ids[token]
	return id, ok
}

func (v *vocabulary) token(id int32) (string, bool) {
	if v.tokens == nil {
		token, ok := v.sparse[id]
		return token, ok
	}
	if id < 0 || int(id) >= len(v.tokens) {
		return "", false
	}
	token := v.tokens[id]
	if token == "" { // a hole, or the token ""
		empty, ok := v.ids[""]
		return "", ok && empty == id
	}
	return token, true
}

// A decoder joins tokens to a text.
type decoder interface {
	decode(tokens []string) string
}

// wordPieceDecoder joins tokens that carry the prefix to the one before, others with a space.
type wordPieceDecoder struct {
	prefix  string
	cleanup bool
}

func newWordPieceDecoder(p *part) (decoder, error) {
	var spec struct {
		Prefix  string `json:"prefix"`
		Cleanup bool   `json:"cleanup"`
	}
	if err := p.decode(&spec, "prefix", "cleanup"); err != nil {
		return nil, err
	}
	return wordPieceDecoder{spec.Prefix, spec.Cleanup}, nil
}

// The spaces that cleanup takes away, one after the other within each token.
var cleanups = [][2]string{
	{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"},
	{" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
}

func (d wordPieceDecoder) decode(tokens []string) string {
	var b strings.Builder
	for i, token := range tokens {
		if i > 0 {
			rest, ok := strings.CutPrefix(token, d.prefix)
			if ok {
				token = rest
			} else {
				token = " " + token
			}
		}
		if d.cleanup && strings.Contains(token, " ") {
			for _, c := range cleanups {
				token = strings.ReplaceAll(token, c[0], c[1])
			}
		}
		b.WriteString(token)
	}
	return b.String()
}

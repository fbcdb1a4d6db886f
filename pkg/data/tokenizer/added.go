package tokenizer

import (
	"encoding/json"
	"math"
	"strings"
	"unicode/utf8"
)

// An addedToken is a text that is one token whatever the model makes of it.
type addedToken struct {
	id      int32
	content string
	decoded string // what Decode writes: content as normalised
	special bool   // Decode can leave it out
	// singleWord: it counts only if no word character touches it.
	// lstrip, rstrip: white space beside it belongs to it.
	// normalized: it is looked for after the normalizer, as the normalizer writes it.
	singleWord, lstrip, rstrip, normalized bool
}

// An addedVocabulary knows the added tokens and finds them in texts.
type addedVocabulary struct {
	tokens   []addedToken
	byID     map[int32]int // index into tokens
	ids      map[string]int32
	special  map[string]bool
	raw      *matcher // those to find in the text as given
	normal   *matcher // those to find in the normalised text
	newCount int      // how many are not in the model's vocabulary
}

func newAddedVocabulary(p *part, m model, norm normalizer) (*addedVocabulary, error) {
	v := &addedVocabulary{byID: map[int32]int{}, ids: map[string]int32{}, special: map[string]bool{}}
	if p.isNull() {
		return v, nil
	}
	var raws []json.RawMessage
	if err := p.decode(&raws); err != nil {
		return nil, err
	}
	next := int64(m.size())
	for i, raw := range raws {
		c := p.child("", i, raw)
		spec := struct {
			ID         *int64 `json:"id"`
			Content    string `json:"content"`
			SingleWord bool   `json:"single_word"`
			LStrip     bool   `json:"lstrip"`
			RStrip     bool   `json:"rstrip"`
			Normalized bool   `json:"normalized"`
			Special    bool   `json:"special"`
		}{}
		if err := c.decode(&spec, "id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"); err != nil {
			return nil, err
		}
		if spec.Content == "" {
			continue
		}
		// Like the reference: the id in the file counts for nothing, the vocabulary and the order do.
		id, ok := v.ids[spec.Content]
		if !ok {
			id, ok = m.tokenID(spec.Content)
		}
		if !ok {
			if next > math.MaxInt32 {
				return nil, c.errorf("id", "no id left below 2^31")
			}
			id = int32(next)
			next++
			v.newCount++
		}
		a := addedToken{
			id: id, content: spec.Content, decoded: spec.Content, special: spec.Special,
			singleWord: spec.SingleWord, lstrip: spec.LStrip, rstrip: spec.RStrip, normalized: spec.Normalized,
		}
		if a.normalized && norm != nil {
			var n normalized
			n.reset(a.content, 0)
			norm.normalize(&n)
			a.decoded = string(n.text)
		}
		v.ids[a.content] = id
		if a.special {
			v.special[a.content] = true
		}
		if at, ok := v.byID[id]; ok {
			v.tokens[at] = a
			continue
		}
		v.byID[id] = len(v.tokens)
		v.tokens = append(v.tokens, a)
	}
	var raw, normal []keyValue
	for i, a := range v.tokens {
		switch {
		case !a.normalized:
			raw = append(raw, keyValue{a.content, int32(i)})
		case a.decoded != "":
			normal = append(normal, keyValue{a.decoded, int32(i)})
		}
	}
	v.raw, v.normal = newMatcher(raw, v.tokens), newMatcher(normal, v.tokens)
	return v, nil
}

// A matcher finds added tokens in a text, at each place the longest.
type matcher struct {
	tokens []addedToken
	keys   *trie
	starts [256]bool // bytes with which a key begins
	only   byte      // the one of them, if there is but one
	single bool
}

// newMatcher returns nil if there is nothing to find.
func newMatcher(keys []keyValue, tokens []addedToken) *matcher {
	if len(keys) == 0 {
		return nil
	}
	m := &matcher{tokens: tokens, keys: newTrie(keys), only: keys[0].key[0], single: true}
	for _, k := range keys {
		m.starts[k.key[0]] = true
		m.single = m.single && k.key[0] == m.only
	}
	return m
}

// A match is a piece of a text; index is that of its added token, or -1.
type match struct {
	lo, hi int
	index  int
}

// next returns the next added token at or after from, and the place where it was found, before any
// white space was added to it; ok is false if there is none. Text before done belongs to an earlier one.
func (m *matcher) next(text string, from, done int) (found match, after int, ok bool) {
	for i := from; i < len(text); i++ {
		if m.single {
			k := strings.IndexByte(text[i:], m.only)
			if k < 0 {
				return match{}, 0, false
			}
			i += k
		} else if !m.starts[text[i]] {
			continue
		}
		size, index := longest(m.keys, 0, text[i:])
		if size == 0 {
			continue
		}
		lo, hi := i, i+size
		a := &m.tokens[index]
		if a.singleWord && (endsWithWord(text[:lo]) || startsWithWord(text[hi:])) {
			i = hi - 1
			continue
		}
		after = hi
		if a.lstrip {
			lo = max(lo-trailingSpace(text[:lo]), done)
		}
		if a.rstrip {
			hi += leadingSpace(text[hi:])
		}
		return match{lo, hi, int(index)}, after, true
	}
	return match{}, 0, false
}

func endsWithWord(s string) bool {
	r, size := utf8.DecodeLastRuneInString(s)
	return size > 0 && props().of(r)&propWord != 0
}

func startsWithWord(s string) bool {
	r, size := utf8.DecodeRuneInString(s)
	return size > 0 && props().of(r)&propWord != 0
}

func leadingSpace(s string) int {
	rest := strings.TrimLeftFunc(s, isSpace)
	return len(s) - len(rest)
}

func trailingSpace(s string) int {
	rest := strings.TrimRightFunc(s, isSpace)
	return len(s) - len(rest)
}

func isSpace(r rune) bool { return props().of(r)&propSpace != 0 }

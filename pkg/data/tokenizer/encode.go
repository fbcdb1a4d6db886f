package tokenizer

import (
	"fmt"
	"math"
	"sync"
	"unicode/utf8"
)

// Options say how a text becomes an [Encoding]. The zero value adds the special
// tokens and keeps the text whole.
type Options struct {
	// NoSpecial leaves out [CLS], [SEP] and the like.
	NoSpecial bool
	// MaxLength is the most tokens that an encoding may have, special tokens included.
	// What does not fit goes to Overflow. Of a pair, the longer text is cut first. 0 means no limit.
	MaxLength int
	// Stride is how many tokens of a text each window repeats from the one before it.
	Stride int
}

// An Encoding is a text as a model reads it: one entry per token in each slice.
type Encoding struct {
	IDs     []int32  // token ids
	TypeIDs []int32  // 0 for the first text, 1 for the second, if the model tells them apart
	Offsets [][2]int // code points of the text, end exclusive; 0, 0 for special tokens
	Words   []int32  // number of the word in its text, -1 for special tokens
	Special []bool   // whether the token was added by the tokenizer
	// Overflow holds the further windows of a text that was longer than MaxLength.
	// Of a pair, there is one for every combination of windows: with two long texts and
	// a small MaxLength that is a great many.
	Overflow []*Encoding
}

// Encode tokenizes one text. It fails only if the options cannot be met:
// MaxLength has no room for a token besides the special ones, or Stride is not less than that room.
func (t *Tokenizer) Encode(text string, o Options) (*Encoding, error) {
	return t.encode(o, func(s *scratch) error { return t.encodeText(s, text) }, nil)
}

// EncodePair tokenizes two texts that belong together, such as a question and a passage.
// Offsets and word numbers count from 0 in each. It fails like [Tokenizer.Encode];
// if both texts are cut, Stride must be less than half the room.
func (t *Tokenizer) EncodePair(a, b string, o Options) (*Encoding, error) {
	return t.encode(o,
		func(s *scratch) error { return t.encodeText(s, a) },
		func(s *scratch) error { return t.encodeText(s, b) })
}

// EncodeWords tokenizes a text that was cut into words before, as corpora of tagged words are.
// Words numbers the given words, and offsets are relative to the word. A word
// of which nothing is left, such as a lone control character, has no token. It fails like [Tokenizer.Encode].
func (t *Tokenizer) EncodeWords(words []string, o Options) (*Encoding, error) {
	return t.encode(o, func(s *scratch) error {
		for i, word := range words {
			if err := t.encodeSequence(s, word, i); err != nil {
				return fmt.Errorf("word %d: %w", i, err)
			}
		}
		return nil
	}, nil)
}

func (t *Tokenizer) encodeText(s *scratch, text string) error {
	return t.encodeSequence(s, text, -1)
}

// A scratch holds what encoding one text needs and does not return.
type scratch struct {
	n      normalized
	spans  []span
	cut    []span
	pieces []piece
	window
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// keepScratch bounds what an unusually long text leaves in the pool, in tokens or bytes.
const keepScratch = 1 << 20

func (s *scratch) release() {
	if cap(s.n.text) > keepScratch || cap(s.n.edits) > keepScratch || cap(s.ids) > keepScratch || cap(s.spans) > keepScratch {
		return
	}
	scratches.Put(s)
}

func (t *Tokenizer) encode(o Options, first, second func(*scratch) error) (*Encoding, error) {
	room, err := t.room(o, second != nil)
	if err != nil {
		return nil, err
	}
	s := scratches.Get().(*scratch)
	defer s.release()
	s.ids, s.offsets, s.words = s.ids[:0], s.offsets[:0], s.words[:0]
	if err := first(s); err != nil {
		return nil, err
	}
	split := len(s.ids)
	if second == nil {
		one := [1]window{s.window}
		a := one[:]
		if o.MaxLength > 0 && split > room {
			a = windows(s.window, room, o.Stride)
		}
		return t.postProcessor.process(a, nil, !o.NoSpecial), nil
	}
	if err := second(s); err != nil {
		return nil, err
	}
	a, b := []window{s.window.slice(0, split)}, []window{s.window.slice(split, len(s.ids))}
	if o.MaxLength > 0 && len(s.ids) > room {
		na, nb := share(split, len(s.ids)-split, room)
		for _, c := range []struct {
			w *[]window
			n int
		}{{&a, na}, {&b, nb}} {
			if c.n >= len((*c.w)[0].ids) {
				continue
			}
			if o.Stride >= c.n {
				return nil, fmt.Errorf("stride %d is not less than the %d tokens of a pair's text that fit within MaxLength %d: raise one or lower the other",
					o.Stride, c.n, o.MaxLength)
			}
			*c.w = windows((*c.w)[0], c.n, o.Stride)
		}
	}
	return t.postProcessor.process(a, b, !o.NoSpecial), nil
}

// room returns how many tokens of the texts fit into an encoding.
func (t *Tokenizer) room(o Options, pair bool) (int, error) {
	switch {
	case o.MaxLength < 0:
		return 0, fmt.Errorf("MaxLength is %d, want 0 for no limit or more", o.MaxLength)
	case o.Stride < 0:
		return 0, fmt.Errorf("stride is %d, want 0 or more", o.Stride)
	case o.MaxLength == 0:
		return 0, nil
	}
	room, special := o.MaxLength, 0
	if !o.NoSpecial {
		special = t.postProcessor.added(pair)
		room -= special
	}
	if room <= 0 {
		return 0, fmt.Errorf("MaxLength %d has no room for text besides %d special tokens: want at least %d", o.MaxLength, special, special+1)
	}
	if o.Stride >= room {
		return 0, fmt.Errorf("stride %d is not less than the %d tokens that fit besides %d special ones within MaxLength %d",
			o.Stride, room, special, o.MaxLength)
	}
	return room, nil
}

// share divides the room between two texts that together exceed it, taking from the longer first.
func share(a, b, room int) (na, nb int) {
	short := min(a, b)
	long := max(short, room-short)
	if short+long > room {
		short = room / 2
		long = short + room%2
	}
	if a > b {
		return long, short
	}
	return short, long
}

func (w window) slice(lo, hi int) window {
	return window{w.ids[lo:hi], w.offsets[lo:hi], w.words[lo:hi]}
}

// windows cuts w into windows of n tokens, each beginning stride tokens before the end of the last.
func windows(w window, n, stride int) []window {
	var out []window
	for lo := 0; ; lo += n - stride {
		hi := min(lo+n, len(w.ids))
		out = append(out, w.slice(lo, hi))
		if hi == len(w.ids) {
			return out
		}
	}
}

// encodeSequence appends the tokens of text to s. They belong to the given word, or if
// that is negative, to words numbered from 0.
func (t *Tokenizer) encodeSequence(s *scratch, text string, word int) error {
	if len(text) > math.MaxInt32 {
		return fmt.Errorf("text has %d bytes, want at most %d: cut it first", len(text), math.MaxInt32)
	}
	next := 0 // number of the next word
	if t.added.raw == nil {
		t.encodeSegment(s, text, 0, word, &next)
		return nil
	}
	// code points before byte `counted`; added tokens are found in order, so this runs once over the text
	base, counted := 0, 0
	countTo := func(at int) int {
		if at >= counted {
			base += utf8.RuneCountInString(text[counted:at])
		} else { // a token that reaches back into the white space of the one before
			base -= utf8.RuneCountInString(text[at:counted])
		}
		counted = at
		return base
	}
	done := 0
	for from := 0; ; {
		m, after, ok := t.added.raw.next(text, from, done)
		if !ok {
			break
		}
		if done < m.lo {
			t.encodeSegment(s, text[done:m.lo], countTo(done), word, &next)
		}
		w := word
		if w < 0 {
			w = next
			next++
		}
		s.ids = append(s.ids, t.added.tokens[m.index].id)
		s.words = append(s.words, int32(w))
		lo := countTo(m.lo)
		s.offsets = append(s.offsets, [2]int{lo, countTo(m.hi)})
		done, from = m.hi, after
	}
	if done < len(text) {
		t.encodeSegment(s, text[done:], countTo(done), word, &next)
	}
	return nil
}

// encodeSegment tokenizes text without added tokens, which begins at code point base.
func (t *Tokenizer) encodeSegment(s *scratch, text string, base, word int, next *int) {
	n := &s.n
	fast, ok := t.normalizer.(loader)
	if !ok || !fast.load(n, text, int32(base)) {
		n.reset(text, int32(base))
		if t.normalizer != nil {
			t.normalizer.normalize(n)
		}
	}
	if len(n.text) == 0 {
		return
	}
	spans := append(s.spans[:0], span{0, len(n.text), -1})
	if t.added.normal != nil {
		spans = t.added.cutNormalized(string(n.text), spans[:0])
	}
	s.spans = spans
	if t.preTokenizer != nil {
		s.cut = t.preTokenizer.split(n, spans, s.cut[:0])
		spans = s.cut
	}
	for _, sp := range spans {
		w := word
		if w < 0 {
			w = *next
			*next++
		}
		if sp.id >= 0 {
			s.pieces = append(s.pieces[:0], piece{sp.id, 0, sp.hi - sp.lo})
		} else {
			s.pieces = t.model.tokenize(n.text[sp.lo:sp.hi], s.pieces[:0])
		}
		for _, p := range s.pieces {
			s.ids = append(s.ids, p.id)
			s.words = append(s.words, int32(w))
			s.offsets = append(s.offsets, [2]int{
				int(max(n.pos[sp.lo+p.lo], 0)),
				int(n.pos[sp.lo+p.hi-1]) + 1, // pos -1 stands for no code point
			})
		}
	}
}

// cutNormalized appends the pieces of text, of which some are added tokens, to dst.
func (v *addedVocabulary) cutNormalized(text string, dst []span) []span {
	done := 0
	for from := 0; ; {
		m, after, ok := v.normal.next(text, from, done)
		if !ok {
			break
		}
		if done < m.lo {
			dst = append(dst, span{done, m.lo, -1})
		}
		dst = append(dst, span{m.lo, m.hi, v.tokens[m.index].id})
		done, from = m.hi, after
	}
	if done < len(text) {
		dst = append(dst, span{done, len(text), -1})
	}
	return dst
}

package tokenizer

import (
	"encoding/json"
	"unicode/utf8"
)

// A span is a piece of a normalized text, in bytes.
// An added token has its id and is not cut further; other pieces have id -1.
type span struct {
	lo, hi int
	id     int32
}

// A preTokenizer cuts the pieces of a text further. It may also rewrite the
// text, then giving spans of the new one. It returns its result appended to dst.
type preTokenizer interface {
	split(n *normalized, spans, dst []span) []span
}

type preTokenizerSequence []preTokenizer

func (s preTokenizerSequence) split(n *normalized, spans, dst []span) []span {
	for i, one := range s {
		if i == len(s)-1 {
			return one.split(n, spans, dst)
		}
		spans = one.split(n, spans, nil)
	}
	return append(dst, spans...)
}

func newPreTokenizerSequence(p *part) (preTokenizer, error) {
	var spec struct {
		PreTokenizers []json.RawMessage `json:"pretokenizers"`
	}
	if err := p.decode(&spec, "pretokenizers"); err != nil {
		return nil, err
	}
	var seq preTokenizerSequence
	for i, raw := range spec.PreTokenizers {
		one, err := build(p.child("pretokenizers", i, raw), preTokenizerKinds())
		if err != nil {
			return nil, err
		}
		if one != nil {
			seq = append(seq, one)
		}
	}
	return seq, nil
}

// asciiProps are the properties of ASCII, for the hot loops.
var asciiProps = func() (a [utf8.RuneSelf]uint16) {
	for prop, ranges := range map[uint16][]runeRange{
		propSpace: spaceRanges, propPunctuation: punctuationRanges, propWord: wordRanges,
	} {
		for _, r := range ranges {
			for c := r.lo; c <= r.hi && c < utf8.RuneSelf; c++ {
				a[c] |= prop
			}
		}
	}
	return a
}()

// propsAt decodes the character at n.text[i].
func (n *normalized) propsAt(t *propTable, i int) (prop uint16, size int) {
	if c := n.text[i]; c < utf8.RuneSelf {
		return asciiProps[c], 1
	}
	r, size := utf8.DecodeRune(n.text[i:])
	return t.of(r), size
}

// byClass cuts at the characters of two classes: those of drop vanish, those of alone stand for themselves.
// BertPreTokenizer, WhitespaceSplit and the usual Punctuation differ only in these.
type byClass struct{ drop, alone uint16 }

func (b byClass) split(n *normalized, spans, dst []span) []span {
	t := props()
	for _, s := range spans {
		if s.id >= 0 {
			dst = append(dst, s)
			continue
		}
		start := s.lo
		for i := s.lo; i < s.hi; {
			p, size := n.propsAt(t, i)
			if p&(b.drop|b.alone) != 0 {
				if start < i {
					dst = append(dst, span{start, i, -1})
				}
				start = i + size
				if p&b.drop == 0 {
					dst = append(dst, span{i, start, -1})
				}
			}
			i += size
		}
		if start < s.hi {
			dst = append(dst, span{start, s.hi, -1})
		}
	}
	return dst
}

// wordRuns is the kind Whitespace: runs of \w, and runs of neither \w nor white space.
type wordRuns struct{}

func (wordRuns) split(n *normalized, spans, dst []span) []span {
	t := props()
	const other = 0
	for _, s := range spans {
		if s.id >= 0 {
			dst = append(dst, s)
			continue
		}
		start, kind := s.lo, uint16(propSpace)
		for i := s.lo; i < s.hi; {
			p, size := n.propsAt(t, i)
			now := uint16(other)
			switch {
			case p&propWord != 0:
				now = propWord
			case p&propSpace != 0:
				now = propSpace
			}
			if now != kind {
				if kind != propSpace {
					dst = append(dst, span{start, i, -1})
				}
				start, kind = i, now
			}
			i += size
		}
		if kind != propSpace && start < s.hi {
			dst = append(dst, span{start, s.hi, -1})
		}
	}
	return dst
}

// punctuation cuts around each punctuation mark, joining the mark as behaviour says.
type punctuation struct{ behavior string }

func newPunctuation(p *part) (preTokenizer, error) {
	spec := struct {
		Behavior string `json:"behavior"`
	}{Behavior: "Isolated"}
	if err := p.decode(&spec); err != nil {
		return nil, err
	}
	switch spec.Behavior {
	case "Isolated":
		return byClass{alone: propPunctuation}, nil
	case "Removed":
		return byClass{drop: propPunctuation}, nil
	case "Contiguous", "MergedWithPrevious", "MergedWithNext":
		return punctuation{spec.Behavior}, nil
	}
	return nil, p.errorf("behavior", "unknown behaviour %q; want Isolated, Removed, Contiguous, MergedWithPrevious or MergedWithNext", spec.Behavior)
}

func (b punctuation) split(n *normalized, spans, dst []span) []span {
	t := props()
	for _, s := range spans {
		if s.id >= 0 {
			dst = append(dst, s)
			continue
		}
		start := s.lo
		last := false // whether the character before i is a mark
		cut := func(at int) {
			if start < at {
				dst = append(dst, span{start, at, -1})
				start = at
			}
		}
		for i := s.lo; i < s.hi; {
			p, size := n.propsAt(t, i)
			mark := p&propPunctuation != 0
			switch b.behavior {
			case "Contiguous":
				if mark != last {
					cut(i)
				}
			case "MergedWithPrevious": // the first of a run of marks joins what stands before it
				if last {
					cut(i)
				}
			case "MergedWithNext": // the last of a run of marks joins what follows
				if mark {
					cut(i)
				}
			}
			last = mark
			i += size
		}
		cut(s.hi)
	}
	return dst
}

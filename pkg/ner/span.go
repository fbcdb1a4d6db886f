package ner

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Outside is the tag of a word that belongs to no entity.
const Outside = "O"

// untyped is the type of an entity whose tags carry none, such as "B".
const untyped = "_"

// Span is an entity: the words Start to End, End exclusive, and its type.
type Span struct {
	Type  string `json:"type"`
	Start int    `json:"start"`
	End   int    `json:"end"`
}

// String writes a span as "PER[2:4]".
func (s Span) String() string { return fmt.Sprintf("%s[%d:%d]", s.Type, s.Start, s.End) }

// FromTags reads the entities out of the tags of one sentence as leniently as
// conlleval and seqeval's default mode do, for the prefixes B, I, E and S: an
// entity starts at B or S, at an I or E that follows O, E or S, and wherever the
// type changes; it ends before the next start, before O, and after E or S. So an
// ill-formed I-PER after O, or after I-LOC, starts an entity. The type is what
// follows the first hyphen; tags without one have the type "_".
//
// Other prefixes (L and U, or whole words) are not refused. What becomes of them
// follows from the same rules, exactly as in seqeval, and can be surprising; use
// [FromTagsStrict] for the schemes that have them. An empty tag counts as O.
func FromTags(tags []string) []Span {
	var c chunker
	for _, tag := range tags {
		c.next(tag)
	}
	c.next(Outside)
	return c.spans
}

// chunker reads entities out of a stream of tags. Positions count from the
// beginning of the stream.
//
// Source: seqeval 1.2.2, get_entities, which follows conlleval.pl (CoNLL-2000).
// The state before the first tag has the type "", after an O the type "_": this
// matters for tags with a foreign prefix and no type, and is kept.
type chunker struct {
	prefix rune
	typ    string
	begin  int
	at     int
	spans  []Span
}

func (c *chunker) next(tag string) {
	if tag == "" {
		tag = Outside
	}
	if c.at == 0 {
		c.prefix, c.typ = 'O', ""
	}
	prefix, typ := lenient(tag)
	if c.ends(prefix, typ) {
		c.spans = append(c.spans, Span{c.typ, c.begin, c.at})
	}
	if c.starts(prefix, typ) {
		c.begin = c.at
	}
	c.prefix, c.typ = prefix, typ
	c.at++
}

// ends reports whether an entity ends before a tag.
func (c *chunker) ends(prefix rune, typ string) bool {
	switch c.prefix {
	case 'E', 'S':
		return true
	case 'B', 'I':
		if prefix == 'B' || prefix == 'S' || prefix == 'O' {
			return true
		}
	case 'O', '.':
		return false
	}
	return c.typ != typ
}

// starts reports whether an entity starts at a tag.
func (c *chunker) starts(prefix rune, typ string) bool {
	switch prefix {
	case 'B', 'S':
		return true
	case 'I', 'E':
		if c.prefix == 'E' || c.prefix == 'S' || c.prefix == 'O' {
			return true
		}
	case 'O', '.':
		return false
	}
	return c.typ != typ
}

// lenient splits a tag at its first hyphen after the prefix: "B-PER" is B, PER.
func lenient(tag string) (prefix rune, typ string) {
	prefix, size := utf8.DecodeRuneInString(tag)
	typ = tag[size:]
	if _, after, ok := strings.Cut(typ, "-"); ok {
		typ = after
	}
	if typ == "" {
		typ = untyped
	}
	return prefix, typ
}

// ToTags writes spans, in any order, as the tags of n words. It returns an error
// when a span is empty, lies outside the words, has no type, or overlaps another, and when n is negative.
// The empty scheme is IOB2.
func ToTags(spans []Span, n int, scheme Scheme) ([]string, error) {
	rules, err := scheme.rules()
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, fmt.Errorf("the number of words is %d, want 0 or more", n)
	}
	spans = slices.SortedFunc(slices.Values(spans), func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
	})
	tags := slices.Repeat([]string{Outside}, n)
	for i, s := range spans {
		switch {
		case s.Start < 0 || s.End > n || s.Start >= s.End:
			return nil, fmt.Errorf("span %v: want 0 ≤ start < end ≤ %d, the number of words", s, n)
		case s.Type == "":
			return nil, fmt.Errorf("span %v: no type", s)
		case i > 0 && s.Start < spans[i-1].End:
			return nil, fmt.Errorf("span %v overlaps %v: tags can hold only one of them", s, spans[i-1])
		}
		// Does another span of this type lie directly beside it?
		before := i > 0 && spans[i-1].Type == s.Type && spans[i-1].End == s.Start
		after := i+1 < len(spans) && spans[i+1].Type == s.Type && spans[i+1].Start == s.End
		for word := s.Start; word < s.End; word++ {
			prefix := rules.write(word == s.Start, word == s.End-1, before, after)
			tags[word] = string(prefix) + "-" + s.Type
		}
	}
	return tags, nil
}

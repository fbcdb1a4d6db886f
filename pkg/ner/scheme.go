package ner

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Scheme is a notation of spans as one tag a word. Each tag is a prefix and,
// but for O, a type. The empty Scheme is IOB2.
type Scheme string

// The schemes, by example: words 1 and 2 are one entity, 3 another one of the
// same type, 4 is outside, 5 is an entity.
const (
	IOB1  Scheme = "IOB1"  // I I B O I: B only to part an entity from one of its type directly before it
	IOB2  Scheme = "IOB2"  // B I B O B: B starts every entity; also called BIO
	IOE1  Scheme = "IOE1"  // I E I O I: E only to part an entity from one of its type directly behind it
	IOE2  Scheme = "IOE2"  // I E E O E: E ends every entity
	IOBES Scheme = "IOBES" // B E S O S: B starts, E ends, S is an entity of one word; also called BIOES
	BILOU Scheme = "BILOU" // B L U O U: the same with L for E and U for S
)

// ErrPrefix is wrapped by the errors of strict reading about a tag whose prefix
// its scheme does not have.
var ErrPrefix = errors.New("prefix not of the scheme")

// rules are how a scheme is read and written. A pair of neighbouring tags is matched by patterns of
// three letters: the prefix before, the prefix now ("*" is any), and how the
// types compare: "=" equal, "!" different, "*" any.
//
// Source: seqeval 1.2.2, scheme.py, whose tables these are; including that of
// IOE1, which its authors call unfinished (a single I before O is an entity, a
// single E is none).
// The function write gives the prefix of a word from its place in its span and
// from whether another span of the same type lies directly beside it.
type rules struct {
	prefixes            string
	start, inside, ends string
	write               func(first, last, touchesBefore, touchesAfter bool) byte
}

// rules returns the rules of a scheme.
func (s Scheme) rules() (rules, error) {
	pick := func(condition bool, yes, no byte) byte {
		if condition {
			return yes
		}
		return no
	}
	five := func(first, last bool, end, single byte) byte {
		switch {
		case first && last:
			return single
		case first:
			return 'B'
		case last:
			return end
		}
		return 'I'
	}
	switch s {
	case IOB1:
		return rules{"BIO", "OI* II! BI* IB= BB=", "BI= II=", "II! IO* IB* BO* BI! BB=",
			func(first, _, before, _ bool) byte { return pick(first && before, 'B', 'I') }}, nil
	case IOB2, "":
		return rules{"BIO", "*B*", "BI= II=", "IO* II! IB* BO* BI! BB*",
			func(first, _, _, _ bool) byte { return pick(first, 'B', 'I') }}, nil
	case IOE1:
		return rules{"IOE", "OI* II! EI* EE=", "II= IE=", "II! IO* IE! EI= EE=",
			func(_, last, _, after bool) byte { return pick(last && after, 'E', 'I') }}, nil
	case IOE2:
		return rules{"IOE", "OI* OE* EI* EE* II! IE!", "IE= II=", "E**",
			func(_, last, _, _ bool) byte { return pick(last, 'E', 'I') }}, nil
	case IOBES:
		return rules{"BIOES", "*B* *S*", "BI= BE= II= IE=", "S** E**",
			func(first, last, _, _ bool) byte { return five(first, last, 'E', 'S') }}, nil
	case BILOU:
		return rules{"BILOU", "*B* *U*", "BI= BL= II= IL=", "U** L**",
			func(first, last, _, _ bool) byte { return five(first, last, 'L', 'U') }}, nil
	}
	return rules{}, fmt.Errorf("scheme %q: want one of IOB1, IOB2, IOE1, IOE2, IOBES, BILOU", s)
}

// parsed is a tag, read strictly.
type parsed struct {
	prefix byte
	typ    string
}

// matches reports whether two neighbouring tags match one of the patterns.
func matches(patterns string, before, now parsed) bool {
	for pattern := range strings.FieldsSeq(patterns) {
		if (pattern[0] == '*' || pattern[0] == before.prefix) &&
			(pattern[1] == '*' || pattern[1] == now.prefix) &&
			(pattern[2] == '*' || (pattern[2] == '=') == (before.typ == now.typ)) {
			return true
		}
	}
	return false
}

// FromTagsStrict reads those entities out of the tags of one sentence that are
// well-formed in a scheme, as seqeval's strict mode does: for IOB2, B-PER and
// the I-PER that follow it. Words of ill-formed entities are outside. It returns
// an error, which wraps [ErrPrefix], when a tag has a prefix of another scheme.
func FromTagsStrict(tags []string, scheme Scheme) ([]Span, error) {
	r, err := scheme.rules()
	if err != nil {
		return nil, err
	}
	outside := parsed{'O', untyped}
	seq := make([]parsed, len(tags), len(tags)+1)
	for i, tag := range tags {
		if seq[i], err = r.parse(tag); err != nil {
			return nil, fmt.Errorf("word %d: %w", i, err)
		}
	}
	seq = append(seq, outside)

	var spans []Span
	before := outside
	for i := 0; i < len(seq); {
		if !matches(r.start, before, seq[i]) {
			before = seq[i]
			i++
			continue
		}
		end := i + 1 // the O behind the last tag is never inside
		for matches(r.inside, seq[end-1], seq[end]) {
			end++
		}
		if matches(r.ends, seq[end-1], seq[end]) {
			spans = append(spans, Span{seq[i].typ, i, end})
		}
		i, before = end, seq[end-1]
	}
	return spans, nil
}

// parse splits a tag into prefix and type; hyphens around the type are cut off.
func (r rules) parse(tag string) (parsed, error) {
	if tag == "" || !strings.Contains(r.prefixes, tag[:1]) {
		_, size := utf8.DecodeRuneInString(tag)
		return parsed{}, fmt.Errorf("tag %q begins with %q, want one of %s: %w", tag, tag[:size], strings.Join(strings.Split(r.prefixes, ""), ", "), ErrPrefix)
	}
	typ := strings.Trim(tag[1:], "-")
	if typ == "" {
		typ = untyped
	}
	return parsed{tag[0], typ}, nil
}

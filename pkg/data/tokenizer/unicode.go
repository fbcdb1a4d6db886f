package tokenizer

import (
	"slices"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

type runeRange struct{ lo, hi rune }

// A classRange holds marks of one canonical combining class. Only the order of the
// classes matters, so they are numbered from 1 in that order.
type classRange struct {
	lo, hi rune
	class  uint8
}

// A lowerRange maps every stride-th code point from lo to hi to itself plus delta.
type lowerRange struct{ lo, hi, stride, delta rune }

// Properties of one code point, as bits.
const (
	propRemoved     uint16 = 1 << iota // dropped by BERT's clean_text
	propBlank                          // turned into a space by clean_text
	propChinese                        // set between spaces by handle_chinese_chars
	propSpace                          // white space
	propPunctuation                    // BERT's punctuation
	propWord                           // \w
	propNonspacing                     // category Mn, as BERT's strip_accents sees it
	propMark                           // category M, as StripAccents sees it
	propClass                          // has a combining class other than 0
	propNFD                            // decomposes canonically
	propNFKD                           // decomposes differently under compatibility
	propLower                          // has a lower case
)

// A propTable finds the properties of a code point in two steps; equal pages are stored once.
type propTable struct {
	page  [utf8.MaxRune>>8 + 1]uint16
	props [][256]uint16
}

func (t *propTable) of(r rune) uint16 { return t.props[t.page[uint32(r)>>8]][r&0xFF] }

// props is built on first use, in a few milliseconds.
var props = sync.OnceValue(func() *propTable {
	flat := make([]uint16, utf8.MaxRune+1)
	set := func(prop uint16, ranges []runeRange) {
		for _, r := range ranges {
			for c := r.lo; c <= r.hi; c++ {
				flat[c] |= prop
			}
		}
	}
	set(propRemoved, removedRanges)
	set(propBlank, blankRanges)
	set(propChinese, chineseRanges)
	set(propSpace, spaceRanges)
	set(propPunctuation, punctuationRanges)
	set(propWord, wordRanges)
	set(propNonspacing, nonspacingRanges)
	set(propMark, markRanges)
	set(propNFD, nfdRanges)
	set(propNFD, []runeRange{{hangulBase, hangulLast}})
	set(propNFKD, nfkdRanges)
	for _, r := range classRanges {
		set(propClass, []runeRange{{r.lo, r.hi}})
	}
	for _, r := range lowerRanges {
		for c := r.lo; c <= r.hi; c += r.stride {
			flat[c] |= propLower
		}
	}
	flat[capitalIDot] |= propLower

	t := &propTable{}
	seen := map[[256]uint16]uint16{}
	for i := range t.page {
		page := [256]uint16(flat[i<<8:])
		n, ok := seen[page]
		if !ok {
			n = uint16(len(t.props))
			seen[page] = n
			t.props = append(t.props, page)
		}
		t.page[i] = n
	}
	return t
})

// capitalIDot is the one letter whose lower case has two code points, i and U+0307.
const capitalIDot = 0x130

// lowerRune returns the lower case of r without regard to its neighbours or to a language.
func lowerRune(r rune) rune {
	i, ok := slices.BinarySearchFunc(lowerRanges, r, func(l lowerRange, r rune) int {
		return compareRange(l.lo, l.hi, r)
	})
	if !ok || (r-lowerRanges[i].lo)%lowerRanges[i].stride != 0 {
		return r
	}
	return r + lowerRanges[i].delta
}

func compareRange(lo, hi, r rune) int {
	switch {
	case hi < r:
		return -1
	case lo > r:
		return 1
	}
	return 0
}

var classes = sync.OnceValue(func() []classRange {
	s := slices.Clone(classRanges)
	slices.SortFunc(s, func(a, b classRange) int { return int(a.lo - b.lo) })
	return s
})

// combiningClass returns the rank of the canonical combining class of r, 0 for starters.
func combiningClass(r rune) uint8 {
	s := classes()
	i, ok := slices.BinarySearchFunc(s, r, func(c classRange, r rune) int { return compareRange(c.lo, c.hi, r) })
	if !ok {
		return 0
	}
	return s[i].class
}

// Hangul syllables are composed by rule (Unicode 15, section 3.12).
const (
	hangulBase   = 0xAC00
	hangulLast   = 0xD7A3
	leadBase     = 0x1100
	vowelBase    = 0x1161
	tailBase     = 0x11A7
	leadCount    = 19
	vowelCount   = 21
	tailCount    = 28
	blockOfVowel = vowelCount * tailCount
)

// appendDecomposed appends the full decomposition of r, which is r itself for most.
func appendDecomposed(dst []rune, r rune, p uint16, compat bool) []rune {
	if r >= hangulBase && r <= hangulLast {
		s := r - hangulBase
		dst = append(dst, leadBase+s/blockOfVowel, vowelBase+s%blockOfVowel/tailCount)
		if t := s % tailCount; t != 0 {
			dst = append(dst, tailBase+t)
		}
		return dst
	}
	form := norm.NFD
	switch {
	case compat && p&propNFKD != 0:
		form = norm.NFKD
	case p&propNFD == 0:
		return append(dst, r)
	}
	var buf [utf8.UTFMax]byte
	d := form.Properties(buf[:utf8.EncodeRune(buf[:], r)]).Decomposition()
	if d == nil {
		return append(dst, r)
	}
	for len(d) > 0 {
		c, n := utf8.DecodeRune(d)
		dst = append(dst, c)
		d = d[n:]
	}
	return dst
}

// compositions maps two code points to the one that composes them, Hangul aside.
var compositions = sync.OnceValue(func() map[[2]rune]rune {
	type entry struct {
		r     rune
		parts []rune
	}
	var entries []entry
	for _, span := range composeRanges {
		for r := span.lo; r <= span.hi; r++ {
			entries = append(entries, entry{r, appendDecomposed(nil, r, propNFD, false)})
		}
	}
	// Short ones first: the head of a long one is a composition itself.
	slices.SortStableFunc(entries, func(a, b entry) int { return len(a.parts) - len(b.parts) })
	m := make(map[[2]rune]rune, len(entries))
	for _, e := range entries {
		head := e.parts[0]
		for _, c := range e.parts[1 : len(e.parts)-1] {
			if next, ok := m[[2]rune{head, c}]; ok {
				head = next
			}
		}
		m[[2]rune{head, e.parts[len(e.parts)-1]}] = e.r
	}
	return m
})

// compose returns the code point that a followed by b makes, if there is one.
func compose(a, b rune) (rune, bool) {
	switch {
	case a >= leadBase && a < leadBase+leadCount && b >= vowelBase && b < vowelBase+vowelCount:
		return hangulBase + (a-leadBase)*blockOfVowel + (b-vowelBase)*tailCount, true
	case a >= hangulBase && a <= hangulLast && (a-hangulBase)%tailCount == 0 && b > tailBase && b < tailBase+tailCount:
		return a + b - tailBase, true
	}
	r, ok := compositions()[[2]rune{a, b}]
	return r, ok
}

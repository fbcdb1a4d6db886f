package tokenizer

import "unicode/utf8"

// A bertNormalizer cleans a text as BERT was trained:
//
//	cleanText      control characters and U+FFFD are dropped, any white space becomes a space
//	chineseChars   ideographs stand between spaces, so that each is a word
//	stripAccents   NFD, then nonspacing marks are dropped
//	lowercase      every letter for itself
type bertNormalizer struct {
	cleanText, chineseChars, stripAccents, lowercase bool

	// ascii holds what becomes of each ASCII byte, dropByte if nothing.
	ascii [utf8.RuneSelf]byte
}

const dropByte = 0xFF

func newBERTNormalizer(p *part) (normalizer, error) {
	spec := struct {
		CleanText    bool  `json:"clean_text"`
		ChineseChars bool  `json:"handle_chinese_chars"`
		StripAccents *bool `json:"strip_accents"`
		Lowercase    bool  `json:"lowercase"`
	}{}
	if err := p.decode(&spec, "clean_text", "handle_chinese_chars", "lowercase"); err != nil {
		return nil, err
	}
	b := &bertNormalizer{
		cleanText: spec.CleanText, chineseChars: spec.ChineseChars,
		stripAccents: spec.Lowercase, lowercase: spec.Lowercase,
	}
	if spec.StripAccents != nil {
		b.stripAccents = *spec.StripAccents
	}
	t := props()
	for c := range byte(utf8.RuneSelf) {
		to := c
		switch p := t.of(rune(c)); {
		case b.cleanText && p&propRemoved != 0:
			to = dropByte
		case b.cleanText && p&propBlank != 0:
			to = ' '
		case b.lowercase && c >= 'A' && c <= 'Z':
			to = c + 'a' - 'A'
		}
		b.ascii[c] = to
	}
	return b, nil
}

// normalize does the four steps one after the other, like the reference.
func (b *bertNormalizer) normalize(n *normalized) {
	t := props()
	if b.cleanText {
		n.filter(func(r rune) bool { return t.of(r)&propRemoved == 0 })
		n.mapRunes(func(r rune) rune {
			if t.of(r)&propBlank != 0 {
				return ' '
			}
			return r
		})
	}
	if b.chineseChars {
		n.spaceChinese(t)
	}
	if b.stripAccents {
		n.decompose(false)
		n.filter(func(r rune) bool { return t.of(r)&propNonspacing == 0 })
	}
	if b.lowercase {
		n.lower()
	}
}

func (n *normalized) spaceChinese(t *propTable) {
	edits := n.edits[:0]
	for i := 0; i < len(n.text); {
		r, size := utf8.DecodeRune(n.text[i:])
		i += size
		if t.of(r)&propChinese != 0 {
			edits = append(edits, edit{' ', 0}, edit{r, 1}, edit{' ', 1})
		} else {
			edits = append(edits, edit{r, 0})
		}
	}
	n.edits = edits
	n.transform(edits, 0)
}

// load is normalize in one pass. All steps but the ordering of marks treat each
// character for itself, and the marks that get ordered are dropped afterwards: all
// but a few rare ones, for which load gives up.
func (b *bertNormalizer) load(n *normalized, text string, base int32) bool {
	t := props()
	n.text, n.pos = n.text[:0], n.pos[:0]
	for i := 0; i < len(text); base++ {
		if c := text[i]; c < utf8.RuneSelf {
			i++
			if to := b.ascii[c]; to != dropByte {
				n.text = append(n.text, to)
				n.pos = append(n.pos, base)
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		p := t.of(r)
		switch {
		case b.cleanText && p&propRemoved != 0:
		case b.cleanText && p&propBlank != 0:
			n.append(' ', base)
		case b.chineseChars && p&propChinese != 0:
			n.append(' ', base)
			if !b.loadRune(n, t, r, p, base) {
				return false
			}
			n.append(' ', base)
		default:
			if !b.loadRune(n, t, r, p, base) {
				return false
			}
		}
	}
	return true
}

// loadRune appends what accent stripping and lower case leave of one character.
func (b *bertNormalizer) loadRune(n *normalized, t *propTable, r rune, p uint16, pos int32) bool {
	if !b.stripAccents || p&(propNFD|propNonspacing|propClass) == 0 {
		b.appendLower(n, r, p, pos)
		return true
	}
	n.decomp = appendDecomposed(n.decomp[:0], r, p, false)
	for _, d := range n.decomp {
		p := t.of(d)
		if p&propNonspacing != 0 {
			continue
		}
		if p&propClass != 0 {
			return false // an ordered mark that stays
		}
		b.appendLower(n, d, p, pos)
	}
	return true
}

func (b *bertNormalizer) appendLower(n *normalized, r rune, p uint16, pos int32) {
	if b.lowercase && p&propLower != 0 {
		if r == capitalIDot {
			n.append('i', pos)
			r = 0x307
		} else {
			r = lowerRune(r)
		}
	}
	n.append(r, pos)
}

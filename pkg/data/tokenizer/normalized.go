package tokenizer

import (
	"slices"
	"unicode/utf8"
)

// normalized is a text on its way through the normalizers. It remembers for every
// byte which code point of the original it stands for, so that a piece of it can be
// found there again. A character that replaces others stands for the first of them; an inserted
// one for the one before it, or for none (-1) at the very beginning.
type normalized struct {
	text []byte
	pos  []int32 // len(pos) == len(text)

	// Scratch of transform and of the normalizers, kept to be used again.
	oldPos  []int32
	edits   []edit
	classes []uint8
	decomp  []rune
}

// An edit is one character of a new text. Like the reference, we count what it does to the old one:
//
//	change > 0   it is inserted
//	change = 0   it replaces the next old character
//	change < 0   it replaces the next one and the -change after that are dropped
type edit struct {
	r      rune
	change int
}

// reset starts anew with text, whose first code point has number base.
func (n *normalized) reset(text string, base int32) {
	n.text, n.pos = n.text[:0], n.pos[:0]
	for _, r := range text { // invalid bytes come as U+FFFD
		n.append(r, base)
		base++
	}
}

// append adds a character that stands for code point pos of the original.
func (n *normalized) append(r rune, pos int32) {
	before := len(n.text)
	n.text = utf8.AppendRune(n.text, r)
	for range len(n.text) - before {
		n.pos = append(n.pos, pos)
	}
}

// transform replaces the text by the edits, of which dropped old characters come first.
func (n *normalized) transform(edits []edit, dropped int) {
	old := n.oldPos[:0]
	for i, b := range n.text {
		if utf8.RuneStart(b) {
			old = append(old, n.pos[i])
		}
	}
	n.oldPos = old
	n.text, n.pos = n.text[:0], n.pos[:0]
	at := dropped
	for _, e := range edits {
		pos := int32(-1)
		if e.change > 0 {
			if at > 0 && len(old) > 0 {
				pos = old[min(at, len(old))-1]
			}
		} else {
			if at < len(old) {
				pos = old[at]
			}
			at += 1 - e.change
		}
		n.append(e.r, pos)
	}
}

// mapRunes replaces every character by one other.
func (n *normalized) mapRunes(f func(rune) rune) {
	edits := n.edits[:0]
	for i := 0; i < len(n.text); {
		r, size := utf8.DecodeRune(n.text[i:])
		edits = append(edits, edit{f(r), 0})
		i += size
	}
	n.edits = edits
	n.transform(edits, 0)
}

// filter drops the characters that keep refuses.
func (n *normalized) filter(keep func(rune) bool) {
	edits, dropped := n.edits[:0], 0
	for i := 0; i < len(n.text); {
		r, size := utf8.DecodeRune(n.text[i:])
		i += size
		switch {
		case keep(r):
			edits = append(edits, edit{r, 0})
		case len(edits) > 0:
			edits[len(edits)-1].change--
		default:
			dropped++
		}
	}
	n.edits = edits
	n.transform(edits, dropped)
}

func (n *normalized) lower() {
	t := props()
	edits := n.edits[:0]
	for i := 0; i < len(n.text); {
		r, size := utf8.DecodeRune(n.text[i:])
		i += size
		if r == capitalIDot {
			edits = append(edits, edit{'i', 0}, edit{0x307, 1})
			continue
		}
		if t.of(r)&propLower != 0 {
			r = lowerRune(r)
		}
		edits = append(edits, edit{r, 0})
	}
	n.edits = edits
	n.transform(edits, 0)
}

// decompose applies NFD, or NFKD if compat is set.
func (n *normalized) decompose(compat bool) {
	n.transform(n.decomposition(compat), 0)
}

// recompose applies NFC, or NFKC if compat is set.
func (n *normalized) recompose(compat bool) {
	n.transform(composed(n.decomposition(compat)), 0)
}

// decomposition returns the edits of NFD or NFKD, marks in canonical order.
func (n *normalized) decomposition(compat bool) []edit {
	t := props()
	edits, ranks := n.edits[:0], n.classes[:0]
	first := 0 // where the run of marks at the end begins
	for i := 0; i < len(n.text); {
		r, size := utf8.DecodeRune(n.text[i:])
		i += size
		n.decomp = appendDecomposed(n.decomp[:0], r, t.of(r), compat)
		for k, c := range n.decomp {
			rank := uint8(0)
			if t.of(c)&propClass != 0 {
				rank = combiningClass(c)
			}
			if rank == 0 {
				sortMarks(edits[first:], ranks[first:])
				first = len(edits) + 1
			}
			edits = append(edits, edit{c, min(k, 1)})
			ranks = append(ranks, rank)
		}
	}
	if first < len(edits) {
		sortMarks(edits[first:], ranks[first:])
	}
	n.edits, n.classes = edits, ranks
	return edits
}

// sortMarks brings a run of marks into the order of their classes, stably.
func sortMarks(edits []edit, ranks []uint8) {
	if slices.IsSorted(ranks) {
		return
	}
	type mark struct {
		edit edit
		rank uint8
	}
	marks := make([]mark, len(edits))
	for i := range edits {
		marks[i] = mark{edits[i], ranks[i]}
	}
	slices.SortStableFunc(marks, func(a, b mark) int { return int(a.rank) - int(b.rank) })
	for i, m := range marks {
		edits[i], ranks[i] = m.edit, m.rank
	}
}

// composed joins decomposed characters again: a mark joins the last starter unless
// a mark of the same or a higher class stands between them.
func composed(edits []edit) []edit {
	out := make([]edit, 0, len(edits))
	starter, blocker := -1, -1 // place of the last starter in out; class of the last mark that stayed
	for _, e := range edits {
		class := int(combiningClass(e.r))
		if starter < 0 {
			if class == 0 {
				starter = len(out)
			}
			out = append(out, e)
			continue
		}
		if blocker < class {
			if r, ok := compose(out[starter].r, e.r); ok {
				out[starter] = edit{r, out[starter].change + e.change - 1}
				continue
			}
		}
		if class == 0 {
			starter, blocker = len(out), -1
		} else {
			blocker = class
		}
		out = append(out, e)
	}
	return out
}

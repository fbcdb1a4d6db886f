package ner

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"html"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
)

// colour is a background for black letters. The hexadecimal value is used in
// HTML, the number is the nearest of the 256 colours of terminals.
type colour struct {
	hex  string
	ansi int
}

// palette holds those of the eight colours of Okabe and Ito (2008), made to be
// told apart with any kind of colour blindness, that black letters can be read
// on (contrast 5 or more). Types are written out as well: colour is never the only sign.
var palette = []colour{
	{"#56b4e9", 74},  // sky blue
	{"#e69f00", 178}, // orange
	{"#009e73", 36},  // bluish green
	{"#cc79a7", 175}, // reddish purple
	{"#f0e442", 227}, // yellow
	{"#d55e00", 166}, // vermillion
}

// colourOf gives a type its colour: usual types always differ, others take one by their name.
func colourOf(typ string) colour {
	switch strings.ToUpper(typ) {
	case "PER", "PERSON":
		return palette[0]
	case "ORG":
		return palette[1]
	case "LOC", "GPE":
		return palette[2]
	case "MISC":
		return palette[3]
	}
	h := fnv.New32a()
	h.Write([]byte(typ))
	return palette[h.Sum32()%uint32(len(palette))]
}

// piece is a stretch of text, marked if it is an entity.
type piece struct {
	text   string
	entity *Entity
}

// pieces cuts a text at its entities. Of overlapping entities the one that
// begins first, or else is longest, stays; those outside the text are left out.
func pieces(text string, entities []Entity) []piece {
	sorted := slices.SortedStableFunc(slices.Values(entities), func(a, b Entity) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End))
	})
	at := codePoints(text)
	var out []piece
	done := 0
	for _, e := range sorted {
		if e.Start < done || e.End <= e.Start || e.End >= len(at) {
			continue
		}
		if e.Start > done {
			out = append(out, piece{text: text[at[done]:at[e.Start]]})
		}
		out = append(out, piece{text[at[e.Start]:at[e.End]], &e})
		done = e.End
	}
	if rest := text[at[done]:]; rest != "" {
		out = append(out, piece{text: rest})
	}
	return out
}

// Mark writes a text with its entities in brackets, as "[Angela Merkel PER] was
// in [Paris LOC]", or, in colour, on coloured ground for a terminal. Control
// characters of the text, which could command a terminal, are written as their
// pictures (␛). Of overlapping entities only the first is marked.
func Mark(text string, entities []Entity, inColour bool) string {
	var b strings.Builder
	for _, p := range pieces(text, entities) {
		shown := data.Printable(p.text)
		switch {
		case p.entity == nil:
			b.WriteString(shown)
		case inColour:
			// Black on colour; the type in bold; everything off.
			fmt.Fprintf(&b, "\x1b[30;48;5;%dm %s \x1b[1m%s \x1b[0m", colourOf(p.entity.Type).ansi, shown, data.Printable(p.entity.Type))
		default:
			fmt.Fprintf(&b, "[%s %s]", shown, data.Printable(p.entity.Type))
		}
	}
	return b.String()
}

// HTML writes a text with its entities on coloured ground, as one element that
// needs no style sheet and no script, for a notebook or a page. The types are
// part of the text, so that it can be read without colour; the score is in the
// tooltip; and a summary of the entities stands as the label for screen readers.
// Of overlapping entities only the first is marked.
func HTML(text string, entities []Entity) string {
	var b strings.Builder
	var named []string
	for _, p := range pieces(text, entities) {
		shown := html.EscapeString(p.text)
		if p.entity == nil {
			b.WriteString(shown)
			continue
		}
		typ := html.EscapeString(p.entity.Type)
		named = append(named, fmt.Sprintf("%s (%s)", shown, typ))
		title := typ
		if p.entity.Score > 0 {
			title = fmt.Sprintf("%s, score %.3f", typ, p.entity.Score)
		}
		fmt.Fprintf(&b, `<mark title="%s" style="background:%s;color:#000;padding:0.15em 0.35em;border-radius:0.35em">%s <span style="font-size:0.7em;font-weight:bold">%s</span></mark>`,
			title, colourOf(p.entity.Type).hex, shown, typ)
	}
	label := "Text without named entities"
	if len(named) > 0 {
		label = fmt.Sprintf("Text with %d named entities: %s", len(named), strings.Join(named, ", "))
		if len(named) == 1 {
			label = "Text with 1 named entity: " + named[0]
		}
	}
	return fmt.Sprintf(`<div role="group" aria-label="%s" dir="auto" style="line-height:2.2;white-space:pre-wrap">%s</div>`, label, b.String())
}

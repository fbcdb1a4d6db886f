package data

import (
	"fmt"
	"iter"
	"strings"
	"unicode"
)

// Text is a text with the class that it belongs to.
type Text struct {
	Text string `json:"text"`
	// Label is the name of its class, or "" when the text is unlabelled.
	Label string `json:"label,omitempty"`
	// File and Line say where it was read, for messages; Line counts from 1.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Place is "file:line" where the text was read, else "text".
func (t Text) Place() string {
	if t.File == "" {
		return "text"
	}
	return fmt.Sprintf("%s:%d", t.File, t.Line)
}

// Printable is a text as a terminal may be shown it, which control characters would command: they are replaced by their
// pictures (␛), but for newline and tab; those without a picture, and the invisible ones that change the direction of
// writing, by U+FFFD.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < 0x20:
			return 0x2400 + r // its picture
		case r == 0x7f:
			return '␡'
		case unicode.IsControl(r), r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// Spread returns at most so many values of a list, in order and evenly spread over it, since files are often sorted by
// class; all for 0.
func Spread[E any](list []E, most int) []E {
	if most == 0 || most >= len(list) {
		return list
	}
	chosen := make([]E, most)
	for i := range chosen {
		chosen[i] = list[i*len(list)/most]
	}
	return chosen
}

// CollectTexts returns all texts of an iterator, or the first error and what came before it.
func CollectTexts(texts iter.Seq2[Text, error]) ([]Text, error) {
	var all []Text
	for text, err := range texts {
		if err != nil {
			return all, err
		}
		all = append(all, text)
	}
	return all, nil
}

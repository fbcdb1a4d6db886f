package ner

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Entity is a named entity in a text.
type Entity struct {
	Type  string  `json:"type"`
	Text  string  `json:"text"`  // as written
	Start int     `json:"start"` // first character, in Unicode code points
	End   int     `json:"end"`   // behind the last character, in Unicode code points
	Score float64 `json:"score"` // mean of its words' probabilities
	Words [2]int  `json:"words"` // first word, and behind the last
}

// Entities places spans of words in a text. The parameter words gives the start
// and end of each word in the text, in Unicode code points (not bytes: they are
// what tokenizers give, and what other languages index strings by); scores the
// probability of each word's predicted tag, or nil. An entity reaches from the
// start of its first word to the end of its last one, and its score is the mean
// of its words'. Words without characters (start = end) at its edges are passed
// over, and an entity of nothing else is left out.
func Entities(text string, words [][2]int, spans []Span, scores []float64) ([]Entity, error) {
	if scores != nil && len(scores) != len(words) {
		return nil, fmt.Errorf("%d scores for %d words", len(scores), len(words))
	}
	at := codePoints(text)
	size := len(at) - 1
	for i, w := range words {
		if w[0] < 0 || w[1] < w[0] || w[1] > size {
			return nil, fmt.Errorf("word %d at %v, want 0 ≤ start ≤ end ≤ %d, the code points of the text", i, w, size)
		}
	}
	entities := make([]Entity, 0, len(spans))
	for _, s := range spans {
		if s.Start < 0 || s.End > len(words) || s.Start >= s.End {
			return nil, fmt.Errorf("span %v: want 0 ≤ start < end ≤ %d, the number of words", s, len(words))
		}
		first, last := s.Start, s.End-1
		for first < last && words[first][0] == words[first][1] {
			first++
		}
		for last > first && words[last][0] == words[last][1] {
			last--
		}
		e := Entity{Type: s.Type, Start: words[first][0], End: words[last][1], Words: [2]int{s.Start, s.End}}
		if e.Start >= e.End {
			if words[first][0] < words[first][1] {
				return nil, fmt.Errorf("span %v: word %d begins at %d, behind the end of word %d at %d", s, first, e.Start, last, e.End)
			}
			continue
		}
		e.Text = text[at[e.Start]:at[e.End]]
		if scores != nil {
			for _, p := range scores[s.Start:s.End] {
				e.Score += p
			}
			e.Score /= float64(s.End - s.Start)
		}
		entities = append(entities, e)
	}
	return entities, nil
}

// codePoints returns the byte at which each code point begins, and the length.
func codePoints(text string) []int {
	at := make([]int, 0, len(text)+1)
	for i := range text {
		at = append(at, i)
	}
	return append(at, len(text))
}

// Join writes words with a space between them and tells where each lies, in code points.
func Join(words []string) (text string, offsets [][2]int) {
	var b strings.Builder
	at := 0
	for i, word := range words {
		if i > 0 {
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		n := utf8.RuneCountInString(word)
		offsets = append(offsets, [2]int{at, at + n})
		at += n
	}
	return b.String(), offsets
}

// Locate finds words in the text that they were split from, in order, with
// nothing but white space between them, and returns where each lies, in code
// points. It returns an error that names the first word that is not next in the
// text; [Join] then serves instead.
func Locate(text string, words []string) ([][2]int, error) {
	offsets := make([][2]int, len(words))
	rest, at := text, 0
	for i, word := range words {
		trimmed := strings.TrimLeftFunc(rest, unicode.IsSpace)
		at += utf8.RuneCountInString(rest[:len(rest)-len(trimmed)])
		var ok bool
		if rest, ok = strings.CutPrefix(trimmed, word); !ok {
			return nil, fmt.Errorf("word %d, %q, is not next in the text at code point %d", i, word, at)
		}
		n := utf8.RuneCountInString(word)
		offsets[i] = [2]int{at, at + n}
		at += n
	}
	return offsets, nil
}

package mathml

import "strings"

// Part is a piece of a markdown text: a formula without its dollar signs, or something else as it stands.
type Part struct {
	Text    string
	Formula bool
	Display bool // between two dollar signs
}

// Split cuts a markdown text into formulas, $inline$ and $$displayed$$, and what is between them, as notebooks' front ends
// do: before the rest is read as markdown. Code has no formulas, nor has "\$"; an inline formula does not begin or end with
// a space, is not followed by a digit (prices), and no formula holds an empty line.
func Split(markdown string) []Part {
	var parts []Part
	plain := 0 // where the text that is no formula began
	add := func(to, next int, p Part) {
		if to > plain {
			parts = append(parts, Part{Text: markdown[plain:to]})
		}
		parts, plain = append(parts, p), next
	}
	fence := ""
	for i := 0; i < len(markdown); {
		rest := markdown[i:]
		if i == 0 || markdown[i-1] == '\n' { // a fence of a block of code?
			line, _, _ := strings.Cut(rest, "\n")
			trimmed := strings.TrimLeft(line, " ")
			run := len(trimmed) - len(strings.TrimLeft(trimmed, "`"))
			mark := "`"
			if run == 0 {
				run, mark = len(trimmed)-len(strings.TrimLeft(trimmed, "~")), "~"
			}
			switch {
			case fence == "" && run >= 3 && !strings.Contains(trimmed[run:], "`"):
				fence = strings.Repeat(mark, run)
				i += len(line)
				continue
			case fence != "":
				if strings.HasPrefix(trimmed, fence) && strings.TrimLeft(strings.TrimSpace(trimmed), mark) == "" {
					fence = ""
				}
				i += len(line)
				if i < len(markdown) {
					i++
				}
				continue
			}
		}
		switch {
		case rest[0] == '\\' && len(rest) > 1:
			i += 2
		case rest[0] == '`':
			run := len(rest) - len(strings.TrimLeft(rest, "`"))
			i += run
			if n := strings.Index(markdown[i:], rest[:run]); n >= 0 {
				i += n + run
			}
		case strings.HasPrefix(rest, "$$"):
			if n := closing(rest[2:], "$$"); n > 0 {
				add(i, i+n+4, Part{rest[2 : n+2], true, true})
				i = plain
			} else {
				i += 2
			}
		case rest[0] == '$':
			if n := closing(rest[1:], "$"); n > 0 && inline(rest[1:n+1], rest[n+2:]) {
				add(i, i+n+2, Part{rest[1 : n+1], true, false})
				i = plain
			} else {
				i++
			}
		default:
			i++
		}
	}
	if plain < len(markdown) {
		parts = append(parts, Part{Text: markdown[plain:]})
	}
	return parts
}

// closing returns where the mark closes a formula; -1 if it does not.
func closing(text, mark string) int {
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case strings.HasPrefix(text[i:], mark):
			return i
		case text[i] == '\n' && strings.TrimLeft(text[i+1:], " \t") != "" && strings.TrimLeft(text[i+1:], " \t")[0] == '\n':
			return -1
		}
	}
	return -1
}

func inline(formula, after string) bool {
	return strings.TrimSpace(formula) == formula && (after == "" || !isDigit(after[0]))
}

// Package mathml turns formulas of TeX, as notebooks have them between dollar signs, into MathML, which browsers draw by
// themselves: pages need no script, no font and no network for their mathematics.
//
//	markup, err := mathml.Convert(`\frac{a}{b}`, false)
//
// It knows the part of LaTeX that notes and papers use: letters and alphabets, scripts, fractions, roots, accents, fences, big
// operators, functions, matrices, cases and aligned lines. What it does not know is an error that names it, so that no
// formula is lost in silence. [Split] finds the formulas of a text.
package mathml

import (
	"fmt"
	"html"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Convert returns the formula as a math element, display or inline. The error names what is not known or not closed, and
// where in the formula, in bytes.
func Convert(tex string, display bool) (string, error) {
	p := &parser{tex: tex}
	row, err := p.row(func(t token) bool { return t.kind == end })
	if err != nil {
		return "", fmt.Errorf("formula %q: %w", tex, err)
	}
	attribute := ""
	if display {
		attribute = ` display="block"`
	}
	// The source stays for copying, and for readers of screens that cannot read MathML.
	return fmt.Sprintf(`<math%s><semantics>%s<annotation encoding="application/x-tex">%s</annotation></semantics></math>`,
		attribute, mrow(row), html.EscapeString(strings.TrimSpace(tex))), nil
}

// The kinds of tokens.
const (
	end     = iota
	char    // one character
	digits  // a number
	command // \name, without the backslash
)

type token struct {
	kind int
	text string
	at   int
}

type parser struct {
	tex     string
	at      int
	depth   int      // of the node that is read
	letters alphabet // of \mathbf and its like
}

// deepest is how deep a formula may be nested: as deep as TeX's own groups, and not so deep that it fills the stack.
const deepest = 255

// next reads a token; white space means nothing.
func (p *parser) next() token {
	for p.at < len(p.tex) {
		if r, n := utf8.DecodeRuneInString(p.tex[p.at:]); unicode.IsSpace(r) {
			p.at += n
		} else if r == '%' { // a comment
			if i := strings.IndexByte(p.tex[p.at:], '\n'); i >= 0 {
				p.at += i
			} else {
				p.at = len(p.tex)
			}
		} else {
			break
		}
	}
	t := token{at: p.at}
	rest := p.tex[p.at:]
	if rest == "" {
		return t
	}
	r, size := utf8.DecodeRuneInString(rest)
	switch {
	case r == '\\' && len(rest) > 1:
		n := 1
		for n < len(rest) && isLetter(rest[n]) {
			n++
		}
		if n == 1 {
			_, one := utf8.DecodeRuneInString(rest[1:])
			n += one
		}
		t.kind, t.text = command, rest[1:n]
		p.at += n
	case isDigit(rest[0]):
		n := 1
		for n < len(rest) && (isDigit(rest[n]) || rest[n] == '.' && n+1 < len(rest) && isDigit(rest[n+1])) {
			n++
		}
		t.kind, t.text = digits, rest[:n]
		p.at += n
	default:
		t.kind, t.text = char, rest[:size]
		p.at += size
	}
	return t
}

func (p *parser) peek() token {
	at := p.at
	t := p.next()
	p.at = at
	return t
}

func isLetter(b byte) bool { return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' }
func isDigit(b byte) bool  { return b >= '0' && b <= '9' }

// node is one element, and how scripts attach to it.
type node struct {
	markup string
	limits bool // scripts stand above and below where the formula is displayed
}

// row reads nodes until a token, which it leaves.
func (p *parser) row(stop func(token) bool) (list []string, err error) {
	for {
		t := p.peek()
		if stop(t) {
			return list, nil
		}
		if t.kind == end {
			return nil, fmt.Errorf("at byte %d: it ends too early", t.at)
		}
		n, err := p.scripted()
		if err != nil {
			return nil, err
		}
		if n.markup != "" {
			list = append(list, n.markup)
		}
	}
}

func mrow(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return "<mrow>" + strings.Join(list, "") + "</mrow>"
}

// scripted reads a node and the scripts behind it.
func (p *parser) scripted() (node, error) {
	base := node{markup: "<mrow></mrow>"}
	if t := p.peek(); t.kind != char || t.text != "^" && t.text != "_" && t.text != "'" {
		var err error
		if base, err = p.node(); err != nil {
			return base, err
		}
	}
	var below, above string
	primes := ""
	for {
		at := p.at
		t := p.next()
		switch {
		case t.kind == command && (t.text == "limits" || t.text == "nolimits"):
			base.limits = t.text == "limits"
		case t.kind == char && t.text == "'":
			primes += "′"
		case t.kind == char && (t.text == "^" || t.text == "_"):
			script, err := p.argument()
			if err != nil {
				return base, err
			}
			into := &above
			if t.text == "_" {
				into = &below
			}
			if *into != "" {
				return base, fmt.Errorf("at byte %d: a second %s", t.at, t.text)
			}
			*into = script
		default:
			p.at = at
			if primes != "" {
				above = mrow(append([]string{"<mo>" + primes + "</mo>"}, nonEmpty(above)...))
			}
			base.markup = attach(base, below, above)
			return base, nil
		}
	}
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

func attach(base node, below, above string) string {
	sub, sup, both := "msub", "msup", "msubsup"
	if base.limits {
		sub, sup, both = "munder", "mover", "munderover"
	}
	switch {
	case below != "" && above != "":
		return "<" + both + ">" + base.markup + below + above + "</" + both + ">"
	case below != "":
		return "<" + sub + ">" + base.markup + below + "</" + sub + ">"
	case above != "":
		return "<" + sup + ">" + base.markup + above + "</" + sup + ">"
	}
	return base.markup
}

// argument reads what a command applies to: a group, or one token.
func (p *parser) argument() (string, error) {
	t := p.peek()
	if t.kind == end || t.kind == char && (t.text == "}" || t.text == "&") {
		return "", fmt.Errorf("at byte %d: something is missing", t.at)
	}
	if t.kind == digits { // x^10 is x to the 1, then 0
		p.next()
		p.at = t.at + 1
		return "<mn>" + p.letters.text(t.text[:1]) + "</mn>", nil
	}
	n, err := p.node()
	return n.markup, err
}

// node reads one element without scripts.
func (p *parser) node() (node, error) {
	t := p.next()
	if p.depth++; p.depth > deepest {
		return node{}, fmt.Errorf("at byte %d: it is nested more than %d deep", t.at, deepest)
	}
	defer func() { p.depth-- }()
	switch t.kind {
	case digits:
		return node{markup: "<mn>" + p.letters.text(t.text) + "</mn>"}, nil
	case command:
		return p.command(t)
	}
	switch r, _ := utf8.DecodeRuneInString(t.text); {
	case r == '{':
		list, err := p.row(func(t token) bool { return t.kind == char && t.text == "}" })
		if err != nil {
			return node{}, fmt.Errorf("group at byte %d: %w", t.at, err)
		}
		p.next()
		return node{markup: mrow(list)}, nil
	case r == '}' || r == '&':
		return node{}, fmt.Errorf("at byte %d: %s has no beginning", t.at, t.text)
	case r == '~':
		return node{markup: `<mspace width="0.333em"></mspace>`}, nil
	case r == '-':
		return node{markup: "<mo>−</mo>"}, nil
	case r == '*':
		return node{markup: "<mo>∗</mo>"}, nil
	case unicode.IsLetter(r):
		return node{markup: p.letters.identifier(t.text)}, nil
	default:
		return node{markup: operator(t.text)}, nil
	}
}

// operator is a mo element; fences do not grow unless they are told to.
func operator(text string) string {
	attributes := ""
	if strings.ContainsAny(text, "()[]|‖{}⟨⟩⌊⌋⌈⌉/") {
		attributes = ` stretchy="false"`
	}
	return "<mo" + attributes + ">" + html.EscapeString(text) + "</mo>"
}

// raw reads the text of a group as it stands.
func (p *parser) raw() (string, error) {
	t := p.next()
	if t.kind != char || t.text != "{" {
		return "", fmt.Errorf("at byte %d: want {", t.at)
	}
	start, depth := p.at, 1
	for ; p.at < len(p.tex); p.at++ {
		switch p.tex[p.at] {
		case '\\':
			p.at++
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				p.at++
				return p.tex[start : p.at-1], nil
			}
		}
	}
	return "", fmt.Errorf("group at byte %d: it ends too early", t.at)
}

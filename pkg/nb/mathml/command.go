package mathml

import (
	"fmt"
	"html"
	"strings"
	"unicode/utf8"
)

// command reads what a command needs, and returns its element.
func (p *parser) command(t token) (node, error) {
	if text, ok := identifiers[t.text]; ok {
		return node{markup: p.letters.identifier(text)}, nil
	}
	if text, ok := operators[t.text]; ok {
		return node{markup: operator(text)}, nil
	}
	if text, ok := big[t.text]; ok {
		return node{markup: "<mo>" + text + "</mo>", limits: !strings.ContainsAny(text, "∫∬∮")}, nil
	}
	if width, ok := spaces[t.text]; ok {
		return node{markup: `<mspace width="` + width + `"></mspace>`}, nil
	}
	if limits, ok := functions[t.text]; ok {
		return node{markup: "<mi>" + strings.ReplaceAll(t.text, "arg", "arg ") + "</mi>", limits: limits}, nil
	}
	if letters, ok := alphabets[t.text]; ok {
		before := p.letters
		p.letters = letters
		markup, err := p.argument()
		p.letters = before
		return node{markup: markup}, err
	}
	if accent, ok := accents[t.text]; ok {
		base, err := p.argument()
		if err != nil {
			return node{}, err
		}
		element, attribute := "mover", `accent="true"`
		if accent.below {
			element, attribute = "munder", `accentunder="true"`
		}
		return node{limits: accent.limits,
			markup: fmt.Sprintf(`<%s %s>%s<mo stretchy="%t">%s</mo></%s>`, element, attribute, base, accent.stretchy, accent.text, element)}, nil
	}
	if size, ok := sizes[strings.TrimRight(t.text, "lrm")]; ok {
		fence, err := p.fence()
		return node{markup: fmt.Sprintf(`<mo stretchy="true" symmetric="true" minsize="%[1]s" maxsize="%[1]s">%[2]s</mo>`, size, fence)}, err
	}
	return p.structure(t)
}

// structure is command for those that build something.
func (p *parser) structure(t token) (node, error) {
	switch t.text {
	case "frac", "dfrac", "tfrac", "binom":
		above, err := p.argument()
		if err != nil {
			return node{}, err
		}
		below, err := p.argument()
		if err != nil {
			return node{}, err
		}
		switch t.text {
		case "dfrac":
			return node{markup: `<mstyle displaystyle="true"><mfrac>` + above + below + "</mfrac></mstyle>"}, nil
		case "tfrac":
			return node{markup: `<mstyle displaystyle="false"><mfrac>` + above + below + "</mfrac></mstyle>"}, nil
		case "binom":
			return node{markup: `<mrow><mo>(</mo><mfrac linethickness="0">` + above + below + "</mfrac><mo>)</mo></mrow>"}, nil
		}
		return node{markup: "<mfrac>" + above + below + "</mfrac>"}, nil
	case "sqrt":
		var index []string
		if next := p.peek(); next.kind == char && next.text == "[" {
			p.next()
			var err error
			if index, err = p.row(func(t token) bool { return t.kind == char && t.text == "]" }); err != nil {
				return node{}, err
			}
			p.next()
		}
		under, err := p.argument()
		if index != nil {
			return node{markup: "<mroot>" + under + mrow(index) + "</mroot>"}, err
		}
		return node{markup: "<msqrt>" + under + "</msqrt>"}, err
	case "text", "textrm", "textbf", "textit", "texttt", "mbox":
		text, err := p.raw()
		text = strings.NewReplacer(`\ `, " ", `\_`, "_", `\%`, "%", `\&`, "&", `\#`, "#", "~", " ").Replace(text)
		// Spaces at the ends would be lost.
		text = strings.ReplaceAll(html.EscapeString(text), " ", "\u00a0")
		return node{markup: "<mtext>" + text + "</mtext>"}, err
	case "operatorname", "operatorname*":
		text, err := p.raw()
		return node{markup: "<mi>" + html.EscapeString(strings.ReplaceAll(text, `\,`, " ")) + "</mi>", limits: strings.HasSuffix(t.text, "*")}, err
	case "left":
		return p.fenced()
	case "begin":
		return p.environment()
	case "overset", "underset", "stackrel":
		over, err := p.argument()
		if err != nil {
			return node{}, err
		}
		base, err := p.argument()
		if t.text == "underset" {
			return node{markup: "<munder>" + base + over + "</munder>"}, err
		}
		return node{markup: "<mover>" + base + over + "</mover>"}, err
	case "not":
		next := p.next()
		text := next.text
		if next.kind == command {
			text = operators[next.text]
		}
		if text == "" {
			return node{}, fmt.Errorf("at byte %d: \\not before %q", t.at, next.text)
		}
		return node{markup: "<mo>" + html.EscapeString(text) + "\u0338</mo>"}, nil
	case "displaystyle", "textstyle":
		return node{}, nil
	}
	return node{}, fmt.Errorf("at byte %d: \\%s is not known", t.at, t.text)
}

// fence reads a delimiter; a full stop is none.
func (p *parser) fence() (string, error) {
	t := p.next()
	text := t.text
	if t.kind == command {
		text = operators[t.text]
	}
	if text == "." {
		return "", nil
	}
	if text == "<" {
		text = "⟨"
	} else if text == ">" {
		text = "⟩"
	}
	if utf8.RuneCountInString(text) != 1 || !strings.Contains("()[]{}|‖⟨⟩⌊⌋⌈⌉/↑↓", text) {
		return "", fmt.Errorf("at byte %d: %q is no delimiter", t.at, t.text)
	}
	return text, nil
}

// fenced reads what stands between \left and \right.
func (p *parser) fenced() (node, error) {
	open, err := p.fence()
	if err != nil {
		return node{}, err
	}
	var list []string
	for {
		part, err := p.row(func(t token) bool { return t.kind == command && (t.text == "right" || t.text == "middle") })
		if err != nil {
			return node{}, err
		}
		list = append(list, part...)
		t := p.next()
		fence, err := p.fence()
		if err != nil {
			return node{}, err
		}
		if t.text == "right" {
			return node{markup: "<mrow>" + stretchy(open, "prefix") + strings.Join(list, "") + stretchy(fence, "postfix") + "</mrow>"}, nil
		}
		list = append(list, stretchy(fence, "infix"))
	}
}

func stretchy(fence, form string) string {
	if fence == "" {
		return ""
	}
	return `<mo stretchy="true" form="` + form + `">` + fence + "</mo>"
}

// environment reads a table: a matrix, cases, aligned lines.
func (p *parser) environment() (node, error) {
	name, err := p.raw()
	if err != nil {
		return node{}, err
	}
	fences, ok := environments[name]
	if !ok {
		return node{}, fmt.Errorf("environment %s is not known", name)
	}
	if name == "array" {
		if _, err := p.raw(); err != nil { // the columns' alignment
			return node{}, err
		}
	}
	aligned := fences.columns != ""
	var b strings.Builder
	b.WriteString("<mtable")
	if aligned {
		b.WriteString(` displaystyle="true"`)
	}
	b.WriteString(">")
	row, column := []string{}, 0
	cell := func() error {
		list, err := p.row(func(t token) bool {
			return t.kind == char && t.text == "&" || t.kind == command && (t.text == `\` || t.text == "end")
		})
		if err != nil {
			return err
		}
		style := ""
		switch {
		case aligned && fences.columns[column%len(fences.columns)] == 'r':
			style = ` style="text-align: right; padding-right: 0"`
		case aligned:
			style = ` style="text-align: left; padding-left: 0"`
		}
		row = append(row, "<mtd"+style+">"+strings.Join(list, "")+"</mtd>")
		column++
		return nil
	}
	for {
		if err := cell(); err != nil {
			return node{}, fmt.Errorf("environment %s: %w", name, err)
		}
		t := p.next()
		if t.text == "&" {
			continue
		}
		if t.text == `\` || len(row) > 1 || row[0] != "<mtd></mtd>" && !strings.HasSuffix(row[0], `"></mtd>`) {
			b.WriteString("<mtr>" + strings.Join(row, "") + "</mtr>")
		}
		row, column = nil, 0
		if t.text == "end" {
			break
		}
	}
	b.WriteString("</mtable>")
	if closing, err := p.raw(); err != nil || closing != name {
		return node{}, fmt.Errorf("environment %s is closed by %q", name, closing)
	}
	if fences.open == "" && fences.close == "" {
		return node{markup: b.String()}, nil
	}
	return node{markup: "<mrow>" + stretchy(fences.open, "prefix") + b.String() + stretchy(fences.close, "postfix") + "</mrow>"}, nil
}

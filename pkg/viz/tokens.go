package viz

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Tokens is a picture of texts whose words are shaded by a number each: what they contribute to a decision.
type Tokens struct {
	Title string
	Rows  []TokenRow
	// Width is in pixels of 1/96 inch; default 720. Longer texts go on in the next line.
	Width float64
}

// TokenRow is one text of [Tokens].
type TokenRow struct {
	// Name stands above the text.
	Name string
	// Words and Values are equally many. Positive values are blue, negative ones orange, the deeper the nearer they are
	// to the greatest of the row; the number stands below its word. NaN and infinities are shown as words, unshaded.
	Words  []string
	Values []float64
}

// Sizes of [Tokens], in pixels. Words are set in a font whose letters are equally wide, so that their place is known.
const (
	letter     = 8.4 // of a font of 14 pixels
	digit      = 5.4 // of one of 9
	lineHeight = 38.0
	tokenEdge  = 12.0
)

// SVG draws the texts. It returns an error for a row whose words and values differ in number, and for a negative width.
func (t Tokens) SVG() (string, error) {
	var errs []error
	if t.Width < 0 || math.IsNaN(t.Width) || math.IsInf(t.Width, 0) {
		errs = append(errs, fmt.Errorf("width %v, want a positive number or 0 for the default", t.Width))
	}
	for i, r := range t.Rows {
		if len(r.Words) != len(r.Values) {
			errs = append(errs, fmt.Errorf("row %d %q has %d words and %d values, want equally many", i, r.Name, len(r.Words), len(r.Values)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("drawing %q: %w", t.Title, err)
	}
	right := t.Width
	if right == 0 {
		right = 720
	}
	var body strings.Builder
	var words []string
	text := func(class, size string, x, y float64, anchor, s string) {
		fmt.Fprintf(&body, `<text class="%s" font-size="%s" x="%s" y="%s"%s>%s</text>`+"\n", class, size, short(x), short(y), anchor, escape(s))
	}
	text("ink", "16", tokenEdge, 24, ` font-weight="bold"`, t.Title)
	y := 34.0
	for _, r := range t.Rows {
		y += 20
		text("soft", "13", tokenEdge, y, "", r.Name)
		y += 10
		most := 0.0
		for _, v := range r.Values {
			if finite(v) {
				most = math.Max(most, math.Abs(v))
			}
		}
		x := tokenEdge
		said := r.Name + ":"
		for i, word := range r.Words {
			word = visible(word)
			value := signed(r.Values[i])
			w := math.Max(float64(cells(word))*letter, float64(len([]rune(value)))*digit) + 8
			if x > tokenEdge && x+w > right-tokenEdge {
				x, y = tokenEdge, y+lineHeight
			}
			said += " " + word + " " + value + ","
			if v := r.Values[i]; finite(v) && most > 0 {
				hue := palette[4]
				if v < 0 {
					hue = palette[5]
				}
				fmt.Fprintf(&body, `<rect x="%s" y="%s" width="%s" height="20" rx="3" fill="#%02x%02x%02x" fill-opacity="%s"/>`,
					short(x), short(y), short(w), hue.R, hue.G, hue.B, short(0.6*math.Abs(v)/most)) // more would drown the letters
			}
			middle := fmt.Sprintf(` text-anchor="middle" font-family="monospace" textLength="%s" lengthAdjust="spacingAndGlyphs"`, short(float64(cells(word))*letter))
			text("ink", "14", x+w/2, y+15, middle, word)
			text("soft", "9", x+w/2, y+30, ` text-anchor="middle" font-family="monospace"`, value)
			x += w + 2
		}
		y += lineHeight
		words = append(words, strings.TrimSuffix(said, ",")+".")
	}
	var b strings.Builder
	beginSVG(&b, right, y+8, t.Title, strings.Join(words, " "))
	b.WriteString(body.String() + "</svg>")
	return b.String(), nil
}

// signed writes a number in at most three digits, with its sign.
func signed(v float64) string {
	switch {
	case !finite(v):
		return number(v)
	case math.Abs(v) < 0.005 && v != 0:
		return fmt.Sprintf("%+.0e", v)
	}
	return fmt.Sprintf("%+.2f", v)
}

// short writes a coordinate with at most two decimals.
func short(v float64) string {
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// visible replaces what has no shape: control characters, which XML forbids, by a mark, and nothing at all by a blank.
func visible(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '␣'
		}
		return r
	}, s)
	if s == "" {
		return "␣"
	}
	return s
}

// cells is how many letters wide a word is: East Asian characters are as wide as two.
func cells(s string) int {
	n := 0
	for _, r := range s {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r):
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return max(n, 1)
}

package safetensors

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads the few JSON forms that a header consists of. It never recurses:
// the grammar of a header is three levels deep and its caller walks them.
type scanner struct {
	data string // valid UTF-8
	pos  int
}

// space passes over JSON white space.
func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// next passes over white space and the wanted character, if it comes next.
func (s *scanner) next(c byte) bool {
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// need is next for a character that must come.
func (s *scanner) need(c byte) error {
	if !s.next(c) {
		return s.unexpected(strconv.QuoteRune(rune(c)))
	}
	return nil
}

// unexpected describes what stands at the current position.
func (s *scanner) unexpected(want string) error {
	if s.pos >= len(s.data) {
		return fmt.Errorf("the header ends after %d bytes, want %s", len(s.data), want)
	}
	r, _ := utf8.DecodeRuneInString(s.data[s.pos:])
	return fmt.Errorf("header byte %d: got %q, want %s", s.pos, r, want)
}

// text reads a string and returns what stands between its quotes, for unquote.
func (s *scanner) text(what string) (string, error) {
	if !s.next('"') {
		return "", s.unexpected(what)
	}
	start := s.pos
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start : s.pos-1], nil
		case c < ' ':
			return "", s.unexpected("no control character in " + what)
		case c == '\\':
			if err := s.escape(); err != nil {
				return "", err
			}
		default:
			s.pos++
		}
	}
	return "", s.unexpected("the end of " + what)
}

// escape checks the escape that begins at the current position and passes over it.
func (s *scanner) escape() error {
	_, n := unescape(s.data[s.pos:])
	if n == 0 {
		shown := s.data[s.pos:min(s.pos+6, len(s.data))]
		return fmt.Errorf("header byte %d: got %q, want a JSON escape of a Unicode character", s.pos, shown)
	}
	s.pos += n
	return nil
}

// unescape decodes the escape that text begins with; n is 0 if it is none.
// Half of a surrogate pair is none.
func unescape(text string) (r rune, n int) {
	if len(text) < 2 {
		return 0, 0
	}
	if i := strings.IndexByte(`"\/bfnrt`, text[1]); i >= 0 {
		return rune("\"\\/\b\f\n\r\t"[i]), 2
	}
	r = hex4(text)
	switch {
	case r < 0:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	}
	pair := utf16.DecodeRune(r, hex4(text[6:]))
	if pair == utf8.RuneError {
		return 0, 0
	}
	return pair, 12
}

// hex4 decodes \uXXXX, or returns -1.
func hex4(text string) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range []byte(text[2:6]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unquoted returns the characters that the checked text stands for. It copies
// only where there are escapes.
func unquoted(text string) string {
	if strings.IndexByte(text, '\\') < 0 {
		return text
	}
	return string(unquote(make([]byte, 0, len(text)), text))
}

// unquote appends the characters that the checked text stands for. It never
// appends more bytes than text has.
func unquote(to []byte, text string) []byte {
	for {
		i := strings.IndexByte(text, '\\')
		if i < 0 {
			return append(to, text...)
		}
		to = append(to, text[:i]...)
		r, n := unescape(text[i:])
		to = utf8.AppendRune(to, r)
		text = text[i+n:]
	}
}

// number reads a whole number that is not negative and fits an int64: no sign,
// fraction, exponent or leading zero.
func (s *scanner) number(what string) (int64, error) {
	s.space()
	start := s.pos
	var n uint64
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		digit := uint64(s.data[s.pos] - '0')
		if s.pos-start > 18 || n*10+digit > math.MaxInt64 {
			return 0, fmt.Errorf("header byte %d: %s is larger than 2^63-1", start, what)
		}
		n = n*10 + digit
		s.pos++
	}
	if s.pos == start {
		return 0, s.unexpected(what + ", a whole number that is not negative")
	}
	if s.data[start] == '0' && s.pos > start+1 {
		return 0, fmt.Errorf("header byte %d: %s begins with 0", start, what)
	}
	if s.pos < len(s.data) {
		switch s.data[s.pos] {
		case '.', 'e', 'E':
			return 0, s.unexpected("the end of " + what + ", a whole number")
		}
	}
	return int64(n), nil
}

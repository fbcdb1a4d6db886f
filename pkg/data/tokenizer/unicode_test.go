package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/internal/golden"
)

func normalString(n normalizer, text string) string {
	var s normalized
	s.reset(text, 0)
	n.normalize(&s)
	return string(s.text)
}

// parseRanges calls f for every code point of ranges such as "9-D".
func parseRanges(t *testing.T, ranges []string) map[rune]bool {
	t.Helper()
	set := map[rune]bool{}
	for _, r := range ranges {
		lo, hi, ok := strings.Cut(r, "-")
		if !ok {
			hi = lo
		}
		a, err1 := strconv.ParseInt(lo, 16, 32)
		b, err2 := strconv.ParseInt(hi, 16, 32)
		if err1 != nil || err2 != nil {
			t.Fatalf("bad range %q", r)
		}
		for c := a; c <= b; c++ {
			set[rune(c)] = true
		}
	}
	return set
}

// TestGoldenUnicode compares the tables with the golden classes, for all code points. Those were
// found apart from ours (internal/gen/probe.py), so each checks the other.
func TestGoldenUnicode(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(golden.Dir(t, "tokenizers"), "unicode_hf.json"))
	if err != nil {
		t.Skipf("this folder of golden vectors has no Unicode classes: %v", err)
	}
	var want struct {
		Ranges     map[string][]string          `json:"ranges"`
		Exceptions map[string]map[string]string `json:"exceptions_to_go1.26_unicode_and_xtext"`
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	table := props()
	for _, c := range []struct {
		name string
		prop uint16
	}{
		{"removed_by_clean_text", propRemoved}, {"space_by_clean_text", propBlank},
		{"bert_chinese_char", propChinese}, {"bert_punct", propPunctuation}, {"rust_whitespace", propSpace},
	} {
		set := parseRanges(t, want.Ranges[c.name])
		if len(set) == 0 {
			t.Errorf("no golden class %s", c.name)
		}
		bad := 0
		for r := rune(0); r <= utf8.MaxRune; r++ {
			// The golden file leaves out surrogates, tab, LF and CR.
			if !utf8.ValidRune(r) || r == '\t' || r == '\n' || r == '\r' {
				continue
			}
			if got := table.of(r)&c.prop != 0; got != set[r] {
				if bad++; bad < 5 {
					t.Errorf("%s: U+%04X is %t, want %t", c.name, r, got, set[r])
				}
			}
		}
	}
	for name, n := range map[string]normalizer{
		"lower": lowercase{}, "strip_accents": &bertNormalizer{stripAccents: true},
		"NFD": unicodeForm{}, "NFKC": unicodeForm{compose: true, compat: true},
	} {
		if len(want.Exceptions[name]) == 0 {
			t.Errorf("no golden exceptions %s", name)
		}
		for point, want := range want.Exceptions[name] {
			c, err := strconv.ParseInt(point, 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			if got := normalString(n, string(rune(c))); got != want {
				t.Errorf("%s of U+%04X is %+q, want %+q", name, c, got, want)
			}
		}
	}
}

// TestUnicodeTables compares every mapping with what the probe recorded: a newer
// golang.org/x/text that decomposes anything differently would show here.
func TestUnicodeTables(t *testing.T) {
	data, err := os.ReadFile("internal/gen/unicode.json")
	if err != nil {
		t.Fatal(err)
	}
	var probe struct {
		Classes                   [][]string
		Lower, NFD, NFKD, Compose map[string][]string
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		t.Fatal(err)
	}
	class := map[rune]uint8{}
	for i, ranges := range probe.Classes {
		for r := range parseRanges(t, ranges) {
			class[r] = uint8(i + 1)
		}
	}
	list := func(m map[string][]string, r rune) (string, bool) {
		hex, ok := m[strings.ToUpper(strconv.FormatInt(int64(r), 16))]
		var b strings.Builder
		for _, h := range hex {
			c, err := strconv.ParseInt(h, 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteRune(rune(c))
		}
		return b.String(), ok
	}
	table := props()
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		if got := combiningClass(r); got != class[r] {
			t.Errorf("class of U+%04X is %d, want %d", r, got, class[r])
		}
		want, ok := list(probe.Lower, r)
		if !ok {
			want = string(r)
		}
		if got := normalString(lowercase{}, string(r)); got != want {
			t.Errorf("lower case of U+%04X is %+q, want %+q", r, got, want)
		}
		if r >= hangulBase && r <= hangulLast {
			if got := normalString(unicodeForm{compose: true}, string(r)); got != string(r) {
				t.Errorf("NFC of U+%04X is %+q", r, got)
			}
			continue
		}
		canonical, ok := list(probe.NFD, r)
		if !ok {
			canonical = string(r)
		}
		if got := string(appendDecomposed(nil, r, table.of(r), false)); got != canonical {
			t.Errorf("NFD of U+%04X is %+q, want %+q", r, got, canonical)
		}
		compat, ok := list(probe.NFKD, r)
		if !ok {
			compat = canonical
		}
		if got := string(appendDecomposed(nil, r, table.of(r), true)); got != compat {
			t.Errorf("NFKD of U+%04X is %+q, want %+q", r, got, compat)
		}
		if parts, ok := list(probe.Compose, r); ok {
			p := []rune(parts)
			if got, ok := compose(p[0], p[1]); !ok || got != r {
				t.Errorf("%+q composes to %+q, want %+q", parts, got, r)
			}
		}
	}
	if got, want := len(compositions()), len(probe.Compose); got != want {
		t.Errorf("%d compositions, want %d", got, want)
	}
}

// load, the fast way, and normalize, the long way, must agree.
func FuzzBERTNormalizer(f *testing.F) {
	f.Add("Été 中文 \u302e\u0301\u0323 İ ﷺ \xff한\u0f73\u0f39", byte(15))
	f.Add("a\u16ff0\U00016ff0\u0323 \U0001d165\u0345", byte(12))
	f.Fuzz(func(t *testing.T, text string, mode byte) {
		p := &part{raw: []byte(`{"clean_text":` + strconv.FormatBool(mode&1 != 0) +
			`,"handle_chinese_chars":` + strconv.FormatBool(mode&2 != 0) +
			`,"strip_accents":` + strconv.FormatBool(mode&4 != 0) + `,"lowercase":` + strconv.FormatBool(mode&8 != 0) + `}`)}
		n, err := newBERTNormalizer(p)
		if err != nil {
			t.Fatal(err)
		}
		var fast, slow normalized
		if !n.(loader).load(&fast, text, 3) {
			return
		}
		slow.reset(text, 3)
		n.normalize(&slow)
		if string(fast.text) != string(slow.text) {
			t.Fatalf("%+q: load makes %+q, normalize %+q", text, fast.text, slow.text)
		}
		for i := range fast.pos {
			if fast.pos[i] != slow.pos[i] {
				t.Fatalf("%+q: byte %d stands for code point %d by load, %d by normalize", text, i, fast.pos[i], slow.pos[i])
			}
		}
	})
}

package ner_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/elastic-attention/workbench/pkg/ner"
)

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                            nil,
		"  \t\n":                      nil,
		"Ann met Bob.":                {"Ann", "met", "Bob", "."},
		"The U.S. won (again)!":       {"The", "U.S.", "won", "(", "again", ")", "!"},
		"He isn't Ann's, they're off": {"He", "is", "n't", "Ann", "'s", ",", "they", "'re", "off"},
		"\"Quoted,\" he said...":      {"\"", "Quoted", ",", "\"", "he", "said", ".", ".", "."},
		"北京大学的张三。":                    {"北", "京", "大", "学", "的", "张", "三", "。"},
		"Café-Bar X-ray 3.5%":         {"Café-Bar", "X-ray", "3.5%"},
		"mail@x.org #tag @me":         {"mail@x.org", "#tag", "@me"},
		"IBM公司":                       {"IBM", "公", "司"},
		"a\u00a0b":                    {"a", "b"},
		"\xff\xfe":                    {"\xff\xfe"},
		"'s":                          {"'s"},
		"'tis 's-Hertogenbosch":       {"'", "tis", "'s", "-", "Hertogenbosch"},
	} {
		got, offsets := ner.Words(text)
		if !slices.Equal(got, want) {
			t.Errorf("Words(%q) = %q, want %q", text, got, want)
		}
		runes := []rune(text)
		for i, at := range offsets {
			if piece := string(runes[at[0]:at[1]]); piece != string([]rune(got[i])) {
				t.Errorf("Words(%q): word %d is %q at %v, which is %q", text, i, got[i], at, piece)
			}
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add("Ann's U.S. 北京 n't \xff '")
	f.Fuzz(func(t *testing.T, text string) {
		words, offsets := ner.Words(text)
		last := 0
		for i, at := range offsets {
			if words[i] == "" || at[0] < last || at[1] <= at[0] {
				t.Fatalf("Words(%q): word %d is %q at %v after %d", text, i, words[i], at, last)
			}
			last = at[1]
		}
		if last > len([]rune(text)) {
			t.Fatalf("Words(%q) ends at %d", text, last)
		}
	})
}

func ExampleWords() {
	words, offsets := ner.Words("Ann isn't in the U.S.")
	fmt.Printf("%q\n", words)
	fmt.Println(offsets[2], words[2])
	// Output:
	// ["Ann" "is" "n't" "in" "the" "U.S."]
	// [6 9] n't
}

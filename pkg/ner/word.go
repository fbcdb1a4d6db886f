package ner

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Words splits running text into words as corpora of named entities do, and tells
// where each lies, in code points:
//
//   - at white space;
//   - punctuation before and behind a word is a word of its own, character by
//     character, but a final period stays where the word has one inside too (U.S.);
//   - an English clitic ('s, 're, n't, …) is a word of its own;
//   - a Chinese, Japanese or Korean character is a word of its own.
//
// A model that was trained on split text gets what it knows. Text that is split
// already needs none of this: give its words to the tagger.
func Words(text string) (words []string, offsets [][2]int) {
	add := func(start, end, at int) { // bytes start to end, the first at code point at
		for start < end {
			size := wordEnd(text[start:end])
			word := text[start : start+size]
			count := utf8.RuneCountInString(word)
			words = append(words, word)
			offsets = append(offsets, [2]int{at, at + count})
			start, at = start+size, at+count
		}
	}
	begin, beginAt, at := -1, 0, 0
	for i, r := range text {
		switch {
		case unicode.IsSpace(r):
			if begin >= 0 {
				add(begin, i, beginAt)
				begin = -1
			}
		case begin < 0:
			begin, beginAt = i, at
		}
		at++
	}
	if begin >= 0 {
		add(begin, len(text), beginAt)
	}
	return words, offsets
}

// clitics end an English word and stand for a word.
var clitics = []string{"n't", "n’t", "'s", "’s", "'re", "’re", "'ve", "’ve", "'ll", "’ll", "'d", "’d", "'m", "’m"}

// wordEnd returns the length in bytes of the first word of s, which has no white space.
func wordEnd(s string) int {
	first, size := utf8.DecodeRuneInString(s)
	for _, clitic := range clitics {
		if len(s) >= len(clitic) && strings.EqualFold(s[:len(clitic)], clitic) && !letterAt(s, len(clitic)) {
			return len(clitic)
		}
	}
	if isMark(first) || isIdeograph(first) {
		return size
	}
	end := len(s)
	for i, r := range s { // an ideograph ends the word before it
		if i > 0 && isIdeograph(r) {
			end = i
			break
		}
	}
	for end > size { // marks behind the word
		last, n := utf8.DecodeLastRuneInString(s[:end])
		if !isMark(last) || last == '.' && strings.ContainsRune(strings.TrimRight(s[:end], "."), '.') {
			break
		}
		end -= n
	}
	for _, clitic := range clitics {
		if head := end - len(clitic); head > 0 && strings.EqualFold(s[head:end], clitic) {
			return head
		}
	}
	return end
}

func letterAt(s string, i int) bool {
	r, _ := utf8.DecodeRuneInString(s[i:])
	return unicode.IsLetter(r)
}

// isMark reports whether a character at a word's edge is a word of its own. Characters
// that begin names and numbers (@, #, $, …) are symbols or kept.
func isMark(r rune) bool {
	return unicode.IsPunct(r) && !strings.ContainsRune("@#&_%", r)
}

func isIdeograph(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul)
}

package ner

import (
	"fmt"
)

// Ignore is the label of tokens that carry none: special tokens, padding, and
// the second and further pieces of a word. They are no targets of training, and
// what a model predicts for them is not read.
const Ignore int32 = -100

// Alignment says which tokens speak for which words.
type Alignment struct {
	First   []int // token of each word's first piece, or -1 where it has none
	Dropped []int // words without any piece, before the last word that has one: the tokenizer yields nothing for them
	Cut     []int // words behind the last one that has a piece: truncated away (or dropped at the very end)
}

// Align finds the first piece of each of count words. The parameter words is
// what a tokenizer tells of each token: the number of its word, ascending, or a
// negative number for special tokens and padding. An error names the token whose
// word is out of range or out of order.
func Align(words []int32, count int) (Alignment, error) {
	a := Alignment{First: make([]int, count)}
	for i := range a.First {
		a.First[i] = -1
	}
	last := -1
	for token, word := range words {
		switch w := int(word); {
		case w < 0:
		case w >= count:
			return Alignment{}, fmt.Errorf("token %d belongs to word %d, want one of %d words", token, w, count)
		case w < last:
			return Alignment{}, fmt.Errorf("token %d belongs to word %d, but the token before it to word %d", token, w, last)
		case a.First[w] < 0:
			a.First[w] = token
			last = w
		}
	}
	for w, first := range a.First {
		switch {
		case first >= 0:
		case w < last:
			a.Dropped = append(a.Dropped, w)
		default:
			a.Cut = append(a.Cut, w)
		}
	}
	return a, nil
}

// Labels spreads one label a word over the given number of tokens: the first
// piece of a word gets its label, all else [Ignore]. It returns an error when
// the labels are not as many as the words.
func (a Alignment) Labels(labels []int32, tokens int) ([]int32, error) {
	if len(labels) != len(a.First) {
		return nil, fmt.Errorf("%d labels for %d words", len(labels), len(a.First))
	}
	out := make([]int32, tokens)
	for i := range out {
		out[i] = Ignore
	}
	for word, token := range a.First {
		if token >= tokens {
			return nil, fmt.Errorf("word %d begins at token %d, want fewer than %d", word, token, tokens)
		}
		if token >= 0 {
			out[token] = labels[word]
		}
	}
	return out, nil
}

// Gather is the way back: what was predicted for each word's first piece, and
// missing (the label of O, a score of 0) for words that have none, so that the
// result is always as long as the sentence. Tokens behind the end of the
// predictions count as missing too.
func Gather[T any](a Alignment, tokens []T, missing T) []T {
	words := make([]T, len(a.First))
	for word, token := range a.First {
		words[word] = missing
		if token >= 0 && token < len(tokens) {
			words[word] = tokens[token]
		}
	}
	return words
}

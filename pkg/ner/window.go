package ner

import (
	"fmt"
	"slices"
)

// Window is a part of a text that fits a model: the words Start to End, End exclusive.
type Window struct{ Start, End int }

// Pieces counts the tokens of each of count words. The parameter words is as in [Align].
func Pieces(words []int32, count int) ([]int, error) {
	if _, err := Align(words, count); err != nil {
		return nil, err
	}
	pieces := make([]int, count)
	for _, w := range words {
		if w >= 0 {
			pieces[w]++
		}
	}
	return pieces, nil
}

// Windows cuts a text into windows that have at most limit tokens each, as full
// as they can be, do not part a word, and repeat up to overlap tokens of the window
// before. The parameter pieces is the number of tokens of each word, and limit
// does not count the special tokens that are added to each window. Every word is
// in at least one window, also a word without tokens; a text that fits is one
// window; no words give none.
//
// A word of more than limit tokens counts as limit ones, and [Window.Tokens]
// keeps its first ones. Less is repeated where the next word would not fit
// otherwise; the last window reaches back as far as the limit allows, since it
// would not be full.
//
// Other programs call overlap the stride.
func Windows(pieces []int, limit, overlap int) ([]Window, error) {
	switch {
	case limit < 1:
		return nil, fmt.Errorf("windows of %d tokens, want at least 1", limit)
	case overlap < 0 || overlap >= limit:
		return nil, fmt.Errorf("windows overlap by %d tokens, want 0 to %d (less than the %d of a window)", overlap, limit-1, limit)
	case slices.ContainsFunc(pieces, func(n int) bool { return n < 0 }):
		return nil, fmt.Errorf("pieces: a negative number of tokens in %v", pieces)
	}
	before := tokensBefore(pieces, limit)
	n := len(pieces)
	fit := func(start int) int { // end of the largest window
		end := start + 1
		for end < n && before[end+1]-before[start] <= limit {
			end++
		}
		return end
	}
	var windows []Window
	for start := 0; start < n; {
		end := fit(start)
		if end == n {
			for start > 0 && before[n]-before[start-1] <= limit {
				start--
			}
			windows = append(windows, Window{start, n})
			break
		}
		windows = append(windows, Window{start, end})
		// The next one has to hold the word at end, and may repeat up to overlap tokens before it.
		next := end
		for next-1 > start && before[end]-before[next-1] <= overlap && before[end+1]-before[next-1] <= limit {
			next--
		}
		start = next
	}
	return windows, nil
}

// tokensBefore[w] is the number of tokens before word w, none longer than limit.
func tokensBefore(pieces []int, limit int) []int {
	before := make([]int, len(pieces)+1)
	for i, n := range pieces {
		before[i+1] = before[i] + min(n, limit)
	}
	return before
}

// Tokens returns the positions of a window's tokens in the encoding of the whole
// text, without special tokens; of a word longer than limit, only the first
// limit ones. The parameter words is as in [Align].
func (w Window) Tokens(words []int32, limit int) []int {
	var tokens []int
	last, n := int32(-1), 0
	for i, word := range words {
		if int(word) < w.Start || int(word) >= w.End || word < 0 {
			continue
		}
		if word != last {
			last, n = word, 0
		}
		if n < limit {
			tokens = append(tokens, i)
		}
		n++
	}
	return tokens
}

// Owners returns, for each word, the window that shows the most tokens around
// it: the one where the smaller number of tokens before and behind the word is
// largest. The ends of the text are no loss of context, so towards them the
// number counts as infinite. Among equals, the first window wins. The parameters
// pieces and limit are as in [Windows], which made the windows.
func Owners(windows []Window, pieces []int, limit int) []int {
	before := tokensBefore(pieces, limit)
	n := len(pieces)
	owner, best := make([]int, n), make([]int, n)
	for i := range owner {
		owner[i], best[i] = -1, -1
	}
	for k, w := range windows {
		for word := w.Start; word < w.End; word++ {
			context := before[n] + 1 // all there is
			if w.Start > 0 {
				context = min(context, before[word]-before[w.Start])
			}
			if w.End < n {
				context = min(context, before[w.End]-before[word+1])
			}
			if context > best[word] {
				owner[word], best[word] = k, context
			}
		}
	}
	return owner
}

// Merge puts together what was predicted for the words of each window: word i of
// the text takes the value of its owner. It returns an error when a window's
// values are not as many as its words.
func Merge[T any](windows []Window, owners []int, values [][]T) ([]T, error) {
	if len(values) != len(windows) {
		return nil, fmt.Errorf("values of %d windows, want %d", len(values), len(windows))
	}
	for k, w := range windows {
		if len(values[k]) != w.End-w.Start {
			return nil, fmt.Errorf("window %d: %d values for %d words", k, len(values[k]), w.End-w.Start)
		}
	}
	words := make([]T, len(owners))
	for i, k := range owners {
		if k < 0 || k >= len(windows) || i < windows[k].Start || i >= windows[k].End {
			return nil, fmt.Errorf("word %d: window %d does not hold it", i, k)
		}
		words[i] = values[k][i-windows[k].Start]
	}
	return words, nil
}

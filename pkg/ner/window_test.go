package ner_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/ner"
)

func TestWindows(t *testing.T) {
	for _, test := range []struct {
		name           string
		pieces         []int
		limit, overlap int
		want           []ner.Window
	}{
		{"no words", nil, 4, 0, nil},
		{"one window", []int{1, 2, 1}, 4, 2, []ner.Window{{0, 3}}},
		{"without overlap the last one still reaches back", []int{1, 1, 1, 1, 1, 1}, 4, 0, []ner.Window{{0, 4}, {2, 6}}},
		{"overlap", []int{1, 1, 1, 1, 1, 1, 1, 1}, 4, 2, []ner.Window{{0, 4}, {2, 6}, {4, 8}}},
		{"words are not parted", []int{3, 3, 3}, 4, 2, []ner.Window{{0, 1}, {1, 2}, {2, 3}}},
		{"less is repeated where the next word is long", []int{1, 1, 1, 1, 4}, 4, 2, []ner.Window{{0, 4}, {4, 5}}},
		{"a word longer than a window", []int{1, 9, 1}, 4, 1, []ner.Window{{0, 1}, {1, 2}, {2, 3}}},
		{"words without tokens", []int{0, 1, 0, 0, 1, 0}, 1, 0, []ner.Window{{0, 4}, {2, 6}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ner.Windows(test.pieces, test.limit, test.overlap)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("windows (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWindowsErrors(t *testing.T) {
	for _, test := range []struct {
		pieces         []int
		limit, overlap int
		want           string
	}{
		{nil, 0, 0, "windows of 0 tokens"},
		{nil, 4, 4, "windows overlap by 4 tokens, want 0 to 3"},
		{nil, 4, -1, "windows overlap by -1 tokens"},
		{[]int{1, -1}, 4, 1, "negative number"},
	} {
		if _, err := ner.Windows(test.pieces, test.limit, test.overlap); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want an error with %q", err, test.want)
		}
	}
}

// What must hold for any text, limit and overlap.
func TestWindowsProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for range 3000 {
		n, limit := random.IntN(40), 1+random.IntN(12)
		overlap := random.IntN(limit)
		pieces := make([]int, n)
		var words []int32 // as of an encoding with special tokens at both ends
		words = append(words, -1)
		for i := range pieces {
			pieces[i] = random.IntN(5)
			if random.IntN(20) == 0 {
				pieces[i] = 15
			}
			for range pieces[i] {
				words = append(words, int32(i))
			}
		}
		words = append(words, -1)
		name := fmt.Sprintf("%v, limit %d, overlap %d", pieces, limit, overlap)

		if got, err := ner.Pieces(words, n); err != nil || !slices.Equal(got, pieces) {
			t.Fatalf("%s: pieces %v, %v", name, got, err)
		}
		windows, err := ner.Windows(pieces, limit, overlap)
		if err != nil {
			t.Fatal(err)
		}
		covered := 0
		values := make([][]string, len(windows))
		for k, w := range windows {
			tokens := w.Tokens(words, limit)
			if len(tokens) > limit || w.Start >= w.End {
				t.Fatalf("%s: window %v has %d tokens", name, w, len(tokens))
			}
			if w.Start > covered || w.End <= covered || k > 0 && w.Start <= windows[k-1].Start {
				t.Fatalf("%s: window %v after %d covered words", name, w, covered)
			}
			covered = w.End
			inWindow := make([]int32, len(tokens))
			for i, token := range tokens {
				inWindow[i] = words[token] - int32(w.Start)
			}
			a, err := ner.Align(inWindow, w.End-w.Start)
			if err != nil {
				t.Fatal(err)
			}
			for i, first := range a.First {
				if (first < 0) != (pieces[w.Start+i] == 0) {
					t.Fatalf("%s: word %d has lost its first piece in window %v", name, w.Start+i, w)
				}
				values[k] = append(values[k], fmt.Sprintf("%d in %d", w.Start+i, k))
			}
		}
		if covered != n {
			t.Fatalf("%s: %d of %d words covered by %v", name, covered, n, windows)
		}

		owners := ner.Owners(windows, pieces, limit)
		merged, err := ner.Merge(windows, owners, values)
		if err != nil {
			t.Fatal(err)
		}
		for word, k := range owners {
			if merged[word] != fmt.Sprintf("%d in %d", word, k) {
				t.Fatalf("%s: word %d has the value of %q", name, word, merged[word])
			}
			for other := range windows {
				if c, o := surroundings(windows[k], word, pieces, limit), surroundings(windows[other], word, pieces, limit); o > c {
					t.Fatalf("%s: word %d belongs to window %d with %d tokens around it, but window %d has %d", name, word, k, c, other, o)
				}
			}
		}
	}
}

// surroundings counts the tokens around a word on the side where there are fewer.
func surroundings(w ner.Window, word int, pieces []int, limit int) int {
	if word < w.Start || word >= w.End {
		return -1
	}
	count := func(words []int) int {
		n := 0
		for _, p := range words {
			n += min(p, limit)
		}
		return n
	}
	left, right := 1<<30, 1<<30
	if w.Start > 0 {
		left = count(pieces[w.Start:word])
	}
	if w.End < len(pieces) {
		right = count(pieces[word+1 : w.End])
	}
	return min(left, right)
}

func TestMergeErrors(t *testing.T) {
	windows := []ner.Window{{0, 2}, {1, 3}}
	for _, test := range []struct {
		owners []int
		values [][]int
		want   string
	}{
		{[]int{0, 0, 1}, [][]int{{1, 2}}, "values of 1 windows, want 2"},
		{[]int{0, 0, 1}, [][]int{{1, 2}, {3}}, "window 1: 1 values for 2 words"},
		{[]int{1, 0, 1}, [][]int{{1, 2}, {3, 4}}, "word 0: window 1 does not hold it"},
		{[]int{0, 0, 2}, [][]int{{1, 2}, {3, 4}}, "word 2: window 2"},
	} {
		if _, err := ner.Merge(windows, test.owners, test.values); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want an error with %q", err, test.want)
		}
	}
}

// Seven words of one token, four fit: word 3 is at the edge of the first window
// and in the middle of the second, which therefore speaks for it.
func ExampleWindows() {
	pieces := []int{1, 1, 1, 1, 1, 1, 1}
	windows, err := ner.Windows(pieces, 4, 2)
	fmt.Println(windows, err)
	fmt.Println(ner.Owners(windows, pieces, 4))
	// Output:
	// [{0 4} {2 6} {3 7}] <nil>
	// [0 0 0 1 1 2 2]
}

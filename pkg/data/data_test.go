package data_test

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data"
)

func sequence(n int, last error) iter.Seq2[data.Sentence, error] {
	return func(yield func(data.Sentence, error) bool) {
		for i := range n {
			if !yield(data.Sentence{ID: fmt.Sprint(i), Words: []string{"word"}}, nil) {
				return
			}
		}
		if last != nil {
			yield(data.Sentence{}, last)
		}
	}
}

func TestCollect(t *testing.T) {
	boom := errors.New("boom")
	for _, want := range []error{nil, boom} {
		all, err := data.Collect(sequence(3, want))
		if !errors.Is(err, want) || len(all) != 3 || all[2].ID != "2" {
			t.Errorf("got %v, %v, want 3 sentences and %v", all, err, want)
		}
	}
}

func TestSpread(t *testing.T) {
	list := []int{0, 1, 2, 3, 4, 5, 6}
	for _, test := range []struct {
		most int
		want []int
	}{{0, list}, {1, []int{0}}, {2, []int{0, 3}}, {3, []int{0, 2, 4}}, {6, []int{0, 1, 2, 3, 4, 5}}, {7, list}, {8, list}} {
		if got := data.Spread(list, test.most); !slices.Equal(got, test.want) {
			t.Errorf("%d of %v: got %v, want %v", test.most, list, got, test.want)
		}
	}
	if got := data.Spread([]int(nil), 3); len(got) != 0 {
		t.Errorf("3 of nothing: got %v", got)
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		sentence data.Sentence
		want     string
	}{
		{data.Sentence{Words: []string{"a"}}, ""},
		{data.Sentence{Words: []string{"a"}, Tags: []string{"O"}}, ""},
		{data.Sentence{ID: "s1"}, "s1: no words"},
		{data.Sentence{}, "sentence: no words"},
		{data.Sentence{File: "x.iob2", Line: 3, Words: []string{"a", "b"}, Tags: []string{"O"}}, "x.iob2:3: 1 tags for 2 words"},
		{data.Sentence{Words: []string{"a"}, Tags: []string{}}, "sentence: 0 tags for 1 words"},
	}
	for _, test := range tests {
		got := ""
		if err := test.sentence.Validate(); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%+v: got %q, want %q", test.sentence, got, test.want)
		}
	}
}

func ExampleSentence() {
	sentence := data.Sentence{
		Words: []string{"Ada", "lives", "in", "London"},
		Tags:  []string{"B-PER", "O", "O", "B-LOC"},
	}
	for i, word := range sentence.Words {
		fmt.Println(word, sentence.Tags[i])
	}
	// Output:
	// Ada B-PER
	// lives O
	// in O
	// London B-LOC
}

func ExamplePrintable() {
	fmt.Println(data.Printable("a line\tand \x1b[31mred\x7f \u202ebackwards"))
	// Output: a line	and ␛[31mred␡ �backwards
}

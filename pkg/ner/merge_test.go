package ner_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/ner"
)

func TestEntities(t *testing.T) {
	// Letters of one to four bytes: offsets count code points.
	text := "Zoë 🙂 traf Li Wei in 北京."
	words := [][2]int{{0, 3}, {4, 5}, {6, 10}, {11, 13}, {14, 17}, {18, 20}, {21, 23}, {23, 24}}
	spans := []ner.Span{{"PER", 0, 1}, {"PER", 3, 5}, {"LOC", 6, 7}}
	scores := []float64{0.9, 1, 1, 0.5, 0.7, 1, 0.8, 1}
	got, err := ner.Entities(text, words, spans, scores)
	if err != nil {
		t.Fatal(err)
	}
	want := []ner.Entity{
		{Type: "PER", Text: "Zoë", Start: 0, End: 3, Score: 0.9, Words: [2]int{0, 1}},
		{Type: "PER", Text: "Li Wei", Start: 11, End: 17, Score: 0.6, Words: [2]int{3, 5}},
		{Type: "LOC", Text: "北京", Start: 21, End: 23, Score: 0.8, Words: [2]int{6, 7}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entities (-want +got):\n%s", diff)
	}
	if got, err := ner.Entities(text, words, spans[:1], nil); err != nil || got[0].Score != 0 {
		t.Errorf("without scores: %+v, %v", got, err)
	}
}

func TestEntitiesWithoutCharacters(t *testing.T) {
	words := [][2]int{{0, 2}, {2, 2}, {3, 5}, {5, 5}}
	got, err := ner.Entities("ab cd", words, []ner.Span{{"X", 1, 4}, {"Y", 1, 2}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []ner.Entity{{Type: "X", Text: "cd", Start: 3, End: 5, Words: [2]int{1, 4}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entities (-want +got):\n%s", diff)
	}
}

func TestEntitiesErrors(t *testing.T) {
	for _, test := range []struct {
		words  [][2]int
		spans  []ner.Span
		scores []float64
		want   string
	}{
		{[][2]int{{0, 2}}, nil, []float64{1, 1}, "2 scores for 1 words"},
		{[][2]int{{0, 3}}, nil, nil, "word 0 at [0 3], want 0 ≤ start ≤ end ≤ 2"},
		{[][2]int{{0, 2}}, []ner.Span{{"X", 0, 2}}, nil, "span X[0:2]"},
		{[][2]int{{1, 2}, {0, 1}}, []ner.Span{{"X", 0, 2}}, nil, "behind the end"},
	} {
		if _, err := ner.Entities("äb", test.words, test.spans, test.scores); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want an error with %q", err, test.want)
		}
	}
}

func TestJoinAndLocate(t *testing.T) {
	words := []string{"Zoë", "isn't", "in", "北京", "."}
	text, offsets := ner.Join(words)
	if text != "Zoë isn't in 北京 ." {
		t.Errorf("text %q", text)
	}
	located, err := ner.Locate(text, words)
	if diff := cmp.Diff(offsets, located); diff != "" || err != nil {
		t.Errorf("located in the joined text (-want +got): %v\n%s", err, diff)
	}
	located, err = ner.Locate("Zoë  isn't\u00a0in 北京.", words)
	if diff := cmp.Diff([][2]int{{0, 3}, {5, 10}, {11, 13}, {14, 16}, {16, 17}}, located); diff != "" || err != nil {
		t.Errorf("located in the text as written (-want +got): %v\n%s", err, diff)
	}
	if _, err := ner.Locate("Zoë is", words); err == nil || !strings.Contains(err.Error(), `word 1, "isn't", is not next in the text at code point 4`) {
		t.Errorf("got %v", err)
	}
	if text, offsets := ner.Join(nil); text != "" || offsets != nil {
		t.Errorf("no words: %q, %v", text, offsets)
	}
}

func ExampleEntities() {
	words := strings.Fields("Ada Lovelace lived in London")
	text, offsets := ner.Join(words)
	spans := ner.FromTags([]string{"B-PER", "I-PER", "O", "O", "B-LOC"})
	entities, err := ner.Entities(text, offsets, spans, []float64{0.9, 0.7, 1, 1, 0.95})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range entities {
		fmt.Printf("%s %q %d-%d %.2f\n", e.Type, e.Text, e.Start, e.End, e.Score)
	}
	// Output:
	// PER "Ada Lovelace" 0-12 0.80
	// LOC "London" 22-28 0.95
}

package ner_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/ner"
)

func TestAlign(t *testing.T) {
	for _, test := range []struct {
		name  string
		words []int32
		count int
		want  ner.Alignment
		label []int32 // of words labelled 10, 11, …
	}{
		{"pieces, special tokens, padding", []int32{-1, 0, 0, 1, 2, 2, 2, -1, -1}, 3, ner.Alignment{First: []int{1, 3, 4}},
			[]int32{-100, 10, -100, 11, 12, -100, -100, -100, -100}},
		{"dropped", []int32{-1, 0, 2, 2, -1}, 3, ner.Alignment{First: []int{1, -1, 2}, Dropped: []int{1}},
			[]int32{-100, 10, 12, -100, -100}},
		{"cut", []int32{-1, 0, 1, -1}, 4, ner.Alignment{First: []int{1, 2, -1, -1}, Cut: []int{2, 3}},
			[]int32{-100, 10, 11, -100}},
		{"nothing left", []int32{-1, -1}, 1, ner.Alignment{First: []int{-1}, Cut: []int{0}}, []int32{-100, -100}},
		{"no words", []int32{-1, -1}, 0, ner.Alignment{First: []int{}}, []int32{-100, -100}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := ner.Align(test.words, test.count)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, a); diff != "" {
				t.Errorf("alignment (-want +got):\n%s", diff)
			}
			labels := make([]int32, test.count)
			for i := range labels {
				labels[i] = int32(10 + i)
			}
			got, err := a.Labels(labels, len(test.words))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.label, got); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			// The way back gives each word its label, or the value for missing ones.
			for _, w := range append(a.Dropped, a.Cut...) {
				labels[w] = 0
			}
			if diff := cmp.Diff(labels, ner.Gather(a, got, 0)); diff != "" {
				t.Errorf("gathered (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAlignErrors(t *testing.T) {
	for _, test := range []struct {
		words []int32
		want  string
	}{
		{[]int32{-1, 0, 3}, "token 2 belongs to word 3, want one of 2 words"},
		{[]int32{-1, 1, 0}, "token 2 belongs to word 0, but the token before it to word 1"},
	} {
		if _, err := ner.Align(test.words, 2); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v, want an error with %q", test.words, err, test.want)
		}
	}
	a, err := ner.Align([]int32{0, 1}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Labels([]int32{1}, 2); err == nil {
		t.Error("one label for two words is accepted")
	}
	if _, err := a.Labels([]int32{1, 1}, 1); err == nil {
		t.Error("labels for fewer tokens than aligned are accepted")
	}
	if got := ner.Gather(a, []string{"B-PER"}, "O"); got[1] != "O" {
		t.Errorf("a word behind the last prediction: %v", got)
	}
}

func sentence(words, tags string) data.Sentence {
	return data.Sentence{Words: strings.Fields(words), Tags: strings.Fields(tags), File: "train.iob2", Line: 17}
}

func TestLabelsOf(t *testing.T) {
	l, err := ner.LabelsOf([]data.Sentence{sentence("a b c", "O B-PER O"), sentence("d", "I-LOC")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"O", "B-LOC", "I-LOC", "B-PER", "I-PER"}, l.Tags()); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"LOC", "PER"}, l.Types()); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
	for i, tag := range l.Tags() {
		if id, ok := l.ID(tag); !ok || int(id) != i || l.Tag(id) != tag {
			t.Errorf("tag %s has label %d, %t, want %d", tag, id, ok, i)
		}
	}
	if _, ok := l.ID("B-ORG"); ok || l.Tag(-100) != "O" || l.Tag(99) != "O" {
		t.Error("an unknown tag has a label, or an unknown label a tag other than O")
	}
	got, err := l.Encode(sentence("x y", "I-PER O"))
	if diff := cmp.Diff([]int32{4, 0}, got); diff != "" || err != nil {
		t.Errorf("labels (-want +got): %v\n%s", err, diff)
	}
	given, err := ner.LabelsOfTypes("LOC", "PER")
	if err != nil || given.Match(l) != nil {
		t.Errorf("labels of the same types: %v, %v", err, given.Match(l))
	}
}

func TestLabelsErrors(t *testing.T) {
	known, err := ner.NewLabelSet([]string{"O", "B-PER", "I-PER"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		run  func() error
		want string
	}{
		{"unknown", func() error { _, err := known.Encode(sentence("in Paris", "O B-LOC")); return err },
			`train.iob2:17: word 1 ("Paris"): unknown tag "B-LOC", want one of O, B-PER, I-PER`},
		{"unlabelled", func() error { _, err := known.Encode(data.Sentence{Words: []string{"a"}, ID: "s1"}); return err }, "s1: no tags"},
		{"counts", func() error { _, err := known.Encode(sentence("a b", "O")); return err }, "train.iob2:17: 1 tags for 2 words"},
		{"twice", func() error { _, err := ner.NewLabelSet([]string{"O", "B-X", "O"}); return err }, `label 2: tag "O" is label 0 already`},
		{"empty tag", func() error { _, err := ner.NewLabelSet([]string{"O", ""}); return err }, "label 1: empty tag"},
		{"no tagger", func() error { _, err := ner.NewLabelSet([]string{"LABEL_0", "LABEL_1"}); return err }, "none of them is O"},
		{"not IOB2", func() error { _, err := ner.LabelsOf([]data.Sentence{sentence("a b", "O S-X")}); return err },
			`train.iob2:17: word 1 ("b"): tag "S-X", want O, B-TYPE or I-TYPE`},
		{"no type", func() error { _, err := ner.LabelsOf([]data.Sentence{sentence("a", "B-")}); return err }, `tag "B-"`},
		{"data unlabelled", func() error { _, err := ner.LabelsOf([]data.Sentence{{Words: []string{"a"}}}); return err }, "sentence: no tags"},
		{"no words", func() error { _, err := ner.LabelsOf([]data.Sentence{{}}); return err }, "no words"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.run(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestLabelsMatch(t *testing.T) {
	must := func(types ...string) ner.LabelSet {
		l, err := ner.LabelsOfTypes(types...)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	checkpoint := must("PER", "LOC")
	for _, test := range []struct {
		data         ner.LabelSet
		match, cover string
	}{
		{must("LOC", "PER"), "", ""},
		{must("LOC"), "labels of data and checkpoint differ: the data has no B-PER, I-PER", ""},
		{must("LOC", "PER", "ORG"), "labels of data and checkpoint differ: the checkpoint has no B-ORG, I-ORG",
			"labels of data and checkpoint differ: the checkpoint has no B-ORG, I-ORG"},
		{must("PER", "ORG"), "labels of data and checkpoint differ: the checkpoint has no B-ORG, I-ORG; the data has no B-LOC, I-LOC",
			"labels of data and checkpoint differ: the checkpoint has no B-ORG, I-ORG; the data has no B-LOC, I-LOC"},
	} {
		for _, pair := range []struct {
			got  error
			want string
		}{{checkpoint.Match(test.data), test.match}, {checkpoint.Cover(test.data), test.cover}} {
			text := ""
			if pair.got != nil {
				text = pair.got.Error()
			}
			if text != pair.want {
				t.Errorf("got %q, want %q", text, pair.want)
			}
		}
	}
	var e *ner.LabelsError
	if err := checkpoint.Match(must("ORG")); !errors.As(err, &e) || len(e.OnlyInData) != 2 || len(e.OnlyInCheckpoint) != 4 {
		t.Errorf("got %#v", err)
	}
}

// Words 0 and 1 have several pieces; word 2 was dropped by the tokenizer.
func ExampleAlign() {
	a, err := ner.Align([]int32{-1, 0, 0, 1, 1, -1}, 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	labels, err := a.Labels([]int32{3, 4, 0}, 6)
	fmt.Println(labels, err)
	fmt.Println(ner.Gather(a, []string{"O", "B-PER", "I-PER", "I-PER", "O", "O"}, "O"))
	// Output:
	// [-100 3 -100 4 -100 -100] <nil>
	// [B-PER I-PER O]
}

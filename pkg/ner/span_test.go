package ner_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/ner"
)

func TestFromTags(t *testing.T) {
	for _, test := range []struct {
		name string
		tags string
		want []ner.Span
	}{
		{"none", "", nil},
		{"outside", "O O", nil},
		{"one and another", "B-PER I-PER O B-LOC", []ner.Span{{"PER", 0, 2}, {"LOC", 3, 4}}},
		{"neighbours", "B-PER B-PER I-PER", []ner.Span{{"PER", 0, 1}, {"PER", 1, 3}}},
		{"I after O starts", "O I-PER I-PER", []ner.Span{{"PER", 1, 3}}},
		{"I of another type starts", "B-PER I-LOC", []ner.Span{{"PER", 0, 1}, {"LOC", 1, 2}}},
		{"untyped", "B I O", []ner.Span{{"_", 0, 2}}},
		{"a type with hyphens", "B-a-b I-a-b", []ner.Span{{"a-b", 0, 2}}},
		{"IOBES", "S-X B-X E-X E-X", []ner.Span{{"X", 0, 1}, {"X", 1, 3}, {"X", 3, 4}}},
		{"letters of several bytes", "B-产品 I-产品 O", []ner.Span{{"产品", 0, 2}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ner.FromTags(strings.Fields(test.tags))); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFromTagsNeverFails(t *testing.T) {
	for _, tags := range [][]string{{""}, {"-"}, {"\xff"}, {"B-"}, {"X", "Y"}, {".", "I-A"}} {
		for _, s := range ner.FromTags(tags) {
			if s.Start < 0 || s.Start >= s.End || s.End > len(tags) {
				t.Errorf("%q: span %v", tags, s)
			}
		}
	}
}

// Written and read again, random spans are the same in every scheme.
func TestToTagsRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		n := random.IntN(12)
		var spans []ner.Span
		for at := 0; at < n; {
			length := 1 + random.IntN(min(3, n-at))
			if random.IntN(2) == 0 {
				spans = append(spans, ner.Span{Type: string("AB"[random.IntN(2)]), Start: at, End: at + length})
			}
			at += length
		}
		for _, scheme := range []ner.Scheme{"", ner.IOB1, ner.IOB2, ner.IOE2, ner.IOBES, ner.BILOU} {
			tags, err := ner.ToTags(spans, n, scheme)
			if err != nil {
				t.Fatal(err)
			}
			back, err := ner.FromTagsStrict(tags, scheme)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(spans, back); diff != "" {
				t.Fatalf("%s %v (-want +got):\n%s", scheme, tags, diff)
			}
			if scheme == ner.IOB2 {
				if diff := cmp.Diff(spans, ner.FromTags(tags)); diff != "" {
					t.Fatalf("lenient, %v (-want +got):\n%s", tags, diff)
				}
			}
		}
	}
}

func TestToTagsErrors(t *testing.T) {
	for _, test := range []struct {
		spans  []ner.Span
		scheme ner.Scheme
		want   string
	}{
		{[]ner.Span{{"PER", 2, 4}}, "", "span PER[2:4]: want 0 ≤ start < end ≤ 3"},
		{[]ner.Span{{"PER", 1, 1}}, "", "span PER[1:1]"},
		{[]ner.Span{{"PER", -1, 1}}, "", "span PER[-1:1]"},
		{[]ner.Span{{"", 0, 1}}, "", "no type"},
		{[]ner.Span{{"LOC", 1, 3}, {"PER", 0, 2}}, "", "span LOC[1:3] overlaps PER[0:2]"},
		{nil, "BIO", `scheme "BIO": want one of IOB1`},
	} {
		if tags, err := ner.ToTags(test.spans, 3, test.scheme); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v, %v, want an error with %q", test.spans, tags, err, test.want)
		}
	}
	if tags, err := ner.ToTags(nil, -1, ""); err == nil || !strings.Contains(err.Error(), "number of words is -1") {
		t.Errorf("of -1 words: got %v, %v, want an error", tags, err)
	}
}

func TestFromTagsStrict(t *testing.T) {
	got, err := ner.FromTagsStrict([]string{"I-PER", "B-LOC", "I-PER", "I-PER", "B-PER", "I-PER"}, ner.IOB2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]ner.Span{{"LOC", 1, 2}, {"PER", 4, 6}}, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
	for _, test := range []struct {
		tags   []string
		scheme ner.Scheme
		want   string
	}{
		{[]string{"O", "S-PER"}, ner.IOB2, `word 1: tag "S-PER" begins with "S", want one of B, I, O`},
		{[]string{"产"}, ner.BILOU, `word 0: tag "产" begins with "产"`},
		{[]string{""}, ner.IOB1, `word 0: tag "" begins with ""`},
	} {
		_, err := ner.FromTagsStrict(test.tags, test.scheme)
		if !errors.Is(err, ner.ErrPrefix) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got error %v, want %q", test.tags, err, test.want)
		}
	}
	if _, err := ner.FromTagsStrict(nil, "nonsense"); err == nil {
		t.Error("an unknown scheme is accepted")
	}
}

func ExampleFromTags() {
	tags := strings.Fields("B-PER I-PER O I-LOC")
	fmt.Println(ner.FromTags(tags))
	strict, err := ner.FromTagsStrict(tags, ner.IOB2)
	fmt.Println(strict, err)
	// Output:
	// [PER[0:2] LOC[3:4]]
	// [PER[0:2]] <nil>
}

// Whatever the tags, spans lie within the words, strict spans are as many as
// words at most and do not overlap, and tags agree with themselves perfectly.
func FuzzFromTags(f *testing.F) {
	for _, seed := range []string{"", "B-PER I-PER O", "L B-PER", "I E-X S U-产品 .", "\xff -", "B- I-- E"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		tags := strings.Fields(line)
		inside := func(spans []ner.Span) {
			for _, s := range spans {
				if s.Start < 0 || s.Start >= s.End || s.End > len(tags) || s.Type == "" {
					t.Errorf("%q: span %v", tags, s)
				}
			}
		}
		inside(ner.FromTags(tags))
		for _, scheme := range []ner.Scheme{ner.IOB1, ner.IOB2, ner.IOE1, ner.IOE2, ner.IOBES, ner.BILOU} {
			spans, err := ner.FromTagsStrict(tags, scheme)
			if err != nil {
				continue
			}
			inside(spans)
			if _, err := ner.ToTags(spans, len(tags), scheme); err != nil {
				t.Errorf("%q: %v", tags, err)
			}
		}
		report, err := ner.Evaluate([][]string{tags}, [][]string{tags}, ner.Options{})
		if err != nil || len(report.Types) > 0 && report.Micro.F1 != 1 {
			t.Errorf("%q against themselves: %+v, %v", tags, report.Micro, err)
		}
	})
}

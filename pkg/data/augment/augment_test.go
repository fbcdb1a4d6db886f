package augment_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/augment"
	"github.com/elastic-attention/workbench/pkg/data/synth"
)

var shifts = []augment.Shift{
	{Kind: augment.Typo, Rate: 0.5, Seed: 3}, {Kind: augment.Typo, Rate: 1}, {Kind: augment.Upper}, {Kind: augment.Lower},
	{Kind: augment.Fragment, Seed: 1}, {Kind: augment.Fragment, Words: 1, Seed: 2},
}

// odd are sentences that a rule could stumble on.
var odd = []data.Sentence{
	{Words: []string{"a"}}, {Words: []string{"...", "ß", "ÀÉ", "中文", "I", "1990s", "don't"}},
	{Words: []string{"Zürich", "Åland", "\U0001F600x", "ok"}, Tags: []string{"B-LOC", "B-LOC", "O", "O"}},
	{Words: []string{"New", "York", "City", "Hall", "in", "the", "rain"}, Tags: []string{"B-LOC", "I-LOC", "I-LOC", "I-LOC", "O", "O", "O"}},
}

// TestLabelsStayValid: words and tags stay equally many, tags stay well-formed IOB2, words stay
// words, what was given stays as it was, and what is random depends on seed and words alone.
func TestLabelsStayValid(t *testing.T) {
	sentences := append(synth.Entities(5, 300), odd...)
	for _, shift := range shifts {
		if err := shift.Validate(); err != nil {
			t.Fatal(err)
		}
		changed := shift.Sentences(sentences)
		backwards := slices.Clone(sentences)
		slices.Reverse(backwards)
		again := shift.Sentences(backwards)
		slices.Reverse(again)
		if diff := cmp.Diff(changed, again); diff != "" {
			t.Errorf("%+v: depends on the order of sentences:\n%s", shift, diff)
		}
		for i, x := range changed {
			if err := x.Validate(); err != nil {
				t.Errorf("%+v: %v", shift, err)
			}
			before := "O"
			for j, tag := range x.Tags {
				if typ, inside := strings.CutPrefix(tag, "I-"); inside && (before == "O" || before[2:] != typ) {
					t.Errorf("%+v: %v: tag %q follows %q", shift, x.Words, tag, before)
				}
				before = x.Tags[j]
			}
			for _, word := range x.Words {
				if word == "" || !utf8.ValidString(word) || strings.ContainsAny(word, " \t\n") {
					t.Errorf("%+v: %q is no word", shift, word)
				}
			}
			if shift.Kind != augment.Fragment && len(x.Words) != len(sentences[i].Words) {
				t.Errorf("%+v: %d words of %d", shift, len(x.Words), len(sentences[i].Words))
			}
		}
	}
	if diff := cmp.Diff(synth.Entities(5, 300), sentences[:300]); diff != "" {
		t.Errorf("the given sentences were changed:\n%s", diff)
	}
}

// TestFragmentIsAWindow of the sentence, with every start equally likely, and cuts entities by the rule.
func TestFragmentIsAWindow(t *testing.T) {
	x := odd[3]
	starts := map[string]int{}
	for seed := range uint64(300) {
		f := augment.Shift{Kind: augment.Fragment, Words: 3, Seed: seed}.Sentence(x)
		if !strings.Contains(strings.Join(x.Words, " "), strings.Join(f.Words, " ")) || len(f.Words) != 3 {
			t.Fatalf("%v is no window of three words of %v", f.Words, x.Words)
		}
		starts[f.Words[0]]++
		if f.Words[0] == "City" && !slices.Equal(f.Tags, []string{"B-LOC", "I-LOC", "O"}) {
			t.Errorf("tags of %v are %v", f.Words, f.Tags)
		}
	}
	if len(starts) != 5 {
		t.Errorf("windows begin with %v, want each of the first five words", starts)
	}
	for word, n := range starts {
		if n < 30 {
			t.Errorf("%d of 300 windows begin with %q, want about 60", n, word)
		}
	}
}

// TestTypoRate: about so many words change as the rate says, each by one edit.
func TestTypoRate(t *testing.T) {
	words := make([]string, 2000)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range words {
		letters := []byte("abcdefghijklmnopqrstuvwxyz")
		random.Shuffle(len(letters), func(a, b int) { letters[a], letters[b] = letters[b], letters[a] })
		words[i] = string(letters[:6])
	}
	changed := augment.Shift{Kind: augment.Typo, Rate: 0.3, Seed: 9}.Sentence(data.Sentence{Words: words})
	count := 0
	for i, word := range changed.Words {
		if word == words[i] {
			continue
		}
		count++
		different := 0
		for j := range min(len(word), 6) {
			if word[j] != words[i][j] {
				different++
			}
		}
		if len(word) == 6 && different > 2 || len(word) < 5 {
			t.Errorf("%q became %q, which is more than one error", words[i], word)
		}
	}
	if count < 500 || count > 700 {
		t.Errorf("%d of 2000 words changed, want about 600", count)
	}
}

// TestTextKeepsItsSpace: a text changes as its words do, and what stands between them stays.
func TestTextKeepsItsSpace(t *testing.T) {
	for _, text := range []string{"", " ", "one", "  The cat\tsat \n on the  mat. ", "the the the the the the the", "中文 текст ok ok ok ok ok"} {
		for _, shift := range shifts {
			got := shift.Text(text)
			want := shift.Sentence(data.Sentence{Words: strings.Fields(text)}).Words
			if len(strings.Fields(text)) > 0 && !slices.Equal(strings.Fields(got), want) {
				t.Errorf("%+v: %q became %q, its words %q", shift, text, got, want)
			}
			if gaps := func(s string) int { return strings.Count(s, " ") + strings.Count(s, "\t") + strings.Count(s, "\n") }; shift.Kind != augment.Fragment && gaps(got) != gaps(text) {
				t.Errorf("%+v: %q became %q, which has other white space", shift, text, got)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for _, shift := range []augment.Shift{{}, {Kind: "noise"}, {Kind: augment.Typo, Rate: 2}, {Kind: augment.Upper, Rate: 0.1}, {Kind: augment.Fragment, Words: -1}, {Kind: augment.Typo, Words: 3}} {
		if shift.Validate() == nil {
			t.Errorf("%+v: want an error", shift)
		}
	}
}

func ExampleShift() {
	sentence := data.Sentence{Words: []string{"Angela", "Merkel", "met", "Tim", "Cook"}, Tags: []string{"B-PER", "I-PER", "O", "B-PER", "I-PER"}}
	fmt.Println(augment.Shift{Kind: augment.Typo, Rate: 1, Seed: 1}.Sentence(sentence).Words)
	part := augment.Shift{Kind: augment.Fragment, Words: 3, Seed: 2}.Sentence(sentence)
	fmt.Println(part.Words, part.Tags)
	fmt.Println(augment.Shift{Kind: augment.Upper}.Text("in Berlin"))
	// Output:
	// [Sngela eMrkel emt Yim Cok]
	// [Angela Merkel met] [B-PER I-PER O]
	// IN BERLIN
}

// Package augment changes texts as the world does, with their labels kept: typing errors, capitals,
// fragments. A [Shift] is plain data; under equal seeds equal texts change equally, whatever stands
// around them, so a shifted test set is the same on every machine.
//
//	shift := augment.Shift{Kind: augment.Typo, Rate: 0.2, Seed: 1}
//	noisy := shift.Sentence(sentence)     // the same number of words, the same tags
//	text := shift.Text("Angela Merkel met Tim Cook.")
package augment

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"

	"github.com/elastic-attention/workbench/pkg/data"
)

// The kinds of shifts.
const (
	// Typo puts one typing error into a share of the words; see [Shift.Rate].
	Typo = "typo"
	// Upper and Lower write all letters as capitals, or none.
	Upper = "upper"
	Lower = "lower"
	// Fragment keeps a random window of neighbouring words; see [Shift.Words].
	Fragment = "fragment"
)

// Kinds lists the kinds, sorted.
func Kinds() []string { return []string{Fragment, Lower, Typo, Upper} }

// Shift is one change. The zero value of a field but Kind means its default.
type Shift struct {
	// Kind is one of [Kinds].
	Kind string `json:"kind"`
	// Rate of [Typo] is the probability that a word gets an error; 0 means 0.1. The error is one
	// of three, equally likely: a letter becomes its neighbour on a QWERTY keyboard, two neighbours
	// change places, a letter is dropped. Words without two letters side by side stay as they are,
	// and so does a word in which the error drawn has no effect ("ll" with its letters swapped).
	Rate float64 `json:"rate,omitempty"`
	// Words of [Fragment] is how many words the window has; 0 means 5. Shorter sentences stay
	// whole.
	Words int `json:"words,omitempty"`
	// Seed of what is random.
	Seed uint64 `json:"seed,omitempty"`
}

const (
	defaultRate  = 0.1
	defaultWords = 5
)

// Validate reports all that is wrong with s.
func (s Shift) Validate() error {
	var problems []error
	if !slices.Contains(Kinds(), s.Kind) {
		problems = append(problems, fmt.Errorf("kind %q is unknown; known: %s", s.Kind, strings.Join(Kinds(), ", ")))
	}
	if !(s.Rate >= 0 && s.Rate <= 1) {
		problems = append(problems, fmt.Errorf("rate is %g, want 0 to 1", s.Rate))
	}
	if s.Words < 0 {
		problems = append(problems, fmt.Errorf("words is %d, want 0 or more", s.Words))
	}
	if s.Rate != 0 && s.Kind != Typo {
		problems = append(problems, fmt.Errorf("rate is %g, which only %q has", s.Rate, Typo))
	}
	if s.Words != 0 && s.Kind != Fragment {
		problems = append(problems, fmt.Errorf("words is %d, which only %q has", s.Words, Fragment))
	}
	return errors.Join(problems...)
}

// Sentence returns a changed copy. Words and tags stay equally many. What [Fragment] cuts off
// an entity is lost; what is left of it is an entity of the same type, so that an I- at the
// beginning of the window becomes B- (other prefixes than those of IOB2 stay). Text is dropped,
// for it would not be that of the words. A shift that is not valid changes nothing.
func (s Shift) Sentence(x data.Sentence) data.Sentence {
	random := s.random(x.Words)
	x.Text, x.Words, x.Tags = "", slices.Clone(x.Words), slices.Clone(x.Tags)
	if s.Kind == Fragment {
		start, end := s.window(random, len(x.Words))
		x.Words = x.Words[start:end]
		if len(x.Tags) > 0 {
			x.Tags = x.Tags[start:end]
			if typ, inside := strings.CutPrefix(x.Tags[0], "I-"); inside {
				x.Tags[0] = "B-" + typ
			}
		}
		return x
	}
	for i, word := range x.Words {
		x.Words[i] = s.word(random, word)
	}
	return x
}

// Sentences returns changed copies of sentences.
func (s Shift) Sentences(list []data.Sentence) []data.Sentence {
	changed := make([]data.Sentence, len(list))
	for i, x := range list {
		changed[i] = s.Sentence(x)
	}
	return changed
}

// Text returns a changed copy of a running text. Words are what white space parts, and the
// white space between them stays.
func (s Shift) Text(text string) string {
	words := strings.Fields(text)
	random := s.random(words)
	if s.Kind == Fragment {
		start, end := s.window(random, len(words))
		words = words[start:end]
		text = strings.TrimSpace(text)
		for range start {
			text = strings.TrimLeftFunc(strings.TrimLeftFunc(text, notSpace), unicode.IsSpace)
		}
		length := 0
		for range words {
			length += len(text[length:]) - len(strings.TrimLeftFunc(text[length:], unicode.IsSpace))
			length += len(text[length:]) - len(strings.TrimLeftFunc(text[length:], notSpace))
		}
		return text[:length]
	}
	var out strings.Builder
	for _, word := range words {
		at := strings.Index(text, word)
		out.WriteString(text[:at])
		out.WriteString(s.word(random, word))
		text = text[at+len(word):]
	}
	return out.String() + text
}

func notSpace(r rune) bool { return !unicode.IsSpace(r) }

// random depends on the seed, the kind and the words alone.
func (s Shift) random(words []string) *rand.Rand {
	hash := fnv.New64a()
	hash.Write([]byte(s.Kind))
	for _, word := range words {
		hash.Write([]byte{0})
		hash.Write([]byte(word))
	}
	return rand.New(rand.NewPCG(s.Seed, hash.Sum64()))
}

// window draws the window of a fragment of n words.
func (s Shift) window(random *rand.Rand, n int) (start, end int) {
	words := s.Words
	if words == 0 {
		words = defaultWords
	}
	if n <= words {
		return 0, n
	}
	start = random.IntN(n - words + 1)
	return start, start + words
}

// word changes one word.
func (s Shift) word(random *rand.Rand, word string) string {
	switch s.Kind {
	case Upper:
		return strings.ToUpper(word)
	case Lower:
		return strings.ToLower(word)
	case Typo:
		rate := s.Rate
		if rate == 0 {
			rate = defaultRate
		}
		if random.Float64() < rate {
			return mistype(random, word)
		}
	}
	return word
}

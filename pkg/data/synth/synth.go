// Package synth makes corpora whose right answers are known, for tests and for
// machines without a network.
//
// [Entities] writes English-like sentences with persons, organisations and places.
// All names are made up, so that a corpus from another seed has names that no one
// has seen, and the same made-up name is a person here, a firm there and a town
// elsewhere: only the words around it tell. Looking words up is therefore not
// enough, and a model must use context:
//
//	train := synth.Entities(1, 4000)
//	dev := synth.Entities(2, 500)
//	test := synth.Entities(3, 500)
//
// [Tokenizer] is a WordPiece tokenizer that fits the corpus: it knows its words and
// the syllables of its names. With both, a model can be trained from nothing.
//
// The corpus is a fixed function of its seed, on every machine and in every
// version. To change what a seed gives is a change of format, to be announced in
// the change log: results that name a seed would no longer be comparable.
package synth

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
)

// Types are the entity types of [Entities].
var Types = [...]string{"PER", "ORG", "LOC"}

// stream tells the random numbers of this package from those of others with the same seed.
const stream = 0x656e746974696573 // "entities"

// Entities returns n sentences with IOB2 tags of the types PER, ORG and LOC. ID,
// Text, Words and Tags are set. Entities(seed, m) begins with Entities(seed, n) for
// n ≤ m. It returns nil if n is not positive.
//
// About one sentence in eight is in lower case throughout and a few in capitals;
// one in ten lacks its full stop. A quarter of the common nouns is made up too, and
// some capitalised made-up names are things, not entities. One sentence in twenty
// says too little to tell the type of a bare name, so that no model is always right.
func Entities(seed uint64, n int) []data.Sentence {
	if n <= 0 {
		return nil
	}
	g := &generator{random: rand.NewPCG(seed, stream)}
	sentences := make([]data.Sentence, n)
	for i := range sentences {
		sentences[i] = g.sentence()
		sentences[i].ID = fmt.Sprintf("synth-%d-%d", seed, i)
	}
	return sentences
}

// generator writes one sentence after the other.
type generator struct {
	random *rand.PCG
	words  []string
	tags   []string
	stems  []string // of the sentence at hand
}

// below gives a number from 0 to n-1. It uses the generator's plain output, whose
// sequence is fixed; the tiny bias of the remainder does not matter here.
func (g *generator) below(n int) int { return int(g.random.Uint64() % uint64(n)) }

func (g *generator) percent(p int) bool { return g.below(100) < p }

func (g *generator) pick(list []string) string { return list[g.below(len(list))] }

func (g *generator) sentence() data.Sentence {
	g.words, g.tags, g.stems = nil, nil, g.stems[:0]
	if g.percent(20) {
		g.write(g.pick(openers), false)
	}
	g.write(g.pick(templates), true)
	if last := len(g.words) - 1; g.words[last] == "." && g.percent(15) {
		g.words, g.tags = g.words[:last], g.tags[:last]
		g.write(g.pick(joins), false)
		g.write(g.pick(templates), true)
	}
	if last := len(g.words) - 1; g.words[last] == "." && g.percent(10) {
		g.words, g.tags = g.words[:last], g.tags[:last]
	}
	g.words[0] = title(g.words[0])
	if g.percent(12) {
		g.all(strings.ToLower)
	} else if g.percent(4) {
		g.all(strings.ToUpper)
	}
	return data.Sentence{Text: text(g.words), Words: g.words, Tags: g.tags}
}

// write fills the slots of a template. Something may be put in behind a name, which
// moves the words that tell its type further away.
func (g *generator) write(template string, asides bool) {
	tokens := strings.Fields(template)
	for i, token := range tokens {
		if token == "{ANY}" {
			token = "{" + Types[g.below(len(Types))] + "}"
		}
		before := len(g.words)
		switch token {
		case "{PER}":
			g.person()
		case "{ORG}":
			g.entity("ORG", g.organisation())
		case "{LOC}":
			g.entity("LOC", g.place())
		case "{THING}":
			g.outside(title(g.stem()))
		case "{NOUN}":
			g.outside(g.noun())
		case "{DAY}":
			g.outside(g.pick(days))
		case "{NUM}":
			g.outside(g.pick(numbers))
		case "{ADJ}":
			g.outside(g.pick(adjectives))
		default:
			g.outside(token)
		}
		named := len(g.words) > before && g.tags[len(g.tags)-1] != "O"
		followed := i+1 < len(tokens) && !strings.Contains(noSpaceBefore, " "+tokens[i+1]+" ")
		if asides && named && followed && g.percent(10) {
			g.write(g.pick(insertions), false)
		}
	}
}

func (g *generator) all(change func(string) string) {
	for i, word := range g.words {
		g.words[i] = change(word)
	}
}

func (g *generator) outside(words ...string) {
	for _, word := range words {
		g.words, g.tags = append(g.words, word), append(g.tags, "O")
	}
}

func (g *generator) entity(kind string, words []string) {
	for i, word := range words {
		prefix := "I-"
		if i == 0 {
			prefix = "B-"
		}
		g.words, g.tags = append(g.words, word), append(g.tags, prefix+kind)
	}
}

// person writes a person; a form of address before it is not part of the name.
func (g *generator) person() {
	switch choice := g.below(100); {
	case choice < 15:
		g.outside(g.pick(addresses))
		g.entity("PER", []string{title(g.stem())})
	default:
		g.entity("PER", g.name(choice))
	}
}

func (g *generator) name(choice int) []string {
	switch {
	case choice < 50:
		return []string{g.first(), title(g.stem())}
	case choice < 65:
		return []string{g.first()}
	case choice < 85:
		return []string{title(g.stem())}
	case choice < 92:
		return []string{g.first(), string(rune('A'+g.below(26))) + ".", title(g.stem())}
	}
	return []string{g.first(), g.pick(particles), title(g.stem())}
}

func (g *generator) organisation() []string {
	switch choice := g.below(100); {
	case choice < 30:
		return []string{title(g.stem())}
	case choice < 55:
		return []string{title(g.stem()), g.pick(firms)}
	case choice < 67:
		return append([]string{g.pick(institutions), "of"}, g.place()...)
	case choice < 77:
		return []string{title(g.stem()), "&", title(g.stem())}
	case choice < 85:
		return []string{title(g.stem()), "and", "Sons"}
	case choice < 95:
		letters := make([]byte, 3+g.below(2))
		for i := range letters {
			letters[i] = byte('A' + g.below(26))
		}
		return []string{string(letters)}
	}
	return append(g.name(0), "Foundation")
}

func (g *generator) place() []string {
	switch choice := g.below(100); {
	case choice < 38:
		return []string{title(g.stem())}
	case choice < 62:
		return []string{title(g.stem() + g.pick(placeEndings))}
	case choice < 80:
		return []string{g.pick(placeFirst), title(g.stem())}
	case choice < 92:
		return []string{title(g.stem()), g.pick(placeLast)}
	}
	return []string{"Saint", g.first()}
}

// stem is a made-up name in lower case. Now and then a sentence uses one twice, in two roles.
func (g *generator) stem() string {
	if len(g.stems) > 0 && g.percent(10) {
		return g.pick(g.stems)
	}
	stem := g.pick(opening)
	if g.percent(45) {
		stem += g.pick(opening)
	}
	stem += g.pick(closing)
	g.stems = append(g.stems, stem)
	return stem
}

// first is a made-up first name; most end in a vowel, as few other names do.
func (g *generator) first() string {
	name := g.pick(opening)
	if g.percent(80) {
		name += g.pick(endings)
	} else {
		name += g.pick(closing)
	}
	return title(name)
}

func (g *generator) noun() string {
	if g.percent(25) {
		return g.stem()
	}
	return g.pick(nouns)
}

func title(word string) string { return strings.ToUpper(word[:1]) + word[1:] }

// text joins words as they are usually written.
func text(words []string) string {
	var out strings.Builder
	for i, word := range words {
		if i > 0 && words[i-1] != "(" && !strings.Contains(noSpaceBefore, " "+strings.ToLower(word)+" ") {
			out.WriteByte(' ')
		}
		out.WriteString(word)
	}
	return out.String()
}

const noSpaceBefore = " . , ; ? ! ) 's "

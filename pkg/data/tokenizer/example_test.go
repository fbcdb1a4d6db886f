package tokenizer_test

import (
	"fmt"
	"log"

	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
)

func Example() {
	tok, err := tokenizer.Load("testdata/golden/tokenizers/bert-minilm") // a model folder
	if err != nil {
		log.Fatal(err)
	}
	text := []rune("Kadir lives in Izmir, Türkiye.")
	enc, err := tok.Encode(string(text), tokenizer.Options{MaxLength: 128})
	if err != nil {
		log.Fatal(err)
	}
	for i, id := range enc.IDs {
		at := enc.Offsets[i]
		fmt.Printf("%5d %-7s word %2d  %q\n", id, tok.Token(id), enc.Words[i], string(text[at[0]:at[1]]))
	}
	fmt.Println(tok.Decode(enc.IDs, true))
	// Output:
	//   101 [CLS]   word -1  ""
	// 10556 ka      word  0  "Ka"
	//  4305 ##di    word  0  "di"
	//  2099 ##r     word  0  "r"
	//  3268 lives   word  1  "lives"
	//  1999 in      word  2  "in"
	//  1045 i       word  3  "I"
	//  2480 ##z     word  3  "z"
	// 14503 ##mir   word  3  "mir"
	//  1010 ,       word  4  ","
	// 22883 turk    word  5  "Türk"
	// 28008 ##iy    word  5  "iy"
	//  2063 ##e     word  5  "e"
	//  1012 .       word  6  "."
	//   102 [SEP]   word -1  ""
	// kadir lives in izmir, turkiye.
}

// Words that a corpus has tagged: each token knows its word, so that only the first of a word gets its label.
func ExampleTokenizer_EncodeWords() {
	tok, err := tokenizer.Load("testdata/golden/tokenizers/bert-minilm")
	if err != nil {
		log.Fatal(err)
	}
	words := []string{"Kadir", "lives", "in", "Izmir"}
	tags := []string{"B-PER", "O", "O", "B-LOC"}
	enc, err := tok.EncodeWords(words, tokenizer.Options{})
	if err != nil {
		log.Fatal(err)
	}
	last := int32(-1)
	for i, w := range enc.Words {
		label := "-" // ignored
		if w >= 0 && w != last {
			label = tags[w]
		}
		last = w
		fmt.Println(tok.Token(enc.IDs[i]), label)
	}
	// Output:
	// [CLS] -
	// ka B-PER
	// ##di -
	// ##r -
	// lives O
	// in O
	// i B-LOC
	// ##z -
	// ##mir -
	// [SEP] -
}

// A text longer than the model reads becomes overlapping windows.
func ExampleOptions() {
	tok, err := tokenizer.Load("testdata/golden/tokenizers/bert-minilm")
	if err != nil {
		log.Fatal(err)
	}
	enc, err := tok.Encode("one two three four five six seven", tokenizer.Options{MaxLength: 6, Stride: 1})
	if err != nil {
		log.Fatal(err)
	}
	for _, window := range append([]*tokenizer.Encoding{enc}, enc.Overflow...) {
		fmt.Println(tok.Decode(window.IDs, false))
	}
	// Output:
	// [CLS] one two three four [SEP]
	// [CLS] four five six seven [SEP]
}

// Package data holds the plain values that all data packages share: a sentence
// with its words and tags, the names of the parts of a data set, and where it
// came from. It imports no other part of the project.
//
// Sentences travel as iterators, so that a corpus larger than the memory can be
// read:
//
//	for sentence, err := range format.CoNLLFile("train.iob2", format.CoNLLOptions{}) {
//		if err != nil {
//			return err
//		}
//		use(sentence)
//	}
//
// [Collect] makes a slice of such an iterator where memory is no concern.
package data

import (
	"fmt"
	"iter"
)

// Sentence is one sentence, split into words.
type Sentence struct {
	// ID is the name that the corpus gives the sentence, or "".
	ID string `json:"id,omitempty"`
	// Text is the sentence as it was written, or "" when the corpus does not tell.
	Text string `json:"text,omitempty"`
	// Words are the words in order.
	Words []string `json:"words"`
	// Tags has one tag a word, or is nil when the sentence is unlabelled.
	Tags []string `json:"tags,omitempty"`
	// File and Line say where the first word was read, for messages; Line counts from 1.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Labelled reports whether the sentence has tags.
func (s Sentence) Labelled() bool { return s.Tags != nil }

// Place is "file:line" where the sentence was read, its ID if that is unknown, else "sentence".
func (s Sentence) Place() string {
	switch {
	case s.File != "":
		return fmt.Sprintf("%s:%d", s.File, s.Line)
	case s.ID != "":
		return s.ID
	}
	return "sentence"
}

// Validate reports a sentence without words, and one whose tags and words differ in number.
func (s Sentence) Validate() error {
	if len(s.Words) == 0 {
		return fmt.Errorf("%s: no words", s.Place())
	}
	if s.Labelled() && len(s.Tags) != len(s.Words) {
		return fmt.Errorf("%s: %d tags for %d words", s.Place(), len(s.Tags), len(s.Words))
	}
	return nil
}

// Collect returns all sentences of an iterator, or the first error and what came before it.
func Collect(sentences iter.Seq2[Sentence, error]) ([]Sentence, error) {
	var all []Sentence
	for sentence, err := range sentences {
		if err != nil {
			return all, err
		}
		all = append(all, sentence)
	}
	return all, nil
}

// Split is a named part of a data set.
type Split string

// The usual parts: to learn from, to choose by, to report on.
const (
	Train Split = "train"
	Dev   Split = "dev"
	Test  Split = "test"
)

// Source says where a file or a data set came from and what may be done with it.
type Source struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// Licence is the SPDX identifier where there is one: "CC-BY-SA-4.0".
	Licence string `json:"licence"`
	// Citation is the reference that its makers ask for.
	Citation string `json:"citation,omitempty"`
	// SHA256 is the checksum of the content in lower-case hexadecimal digits.
	SHA256 string `json:"sha256,omitempty"`
}

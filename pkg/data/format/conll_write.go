package format

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/elastic-attention/workbench/pkg/data"
)

// WriteCoNLL writes sentences in the numbered layout (UNER's .iob2), which [CoNLL]
// reads back with the same ID, Text, Words and Tags whatever the words are. The
// tags of an unlabelled sentence are written as "_".
//
// An error is reported for a sentence without words or with another number of
// tags, and for a word, ID, text or tag that the format cannot hold: with a tab (in
// words and tags), a line end, a NUL or invalid UTF-8 in it, or an unknown tag.
func WriteCoNLL(w io.Writer, sentences iter.Seq[data.Sentence]) error {
	out := bufio.NewWriter(w)
	for sentence := range sentences {
		if err := writeSentence(out, sentence); err != nil {
			return fmt.Errorf("writing CoNLL: %s: %w", sentence.Place(), err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing CoNLL: %w", err)
	}
	return nil
}

func writeSentence(out *bufio.Writer, sentence data.Sentence) error {
	if len(sentence.Words) == 0 {
		return errors.New("no words")
	}
	if sentence.Labelled() && len(sentence.Tags) != len(sentence.Words) {
		return fmt.Errorf("%d tags for %d words", len(sentence.Tags), len(sentence.Words))
	}
	// The ID is written even if it is "": the comment makes the layout certain for a file of one word.
	for _, comment := range []struct{ key, value string }{{"sent_id", sentence.ID}, {"text", sentence.Text}} {
		if err := writable(comment.value, "\r\n\x00"); err != nil {
			return fmt.Errorf("%s: %w", comment.key, err)
		}
		if comment.key == "sent_id" || comment.value != "" {
			fmt.Fprintf(out, "# %s = %s\n", comment.key, comment.value)
		}
	}
	for i, word := range sentence.Words {
		if word == "" {
			return fmt.Errorf("word %d is empty", i)
		}
		if err := writable(word, "\t\r\n\x00"); err != nil {
			return fmt.Errorf("word %d: %w", i, err)
		}
		tag := unlabelled
		if sentence.Labelled() {
			tag = sentence.Tags[i]
			if _, _, ok := parseTag(tag); !ok {
				return fmt.Errorf("word %d: unknown tag %q, want O or a tag such as B-PER", i, tag)
			}
			if err := writable(tag, "\t\r\n\x00"); err != nil {
				return fmt.Errorf("tag %d: %w", i, err)
			}
		}
		out.WriteString(strconv.Itoa(i + 1))
		out.WriteByte('\t')
		out.WriteString(word)
		out.WriteByte('\t')
		out.WriteString(tag)
		out.WriteString("\t-\t-\n")
	}
	return out.WriteByte('\n')
}

func writable(text, forbidden string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%q is not UTF-8", text)
	}
	if i := strings.IndexAny(text, forbidden); i >= 0 {
		return fmt.Errorf("%q has a character %q, which the format cannot hold", text, text[i])
	}
	return nil
}

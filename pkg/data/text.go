package data

import (
	"fmt"
	"iter"
)

// Text is a text with the class that it belongs to.
type Text struct {
	Text string `json:"text"`
	// Label is the name of its class, or "" when the text is unlabelled.
	Label string `json:"label,omitempty"`
	// File and Line say where it was read, for messages; Line counts from 1.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Place is "file:line" where the text was read, else "text".
func (t Text) Place() string {
	if t.File == "" {
		return "text"
	}
	return fmt.Sprintf("%s:%d", t.File, t.Line)
}

// CollectTexts returns all texts of an iterator, or the first error and what came before it.
func CollectTexts(texts iter.Seq2[Text, error]) ([]Text, error) {
	var all []Text
	for text, err := range texts {
		if err != nil {
			return all, err
		}
		all = append(all, text)
	}
	return all, nil
}

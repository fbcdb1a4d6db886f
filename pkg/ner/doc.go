// Package ner finds named entities: which words of a text name a person, an
// organisation, a place.
//
// # From spans to labels and back
//
// An entity is a [Span] of words with a type. A model labels one token at a
// time, so spans are written as one tag a word: B-PER for the first word of a
// person, I-PER for its further ones, O for a word outside. [ToTags] and
// [FromTags] convert; [Scheme] names the variants of that notation. [LabelSet]
// numbers the tags.
//
// The model's tokens are pieces of words. [Align] gives the label of a word to
// its first piece and ignores the others, the special tokens and the padding.
// What no piece carries (a word that the tokenizer drops) is reported, and
// counts as predicted O: no gold entity is ever left out of a score. Texts
// longer than the model are cut into overlapping [Windows] at word boundaries,
// and each word takes its prediction from the window that shows most around it.
//
//	text ─ tokenizer ─ Align ─ model ─ Gather, Merge ─ tags ─ FromTags ─ Entities ─ Mark, HTML
//	                                                    └── Evaluate ─ Report
//
// # Scores
//
// An entity counts as found if its type and both its ends agree. [Evaluate]
// counts, for each type and over all, precision, recall and F1, and agrees with
// seqeval 1.2.2 in every digit and in the text of its report: by default with
// its lenient reading of tags (which is that of conlleval), under
// [Options.Strict] with its strict one.
//
// Positions of words are counted from 0, ends are exclusive. Positions in a text
// are counted in Unicode code points, as tokenizers count them.
package ner

// Package format reads and writes the file formats of corpora.
//
// Readers are iterators: they hold one sentence at a time, so a file of any size
// streams in constant memory, and every error names file and line:
//
//	for sentence, err := range format.CoNLLFile("train.iob2.gz", format.CoNLLOptions{
//		Types: []string{"PER", "ORG", "LOC"}, // other classes become O
//	}) {
//		if err != nil {
//			return err // train.iob2.gz:17: 4 columns, want 5 as in line 3
//		}
//		use(sentence)
//	}
//
// The first error ends the iteration. A compressed (gzip) file is known by its
// first bytes, not by its name. Text must be UTF-8; a byte-order mark at its
// beginning and carriage returns at line ends are dropped.
//
// [Plain] reads a text whole, for models of language.
//
// [CoNLL] describes what it takes for a sentence, a token and a comment.
package format

// Package tokenizer turns text into the token ids of a published model and back,
// exactly as the Hugging Face library does: same ids, same offsets, same word numbers.
//
// The main type is [Tokenizer], read from the tokenizer.json of a model folder:
//
//	tok, err := tokenizer.Load(dir)
//	enc, err := tok.Encode("Kadir lives in Izmir.", tokenizer.Options{MaxLength: 128})
//	enc.IDs     // what the model reads
//	enc.Offsets // where each token stands in the text, in code points
//	enc.Words   // which word it belongs to, -1 for [CLS] and [SEP]
//
// # Steps
//
// A text passes through the parts that tokenizer.json names, in this order:
//
//	added tokens    texts such as [MASK] are cut out before anything else
//	normalizer      cleaning, lower case, accents
//	pre-tokenizer   cuts at spaces and punctuation: the words of [Encoding.Words]
//	model           cuts each word into vocabulary entries
//	truncation      only if [Options] asks for it
//	post-processor  adds [CLS] and [SEP] and the type ids
//
// This package has the parts of the BERT family: WordPiece with the normalizers
// and pre-tokenizers that its files use. Which kinds are known stands in registry.go;
// any other kind is an error of [Parse] that names it and its place in the file.
// A new kind is one type and one line there.
//
// # Conventions
//
// Offsets count Unicode code points of the text as given, end exclusive. A byte
// that is not part of valid UTF-8 counts as one code point and reads as U+FFFD, as
// it does when Go ranges over a string. Special tokens have offsets 0, 0 and word -1.
// With [Tokenizer.EncodeWords], offsets are relative to the word they belong to.
//
// The truncation and padding that tokenizer.json asks for are not applied: many
// published files carry those of their training run (all-MiniLM-L6-v2 pads every
// sentence to 128). [Tokenizer.Truncation] and [Tokenizer.Padding] show them.
//
// # Unicode
//
// What is a letter, a mark or punctuation depends on the Unicode version, and the
// reference mixes several. unicode_tables.go holds the classes as it sees them;
// internal/gen/probe.py asked it for every code point and internal/gen/gen.go wrote the file.
//
// Source: Devlin et al. 2019, BERT, https://arxiv.org/abs/1810.04805; Wu et al. 2016,
// Google's Neural Machine Translation System, https://arxiv.org/abs/1609.08144, section 4.1;
// behaviour after tokenizers 0.23.3, https://github.com/huggingface/tokenizers.
package tokenizer

//go:generate go run internal/gen/gen.go internal/gen/unicode.json unicode_tables.go

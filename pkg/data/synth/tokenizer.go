package synth

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var specialTokens = []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}

// Vocabulary lists the WordPieces of [Tokenizer]; the index of each is its id. It
// begins with [PAD], [UNK], [CLS], [SEP], [MASK]. Printable ASCII characters, at the
// start of a word and inside it, are all there, so that no name is unknown.
func Vocabulary() []string {
	pieces := map[string]bool{}
	add := func(word string) { pieces[strings.ToLower(word)] = true }
	for c := '!'; c <= '~'; c++ {
		add(string(c))
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' {
			add("##" + string(c))
		}
	}
	for _, template := range slices.Concat(templates, openers, joins, insertions) {
		for word := range strings.FieldsSeq(template) {
			if !strings.HasPrefix(word, "{") {
				add(strings.Trim(word, "'"))
			}
		}
	}
	for _, list := range [][]string{days, numbers, adjectives, nouns, addresses, particles, firms, institutions, placeFirst, placeLast,
		{"of", "and", "sons", "saint", "foundation"}} {
		for _, word := range list {
			add(strings.TrimSuffix(word, "."))
		}
	}
	for _, syllable := range opening {
		add(syllable)
		add("##" + syllable)
	}
	for _, list := range [][]string{closing, endings, placeEndings} {
		for _, syllable := range list {
			add("##" + syllable)
		}
	}
	return append(slices.Clone(specialTokens), slices.Sorted(maps.Keys(pieces))...)
}

// Tokenizer returns the content of a tokenizer.json in the format of Hugging Face
// tokenizers: BERT's normaliser (lower case) and word splitter, WordPiece with
// [Vocabulary], and [CLS] … [SEP] around a sentence. It is the same every time.
func Tokenizer() []byte {
	vocabulary := Vocabulary()
	ids := make(map[string]int, len(vocabulary))
	for id, piece := range vocabulary {
		ids[piece] = id
	}
	type object = map[string]any
	var added []object
	for id, token := range specialTokens {
		added = append(added, object{
			"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
		})
	}
	token := func(content string, kind int) object {
		return object{"SpecialToken": object{"id": content, "type_id": kind}}
	}
	sequence := func(id string, kind int) object { return object{"Sequence": object{"id": id, "type_id": kind}} }
	special := func(content string) object {
		return object{"id": content, "ids": []int{ids[content]}, "tokens": []string{content}}
	}
	content, err := json.MarshalIndent(object{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added,
		"normalizer":    object{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": nil, "lowercase": true},
		"pre_tokenizer": object{"type": "BertPreTokenizer"},
		"post_processor": object{
			"type":           "TemplateProcessing",
			"single":         []object{token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0)},
			"pair":           []object{token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0), sequence("B", 1), token("[SEP]", 1)},
			"special_tokens": object{"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
		},
		"decoder": object{"type": "WordPiece", "prefix": "##", "cleanup": true},
		"model": object{
			"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": ids,
		},
	}, "", "  ")
	if err != nil { // plain maps and strings: cannot be
		panic(fmt.Sprintf("synth: encoding the tokenizer: %v", err))
	}
	return append(content, '\n')
}

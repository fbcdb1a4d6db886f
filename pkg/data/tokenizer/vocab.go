package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// A vocabConfig holds what a vocab.txt does not say. The zero value is BERT uncased.
type vocabConfig struct {
	Cased          bool  // keep upper case
	StripAccents   *bool // nil: strip them unless Cased
	KeepChinese    bool  // do not set ideographs between spaces
	Unknown        string
	Cls, Sep       string
	Pad, Mask      string
	MaxWordLength  int // code points; 0 means 100
	ContinuePrefix string
}

// fromVocab builds a BERT tokenizer from the lines of a vocab.txt, where a token's id is the
// number of its line, from 0. Of equal lines the last counts. Names left empty are those
// of BERT: [UNK], [CLS], [SEP], [PAD], [MASK], ##. The first three must be in the vocabulary.
// The result is that of the tokenizer.json which it would be converted to, and Raw returns that.
func fromVocab(name string, data []byte, c vocabConfig) (*Tokenizer, error) {
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%s: not valid UTF-8", name)
	}
	for _, d := range []struct {
		to    *string
		value string
	}{{&c.Unknown, "[UNK]"}, {&c.Cls, "[CLS]"}, {&c.Sep, "[SEP]"}, {&c.Pad, "[PAD]"}, {&c.Mask, "[MASK]"}, {&c.ContinuePrefix, "##"}} {
		if *d.to == "" {
			*d.to = d.value
		}
	}
	if c.MaxWordLength == 0 {
		c.MaxWordLength = 100
	}
	vocab := map[string]int{}
	id := 0
	for line := range strings.Lines(string(data)) {
		vocab[strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")] = id
		id++
	}
	for _, token := range []string{c.Unknown, c.Cls, c.Sep} {
		if _, ok := vocab[token]; !ok {
			return nil, fmt.Errorf("%s: no line %s among %d: not the vocabulary of a BERT model, or its special tokens have other names", name, token, id)
		}
	}
	type object = map[string]any
	var added []object
	for _, token := range []string{c.Pad, c.Unknown, c.Cls, c.Sep, c.Mask} {
		id, ok := vocab[token]
		if !ok {
			continue
		}
		added = append(added, object{"id": id, "content": token, "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	special := func(token string, typeID int) object {
		return object{"SpecialToken": object{"id": token, "type_id": typeID}}
	}
	sequence := func(name string, typeID int) object {
		return object{"Sequence": object{"id": name, "type_id": typeID}}
	}
	entry := func(token string) object {
		return object{"id": token, "ids": []int{vocab[token]}, "tokens": []string{token}}
	}
	raw, err := json.Marshal(object{
		"version":      "1.0",
		"truncation":   nil,
		"padding":      nil,
		"added_tokens": added,
		"normalizer": object{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": !c.KeepChinese,
			"strip_accents": c.StripAccents, "lowercase": !c.Cased},
		"pre_tokenizer": object{"type": "BertPreTokenizer"},
		"post_processor": object{
			"type":           "TemplateProcessing",
			"single":         []object{special(c.Cls, 0), sequence("A", 0), special(c.Sep, 0)},
			"pair":           []object{special(c.Cls, 0), sequence("A", 0), special(c.Sep, 0), sequence("B", 1), special(c.Sep, 1)},
			"special_tokens": object{c.Cls: entry(c.Cls), c.Sep: entry(c.Sep)},
		},
		"decoder": object{"type": "WordPiece", "prefix": c.ContinuePrefix, "cleanup": true},
		"model": object{"type": "WordPiece", "unk_token": c.Unknown, "continuing_subword_prefix": c.ContinuePrefix,
			"max_input_chars_per_word": c.MaxWordLength, "vocab": vocab},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return Parse(name, raw)
}

// loadVocab reads dir/vocab.txt, and dir/tokenizer_config.json if it is there.
func loadVocab(dir string) (*Tokenizer, error) {
	path := filepath.Join(dir, "vocab.txt")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has neither tokenizer.json nor vocab.txt: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a tokenizer: %w", err)
	}
	var c vocabConfig
	configPath := filepath.Join(dir, "tokenizer_config.json")
	switch config, err := os.ReadFile(configPath); {
	case err == nil:
		if err := c.read(&part{file: configPath, raw: config}); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading the settings of a tokenizer: %w", err)
	}
	return fromVocab(path, data, c)
}

// A tokenName is a token in tokenizer_config.json: a string, or an object with its content.
type tokenName string

// UnmarshalJSON reads either form.
func (t *tokenName) UnmarshalJSON(data []byte) error {
	var object struct {
		Content string `json:"content"`
	}
	if json.Unmarshal(data, &object) == nil {
		*t = tokenName(object.Content)
		return nil
	}
	return json.Unmarshal(data, (*string)(t))
}

func (c *vocabConfig) read(p *part) error {
	spec := struct {
		LowerCase    *bool     `json:"do_lower_case"`
		Chinese      *bool     `json:"tokenize_chinese_chars"`
		StripAccents *bool     `json:"strip_accents"`
		Unknown      tokenName `json:"unk_token"`
		Cls          tokenName `json:"cls_token"`
		Sep          tokenName `json:"sep_token"`
		Pad          tokenName `json:"pad_token"`
		Mask         tokenName `json:"mask_token"`
	}{}
	if err := p.decode(&spec); err != nil {
		return err
	}
	c.Cased = spec.LowerCase != nil && !*spec.LowerCase
	c.KeepChinese = spec.Chinese != nil && !*spec.Chinese
	c.StripAccents = spec.StripAccents
	c.Unknown, c.Cls, c.Sep = string(spec.Unknown), string(spec.Cls), string(spec.Sep)
	c.Pad, c.Mask = string(spec.Pad), string(spec.Mask)
	return nil
}

package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Tokenizer turns texts into token ids and back. Make one with [Load] or [Parse].
// It does not change and may be used by several goroutines at once.
type Tokenizer struct {
	normalizer    normalizer // may be nil
	preTokenizer  preTokenizer
	model         model
	postProcessor postProcessor
	decoder       decoder
	added         *addedVocabulary
	truncation    *Truncation
	padding       *Padding
	padID         int32
	raw           []byte
}

// Load reads the tokenizer of a model folder: dir/tokenizer.json, or where there is none the older
// form of the BERT family, dir/vocab.txt with the settings of tokenizer_config.json.
// Errors name the file and the place in it; without either file the error is a [fs.ErrNotExist].
func Load(dir string) (*Tokenizer, error) {
	path := filepath.Join(dir, "tokenizer.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return loadVocab(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a tokenizer: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a tokenizer.json. The name stands in errors, which also give the JSON path:
//
//	tokenizer.json: model.type: unsupported kind "BPE"; supported: WordPiece
//
// The memory it takes is bounded by a multiple of the data. The tokenizer keeps data.
func Parse(name string, data []byte) (*Tokenizer, error) { return parse(name, data) }

// Raw returns the tokenizer.json, so that a checkpoint can carry it on. Callers must not change it.
func (t *Tokenizer) Raw() []byte { return t.raw }

// TokenID returns the id of a token, written as in the vocabulary: "##ing", "[SEP]".
func (t *Tokenizer) TokenID(token string) (id int32, ok bool) {
	if id, ok := t.added.ids[token]; ok {
		return id, true
	}
	return t.model.tokenID(token)
}

// Token returns the token of an id as the vocabulary writes it, "" if there is none.
func (t *Tokenizer) Token(id int32) string {
	if at, ok := t.added.byID[id]; ok {
		return t.added.tokens[at].content
	}
	token, _ := t.model.token(id)
	return token
}

// token is Token as Decode writes it.
func (t *Tokenizer) token(id int32) (string, bool) {
	if at, ok := t.added.byID[id]; ok {
		return t.added.tokens[at].decoded, true
	}
	return t.model.token(id)
}

// VocabSize returns the number of tokens, added ones included. Ids need not be dense:
// a file may leave gaps, and a model's embedding may have more rows.
func (t *Tokenizer) VocabSize() int { return t.model.size() + t.added.newCount }

// IsSpecial tells whether [Tokenizer.Decode] leaves the token out when asked to skip special tokens.
func (t *Tokenizer) IsSpecial(id int32) bool {
	token, ok := t.token(id)
	return ok && t.added.special[token]
}

// SpecialIDs returns the ids of the special tokens in ascending order.
func (t *Tokenizer) SpecialIDs() []int32 {
	var ids []int32
	for token := range maps.Keys(t.added.special) {
		ids = append(ids, t.added.ids[token])
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// PadID returns the id that fills up a batch: the one of the file's padding, else that of
// "[PAD]" or "<pad>", else -1.
func (t *Tokenizer) PadID() int32 { return t.padID }

// Decode returns the text of the ids, without special tokens if skipSpecial is set. Ids outside
// the vocabulary are left out. What the normalizer took away, such as upper case, does not come back.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		token, ok := t.token(id)
		if !ok || skipSpecial && t.added.special[token] {
			continue
		}
		tokens = append(tokens, token)
	}
	if t.decoder == nil {
		return strings.Join(tokens, " ")
	}
	return t.decoder.decode(tokens)
}

// A Truncation is what tokenizer.json says about the length of texts. [Options] decide, not it.
type Truncation struct {
	MaxLength int    `json:"max_length"`
	Stride    int    `json:"stride"`
	Strategy  string `json:"strategy"`  // LongestFirst, OnlyFirst or OnlySecond
	Direction string `json:"direction"` // Right or Left; "" is Right
}

// A Padding is what tokenizer.json says about filling up batches. It is not applied.
type Padding struct {
	Fixed           int    `json:"-"` // length to fill up to; 0 means that of the longest text of a batch
	Direction       string `json:"direction"`
	PadToMultipleOf int    `json:"pad_to_multiple_of"`
	PadID           int32  `json:"pad_id"`
	PadTypeID       int32  `json:"pad_type_id"`
	PadToken        string `json:"pad_token"`
}

// Truncation returns the setting of the file, if it has one.
func (t *Tokenizer) Truncation() (Truncation, bool) {
	if t.truncation == nil {
		return Truncation{}, false
	}
	return *t.truncation, true
}

// Padding returns the setting of the file, if it has one.
func (t *Tokenizer) Padding() (Padding, bool) {
	if t.padding == nil {
		return Padding{}, false
	}
	return *t.padding, true
}

func (t *Tokenizer) readSettings(truncation, padding *part) error {
	if !truncation.isNull() {
		t.truncation = new(Truncation)
		if err := truncation.decode(t.truncation); err != nil {
			return err
		}
	}
	t.padID = -1
	for _, token := range []string{"<pad>", "[PAD]"} {
		if id, ok := t.TokenID(token); ok {
			t.padID = id
		}
	}
	if padding.isNull() {
		return nil
	}
	t.padding = new(Padding)
	if err := padding.decode(t.padding, "pad_id"); err != nil {
		return err
	}
	if _, ok := t.token(t.padding.PadID); !ok {
		return padding.errorf("pad_id", "got %d, which is not in the vocabulary", t.padding.PadID)
	}
	t.padID = t.padding.PadID
	// The strategy is "BatchLongest" or {"Fixed": length}.
	var strategy struct {
		Strategy json.RawMessage `json:"strategy"`
	}
	if err := padding.decode(&strategy); err != nil {
		return err
	}
	var name string
	if len(strategy.Strategy) == 0 || json.Unmarshal(strategy.Strategy, &name) == nil {
		return nil
	}
	var fixed struct{ Fixed int }
	if err := (&part{file: padding.file, path: padding.join("strategy"), raw: strategy.Strategy}).decode(&fixed, "Fixed"); err != nil {
		return err
	}
	t.padding.Fixed = fixed.Fixed
	return nil
}

package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxNesting bounds sequences within sequences.
const maxNesting = 16

// A part is one JSON value of a tokenizer.json and its place there.
type part struct {
	file  string // name of the file
	path  string // JSON path, "" for the root
	depth int
	raw   json.RawMessage
}

// child is the i-th element of the list called field.
func (p *part) child(field string, i int, raw json.RawMessage) *part {
	return &part{p.file, p.join(field) + "[" + strconv.Itoa(i) + "]", p.depth + 1, raw}
}

func (p *part) join(field string) string {
	switch {
	case p.path == "":
		return field
	case field == "":
		return p.path
	}
	return p.path + "." + field
}

// errorf makes an error that names the file and the JSON path of field.
func (p *part) errorf(field, format string, args ...any) error {
	if path := p.join(field); path != "" {
		return fmt.Errorf("%s: %s: %w", p.file, path, fmt.Errorf(format, args...))
	}
	return fmt.Errorf("%s: %w", p.file, fmt.Errorf(format, args...))
}

func (p *part) isNull() bool {
	return len(p.raw) == 0 || bytes.Equal(bytes.TrimSpace(p.raw), []byte("null"))
}

// decode reads the part into the struct v and makes sure that the required fields are there.
func (p *part) decode(v any, required ...string) error {
	if err := json.Unmarshal(p.raw, v); err != nil {
		var bad *json.UnmarshalTypeError
		if errors.As(err, &bad) {
			return p.errorf(bad.Field, "got a JSON %s, want %s", bad.Value, wanted(bad.Type.String()))
		}
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return p.errorf("", "not valid JSON at byte %d: %w", syntax.Offset, err)
		}
		return p.errorf("", "%w", err)
	}
	if len(required) == 0 {
		return nil
	}
	var have map[string]json.RawMessage
	if err := json.Unmarshal(p.raw, &have); err != nil {
		return p.errorf("", "%w", err)
	}
	for _, field := range required {
		if raw, ok := have[field]; !ok || string(raw) == "null" {
			return p.errorf(field, "missing")
		}
	}
	return nil
}

// wanted describes a Go type in the terms of JSON.
func wanted(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "an array"
	case strings.HasPrefix(goType, "map["), strings.HasPrefix(goType, "struct"), strings.HasPrefix(goType, "tokenizer."):
		return "an object"
	case strings.HasPrefix(goType, "uint"):
		return "a whole number from 0"
	case strings.HasPrefix(goType, "int"):
		return "a whole number within " + goType
	case goType == "bool", goType == "*bool":
		return "true or false"
	}
	return "a " + goType
}

// kind returns the type that the part names, "" if it names none.
func (p *part) kind() (string, error) {
	var head struct {
		Type string `json:"type"`
	}
	err := p.decode(&head)
	return head.Type, err
}

// build makes what the part describes. A null part is the zero T, which means that there is none.
func build[T any](p *part, kinds map[string]func(*part) (T, error)) (T, error) {
	var none T
	if p.isNull() {
		return none, nil
	}
	if p.depth > maxNesting {
		return none, p.errorf("", "nested more than %d deep", maxNesting)
	}
	kind, err := p.kind()
	if err != nil {
		return none, err
	}
	if kind == "" {
		return none, p.errorf("type", "missing; supported: %s", strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	newT, ok := kinds[kind]
	if !ok {
		return none, p.errorf("type", "unsupported kind %q; supported: %s", kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	return newT(p)
}

// file is the top of a tokenizer.json.
type file struct {
	Version       *string         `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   json.RawMessage `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// parse builds a tokenizer from a tokenizer.json. name is for errors.
func parse(name string, data []byte) (*Tokenizer, error) {
	root := &part{file: name, raw: data}
	var f file
	if err := root.decode(&f, "model"); err != nil {
		return nil, err
	}
	if f.Version != nil && *f.Version != "1.0" {
		return nil, root.errorf("version", "got %q, want \"1.0\"", *f.Version)
	}
	at := func(path string, raw json.RawMessage) *part { return &part{file: name, path: path, raw: raw} }

	t := &Tokenizer{raw: data}
	var err error
	// The model first: a file of another family is best told by it.
	model := at("model", f.Model)
	if kind, err := model.kind(); err == nil && kind == "" && legacyWordPiece(f.Model) {
		t.model, err = newWordPiece(model)
		if err != nil {
			return nil, err
		}
	} else if t.model, err = build(model, modelKinds()); err != nil {
		return nil, err
	}
	if t.normalizer, err = build(at("normalizer", f.Normalizer), normalizerKinds()); err != nil {
		return nil, err
	}
	if t.preTokenizer, err = build(at("pre_tokenizer", f.PreTokenizer), preTokenizerKinds()); err != nil {
		return nil, err
	}
	if t.decoder, err = build(at("decoder", f.Decoder), decoderKinds()); err != nil {
		return nil, err
	}
	if t.added, err = newAddedVocabulary(at("added_tokens", f.AddedTokens), t.model, t.normalizer); err != nil {
		return nil, err
	}
	post := at("post_processor", f.PostProcessor)
	if t.postProcessor, err = build(post, postProcessorKinds()); err != nil {
		return nil, err
	}
	if t.postProcessor == nil {
		t.postProcessor = &template{
			single: []templatePiece{{sequence: seqA}},
			pair:   []templatePiece{{sequence: seqA}, {sequence: seqB, typeID: 1}},
		}
	}
	for _, id := range t.postProcessor.ids() {
		if _, ok := t.token(id); !ok {
			return nil, post.errorf("", "adds the token id %d, which is not in the vocabulary", id)
		}
	}
	if err := t.readSettings(at("truncation", f.Truncation), at("padding", f.Padding)); err != nil {
		return nil, err
	}
	return t, nil
}

// legacyWordPiece tells whether a model without type has the fields of WordPiece: old files have no type.
func legacyWordPiece(raw json.RawMessage) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return false
	}
	for _, want := range []string{"vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"} {
		if _, ok := fields[want]; !ok {
			return false
		}
	}
	return true
}

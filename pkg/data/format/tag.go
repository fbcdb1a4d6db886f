package format

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SchemeCheck says what a reader does with tags that break the IOB2 scheme, in
// which an entity begins with B- and goes on with I- of the same type.
type SchemeCheck string

const (
	// SchemeKeep returns the tags as they are. It is the default.
	SchemeKeep SchemeCheck = ""
	// SchemeError reports the first tag that breaks the scheme.
	SchemeError SchemeCheck = "error"
	// SchemeRepair turns an I- that continues nothing into a B-. Prefixes that
	// IOB2 does not have (E-, S-, …) are still an error.
	SchemeRepair SchemeCheck = "repair"
)

const (
	outside    = "O"
	unlabelled = "_" // CoNLL-U's mark of an empty field
	prefixes   = "BIESLUM"
)

// parseTag splits "B-PER" at the first hyphen. The tag O has neither prefix nor type.
func parseTag(tag string) (prefix byte, kind string, ok bool) {
	if tag == outside {
		return 0, "", true
	}
	if len(tag) < 3 || tag[1] != '-' || strings.IndexByte(prefixes, tag[0]) < 0 || strings.ContainsAny(tag, " ,|") {
		return 0, "", false
	}
	return tag[0], tag[2:], true
}

// tagger turns the raw tags of a file into those that the caller wants.
type tagger struct {
	kinds  []string // kept; none means all
	refuse bool
	check  SchemeCheck
	seen   map[string]string // raw tag → one copy of what becomes of it
	begin  map[string]string // "I-PER" → "B-PER", for repairs
}

// maxTagsSeen bounds the memory that a file of ever new tags could take.
const maxTagsSeen = 1 << 12

// tag returns the tag for one raw tag, without a look at its neighbours.
func (t *tagger) tag(raw []byte) (string, error) {
	if tag, ok := t.seen[string(raw)]; ok {
		return tag, nil
	}
	tag := string(raw)
	_, kind, ok := parseTag(tag)
	if !ok {
		return "", fmt.Errorf("unknown tag %q: want O, or a prefix (one of B I E S L U M), a hyphen and a type, such as B-PER", tag)
	}
	result := tag
	if kind != "" && len(t.kinds) > 0 && !slices.Contains(t.kinds, kind) {
		if t.refuse {
			return "", fmt.Errorf("tag %q has a type that is not one of %s", tag, strings.Join(t.kinds, ", "))
		}
		result = outside
	}
	if len(t.seen) < maxTagsSeen {
		t.seen[tag] = result
	}
	return result, nil
}

// next applies the scheme check to a tag, given the one before it in the sentence ("" at its start).
func (t *tagger) next(previous, tag string) (string, error) {
	if t.check == SchemeKeep || tag == outside {
		return tag, nil
	}
	switch tag[0] {
	case 'B':
		return tag, nil
	case 'I':
		if len(previous) > 1 && previous[2:] == tag[2:] {
			return tag, nil
		}
	default:
		return "", fmt.Errorf("tag %q is not of the IOB2 scheme: its prefix is neither B nor I", tag)
	}
	if t.check == SchemeRepair {
		begin, ok := t.begin[tag]
		if !ok {
			begin = "B" + tag[1:]
			if len(t.begin) < maxTagsSeen {
				t.begin[tag] = begin
			}
		}
		return begin, nil
	}
	if previous == "" {
		return "", fmt.Errorf("tag %q begins a sentence, want %q (SchemeRepair changes it)", tag, "B"+tag[1:])
	}
	return "", fmt.Errorf("tag %q follows %q, want %q (SchemeRepair changes it)", tag, previous, "B"+tag[1:])
}

func newTagger(options CoNLLOptions) (*tagger, error) {
	switch options.Scheme {
	case SchemeKeep, SchemeError, SchemeRepair:
	default:
		return nil, fmt.Errorf("scheme check %q, want %q (keep), %q or %q", options.Scheme, SchemeKeep, SchemeError, SchemeRepair)
	}
	if options.RefuseOther && len(options.Types) == 0 {
		return nil, errors.New("RefuseOther without Types: name the types that are allowed")
	}
	return &tagger{
		kinds: options.Types, refuse: options.RefuseOther, check: options.Scheme,
		seen: map[string]string{}, begin: map[string]string{},
	}, nil
}

package tokenizer

import "encoding/json"

// A normalizer changes a text before it is cut.
type normalizer interface {
	normalize(n *normalized)
}

// A loader is a normalizer that can read and normalise a text in one pass.
// It reports false, leaving n in any state, where only the long way is exact.
type loader interface {
	load(n *normalized, text string, base int32) bool
}

type normalizerSequence []normalizer

func (s normalizerSequence) normalize(n *normalized) {
	for _, one := range s {
		one.normalize(n)
	}
}

func newNormalizerSequence(p *part) (normalizer, error) {
	var spec struct {
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	if err := p.decode(&spec); err != nil {
		return nil, err
	}
	var seq normalizerSequence
	for i, raw := range spec.Normalizers {
		one, err := build(p.child("normalizers", i, raw), normalizerKinds())
		if err != nil {
			return nil, err
		}
		if one != nil {
			seq = append(seq, one)
		}
	}
	return seq, nil
}

type lowercase struct{}

func (lowercase) normalize(n *normalized) { n.lower() }

// stripAccents drops all combining marks, of which a decomposition is expected before it.
type stripAccents struct{}

func (stripAccents) normalize(n *normalized) {
	t := props()
	n.filter(func(r rune) bool { return t.of(r)&propMark == 0 })
}

// unicodeForm is NFC, NFD, NFKC or NFKD.
type unicodeForm struct{ compose, compat bool }

func (f unicodeForm) normalize(n *normalized) {
	if f.compose {
		n.recompose(f.compat)
	} else {
		n.decompose(f.compat)
	}
}

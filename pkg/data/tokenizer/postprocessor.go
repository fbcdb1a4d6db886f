package tokenizer

import (
	"encoding/json"
	"math"
)

// A postProcessor puts the sequences of an input together and adds special tokens.
type postProcessor interface {
	// added returns how many special tokens process adds.
	added(pair bool) int
	// process joins a and, if it is not nil, b. Each is a list of windows of which the first is the main one.
	process(a, b []window, special bool) *Encoding
	// ids returns the ids of the special tokens that it may add.
	ids() []int32
}

// A window is a part of one tokenized sequence, all of it if there is no truncation.
type window struct {
	ids     []int32
	offsets [][2]int
	words   []int32
}

type sequenceID uint8

const (
	noSequence sequenceID = iota
	seqA
	seqB
)

// A templatePiece is a sequence or a special token, which may have several ids.
type templatePiece struct {
	sequence sequenceID
	special  []int32
	typeID   int32
}

// A template lists what an encoding is made of.
type template struct{ single, pair []templatePiece }

// newBERTProcessing reads [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
func newBERTProcessing(p *part) (postProcessor, error) {
	var spec struct {
		Sep json.RawMessage `json:"sep"`
		Cls json.RawMessage `json:"cls"`
	}
	if err := p.decode(&spec, "sep", "cls"); err != nil {
		return nil, err
	}
	id := func(field string, raw json.RawMessage) ([]int32, error) {
		var pair []json.RawMessage
		if err := json.Unmarshal(raw, &pair); err != nil || len(pair) != 2 {
			return nil, p.errorf(field, "got %.40s, want a token and its id", raw)
		}
		var token string
		var id int32
		if json.Unmarshal(pair[0], &token) != nil || json.Unmarshal(pair[1], &id) != nil || id < 0 {
			return nil, p.errorf(field, "got %.40s, want a token and its id", raw)
		}
		return []int32{id}, nil
	}
	cls, err := id("cls", spec.Cls)
	if err != nil {
		return nil, err
	}
	sep, err := id("sep", spec.Sep)
	if err != nil {
		return nil, err
	}
	single := []templatePiece{{special: cls}, {sequence: seqA}, {special: sep}}
	pair := []templatePiece{{special: cls}, {sequence: seqA}, {special: sep}, {sequence: seqB, typeID: 1}, {special: sep, typeID: 1}}
	return &template{single, pair}, nil
}

func newTemplateProcessing(p *part) (postProcessor, error) {
	type pieceSpec struct {
		Sequence, SpecialToken *struct {
			ID     string `json:"id"`
			TypeID uint32 `json:"type_id"`
		}
	}
	var spec struct {
		Single  []pieceSpec `json:"single"`
		Pair    []pieceSpec `json:"pair"`
		Special map[string]struct {
			IDs []int32 `json:"ids"`
		} `json:"special_tokens"`
	}
	if err := p.decode(&spec, "single", "pair", "special_tokens"); err != nil {
		return nil, err
	}
	read := func(field string, specs []pieceSpec, pair bool) ([]templatePiece, error) {
		var pieces []templatePiece
		seen := map[sequenceID]bool{}
		for i, s := range specs {
			c := p.child(field, i, nil)
			var piece templatePiece
			switch {
			case s.Sequence != nil:
				piece.sequence = seqA
				if s.Sequence.ID == "B" {
					piece.sequence = seqB
				}
				if s.Sequence.ID != "A" && (s.Sequence.ID != "B" || !pair) {
					return nil, c.errorf("Sequence.id", "got %q, want A, or B in the template of pairs", s.Sequence.ID)
				}
				if seen[piece.sequence] {
					return nil, c.errorf("Sequence.id", "sequence %s stands there twice", s.Sequence.ID)
				}
				seen[piece.sequence] = true
				s.SpecialToken = s.Sequence // for the type id
			case s.SpecialToken != nil:
				token, ok := spec.Special[s.SpecialToken.ID]
				if !ok {
					return nil, c.errorf("SpecialToken.id", "%q is not among special_tokens", s.SpecialToken.ID)
				}
				piece.special = token.IDs
			default:
				return nil, c.errorf("", "neither Sequence nor SpecialToken")
			}
			if s.SpecialToken.TypeID > math.MaxInt32 {
				return nil, c.errorf("type_id", "got %d, want at most %d", s.SpecialToken.TypeID, math.MaxInt32)
			}
			piece.typeID = int32(s.SpecialToken.TypeID)
			pieces = append(pieces, piece)
		}
		return pieces, nil
	}
	var t template
	var err error
	if t.single, err = read("single", spec.Single, false); err != nil {
		return nil, err
	}
	if t.pair, err = read("pair", spec.Pair, true); err != nil {
		return nil, err
	}
	return &t, nil
}

func (t *template) pieces(pair bool) []templatePiece {
	if pair {
		return t.pair
	}
	return t.single
}

func (t *template) added(pair bool) int {
	n := 0
	for _, p := range t.pieces(pair) {
		n += len(p.special)
	}
	return n
}

func (t *template) ids() []int32 {
	var ids []int32
	for _, pieces := range [][]templatePiece{t.single, t.pair} {
		for _, p := range pieces {
			ids = append(ids, p.special...)
		}
	}
	return ids
}

func (t *template) process(a, b []window, special bool) *Encoding {
	pieces := t.pieces(b != nil)
	main := assemble(pieces, a, b, 0, 0, special)

	// Every window of the sequence that comes first with every window of the other.
	first, second := a, b
	join := func(i, j int) { main.Overflow = append(main.Overflow, assemble(pieces, a, b, i, j, special)) }
	has := func(s sequenceID) bool {
		for _, p := range pieces {
			if p.sequence == s {
				return true
			}
		}
		return false
	}
	switch {
	case !has(seqA) && !has(seqB):
		return main
	case !has(seqB):
		second = nil
	case !has(seqA):
		first, second = nil, b
	}
	for _, p := range pieces {
		if p.sequence == seqA {
			break
		}
		if p.sequence == seqB && has(seqA) {
			first, second = b, a
			join = func(i, j int) { main.Overflow = append(main.Overflow, assemble(pieces, a, b, j, i, special)) }
			break
		}
	}
	for i := 1; i < len(first); i++ {
		for j := range max(len(second), 1) {
			join(i, j)
		}
	}
	for j := 1; j < len(second); j++ {
		join(0, j)
	}
	return main
}

// assemble makes one encoding of window i of a and window j of b. Windows but the
// main one keep the type id 0 or 1 of their sequence, whatever the template says: the reference does.
func assemble(pieces []templatePiece, a, b []window, i, j int, special bool) *Encoding {
	size := 0
	for _, p := range pieces {
		switch {
		case p.sequence == seqA:
			size += len(a[i].ids)
		case p.sequence == seqB:
			size += len(b[j].ids)
		case special:
			size += len(p.special)
		}
	}
	// One allocation for what has the same type.
	ints := make([]int32, 3*size)
	e := &Encoding{
		IDs:     ints[:0:size],
		TypeIDs: ints[size : size : 2*size],
		Words:   ints[2*size : 2*size : 3*size],
		Offsets: make([][2]int, 0, size),
		Special: make([]bool, size),
	}
	add := func(w window, typeID int32) {
		e.IDs = append(e.IDs, w.ids...)
		e.Offsets = append(e.Offsets, w.offsets...)
		e.Words = append(e.Words, w.words...)
		for range w.ids {
			e.TypeIDs = append(e.TypeIDs, typeID)
		}
	}
	for _, p := range pieces {
		typeID := p.typeID
		switch {
		case p.sequence == seqA:
			if i > 0 {
				typeID = 0
			}
			add(a[i], typeID)
		case p.sequence == seqB:
			if j > 0 {
				typeID = 1
			}
			add(b[j], typeID)
		case special:
			for _, id := range p.special {
				e.Special[len(e.IDs)] = true
				e.IDs = append(e.IDs, id)
				e.TypeIDs = append(e.TypeIDs, typeID)
				e.Words = append(e.Words, -1)
				e.Offsets = append(e.Offsets, [2]int{})
			}
		}
	}
	return e
}

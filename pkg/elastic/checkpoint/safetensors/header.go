package safetensors

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
)

const (
	// MaxHeaderBytes is the longest header that is read or written, as in the reference.
	MaxHeaderBytes = 100_000_000

	// MaxRank is the largest number of axes that is read, as in numpy.
	MaxRank = 64

	lengthBytes = 8
	metadataKey = "__metadata__"

	// smallestEntry is about the fewest header bytes that describe a tensor.
	smallestEntry = len(`"":{"dtype":"U8","shape":[],"data_offsets":[0,1]}`)
)

// Info describes one tensor of a file.
type Info struct {
	Name   string
	Format string       // the type as the file names it: "F32", "BF16", "F8_E4M3", ...
	DType  dtypes.DType // the same for GoMLX; InvalidDType where it has none (F4, F6, F8)
	Shape  []int        // empty for a scalar

	// Start and End are the tensor's place among the data bytes of its file,
	// which follow the header.
	Start, End int64
}

// Bytes returns the size of the tensor's data.
func (i Info) Bytes() int64 { return i.End - i.Start }

// header is what a file says of itself. It is kept small, whatever the file says:
// names and shapes stay where they are in the text.
type header struct {
	text     string
	tensors  []entry // by name
	metadata metadata
}

// entry is one tensor of a header.
type entry struct {
	name       string
	shapeAt    uint32 // where the list begins in header.text
	format     uint8  // index in formats
	start, end int64
}

// find returns the tensor of that name.
func (h *header) find(name string) (Info, bool) {
	i, ok := slices.BinarySearchFunc(h.tensors, name, func(e entry, name string) int {
		return strings.Compare(e.name, name)
	})
	if !ok {
		return Info{}, false
	}
	e := &h.tensors[i]
	p := parser{scanner: scanner{data: h.text, pos: int(e.shapeAt)}}
	axes, _ := p.shape() // checked when the file was opened
	f := &formats[e.format]
	return Info{Name: e.name, Format: f.name, DType: f.dtype, Shape: append([]int{}, axes...), Start: e.start, End: e.end}, true
}

// metadata is a list of key and value pairs, packed: hostile headers have many short ones.
type metadata struct {
	text  string
	pairs []pair // by key
}

// pair is a key and the value behind it in metadata.text.
type pair struct{ start, keyEnd, valueEnd uint32 }

func (m *metadata) key(p pair) string   { return m.text[p.start:p.keyEnd] }
func (m *metadata) value(p pair) string { return m.text[p.keyEnd:p.valueEnd] }

// headerLength checks the first bytes of a file of the given size and returns
// the length of the header that follows. Nothing has been allocated for it yet.
func headerLength(first []byte, size int64) (int64, error) {
	if size < lengthBytes || len(first) < lengthBytes {
		return 0, fmt.Errorf("the file has %d bytes, want at least %d: it is empty, truncated or not a safetensors file", size, lengthBytes)
	}
	n := uint64(0)
	for i := range lengthBytes {
		n |= uint64(first[i]) << (8 * i)
	}
	switch {
	case n == 0:
		return 0, fmt.Errorf("the header has 0 bytes, want at least 2 (\"{}\"): not a safetensors file")
	case n > MaxHeaderBytes:
		return 0, fmt.Errorf("the header would have %d bytes, want at most %d: not a safetensors file", n, MaxHeaderBytes)
	case n > uint64(size-lengthBytes):
		return 0, fmt.Errorf("the header would have %d bytes, but the file has only %d after the length: truncated, or not a safetensors file", n, size-lengthBytes)
	}
	return int64(n), nil
}

// parseHeader reads the header of a file that has dataBytes bytes after it.
func parseHeader(text string, dataBytes int64) (*header, error) {
	if bad := invalidUTF8(text); bad >= 0 {
		return nil, fmt.Errorf("header byte %d: got 0x%02x, want UTF-8", bad, text[bad])
	}
	p := parser{scanner: scanner{data: text}, header: header{text: text}}
	if err := p.file(); err != nil {
		return nil, err
	}
	if err := checkNames(p.header.tensors); err != nil {
		return nil, err
	}
	if err := checkTiling(p.header.tensors, dataBytes); err != nil {
		return nil, err
	}
	return &p.header, nil
}

// invalidUTF8 returns the first place that is not UTF-8, or -1.
func invalidUTF8(text string) int {
	if utf8.ValidString(text) {
		return -1
	}
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd") {
			return i
		}
	}
	return -1
}

// parser walks the three levels of a header: file, tensor, list of numbers.
type parser struct {
	scanner
	header      header
	hasMetadata bool
	axes        [MaxRank]int
}

func (p *parser) file() error {
	if err := p.need('{'); err != nil {
		return err
	}
	// One allocation that is never grown: every tensor takes a brace and some bytes.
	p.header.tensors = make([]entry, 0, min(strings.Count(p.data, "{")-1, len(p.data)/smallestEntry+1))
	if !p.next('}') {
		for {
			if err := p.entry(); err != nil {
				return err
			}
			if p.next('}') {
				break
			}
			if err := p.need(','); err != nil {
				return err
			}
		}
	}
	if p.space(); p.pos < len(p.data) {
		return p.unexpected("only spaces after the last '}'")
	}
	return nil
}

// entry reads one name and what stands under it.
func (p *parser) entry() error {
	text, err := p.text("the name of a tensor")
	if err != nil {
		return err
	}
	if err := p.need(':'); err != nil {
		return err
	}
	name := unquoted(text)
	if name == metadataKey {
		if p.hasMetadata {
			return fmt.Errorf("header byte %d: %s occurs twice", p.pos, metadataKey)
		}
		p.hasMetadata = true
		if err := p.metadata(); err != nil {
			return fmt.Errorf("%s: %w", metadataKey, err)
		}
		return nil
	}
	e := entry{name: name}
	if err := p.tensor(&e); err != nil {
		return fmt.Errorf("tensor %s: %w", quote(name), err)
	}
	p.header.tensors = append(p.header.tensors, e)
	return nil
}

// tensor reads {"dtype": ..., "shape": [...], "data_offsets": [start, end]}, in any order.
func (p *parser) tensor(e *entry) error {
	if err := p.need('{'); err != nil {
		return err
	}
	index := -1
	var axes []int
	var hasShape, hasOffsets bool
	twice := func(field string) error {
		return fmt.Errorf("header byte %d: field %q occurs twice", p.pos, field)
	}
	for first := true; !p.next('}'); first = false {
		if !first {
			if err := p.need(','); err != nil {
				return err
			}
		}
		text, err := p.text("a field")
		if err != nil {
			return err
		}
		if err := p.need(':'); err != nil {
			return err
		}
		switch field := unquoted(text); field {
		case "dtype":
			if index >= 0 {
				return twice("dtype")
			}
			if index, err = p.dtype(); err != nil {
				return err
			}
			e.format = uint8(index)
		case "shape":
			if hasShape {
				return twice("shape")
			}
			hasShape = true
			e.shapeAt = uint32(p.pos)
			if axes, err = p.shape(); err != nil {
				return err
			}
		case "data_offsets":
			if hasOffsets {
				return twice("data_offsets")
			}
			hasOffsets = true
			if e.start, e.end, err = p.offsets(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("header byte %d: unknown field %s, want dtype, shape, data_offsets", p.pos, quote(field))
		}
	}
	switch {
	case index < 0:
		return fmt.Errorf("field dtype is missing")
	case !hasShape:
		return fmt.Errorf("field shape is missing")
	case !hasOffsets:
		return fmt.Errorf("field data_offsets is missing")
	}
	want, err := sizeOf(formats[index], axes)
	if err != nil {
		return err
	}
	if e.end-e.start != want {
		return fmt.Errorf("data_offsets [%d, %d] are %d bytes, want %d for %s%s",
			e.start, e.end, e.end-e.start, want, formats[index].name, shapeText(axes))
	}
	return nil
}

func (p *parser) dtype() (int, error) {
	text, err := p.text("the dtype, a string")
	if err != nil {
		return -1, err
	}
	name := unquoted(text)
	index := formatNamed(name)
	if index < 0 {
		return -1, fmt.Errorf("unknown dtype %s, want one of BOOL, U8, I8, ..., BF16, F16, F32, F64", quote(name))
	}
	return index, nil
}

// shape reads a list of axes, valid until the next call.
func (p *parser) shape() ([]int, error) {
	if err := p.need('['); err != nil {
		return nil, err
	}
	rank := 0
	for !p.next(']') {
		if rank > 0 {
			if err := p.need(','); err != nil {
				return nil, err
			}
		}
		n, err := p.number("an axis of the shape")
		if err != nil {
			return nil, err
		}
		if n > math.MaxInt {
			return nil, fmt.Errorf("axis %d of the shape is %d, want at most %d", rank, n, math.MaxInt)
		}
		if rank == MaxRank {
			return nil, fmt.Errorf("the shape has more than %d axes", MaxRank)
		}
		p.axes[rank] = int(n)
		rank++
	}
	return p.axes[:rank], nil
}

func (p *parser) offsets() (start, end int64, err error) {
	if err = p.need('['); err != nil {
		return 0, 0, err
	}
	if start, err = p.number("the start of data_offsets"); err != nil {
		return 0, 0, err
	}
	if err = p.need(','); err != nil {
		return 0, 0, err
	}
	if end, err = p.number("the end of data_offsets"); err != nil {
		return 0, 0, err
	}
	return start, end, p.need(']')
}

// metadata reads a map of strings to strings: once to check and count, once to keep.
func (p *parser) metadata() error {
	start := p.pos
	count, size := 0, 0
	err := p.pairs(func(key, value string) {
		count++
		size += len(key) + len(value)
	})
	if err != nil {
		return err
	}
	p.pos = start
	text := make([]byte, 0, size)
	m := metadata{pairs: make([]pair, 0, count)}
	_ = p.pairs(func(key, value string) {
		var at pair
		at.start = uint32(len(text))
		text = unquote(text, key)
		at.keyEnd = uint32(len(text))
		text = unquote(text, value)
		at.valueEnd = uint32(len(text))
		m.pairs = append(m.pairs, at)
	})
	m.text = unsafe.String(unsafe.SliceData(text), len(text)) // nobody writes to text any more
	slices.SortFunc(m.pairs, func(a, b pair) int { return strings.Compare(m.key(a), m.key(b)) })
	for i := 1; i < len(m.pairs); i++ {
		if key := m.key(m.pairs[i]); key == m.key(m.pairs[i-1]) {
			return fmt.Errorf("key %s occurs twice", quote(key))
		}
	}
	p.header.metadata = m
	return nil
}

func (p *parser) pairs(yield func(key, value string)) error {
	if err := p.need('{'); err != nil {
		return err
	}
	for first := true; !p.next('}'); first = false {
		if !first {
			if err := p.need(','); err != nil {
				return err
			}
		}
		key, err := p.text("a key")
		if err != nil {
			return err
		}
		if err := p.need(':'); err != nil {
			return err
		}
		value, err := p.text("a value, a string")
		if err != nil {
			return err
		}
		yield(key, value)
	}
	return nil
}

// sizeOf returns the number of bytes that a tensor takes.
func sizeOf(f format, shape []int) (int64, error) {
	total, zero := uint64(f.bits), false
	for _, axis := range shape {
		if axis == 0 {
			zero = true // the other axes must still make sense
			continue
		}
		high, low := bits.Mul64(total, uint64(axis))
		if high != 0 || low > math.MaxInt64 {
			return 0, fmt.Errorf("the size of %s%s overflows", f.name, shapeText(shape))
		}
		total = low
	}
	switch {
	case zero:
		return 0, nil
	case total%8 != 0:
		return 0, fmt.Errorf("%s%s takes %d bits, want whole bytes", f.name, shapeText(shape), total)
	}
	return int64(total / 8), nil
}

// checkNames sorts the tensors by name and refuses a name that occurs twice.
func checkNames(tensors []entry) error {
	slices.SortFunc(tensors, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(tensors); i++ {
		if tensors[i].name == tensors[i-1].name {
			return fmt.Errorf("tensor %s occurs twice", quote(tensors[i].name))
		}
	}
	return nil
}

// checkTiling wants the tensors to cover the data from its first byte to its
// last, without overlap or hole.
func checkTiling(tensors []entry, dataBytes int64) error {
	order := make([]int32, len(tensors))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(tensors[a].start, tensors[b].start), cmp.Compare(tensors[a].end, tensors[b].end))
	})
	end := int64(0)
	for i, at := range order {
		e := &tensors[at]
		switch {
		case e.start < end:
			before := &tensors[order[i-1]]
			return fmt.Errorf("tensor %s: data_offsets [%d, %d] overlap those of tensor %s, [%d, %d]",
				quote(e.name), e.start, e.end, quote(before.name), before.start, before.end)
		case e.start > end:
			return fmt.Errorf("tensor %s: data_offsets begin at %d, want %d: %d bytes before it belong to no tensor",
				quote(e.name), e.start, end, e.start-end)
		case e.end > dataBytes:
			return fmt.Errorf("tensor %s: data_offsets end at %d, but the file has %d bytes of data: it is truncated",
				quote(e.name), e.end, dataBytes)
		}
		end = e.end
	}
	if end != dataBytes {
		return fmt.Errorf("the file has %d bytes of data, want %d: the last %d belong to no tensor", dataBytes, end, dataBytes-end)
	}
	return nil
}

// quote quotes a name for a message. Hostile names may be as long as a header.
func quote(name string) string {
	const limit = 120
	if len(name) <= limit {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("%q... (%d bytes)", name[:limit], len(name))
}

// shapeText prints a shape for a message.
func shapeText(shape []int) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, axis := range shape {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, axis)
	}
	b.WriteByte(']')
	return b.String()
}

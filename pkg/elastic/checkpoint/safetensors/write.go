package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/internal/atomicfile"
)

// Named is a tensor to be written under a name.
type Named struct {
	Name   string
	Tensor *tensors.Tensor
}

// WriteFile writes a file that [Open] and the reference implementation read. It
// is complete or, after an error, as it was before.
func WriteFile(path string, list []Named, metadata map[string]string) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		return Write(w, list, metadata)
	})
}

// Write writes tensors, and free-form strings beside them if metadata is not nil.
//
// The bytes depend on nothing but the content: the tensors are laid out by type,
// those with the largest alignment first, then by name, and the header is padded
// with spaces to a multiple of 8 bytes, exactly as the reference does;
// metadata is sorted by key, where the order of the reference is random.
//
// Each tensor goes to w in one call, from the memory that it has. One that lives
// on a device only is fetched when its turn comes and its copy dropped then, so
// that a model is never in memory twice. The tensors must not change meanwhile.
//
// Nothing is written if a tensor is nil, finalized or of a type that the format
// has not, or if a name is not UTF-8, is "__metadata__" or occurs twice.
func Write(w io.Writer, list []Named, metadata map[string]string) error {
	list, text, err := layOut(list, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("writing the header: %w", err)
	}
	for _, named := range list {
		if err := writeData(w, named.Tensor); err != nil {
			return fmt.Errorf("writing tensor %s: %w", quote(named.Name), err)
		}
	}
	return nil
}

// layOut returns the tensors in the order in which they are written, and all
// that stands before them in the file.
func layOut(list []Named, metadata map[string]string) ([]Named, []byte, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, nil, errors.New("this machine is big-endian, which is not supported")
	}
	for _, named := range list {
		if err := checkNamed(named); err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(named.Name), err)
		}
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Named) int {
		return cmp.Or(cmp.Compare(formatOf(b.Tensor.DType()), formatOf(a.Tensor.DType())), strings.Compare(a.Name, b.Name))
	})
	seen := make(map[string]bool, len(list))
	text := append(make([]byte, lengthBytes, lengthBytes+128*(len(list)+1)), '{')
	if metadata != nil {
		var err error
		if text, err = appendMetadata(text, metadata); err != nil {
			return nil, nil, err
		}
	}
	end := int64(0)
	for _, named := range list {
		if seen[named.Name] {
			return nil, nil, fmt.Errorf("tensor %s: the name occurs twice", quote(named.Name))
		}
		seen[named.Name] = true
		start := end
		f := formats[formatOf(named.Tensor.DType())]
		axes := named.Tensor.Shape().Dimensions
		size, err := sizeOf(f, axes)
		if err == nil && size > math.MaxInt64-start {
			err = errors.New("the size of the file overflows")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(named.Name), err)
		}
		end += size
		text = appendEntry(text, named.Name, f, axes, start, end)
	}
	text = append(text, '}')
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	length := len(text) - lengthBytes
	if length > MaxHeaderBytes {
		return nil, nil, fmt.Errorf("the header of %d tensors takes %d bytes, want at most %d: write several files", len(list), length, MaxHeaderBytes)
	}
	binary.LittleEndian.PutUint64(text, uint64(length))
	return list, text, nil
}

func checkNamed(named Named) error {
	switch {
	case !utf8.ValidString(named.Name):
		return errors.New("the name is not UTF-8")
	case named.Name == metadataKey:
		return errors.New("the name is reserved")
	case named.Tensor == nil:
		return errors.New("it is nil")
	}
	if err := named.Tensor.CheckValid(); err != nil {
		return err
	}
	if formatOf(named.Tensor.DType()) < 0 {
		return fmt.Errorf("the format has no type for %s", named.Tensor.DType())
	}
	if rank := named.Tensor.Rank(); rank > MaxRank {
		return fmt.Errorf("it has %d axes, want at most %d", rank, MaxRank)
	}
	return nil
}

func appendMetadata(text []byte, metadata map[string]string) ([]byte, error) {
	text = append(text, `"`+metadataKey+`":{`...)
	for i, key := range slices.Sorted(maps.Keys(metadata)) {
		value := metadata[key]
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return nil, fmt.Errorf("metadata %s: the key or its value is not UTF-8", quote(key))
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = append(appendString(text, key), ':')
		text = appendString(text, value)
	}
	return append(text, '}'), nil
}

func appendEntry(text []byte, name string, f format, axes []int, start, end int64) []byte {
	if len(text) > lengthBytes+1 {
		text = append(text, ',')
	}
	text = append(appendString(text, name), `:{"dtype":"`...)
	text = append(text, f.name...)
	text = append(text, `","shape":[`...)
	for i, axis := range axes {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(axis), 10)
	}
	text = append(text, `],"data_offsets":[`...)
	text = append(strconv.AppendInt(text, start, 10), ',')
	return append(strconv.AppendInt(text, end, 10), "]}"...)
}

// appendString writes a JSON string as the reference does: all of Unicode as it
// is, but for quotes, backslashes and control characters.
func appendString(text []byte, s string) []byte {
	const digits = "0123456789abcdef"
	text = append(text, '"')
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			text = append(text, '\\', c)
		case c >= ' ':
			text = append(text, c)
		default:
			if at := strings.IndexByte("\b\f\n\r\t", c); at >= 0 {
				text = append(text, '\\', "bfnrt"[at])
			} else {
				text = append(text, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
		}
	}
	return append(text, '"')
}

func writeData(w io.Writer, t *tensors.Tensor) error {
	if t.Size() == 0 {
		return nil
	}
	hadLocal := t.HasLocal() || t.IsShared()
	var writeErr error
	err := t.ConstBytes(func(data []byte) {
		if want := t.ByteSize(); int64(len(data)) != want {
			writeErr = fmt.Errorf("GoMLX has %d bytes of data for %s, want %d", len(data), t.Shape(), want)
			return
		}
		_, writeErr = w.Write(data)
	})
	if !hadLocal && t.IsOnAnyDevice() {
		t.FinalizeLocal() // the copy that ConstBytes may have fetched
	}
	return errors.Join(err, writeErr)
}

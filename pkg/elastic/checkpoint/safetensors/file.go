package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
)

// ErrNoTensor is wrapped by the error for a name that a [Source] does not have.
var ErrNoTensor = errors.New("no such tensor")

// Source is a collection of named tensors: a [File] or a [Sharded] model.
type Source interface {
	// Names returns the names of all tensors, sorted. They come from the file and may be any string.
	Names() []string

	// Info describes one tensor.
	Info(name string) (Info, error)

	// Tensor returns one tensor in memory of its own.
	Tensor(name string) (*tensors.Tensor, error)

	// Bytes returns the data of one tensor, little-endian, valid until Close and not to be changed.
	Bytes(name string) ([]byte, error)

	// Metadata returns the free-form strings beside the tensors.
	Metadata() map[string]string

	// Close gives back what the source holds. Tensors made from it stay valid.
	Close() error
}

// File is an open safetensors file whose header has been checked in full. It is
// safe for concurrent use.
type File struct {
	name   string
	header header
	size   int64 // of the file
	base   int64 // where the data begins in it

	mu     sync.RWMutex
	closed bool
	file   *os.File // nil for FromBytes
	memory []byte   // the whole file, if it is mapped or was given as bytes
	mapped bool     // memory is to be unmapped
}

var _ Source = (*File)(nil)

// Open opens a file and checks its header. Nothing else is read before it is asked
// for. The error names the file, the tensor, what was got and what was wanted.
func Open(path string) (*File, error) {
	file, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, withoutPath(err))
	}
	return file, nil
}

func open(path string) (*File, error) {
	// A pipe would block in os.Open.
	if stat, err := os.Stat(path); err != nil {
		return nil, err
	} else if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("it is no regular file (%s)", stat.Mode())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &File{name: path, file: file}
	if err := f.load(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (f *File) load() error {
	stat, err := f.file.Stat()
	if err != nil {
		return err
	}
	size := stat.Size()
	first := make([]byte, lengthBytes)
	n, err := f.file.ReadAt(first, 0)
	if err != nil && err != io.EOF {
		return err
	}
	length, err := headerLength(first[:n], size)
	if err != nil {
		return err
	}
	text := make([]byte, length)
	f.base = lengthBytes
	if err := f.readAt(text, 0); err != nil {
		return err
	}
	return f.check(unsafe.String(unsafe.SliceData(text), len(text)), size) // nobody writes to text any more
}

// FromBytes reads a file that is already in memory. The name is for messages.
// The bytes are kept, not copied, and must not be changed until Close.
func FromBytes(name string, content []byte) (*File, error) {
	f := &File{name: name, memory: content}
	length, err := headerLength(content, int64(len(content)))
	if err == nil {
		err = f.check(string(content[lengthBytes:lengthBytes+length]), int64(len(content)))
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return f, nil
}

func (f *File) check(text string, size int64) error {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return errors.New("this machine is big-endian, which is not supported")
	}
	f.size, f.base = size, lengthBytes+int64(len(text))
	header, err := parseHeader(text, size-f.base)
	if err != nil {
		return err
	}
	f.header = *header
	return nil
}

// Names returns the names of all tensors, sorted. A name may be any string: do
// not use it as a path.
func (f *File) Names() []string {
	names := make([]string, len(f.header.tensors))
	for i := range names {
		names[i] = f.header.tensors[i].name
	}
	return names
}

// Info describes a tensor. The error for an unknown name wraps [ErrNoTensor].
func (f *File) Info(name string) (Info, error) { return f.find(name) }

func (f *File) find(name string) (Info, error) {
	info, ok := f.header.find(name)
	if !ok {
		return info, fmt.Errorf("%s: tensor %s: %w (the file has %d)", f.name, quote(name), ErrNoTensor, len(f.header.tensors))
	}
	return info, nil
}

// Metadata returns the free-form strings of the header, in a new map that is
// nil if there are none.
func (f *File) Metadata() map[string]string {
	m := &f.header.metadata
	if len(m.pairs) == 0 {
		return nil
	}
	to := make(map[string]string, len(m.pairs))
	for _, p := range m.pairs {
		to[m.key(p)] = m.value(p)
	}
	return to
}

// Tensor copies the data of a tensor, once, into a new GoMLX tensor in local
// memory. It refuses types that GoMLX has not (F4, F6, F8), and BOOL bytes other
// than 0 and 1. A file that is cut while it is open gives an error.
func (f *File) Tensor(name string) (*tensors.Tensor, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	t, err := f.tensor(info)
	if err != nil {
		return nil, fmt.Errorf("reading %s: tensor %s: %w", f.name, quote(name), withoutPath(err))
	}
	return t, nil
}

func (f *File) tensor(info Info) (*tensors.Tensor, error) {
	if info.DType == dtypes.InvalidDType {
		return nil, fmt.Errorf("GoMLX has no type for %s; Bytes gives the raw data", info.Format)
	}
	t := tensors.FromShape(shapes.Make(info.DType, info.Shape...))
	if info.Start == info.End {
		return t, nil
	}
	var copyErr error
	err := t.MutableBytes(func(data []byte) {
		if int64(len(data)) != info.Bytes() {
			copyErr = fmt.Errorf("GoMLX made %d bytes for %s%s, want %d", len(data), info.Format, shapeText(info.Shape), info.Bytes())
			return
		}
		if copyErr = f.copyTo(data, info.Start); copyErr == nil && info.DType == dtypes.Bool {
			copyErr = checkBools(data)
		}
	})
	if err == nil {
		err = copyErr
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// copyTo fills to with the data from the given offset.
func (f *File) copyTo(to []byte, offset int64) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.closed:
		return fs.ErrClosed
	case f.file != nil: // as fast as copying from a map, and it cannot fault
		return f.readAt(to, offset)
	default:
		copy(to, f.memory[f.base+offset:])
		return nil
	}
}

func (f *File) readAt(to []byte, offset int64) error {
	n, err := f.file.ReadAt(to, f.base+offset)
	if err == io.EOF {
		return fmt.Errorf("got %d bytes, want %d: the file was cut while it was open", n, len(to))
	}
	return err
}

func checkBools(data []byte) error {
	for i, b := range data {
		if b > 1 {
			return fmt.Errorf("element %d of a BOOL tensor is %d, want 0 or 1", i, b)
		}
	}
	return nil
}

// Bytes returns the data of a tensor as it stands in the file, little-endian.
// Where the file is mapped this copies nothing; the bytes must not be changed,
// are gone after Close, and fault if another program cuts the file meanwhile.
func (f *File) Bytes(name string) ([]byte, error) {
	info, err := f.find(name)
	if err != nil {
		return nil, err
	}
	data, err := f.bytes(info)
	if err != nil {
		return nil, fmt.Errorf("reading %s: tensor %s: %w", f.name, quote(name), withoutPath(err))
	}
	return data, nil
}

func (f *File) bytes(info Info) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fs.ErrClosed
	}
	if f.memory == nil {
		if memory, err := mapFile(f.file, f.size); err == nil {
			f.memory, f.mapped = memory, true
		} else {
			data := make([]byte, info.Bytes())
			return data, f.readAt(data, info.Start)
		}
	}
	start, end := f.base+info.Start, f.base+info.End
	return f.memory[start:end:end], nil
}

// Close closes the file and makes what [File.Bytes] returned invalid. A second
// call does nothing.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var err error
	if f.mapped {
		err = unmapFile(f.memory)
	}
	f.memory = nil
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
	}
	return err
}

// withoutPath drops the path that os puts into errors: the caller names it.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok && error(pathErr) == err {
		return pathErr.Err
	}
	return err
}

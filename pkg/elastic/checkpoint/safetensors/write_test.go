package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

// types are those that a tensor of GoMLX and a file can both have.
var types = map[string]dtypes.DType{
	"BOOL": dtypes.Bool, "U8": dtypes.Uint8, "I8": dtypes.Int8, "I16": dtypes.Int16, "U16": dtypes.Uint16,
	"F16": dtypes.Float16, "BF16": dtypes.BFloat16, "I32": dtypes.Int32, "U32": dtypes.Uint32, "F32": dtypes.Float32,
	"C64": dtypes.Complex64, "F64": dtypes.Float64, "I64": dtypes.Int64, "U64": dtypes.Uint64,
}

// written is what a file of the reference contains.
type written struct {
	File     string
	Metadata map[string]string
	Tensors  []struct {
		Name   string
		DType  string
		Shape  []int
		Values []float64
	}
}

func writtenFiles(t *testing.T) []written {
	t.Helper()
	content, err := os.ReadFile("testdata/written.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct{ Files []written }
	if err := json.Unmarshal(content, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Files) == 0 {
		t.Fatal("testdata/written.json lists no files")
	}
	return golden.Files
}

// setAll fills a tensor; numbers are exact in all types.
func setAll(t *testing.T, to *tensors.Tensor, values []float64) {
	t.Helper()
	err := to.MutableFlatData(func(flat any) {
		for i, v := range values {
			switch flat := flat.(type) {
			case []bool:
				flat[i] = v != 0
			case []uint8:
				flat[i] = uint8(v)
			case []int8:
				flat[i] = int8(v)
			case []int16:
				flat[i] = int16(v)
			case []uint16:
				flat[i] = uint16(v)
			case []float16.Float16:
				flat[i] = float16.FromFloat32(float32(v))
			case []bfloat16.BFloat16:
				flat[i] = bfloat16.FromFloat32(float32(v))
			case []int32:
				flat[i] = int32(v)
			case []uint32:
				flat[i] = uint32(v)
			case []float32:
				flat[i] = float32(v)
			case []complex64:
				flat[i] = complex(float32(v), 0)
			case []float64:
				flat[i] = v
			case []int64:
				flat[i] = int64(v)
			case []uint64:
				flat[i] = uint64(v)
			default:
				t.Fatalf("no case for %T", flat)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w written) tensors(t *testing.T) []safetensors.Named {
	var list []safetensors.Named
	for _, want := range w.Tensors {
		tensor := tensors.FromShape(shapes.Make(types[want.DType], want.Shape...))
		setAll(t, tensor, want.Values)
		list = append(list, safetensors.Named{Name: want.Name, Tensor: tensor})
	}
	return list
}

// TestGoldenWritten holds reader and writer against files that the reference wrote.
func TestGoldenWritten(t *testing.T) {
	for _, want := range writtenFiles(t) {
		t.Run(want.File, func(t *testing.T) {
			path := filepath.Join("testdata", want.File)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			list := want.tensors(t)
			rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			var got bytes.Buffer
			if err := safetensors.Write(&got, list, want.Metadata); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(content, got.Bytes()); diff != "" {
				t.Errorf("bytes differ from those of the reference (-reference +ours):\n%s", diff)
			}

			f, err := safetensors.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if diff := cmp.Diff(len(want.Tensors), len(f.Names())); diff != "" {
				t.Errorf("number of tensors (-want +got):\n%s", diff)
			}
			if len(want.Metadata) > 0 {
				if diff := cmp.Diff(want.Metadata, f.Metadata()); diff != "" {
					t.Errorf("metadata (-want +got):\n%s", diff)
				}
			}
			for i, named := range want.tensors(t) {
				info, err := f.Info(named.Name)
				if err != nil {
					t.Fatal(err)
				}
				dtype, shape := want.Tensors[i].DType, want.Tensors[i].Shape
				if info.Name != named.Name || info.Format != dtype || info.DType != types[dtype] || !slices.Equal(info.Shape, shape) {
					t.Errorf("got %+v, want %q %s %v", info, named.Name, dtype, shape)
				}
				tensor, err := f.Tensor(named.Name)
				if err != nil {
					t.Fatal(err)
				}
				if !tensor.Shape().Equal(named.Tensor.Shape()) || !bytes.Equal(dataOf(t, tensor), dataOf(t, named.Tensor)) {
					t.Errorf("%q: got %s, want %s", named.Name, tensor, named.Tensor)
				}
			}
		})
	}
}

// dataOf returns a copy of the bytes of a tensor.
func dataOf(t testing.TB, tensor *tensors.Tensor) []byte {
	t.Helper()
	var data []byte
	if err := tensor.ConstBytes(func(b []byte) { data = bytes.Clone(b) }); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWriteIsDeterministic(t *testing.T) {
	list := []safetensors.Named{
		{Name: "b", Tensor: tensors.FromValue([]float32{1, 2, 3})},
		{Name: "a", Tensor: tensors.FromValue([]int8{1})},
		{Name: "c", Tensor: tensors.FromValue([][]int64{{7}})},
	}
	metadata := map[string]string{"z": "1", "y": "2", "x": "3", "w": "4"}
	var first []byte
	for range 20 {
		var got bytes.Buffer
		if err := safetensors.Write(&got, list, metadata); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = got.Bytes()
		} else if !bytes.Equal(first, got.Bytes()) {
			t.Fatalf("got %q, then %q", first, got.Bytes())
		}
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	length := binary.LittleEndian.Uint64(first)
	if length%8 != 0 {
		t.Errorf("the header has %d bytes, want a multiple of 8", length)
	}
	f, err := safetensors.FromBytes("x", first)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(metadata, f.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestRoundTripOfRandomTensors(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := make([]dtypes.DType, 0, len(types))
	for _, dtype := range types {
		all = append(all, dtype)
	}
	slices.Sort(all)
	for round := range 50 {
		var list []safetensors.Named
		for i := range random.IntN(20) {
			var axes []int
			for range random.IntN(4) {
				axes = append(axes, random.IntN(6))
			}
			tensor := tensors.FromShape(shapes.Make(all[random.IntN(len(all))], axes...))
			err := tensor.MutableBytes(func(data []byte) {
				for i := range data {
					data[i] = byte(random.Uint32())
					if tensor.DType() == dtypes.Bool {
						data[i] &= 1
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, safetensors.Named{Name: strings.Repeat("x", i) + "\u00e9\"", Tensor: tensor})
		}
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := safetensors.WriteFile(path, list, nil); err != nil {
			t.Fatal(err)
		}
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, want := range list {
			got, err := f.Tensor(want.Name)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := f.Bytes(want.Name)
			if err != nil {
				t.Fatal(err)
			}
			if data := dataOf(t, want.Tensor); !got.Shape().Equal(want.Tensor.Shape()) || !bytes.Equal(dataOf(t, got), data) || !bytes.Equal(raw, data) {
				t.Errorf("round %d, tensor %q: got %s, want %s", round, want.Name, got, want.Tensor)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	one := tensors.FromScalar(float32(1))
	finalized := tensors.FromScalar(float32(1))
	if err := finalized.FinalizeAll(); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name     string
		list     []safetensors.Named
		metadata map[string]string
		want     string
	}{
		{"nil tensor", []safetensors.Named{{Name: "a"}}, nil, `tensor "a": it is nil`},
		{"finalized tensor", []safetensors.Named{{Name: "a", Tensor: finalized}}, nil, `tensor "a": `},
		{"name twice", []safetensors.Named{{Name: "a", Tensor: one}, {Name: "b", Tensor: one}, {Name: "a", Tensor: one}}, nil, `tensor "a": the name occurs twice`},
		{"name twice in two types", []safetensors.Named{{Name: "a", Tensor: one}, {Name: "a", Tensor: tensors.FromScalar(int8(1))}}, nil, `tensor "a": the name occurs twice`},
		{"reserved name", []safetensors.Named{{Name: "__metadata__", Tensor: one}}, nil, `tensor "__metadata__": the name is reserved`},
		{"name not UTF-8", []safetensors.Named{{Name: "a\xff", Tensor: one}}, nil, `tensor "a\xff": the name is not UTF-8`},
		{"type", []safetensors.Named{{Name: "a", Tensor: tensors.FromScalar(complex128(1))}}, nil, `tensor "a": the format has no type for Complex128`},
		{"rank", []safetensors.Named{{Name: "a", Tensor: tensors.FromShape(shapes.Make(dtypes.Int8, slices.Repeat([]int{1}, 65)...))}}, nil, `tensor "a": it has 65 axes, want at most 64`},
		{"metadata not UTF-8", nil, map[string]string{"k": "\xff"}, `metadata "k": the key or its value is not UTF-8`},
		{"header too long", nil, map[string]string{"k": strings.Repeat("x", safetensors.MaxHeaderBytes)}, "want at most 100000000: write several files"},
	}
	for _, c := range cases {
		var got bytes.Buffer
		if err := safetensors.Write(&got, c.list, c.metadata); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
		if got.Len() > 0 {
			t.Errorf("%s: %d bytes were written, want none", c.name, got.Len())
		}
	}
}

// limited fails after some bytes.
type limited struct {
	left int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		n := l.left
		l.left = 0
		return n, l.err
	}
	l.left -= len(p)
	return len(p), nil
}

func TestWriteReportsWhereItFailed(t *testing.T) {
	list := []safetensors.Named{{Name: "a", Tensor: tensors.FromValue([]float32{1, 2})}, {Name: "b", Tensor: tensors.FromValue([]float32{1, 2})}}
	full := errors.New("disk full")
	var whole bytes.Buffer
	if err := safetensors.Write(&whole, list, nil); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		err := safetensors.Write(&limited{n, full}, list, nil)
		want := "the header"
		switch left := whole.Len() - n; {
		case left <= 8:
			want = `tensor "b"`
		case left <= 16:
			want = `tensor "a"`
		}
		if !errors.Is(err, full) || !strings.Contains(err.Error(), want) {
			t.Errorf("after %d of %d bytes: got %v, want an error at %s", n, whole.Len(), err, want)
		}
	}
}

func TestWriteFileLeavesNothingHalfWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	good := []safetensors.Named{{Name: "a", Tensor: tensors.FromValue([]float32{1, 2})}}
	if err := safetensors.WriteFile(path, good, nil); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := safetensors.WriteFile(path, []safetensors.Named{{Name: "a"}}, nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names %s", err, path)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("got %q, %v, want the file as it was, %q", after, err, before)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want one file", entries, err)
	}
}

// TestWriteStreams sees that writing needs no second copy of a model.
func TestWriteStreams(t *testing.T) {
	big := tensors.FromShape(shapes.Make(dtypes.Float32, 8, 1<<20))
	got := allocated(func() {
		if err := safetensors.Write(io.Discard, []safetensors.Named{{Name: "a", Tensor: big}}, nil); err != nil {
			t.Error(err)
		}
	})
	if got > 1<<20 {
		t.Errorf("writing %d bytes allocated %d, want less than 1 MiB", big.ByteSize(), got)
	}
}

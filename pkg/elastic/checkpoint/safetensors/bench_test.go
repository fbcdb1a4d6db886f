package safetensors_test

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

// minilm returns tensors of the size of MiniLM-L6: 101 of them, 90 MB.
func minilm() []safetensors.Named {
	list := []safetensors.Named{{Name: "embeddings", Tensor: tensors.FromShape(shapes.Make(dtypes.Float32, 30522, 384))}}
	for i := range 40 {
		list = append(list,
			safetensors.Named{Name: fmt.Sprintf("layer.%d.weight", i), Tensor: tensors.FromShape(shapes.Make(dtypes.Float32, 384, 690))},
			safetensors.Named{Name: fmt.Sprintf("layer.%d.bias", i), Tensor: tensors.FromShape(shapes.Make(dtypes.Float32, 384))})
	}
	return list
}

func bytesOf(list []safetensors.Named) (total int64) {
	for _, named := range list {
		total += named.Tensor.ByteSize()
	}
	return total
}

// BenchmarkWrite is the work beside moving bytes: there are none to move to.
func BenchmarkWrite(b *testing.B) {
	list := minilm()
	b.ReportAllocs()
	for b.Loop() {
		if err := safetensors.Write(io.Discard, list, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWriteFile includes bringing the bytes to the disk.
func BenchmarkWriteFile(b *testing.B) {
	list := minilm()
	path := filepath.Join(b.TempDir(), "model.safetensors")
	b.SetBytes(bytesOf(list))
	b.ReportAllocs()
	for b.Loop() {
		if err := safetensors.WriteFile(path, list, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkRead(b *testing.B, size func([]safetensors.Named) int64, read func(f *safetensors.File, name string) error) {
	list := minilm()
	path := filepath.Join(b.TempDir(), "model.safetensors")
	if err := safetensors.WriteFile(path, list, nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size(list))
	b.ReportAllocs()
	for b.Loop() {
		f, err := safetensors.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range f.Names() {
			if err := read(f, name); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadTensors(b *testing.B) {
	benchmarkRead(b, bytesOf, func(f *safetensors.File, name string) error {
		_, err := f.Tensor(name)
		return err
	})
}

// BenchmarkReadBytes opens and maps, but touches no data.
func BenchmarkReadBytes(b *testing.B) {
	none := func([]safetensors.Named) int64 { return 0 }
	benchmarkRead(b, none, func(f *safetensors.File, name string) error {
		_, err := f.Bytes(name)
		return err
	})
}

package safetensors_test

import (
	"bytes"
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

// Two tensors are written and read again. The larger type comes first in the file.
func Example() {
	var content bytes.Buffer
	err := safetensors.Write(&content, []safetensors.Named{
		{Name: "layer.bias", Tensor: tensors.FromValue([]float32{0.5, -0.5})},
		{Name: "step", Tensor: tensors.FromScalar(int64(42))},
	}, map[string]string{"format": "pt"})
	if err != nil {
		panic(err)
	}

	file, err := safetensors.FromBytes("model.safetensors", content.Bytes())
	if err != nil {
		panic(err)
	}
	defer file.Close()
	for _, name := range file.Names() {
		info, err := file.Info(name)
		if err != nil {
			panic(err)
		}
		tensor, err := file.Tensor(name)
		if err != nil {
			panic(err)
		}
		fmt.Println(name, info.Format, info.Shape, info.Start, info.End, tensor.Value())
	}

	_, err = file.Tensor("layer.weight")
	fmt.Println(err)
	// Output:
	// layer.bias F32 [2] 8 16 [0.5 -0.5]
	// step I64 [] 0 8 42
	// model.safetensors: tensor "layer.weight": no such tensor (the file has 2)
}

// What comes from a stranger is checked before anything is believed.
func ExampleFromBytes() {
	_, err := safetensors.FromBytes("download.safetensors", []byte("<!DOCTYPE html><title>404</title>"))
	fmt.Println(err)
	// Output:
	// reading download.safetensors: the header would have 5789751444030890300 bytes, want at most 100000000: not a safetensors file
}

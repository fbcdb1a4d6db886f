package interpret_test

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/elastic/interpret"
)

func ExampleMapAttention() {
	// A layer of two heads over two tokens and a place of padding.
	m := interpret.MapAttention([]string{"[CLS]", "Ann"}, 2, 3, []float32{
		0.75, 0.25, 0, 0.5, 0.5, 0, 0, 0, 0,
		0, 1, 0, 1, 0, 0, 0, 0, 0,
	})
	for head, weights := range m.Weights[0] {
		fmt.Println("head", head, weights)
	}
	// Output:
	// head 0 [[0.75 0.25] [0.5 0.5]]
	// head 1 [[0 1] [1 0]]
}

package plural_test

import (
	"fmt"

	"github.com/elastic-attention/workbench/internal/plural"
)

func ExampleOf() {
	for n := range 3 {
		fmt.Println(plural.Of(n, "batch", "batches"))
	}
	// Output:
	// 0 batches
	// 1 batch
	// 2 batches
}

package memo_test

import (
	"context"
	"fmt"
	"os"

	"github.com/elastic-attention/workbench/pkg/memo"
)

func ExampleOf() {
	dir, err := os.MkdirTemp("", "memo")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cache := &memo.Cache{Dir: dir}
	type params struct{ Steps int }
	for _, p := range []params{{2}, {3}, {2}} {
		sum, err := memo.Of(context.Background(), cache, "sum", p, func() (int, error) {
			fmt.Println("computing for", p.Steps)
			return p.Steps * (p.Steps + 1) / 2, nil
		})
		fmt.Println(sum, err)
	}
	// Output:
	// computing for 2
	// 3 <nil>
	// computing for 3
	// 6 <nil>
	// 3 <nil>
}

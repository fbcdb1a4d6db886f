package memo_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

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

func ExampleCache_Folder() {
	dir, err := os.MkdirTemp("", "memo")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cache := &memo.Cache{Dir: dir}
	type params struct{ Seed int }
	for range 2 {
		folder, err := cache.Folder(context.Background(), "model", params{7}, func(dir string) error {
			fmt.Println("training")
			return os.WriteFile(filepath.Join(dir, "weights"), []byte("1 2 3"), 0o644)
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		weights, err := os.ReadFile(filepath.Join(folder, "weights"))
		fmt.Println(string(weights), err)
	}
	// Output:
	// training
	// 1 2 3 <nil>
	// 1 2 3 <nil>
}

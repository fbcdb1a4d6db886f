package checkpoint_test

import (
	"fmt"
	"io"
	"os"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint"
)

// A run saves its checkpoints and, started again, goes on from the newest.
func Example() {
	dir, err := os.MkdirTemp("", "run-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	run := checkpoint.Run{Dir: dir, Keep: 2}
	for _, step := range []int{100, 200, 300} {
		_, err := run.Save(checkpoint.Checkpoint{
			Step: step,
			Files: []checkpoint.File{
				checkpoint.FromBytes("config.json", []byte(`{"layers": 6}`)),
				{Name: "weights.txt", Write: func(w io.Writer) error {
					_, err := fmt.Fprintln(w, "weights of step", step)
					return err
				}},
			},
		})
		if err != nil {
			panic(err)
		}
	}
	if err := run.MarkBest(200); err != nil {
		panic(err)
	}

	latest, err := run.Latest()
	if err != nil {
		panic(err)
	}
	weights, err := latest.ReadFile("weights.txt")
	if err != nil {
		panic(err)
	}
	steps, err := run.Steps()
	if err != nil {
		panic(err)
	}
	fmt.Println(steps, latest.Manifest.Step, len(latest.Skipped))
	fmt.Print(string(weights))
	// Output:
	// [200 300] 300 0
	// weights of step 300
}

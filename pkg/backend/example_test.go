package backend_test

import (
	"context"
	"fmt"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/janpfeifer/must"
)

// A program opens its backend once, says which it is, and hands it to the libraries.
func Example() {
	engine, choice, err := backend.Open(context.Background(), backend.Options{Config: "go"})
	if err != nil {
		fmt.Println(err) // says which file or setting is wrong, and what to do
		return
	}
	defer engine.Finalize()
	fmt.Println(choice.Name, choice.Config)

	double := must.M1(graph.NewExec(engine, func(x *graph.Node) *graph.Node { return graph.Add(x, x) }))
	fmt.Println(must.M1(double.Call([]float32{1, 2, 3}))[0].Value())
	// Output:
	// go go:ops_sequential,creation_order
	// [2 4 6]
}

func ExampleChoice_String() {
	fmt.Println(backend.Choice{
		Name: "xla:cpu", Plugin: "~/.cache/elastic/pjrt/cpu/pjrt_c_api_cpu_plugin.so", Version: "2026.6.23",
		Reason: "it is installed",
	})
	// Output:
	// backend xla:cpu (plugin ~/.cache/elastic/pjrt/cpu/pjrt_c_api_cpu_plugin.so, version 2026.6.23; because it is installed)
}

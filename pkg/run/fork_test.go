package run_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/lm/experiment"
)

func ExampleFork() {
	ctx := context.Background()
	engine, _, err := backend.Open(ctx, backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	folder, err := os.MkdirTemp("", "runs-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	parent, child := filepath.Join(folder, "parent"), filepath.Join(folder, "child")

	// A small language model, one epoch.
	config, err := experiment.Preset("quick")
	if err != nil {
		panic(err)
	}
	config.Data = experiment.Data{Name: experiment.Synthetic, Limit: 1000}
	config.Model.Layers, config.Model.Hidden, config.Model.FeedForward, config.Model.MaxPositions = 1, 16, 32, 16
	if _, err := experiment.Run(ctx, engine, config, experiment.Options{Dir: parent}); err != nil {
		panic(err)
	}

	// Another one goes on from there, at a tenth of the rate.
	config.Train.Epochs, config.Train.Schedule.Peak = 2, config.Train.Schedule.Peak/10
	if err := run.Fork(child, parent, hub.TaskLM, config); err != nil {
		panic(err)
	}
	resumed := 0
	result, err := experiment.Run(ctx, engine, config, experiment.Options{Dir: child, Resume: true, Loaded: func(l experiment.Loaded) { resumed = l.ResumedAt }})
	if err != nil {
		panic(err)
	}
	record, err := run.ReadRecord[experiment.Config](child)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s after update %d; %d updates in all\n", filepath.Base(record.Parent.Run), record.Parent.Update, result.Updates)
	fmt.Println(resumed == record.Parent.Update)

	// The model is the parent's: another one is refused.
	config.Model.Layers = 2
	err = run.Fork(filepath.Join(folder, "other"), parent, hub.TaskLM, config)
	fmt.Println(err != nil)
	// Output:
	// parent after update 3; 6 updates in all
	// true
	// true
}

package train_test

import (
	"context"
	"fmt"
	"iter"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
)

// line is a task: on which side of a line does a point lie?
type line struct{ store *model.Store }

func (l line) Store() *model.Store { return l.store }

func (line) Variables() []elastic.Variable {
	return elastic.Under("/line", elastic.DenseVariables(2, 2, 0.1))
}

func (line) Loss(w elastic.Weights, inputs, labels []*graph.Node, _ *dropout.Source) (sum, count *graph.Node) {
	return loss.CrossEntropy(elastic.Dense(w.In("line"), inputs[0]), labels[0])
}

// points are its data: one batch of four.
type points struct{}

func (points) Steps() int { return 1 }

func (points) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		if skip == 0 {
			yield(mltrain.Batch{
				Inputs: []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]float32{1, 0, 2, 1, 0, 1, 1, 2}, 4, 2)},
				Labels: []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]int32{0, 0, 1, 1}, 4)},
			}, nil)
		}
	}
}

func ExampleTrainer() {
	ctx := context.Background()
	engine, _, err := backend.Open(ctx, backend.Options{Config: backend.PureGo})
	if err != nil {
		panic(err)
	}
	store, err := elastic.NewStore(line{}.Variables(), 1)
	if err != nil {
		panic(err)
	}
	trainer, err := train.New(engine, line{store}, train.Config{
		Epochs: 50, LogEvery: 1, Schedule: schedule.Config{Kind: "constant", Peak: 0.1},
	})
	if err != nil {
		panic(err)
	}
	result, err := trainer.Run(ctx, points{}, train.Hooks{})
	if err != nil {
		panic(err)
	}
	history := result.State.History
	fmt.Printf("%d updates, loss from %.1f to %.1f\n", result.State.Update, history[0].Loss, history[len(history)-1].Loss)
	// Output:
	// 50 updates, loss from 0.7 to 0.0
}

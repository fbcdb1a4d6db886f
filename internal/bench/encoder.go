package main

import (
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"

	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// timeForward times the encoder and its head; a call ends when the logits are on the host.
func timeForward(engine compute.Backend, m seeded, workload string, o options) (result, error) {
	exec, err := model.NewExec(engine, m.Store, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		w := elastic.WeightsOf(scope.Store(), in[0].Graph())
		return []*graph.Node{m.Config.Logits(w, transformer.Inputs{IDs: in[0], Mask: in[1]}, nil)}
	})
	if err != nil {
		return result{}, err
	}
	defer exec.Finalize()
	ids, mask, _ := batchOf(m.Config.VocabSize, o.batch, o.seq)
	r := result{Workload: fmt.Sprintf("%s-b%ds%d", workload, o.batch, o.seq), Shape: m.shape}
	watch := stopwatch{warm: o.warm}
	for range 1 + o.warm + o.n {
		watch.start()
		outputs, _, err := exec.CallWithGraph(ids, mask)
		if err != nil {
			return result{}, err
		}
		logits, err := tensors.CopyFlatData[float32](outputs[0])
		if err != nil {
			return result{}, err
		}
		outputs[0].MustFinalizeAll()
		watch.stop()
		r.Check = 0
		for _, v := range logits {
			r.Check += math.Abs(float64(v))
		}
	}
	watch.fill(&r)
	return r, nil
}

// timeTraining times updates of our training loop; a call ends when the loss is on
// the host and the loop goes on to the next batch.
func timeTraining(ctx context.Context, engine compute.Backend, m seeded, o options) (result, error) {
	m.Config.Dropout, m.Config.Attention.Dropout = o.dropout, o.dropout
	trainer, err := train.New(engine, classifier{m}, train.Config{
		Optimizer: optim.Config{Rule: adamW}, Schedule: schedule.Config{Kind: "constant", Peak: rate}, Epochs: 1,
	})
	if err != nil {
		return result{}, err
	}
	r := result{Workload: fmt.Sprintf("train-b%ds%d", o.batch, o.seq), Shape: m.shape}
	if o.dropout > 0 {
		r.Workload += fmt.Sprintf("-drop%g", o.dropout)
	}
	watch := stopwatch{warm: o.warm}
	hooks := train.Hooks{Step: func(s train.Step) {
		watch.stop()
		if len(r.Losses) < 5 {
			r.Losses = append(r.Losses, s.Loss)
		}
		watch.start()
	}}
	watch.start()
	if _, err := trainer.Run(ctx, repeated{m.Config.VocabSize, o.batch, o.seq, 1 + o.warm + o.n}, hooks); err != nil {
		return result{}, err
	}
	watch.fill(&r)
	r.P95 = 0
	return r, nil
}

// classifier is the workload as a task: all variables decay.
type classifier struct{ seeded }

func (c classifier) Store() *model.Store { return c.Model.Store }

func (c classifier) Variables() []elastic.Variable {
	list := c.Config.Variables()
	for i := range list {
		list[i].Decay = true
	}
	return list
}

func (c classifier) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	logits := c.Config.Logits(w, transformer.Inputs{IDs: inputs[0], Mask: inputs[1]}, drop)
	return loss.CrossEntropy(logits, labels[0])
}

// repeated gives the same batch again and again.
type repeated struct{ vocabulary, batch, seq, steps int }

func (r repeated) Steps() int { return r.steps }

func (r repeated) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for range r.steps - skip {
			ids, mask, targets := batchOf(r.vocabulary, r.batch, r.seq)
			if !yield(mltrain.Batch{Inputs: []*tensors.Tensor{ids, mask}, Labels: []*tensors.Tensor{targets}}, nil) {
				return
			}
		}
	}
}

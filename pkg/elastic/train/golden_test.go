package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	mltrain "github.com/gomlx/gomlx/ml/train"
	"github.com/janpfeifer/must"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/dropout"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/pretrained"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// traceTolerance is the largest difference of a loss from PyTorch's, over all steps:
// the one that the notes ask for.
const traceTolerance = 1e-3

// pureGoSteps is how many steps of each recipe the pure-Go backend replays, where one takes
// seconds. XLA replays all, and so does pure Go for vectors that are asked for by name.
const pureGoSteps = 3

// TestGoldenTrainingTrace fine-tunes MiniLM on the recorded batches, with each recorded
// recipe, and compares the loss before every update with PyTorch's.
func TestGoldenTrainingTrace(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	folder := golden.Shared(t, "golden/minilm_train_trace")
	weights := golden.MiniLM(t)
	content, err := os.ReadFile(filepath.Join(folder, "trace.json"))
	if err != nil {
		t.Fatal(err)
	}
	var trace struct {
		Tags    []string
		Recipes map[string]struct {
			Optimizer string
			Schedule  string  `json:"lr_at_step_s"`
			Clip      float64 `json:"clip_global_norm"`
			Losses    []float64
		}
		HeadWeight [][]float32  `json:"head_weight"`
		Batches    []traceBatch `json:"batches"`
	}
	if err := json.Unmarshal(content, &trace); err != nil {
		t.Fatal(err)
	}
	if len(trace.Recipes) == 0 || len(trace.Batches) == 0 {
		t.Fatal("trace has no recipes or no batches")
	}
	for name, recipe := range trace.Recipes {
		t.Run(name, func(t *testing.T) {
			m, _, err := pretrained.Load(weights, pretrained.Options{Head: &transformer.Head{Kind: transformer.Tokens, Labels: trace.Tags}})
			if err != nil {
				t.Fatal(err)
			}
			m.Config.Dropout, m.Config.Attention.Dropout = 0, 0
			head := make([]float32, 0, m.Config.Hidden*len(trace.Tags))
			for i := range m.Config.Hidden {
				for _, row := range trace.HeadWeight {
					head = append(head, row[i])
				}
			}
			must.M(m.Store.GetVariable("/head/classifier/weights").SetValue(tensors.FromFlatDataAndDimensions(head, m.Config.Hidden, len(trace.Tags))))

			config := traceConfig(t, recipe.Optimizer, recipe.Schedule, len(trace.Batches))
			config.ClipNorm = recipe.Clip
			trainer, err := train.New(gxtest.Backend(t), tokens{m}, config)
			if err != nil {
				t.Fatal(err)
			}
			if os.Getenv(golden.DirEnv) == "" && gxtest.Backend(t).String() == "go" && len(recipe.Losses) > pureGoSteps {
				recipe.Losses = recipe.Losses[:pureGoSteps]
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			step, worst := 0, 0.0
			_, err = trainer.Run(ctx, traceData(trace.Batches), train.Hooks{Step: func(s train.Step) {
				want := recipe.Losses[step]
				if diff := math.Abs(s.Loss - want); !(diff <= traceTolerance) {
					t.Errorf("step %d: loss %.5f, want %.5f", step, s.Loss, want)
				} else {
					worst = max(worst, diff)
				}
				if step++; step == len(recipe.Losses) {
					cancel() // the recorded run is longer than its trace
				}
			}})
			if err != nil && !errors.Is(err, train.ErrInterrupted) {
				t.Fatal(err)
			}
			if step != len(recipe.Losses) {
				t.Errorf("made %d steps, want %d", step, len(recipe.Losses))
			}
			t.Logf("%d steps, largest difference %.2g", step, worst)
		})
	}
}

// traceConfig reads a recipe as the trace writes it down.
func traceConfig(t *testing.T, optimizer, rates string, batches int) train.Config {
	t.Helper()
	number := func(text, pattern string) float64 {
		match := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if match == nil {
			t.Fatalf("recipe %q has no %s", text, pattern)
		}
		value, err := strconv.ParseFloat(match[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	const float = `([0-9.]+(?:e-?[0-9]+)?)`
	rule := optim.AdamW{WeightDecay: number(optimizer, `weight decay `+float)}
	if strings.Contains(optimizer, "betas") { // else torch's defaults, which are ours
		rule.Beta1 = number(optimizer, `betas `+float)
		rule.Beta2 = number(optimizer, `betas \S+ `+float)
	}
	if strings.Contains(optimizer, "eps") {
		rule.Epsilon = number(optimizer, `eps `+float)
	}
	config := train.Config{Optimizer: optim.Config{Rule: rule}}
	if rates == "" {
		if !strings.Contains(optimizer, "constant") {
			t.Fatalf("recipe %q has no schedule and is not constant", optimizer)
		}
		config.Schedule = schedule.Config{Kind: "constant", Peak: number(optimizer, `lr `+float)}
		return config
	}
	warmup, total := number(rates, `for s<`+float), number(rates, `\(`+float+`-s\)`)
	config.Schedule = schedule.Config{Peak: number(rates, `^`+float), Warmup: (warmup + 0.5) / total}
	config.MaxUpdates = int(total)
	config.Epochs = config.MaxUpdates/batches + 1
	return config
}

type traceBatch struct {
	IDs    [][]int32 `json:"input_ids"`
	Labels [][]int32 `json:"labels"`
}

// maxPositions is the longest row that MiniLM has positions for.
const maxPositions = 512

// traceData pads each batch to a multiple of 48 tokens, so that there are few compilations.
type traceData []traceBatch

func (d traceData) Steps() int { return len(d) }

func (d traceData) Batches(_, skip int) iter.Seq2[mltrain.Batch, error] {
	return func(yield func(mltrain.Batch, error) bool) {
		for _, b := range d[skip:] {
			length := 0
			for _, ids := range b.IDs {
				length = max(length, min((len(ids)+47)/48*48, maxPositions))
			}
			rows := len(b.IDs)
			ids, mask, labels := make([]int32, rows*length), make([]int32, rows*length), make([]int32, rows*length)
			for i := range labels {
				labels[i] = loss.Ignored
			}
			for r := range b.IDs {
				copy(ids[r*length:], b.IDs[r])
				copy(labels[r*length:], b.Labels[r])
				for i := range b.IDs[r] {
					mask[r*length+i] = 1
				}
			}
			tensor := func(flat []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(flat, rows, length) }
			if !yield(mltrain.Batch{Inputs: []*tensors.Tensor{tensor(ids), tensor(mask)}, Labels: []*tensors.Tensor{tensor(labels)}}, nil) {
				return
			}
		}
	}
}

// tokens is a token classifier as a task.
type tokens struct{ m *transformer.Model }

func (t tokens) Store() *model.Store { return t.m.Store }

func (t tokens) Variables() []elastic.Variable { return t.m.Config.Variables() }

func (t tokens) Loss(w elastic.Weights, inputs, labels []*graph.Node, drop *dropout.Source) (sum, count *graph.Node) {
	logits := t.m.Config.Logits(w, transformer.Inputs{IDs: inputs[0], Mask: inputs[1]}, drop)
	return loss.CrossEntropy(logits, labels[0])
}

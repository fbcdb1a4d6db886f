package testtime_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// BenchmarkStep holds each method against plain prediction by the same model, in turn, on
// batches of 32 rows of 64 tokens through an encoder of MiniLM's size with random weights. Ratio is
// that of the median times of four batches a loop, so without the guard's rare looks.
func BenchmarkStep(b *testing.B) {
	m, err := transformer.New(transformer.Config{
		VocabSize: 1000, Hidden: 384, Layers: 6, FeedForward: 1536, MaxPositions: 64, Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.02,
		Attention: attention.Spec{Heads: 12}, Head: transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "A", "B", "C", "D", "E", "F"}},
	}, 1)
	if err != nil {
		b.Fatal(err)
	}
	ids := make([][]int32, 32)
	for i := range ids {
		ids[i] = make([]int32, 64)
		for j := range ids[i] {
			ids[i][j] = int32((i*641 + j*j*13) % 1000)
		}
	}
	ctx := context.Background()
	plain, err := testtime.New(gxtest.Backend(b), tokens{m}, testtime.Config{Every: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	all := []string{"*/norm/*"}
	for _, config := range []testtime.Config{
		{Method: "tent"}, {Method: "eata"}, {Method: "pseudo_label"}, {Method: "memo"}, {Method: "masked"}, {Method: "labels"}, {Method: "sar"},
		{Method: "tent", Variables: all}, {Method: "sar", Variables: all},
	} {
		name := config.Method
		if config.Variables != nil {
			name += ",all"
		}
		b.Run(name, func(b *testing.B) {
			config.Rate = 1e-9
			a, err := testtime.New(gxtest.Backend(b), tokens{m}, config)
			if err != nil {
				b.Fatal(err)
			}
			times := [2][]float64{}
			step := func(i int, a *testtime.Adapter) {
				begin := time.Now()
				if i == 1 && config.Method == "labels" {
					if _, _, err := a.PredictThenLearn(ctx, make([]int32, 32*64), ids); err != nil {
						b.Fatal(err)
					}
				} else if _, _, err := a.Step(ctx, ids); err != nil {
					b.Fatal(err)
				}
				times[i] = append(times[i], float64(time.Since(begin).Microseconds())/1000)
			}
			for range 3 { // compiles all there is
				step(0, plain)
				step(1, a)
			}
			times = [2][]float64{}
			for b.Loop() {
				for range 4 {
					step(0, plain)
					step(1, a)
				}
			}
			median := func(list []float64) float64 { slices.Sort(list); return list[len(list)/2] }
			b.ReportMetric(median(times[0]), "plain-ms")
			b.ReportMetric(median(times[1]), "adapted-ms")
			b.ReportMetric(median(times[1])/median(times[0]), "ratio")
			if err := a.Reset(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

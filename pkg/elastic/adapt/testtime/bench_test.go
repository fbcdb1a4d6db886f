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
	for _, method := range []string{"tent", "eata", "pseudo_label", "sar"} {
		b.Run(method, func(b *testing.B) {
			a, err := testtime.New(gxtest.Backend(b), tokens{m}, testtime.Config{Method: method, Rate: 1e-9})
			if err != nil {
				b.Fatal(err)
			}
			times := [2][]float64{}
			step := func(i int, a *testtime.Adapter) {
				begin := time.Now()
				if _, _, err := a.Step(ctx, ids); err != nil {
					b.Fatal(err)
				}
				times[i] = append(times[i], float64(time.Since(begin).Milliseconds()))
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

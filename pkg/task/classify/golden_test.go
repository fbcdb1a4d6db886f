package classify_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/elastic-attention/workbench/internal/golden"
	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

// TestGoldenTrainingTrace trains packed batches as transformers trains padded ones: the losses
// of tools/golden/classify_trace.py must come out, update by update.
func TestGoldenTrainingTrace(t *testing.T) {
	dir := golden.Dir(t, "classify")
	content, err := os.ReadFile(filepath.Join(dir, "trace.json"))
	if err != nil {
		t.Fatal(err)
	}
	var trace struct {
		Rate   float64
		Texts  [][2]string
		Losses map[string][]float64
	}
	if err := json.Unmarshal(content, &trace); err != nil || len(trace.Losses) == 0 {
		t.Fatalf("%d traces, %v", len(trace.Losses), err)
	}
	texts := make([]data.Text, len(trace.Texts))
	for i, pair := range trace.Texts {
		texts[i] = data.Text{Text: pair[0], Label: pair[1]}
	}
	for pooling, want := range trace.Losses {
		c, err := classify.Load(gxtest.Backend(t), filepath.Join(dir, "model"))
		if err != nil {
			t.Fatal(err)
		}
		c.Model.Config.Head.Pooling = pooling
		var got []float64
		config := classify.TrainConfig{BatchSize: len(texts), Config: train.Config{
			Epochs: len(want), ClipNorm: 1, Optimizer: optim.Config{Rule: optim.AdamW{WeightDecay: 0.01}}, Schedule: schedule.Config{Peak: trace.Rate, Kind: "constant"},
		}}
		if _, err := c.Train(t.Context(), texts, nil, config, classify.TrainOptions{Step: func(s train.Step) { got = append(got, s.Loss) }}); err != nil {
			t.Fatal(err)
		}
		worst := 0.0
		for i := range want {
			worst = math.Max(worst, math.Abs(got[i]-want[i]))
		}
		t.Logf("%s: largest difference of %d losses %.2g", pooling, len(want), worst)
		if !(worst <= 1e-5) { // float32 rounding, which AdamW carries on; 2e-7 was seen
			t.Errorf("%s: losses\n%v, want\n%v", pooling, got, want)
		}
	}
}

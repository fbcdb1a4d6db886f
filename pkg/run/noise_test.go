package run_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/run"
)

func TestNoiseKnowsTheTokenizer(t *testing.T) {
	tok, err := tokenizer.Parse("made", synth.Tokenizer())
	if err != nil {
		t.Fatal(err)
	}
	config := transformer.Config{
		VocabSize: tok.VocabSize(), Hidden: 4, Layers: 1, FeedForward: 4, Attention: attention.Spec{Heads: 1}, MaxPositions: 8,
		Activation: "relu", NormEpsilon: 1e-5, InitStd: 0.1,
	}
	same, err := run.Noise{}.Config(config, tok)
	if diff := cmp.Diff(config, same); err != nil || diff != "" {
		t.Errorf("no noise changes the model: %v %s", err, diff)
	}
	noisy, err := run.Noise{DropPath: 0.1, WordDropout: 0.2}.Config(config, tok)
	if err != nil {
		t.Fatal(err)
	}
	n := noisy.Noise
	separator, _ := tok.TokenID("[SEP]")
	if name := tok.Token(int32(n.Unknown)); n.DropPath != 0.1 || n.WordDropout != 0.2 || name != "[MASK]" && name != "[UNK]" || !slices.Contains(n.Keep, int(separator)) {
		t.Errorf("noise %+v puts %q in", n, name)
	}
	if config.Noise != nil {
		t.Error("the model itself was changed")
	}
	config.VocabSize = 1
	if _, err := (run.Noise{WordDropout: 0.2}).Config(config, tok); err == nil || !strings.Contains(err.Error(), "noise.unknown") {
		t.Errorf("error %v, want one about ids", err)
	}
	if err := (run.Noise{DropPath: 1, WordDropout: -1}).Validate(); err == nil || strings.Count(err.Error(), "noise.") != 2 {
		t.Errorf("error %v, want both rates", err)
	}
}

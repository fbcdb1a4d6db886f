package ner_test

import (
	"math"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/ner"
)

// attentionEntropy is the mean entropy of a tagger's attention on made-up tokens.
func attentionEntropy(t *testing.T, tagger *ner.Tagger) float64 {
	t.Helper()
	exec, err := model.NewExec(gxtest.Backend(t), tagger.Model.Store, func(scope *model.Scope, ids *graph.Node) *graph.Node {
		out := tagger.Model.Config.Encode(elastic.WeightsOf(scope.Store(), ids.Graph()), transformer.Inputs{IDs: ids}, nil)
		var total *graph.Node
		for _, a := range out.Attentions {
			h := graph.Neg(graph.ReduceAllMean(graph.ReduceSum(graph.Mul(a, graph.Log(graph.MaxScalar(a, 1e-12))), -1)))
			total = elastic.AddIf(total, h)
		}
		return total
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Call([][]int32{{2, 9, 14, 21, 30, 33, 41, 3}})
	if err != nil {
		t.Fatal(err)
	}
	return float64(tensors.ToScalar[float32](out[0]))
}

// TestObjectivesReachAttention: an objective of the attention weights that training computes makes
// them sparser, a custom one is added to the loss with its weight, and a frozen encoder stays.
func TestObjectivesReachAttention(t *testing.T) {
	corpus := synth.Entities(3, 48)
	train := func(strategy adapt.Strategy, custom adapt.Custom) (*ner.Tagger, float64) {
		tagger := newTagger(t, 2)
		config := recipe(2)
		config.MaxUpdates, config.LogEvery, config.Adapt = 6, 1, strategy
		result, err := tagger.Train(t.Context(), corpus, nil, config, ner.TrainOptions{Custom: custom})
		if err != nil {
			t.Fatal(err)
		}
		return tagger, result.State.History[0].Loss
	}
	plain, loss := train(adapt.Strategy{}, nil)
	sparse, more := train(adapt.Strategy{Objective: []adapt.Objective{{Kind: "attention_entropy", Weight: 2}}}, nil)
	before, after := attentionEntropy(t, plain), attentionEntropy(t, sparse)
	if !(after < before-0.1) {
		t.Errorf("attention has entropy %g with the objective and %g without", after, before)
	}
	if value := (more - loss) / 2; !(value > 0.5 && value < math.Log(48)) {
		t.Errorf("the objective adds %g to the first loss, no entropy of attention", value)
	}
	_, more = train(adapt.Strategy{Objective: []adapt.Objective{{Kind: "custom", Weight: 3}}}, func(s adapt.Signals) *graph.Node {
		return graph.MulScalar(graph.OnesLike(graph.ReduceAllSum(s.Logits)), 0.25)
	})
	gxtest.Close(t, more-loss, 0.75, 1e-5)

	fresh := newTagger(t, 2)
	frozen, _ := train(adapt.Strategy{Gradient: []adapt.Rate{{Variables: []string{"/embeddings/*", "/layer_*"}, Factor: 0}}}, nil)
	gxtest.Close(t, attentionEntropy(t, frozen), attentionEntropy(t, fresh), 0)

	for want, strategy := range map[string]adapt.Strategy{
		"no function came with it":       {Objective: []adapt.Objective{{Kind: "custom", Weight: 3}}},
		"attention has no span":          {Objective: []adapt.Objective{{Kind: "span", Weight: 1}}},
		"no earlier runs are known":      {Experience: []adapt.Prior{{FromRun: "x", Weight: 1}}},
		`pattern "/decoder/*" matches`:   {Gradient: []adapt.Rate{{Variables: []string{"/decoder/*"}}}},
		"objective[0].kind \"\" is unkn": {Objective: []adapt.Objective{{Weight: 1}}},
	} {
		config := recipe(1)
		config.Adapt = strategy
		if _, err := newTagger(t, 2).Train(t.Context(), corpus, nil, config, ner.TrainOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

// TestFisherOfATagger: it covers every weight, is nowhere negative and not all zero, and is 0
// for the embeddings of tokens that do not occur.
func TestFisherOfATagger(t *testing.T) {
	tagger := newTagger(t, 2)
	fisher, err := tagger.Fisher(t.Context(), synth.Entities(3, 4))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range tagger.Model.Config.Variables() {
		zeros, sum := 0, 0.0
		for _, x := range tensors.MustCopyFlatData[float32](fisher[v.Path]) {
			if !(x >= 0) {
				t.Fatalf("%s has Fisher information %g", v.Path, x)
			}
			if x == 0 {
				zeros++
			}
			sum += float64(x)
		}
		if sum == 0 && !strings.HasSuffix(v.Path, "key/bias") || strings.HasSuffix(v.Path, "/word") && zeros < v.Size()/2 {
			t.Errorf("%s: sum %g, %d of %d are 0", v.Path, sum, zeros, v.Size())
		}
	}
}

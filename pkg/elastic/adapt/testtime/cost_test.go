package testtime_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// dots counts the matrix products that nodes need, equal ones once, as backends compute them.
func dots(nodes ...*Node) int {
	count, classes, numbers := 0, map[string]int{}, map[NodeId]int{}
	reference := regexp.MustCompile(`#\d+`)
	var visit func(n *Node) int
	visit = func(n *Node) int {
		if number, ok := numbers[n.Id()]; ok {
			return number
		}
		for _, input := range n.Inputs() {
			visit(input)
		}
		_, operation, _ := strings.Cut(n.String(), " ")
		operation = strings.TrimPrefix(operation, fmt.Sprintf("#%d", n.Id()))
		for _, mark := range []string{" [StopGradient]", " [CustomVJP]"} {
			operation = strings.ReplaceAll(operation, mark, "")
		}
		operation = reference.ReplaceAllStringFunc(operation, func(id string) string {
			var i NodeId
			fmt.Sscanf(id, "#%d", &i)
			return fmt.Sprintf("#%d", numbers[i])
		})
		number, ok := classes[operation]
		if !ok {
			number = len(classes)
			classes[operation] = number
			if n.Type() == NodeTypeDotGeneral {
				count++
			}
		}
		numbers[n.Id()] = number
		return number
	}
	for _, n := range nodes {
		visit(n)
	}
	return count
}

// TestCost counts the matrix products of a step. Plain prediction needs eight a layer, six by weights
// and two of attention, and one for the head. The gradient that goes down needs one for each by
// weights and two for each of attention, ten a layer, and none for weights that do not adapt; where
// it ends, at the first normalisation of a layer, only the two of what follows. What is not above the
// lowest variable that adapts is computed once.
func TestCost(t *testing.T) {
	const layers = 3
	const plain, back = 8*layers + 1, 10*layers + 1
	const third = 2 + 1                               // above the first normalisation of the last layer, forth or back
	const halfForth, halfBack = third + 8, third + 10 // of the last but one
	all := []string{"*/norm/*"}
	for _, test := range []struct {
		config     testtime.Config
		step, look int // beyond plain prediction; and that of a look beyond the step
	}{
		{testtime.Config{Method: "tent"}, halfBack, halfForth},
		{testtime.Config{Method: "memo"}, halfBack, halfForth},
		{testtime.Config{Method: "pseudo_label"}, halfBack, halfForth},
		{testtime.Config{Method: "labels"}, third, third},
		{testtime.Config{Method: "eata"}, halfBack + 1, halfForth}, // the cosine
		{testtime.Config{Method: "masked"}, plain + third, third},
		{testtime.Config{Method: "sar"}, third + third + third, third},
		{testtime.Config{Method: "tent", LastLayers: 1}, third, third},
		{testtime.Config{Method: "sar", LastLayers: 2}, halfBack + halfForth + halfBack, halfForth},
		{testtime.Config{Method: "tent", Variables: all}, back, plain},
		{testtime.Config{Method: "tent", Variables: all, LastLayers: 1}, third, third},
		{testtime.Config{Method: "sar", Variables: all}, back + plain + back, plain},
	} {
		a, err := testtime.New(gxtest.Backend(t), layered(t, layers), test.config)
		if err != nil {
			t.Fatal(err)
		}
		inputs := []any{[][]int32{{3, 5, 7, 2, 9, 1}, {4, 4, 8, 11, 13, 2}}}
		if test.config.Method == "labels" {
			inputs = append(inputs, slices.Repeat([]int32{1, 2}, 6))
		}
		for _, look := range []bool{false, true} {
			want := plain + test.step
			if look {
				want += test.look
			}
			traced := false
			if err := a.Trace(gxtest.Backend(t), look, func(logits *Node, all []*Node) {
				traced = true
				if got := dots(logits); got != plain {
					t.Errorf("%+v: the prediction needs %d products, want those of one forward pass, %d", test.config, got, plain)
				}
				if got := dots(all...); got != want {
					t.Errorf("%+v, look %v: a step needs %d products, want %d", test.config, look, got, want)
				}
			}, inputs...); err != nil || !traced {
				t.Fatalf("traced %v: %v", traced, err)
			}
		}
	}
}

// layered is a small model of some layers.
func layered(t *testing.T, layers int) tokens {
	t.Helper()
	m, err := transformer.New(transformer.Config{
		VocabSize: 20, Hidden: 8, Layers: layers, FeedForward: 8, MaxPositions: 8, Activation: "gelu", NormEpsilon: 1e-5, InitStd: 0.5,
		Head: transformer.Head{Kind: transformer.Tokens, Labels: []string{"O", "A", "B"}}, Attention: attention.Spec{Heads: 2},
	}, 3)
	if err != nil {
		t.Fatal(err)
	}
	return tokens{m}
}

// TestLastLayers: which normalisations adapt in models of several depths.
func TestLastLayers(t *testing.T) {
	adapting := func(layers int, config testtime.Config) (list []string, err error) {
		a, err := testtime.New(gxtest.Backend(t), layered(t, layers), config)
		if err != nil {
			return nil, err
		}
		for _, v := range a.Variables() {
			if place, ok := strings.CutSuffix(v.Path, "/attention/norm/scale"); ok || v.Path == "/embeddings/norm/scale" {
				list = append(list, place)
			}
		}
		return list, nil
	}
	for _, test := range []struct {
		layers int
		config testtime.Config
		want   string
	}{
		{1, testtime.Config{}, "/layer_0"},
		{2, testtime.Config{}, "/layer_1"},
		{6, testtime.Config{}, "/layer_3 /layer_4 /layer_5"},
		{6, testtime.Config{Method: "masked"}, "/layer_4 /layer_5"},
		{6, testtime.Config{Method: "labels"}, "/layer_4 /layer_5"},
		{6, testtime.Config{Method: "sar"}, "/layer_4 /layer_5"},
		{1, testtime.Config{Method: "sar"}, "/layer_0"},
		{3, testtime.Config{Method: "sar", LastLayers: 2}, "/layer_1 /layer_2"},
		{3, testtime.Config{LastLayers: 3}, "/layer_0 /layer_1 /layer_2"},
		{2, testtime.Config{LastLayers: 9}, "/embeddings/norm/scale /layer_0 /layer_1"},
		{2, testtime.Config{Variables: []string{"*/norm/*"}}, "/embeddings/norm/scale /layer_0 /layer_1"},
		{2, testtime.Config{Variables: []string{"/layer_0/*"}}, "/layer_0"},
		{2, testtime.Config{Variables: []string{"/layer_*"}, LastLayers: 1}, "/layer_1"},
	} {
		got, err := adapting(test.layers, test.config)
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%d layers, %+v: %v adapt, want %s (%v)", test.layers, test.config, got, test.want, err)
		}
	}
	if _, err := adapting(3, testtime.Config{Variables: []string{"/layer_0/*"}, LastLayers: 2}); err == nil || !strings.Contains(err.Error(), "none of /layer_0/* is in the last 2 layers") {
		t.Errorf("variables below the last layers: %v", err)
	}
}

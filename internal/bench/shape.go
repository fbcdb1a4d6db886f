package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// DataEnv names the folder that tools/bench/make_inputs.py wrote.
const DataEnv = "BENCH_DATA"

const labels = 9

// shapes are those of tools/bench/common.py.
var shapes = map[string]transformer.Config{
	"minilm-l6": bert(6, 384, 12, 1536, 30522, 512),
	"bert-base": bert(12, 768, 12, 3072, 30522, 512),
	"tiny":      bert(2, 64, 4, 128, 1000, 128),
}

// adamW and rate are common.ADAMW.
var adamW = optim.AdamW{Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.01}

const rate = 5e-5

func bert(layers, hidden, heads, feedForward, vocabulary, positions int) transformer.Config {
	c := transformer.Config{
		VocabSize: vocabulary, Hidden: hidden, Layers: layers, FeedForward: feedForward,
		Attention: attention.Spec{Heads: heads}, MaxPositions: positions, TypeVocab: 2,
		Activation: "gelu", NormEpsilon: 1e-12, InitStd: 0.02,
		Head: transformer.Head{Kind: transformer.Tokens},
	}
	for i := range labels {
		c.Head.Labels = append(c.Head.Labels, strconv.Itoa(i))
	}
	return c
}

type seeded struct {
	shape string
	*transformer.Model
}

// load makes a model and gives every variable the peers' seeded value.
func load(shape string) (seeded, error) {
	config, ok := shapes[shape]
	if !ok {
		return seeded{}, fmt.Errorf("no shape %q; want one of %q", shape, slices.Sorted(maps.Keys(shapes)))
	}
	m, err := transformer.New(config, 0)
	if err != nil {
		return seeded{}, err
	}
	path := filepath.Join(os.Getenv(DataEnv), shape+".safetensors")
	file, err := safetensors.Open(path)
	if err != nil {
		return seeded{}, fmt.Errorf("opening seeded weights (%s names their folder, make_inputs.py writes them): %w", DataEnv, err)
	}
	defer file.Close()
	names := peerNames(config.Layers)
	for _, v := range config.Variables() {
		value, err := file.Tensor(names[v.Path])
		if err != nil {
			return seeded{}, fmt.Errorf("%s: reading %s: %w", path, v.Path, err)
		}
		if got := value.Shape().Dimensions; !slices.Equal(got, v.Shape) {
			return seeded{}, fmt.Errorf("%s: %s has shape %v, want %v", path, names[v.Path], got, v.Shape)
		}
		if err := m.Store.GetVariable(v.Path).SetValue(value); err != nil {
			return seeded{}, fmt.Errorf("setting %s: %w", v.Path, err)
		}
	}
	return seeded{shape, m}, nil
}

// peerNames maps our variables to the peers' names.
func peerNames(layers int) map[string]string {
	names := map[string]string{"/embeddings/word": "emb.word", "/embeddings/position": "emb.pos", "/embeddings/type": "emb.type"}
	dense := func(ours, theirs string) {
		names[ours+"/weights"], names[ours+"/bias"] = theirs+".w", theirs+".b"
	}
	norm := func(ours, theirs string) {
		names[ours+"/scale"], names[ours+"/bias"] = theirs+".g", theirs+".b"
	}
	norm("/embeddings/norm", "emb.ln")
	for i := range layers {
		ours, theirs := fmt.Sprintf("/layer_%d", i), fmt.Sprintf("l%d.", i)
		dense(ours+"/attention/query", theirs+"q")
		dense(ours+"/attention/key", theirs+"k")
		dense(ours+"/attention/value", theirs+"v")
		dense(ours+"/attention/output", theirs+"o")
		norm(ours+"/attention/norm", theirs+"ln1")
		dense(ours+"/feed_forward/inner", theirs+"f1")
		dense(ours+"/feed_forward/outer", theirs+"f2")
		norm(ours+"/feed_forward/norm", theirs+"ln2")
	}
	dense("/head/classifier", "cls")
	return names
}

// batchOf returns token ids, mask and labels as common.inputs does: a 64-bit linear
// congruential generator, and rows that go down from full to half length.
func batchOf(vocabulary, batch, seq int) (ids, mask, targets *tensors.Tensor) {
	flat := [3][]int32{}
	for i := range flat {
		flat[i] = make([]int32, batch*seq)
	}
	x := uint64(88172645463325252)
	for i := range batch * seq {
		x = x*6364136223846793005 + 1442695040888963407
		flat[0][i] = int32((x >> 33) % uint64(vocabulary))
		flat[2][i] = int32((x >> 33) % labels)
	}
	for row := range batch {
		for i := range max(1, seq-row*seq/(2*batch)) {
			flat[1][row*seq+i] = 1
		}
	}
	tensor := func(data []int32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(data, batch, seq) }
	return tensor(flat[0]), tensor(flat[1]), tensor(flat[2])
}

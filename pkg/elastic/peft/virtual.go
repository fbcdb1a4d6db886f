package peft

import (
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic"
)

// Places where models look for virtual tokens; see elastic.Weights.Extra.
const (
	wordTable  = "/embeddings/word"
	promptPath = "/embeddings/prompt"
	prefixKeys = "/prefix/keys"
	prefixVals = "/prefix/values"
)

// virtualStd is the standard deviation of initial virtual tokens: that of embeddings.
const virtualStd = 0.02

func virtualVariable(path string, length, width int) elastic.Variable {
	return elastic.Variable{Path: path, Shape: []int{length, width}, Init: elastic.Init{Normal: virtualStd}, Decay: true}
}

// prefixVariables lists keys and values, [length, key heads · width] each, before those of the
// attention whose key layer has the given matrix.
//
// Source: Li, Liang 2021, "Prefix-tuning: Optimizing continuous prompts for generation",
// section 4, without the network that makes them while training.
func prefixVariables(c Config, base []elastic.Variable, key elastic.Variable) []elastic.Variable {
	attention := strings.TrimSuffix(layerPath(key), "/key")
	width := key.Shape[1]
	if at := slices.IndexFunc(base, func(v elastic.Variable) bool { return v.Path == attention+"/value/weights" }); at >= 0 {
		width = base[at].Shape[1]
	}
	return []elastic.Variable{virtualVariable(attention+prefixKeys, c.Length, key.Shape[1]), virtualVariable(attention+prefixVals, c.Length, width)}
}

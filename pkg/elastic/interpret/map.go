package interpret

import "github.com/gomlx/gomlx/support/exceptions"

// AttentionMap is what a text's tokens attend to.
type AttentionMap struct {
	Tokens []string `json:"tokens"`
	// Weights are [layers][heads][queries][keys].
	Weights [][][][]float64 `json:"weights"`
}

// MapAttention makes a map of flat weights [layers, heads, length, length], of which the first positions are the tokens and the
// others padding.
func MapAttention(tokens []string, heads, length int, weights []float32) AttentionMap {
	if heads < 1 || length < max(len(tokens), 1) || len(weights)%(heads*length*length) != 0 {
		exceptions.Panicf("a map of attention needs weights [layers, %d, %d, %d] for %d tokens, got %d numbers", heads, length, length, len(tokens), len(weights))
	}
	m := AttentionMap{Tokens: tokens}
	for len(weights) > 0 {
		layer := make([][][]float64, heads)
		for head := range layer {
			for query := range tokens {
				row := make([]float64, len(tokens))
				for key := range row {
					row[key] = float64(weights[query*length+key])
				}
				layer[head] = append(layer[head], row)
			}
			weights = weights[length*length:]
		}
		m.Weights = append(m.Weights, layer)
	}
	return m
}

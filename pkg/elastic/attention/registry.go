package attention

import "encoding/json"

// builtin lists the parts of this package.
func builtin() map[string]func(json.RawMessage) (Part, error) {
	kinds := map[string]func(json.RawMessage) (Part, error){}
	for _, add := range []func(map[string]func(json.RawMessage) (Part, error)){
		// masks
		known[Causal], known[Window], known[Band], known[SinkWindow], known[Dilated], known[Chunk], known[Prefix], known[Document],
		known[All], known[Any], known[None],
		// scores
		known[Temperature], known[InputTemperature], known[TaskTemperature], known[SSMax], known[Softcap], known[TalkingHeads], known[Selective],
		known[Recency], known[Salience], known[Inhibition],
		// positions
		known[ALiBi], known[T5Bias], known[ShawBias],
		// normalisers
		known[PlainSoftmax], known[Sparsemax], known[Entmax], known[ElementSigmoid], known[OffByOne], known[Sink], known[TopKeys], known[Linear],
		// gates
		known[HeadGate], known[HardConcrete], known[OutputGate], known[MixtureOfHeads],
	} {
		add(kinds)
	}
	return kinds
}

func known[P Part](kinds map[string]func(json.RawMessage) (Part, error)) {
	var zero P
	kinds[zero.Kind()] = read[P]
}

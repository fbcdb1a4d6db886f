package attention

func init() {
	for _, register := range []func() error{
		// masks
		Register[Causal], Register[Window], Register[Band], Register[SinkWindow], Register[Dilated], Register[Chunk], Register[Prefix], Register[Document],
		Register[All], Register[Any], Register[None],
		// scores
		Register[Temperature], Register[InputTemperature], Register[TaskTemperature], Register[SSMax], Register[Softcap], Register[TalkingHeads], Register[Selective],
		Register[Recency], Register[Salience], Register[Inhibition],
		// positions
		Register[ALiBi], Register[T5Bias], Register[ShawBias],
		// normalisers
		Register[PlainSoftmax], Register[Sparsemax], Register[Entmax], Register[ElementSigmoid], Register[OffByOne], Register[Sink], Register[TopKeys], Register[Linear],
		// gates
		Register[HeadGate], Register[HardConcrete], Register[OutputGate], Register[MixtureOfHeads],
	} {
		if err := register(); err != nil {
			panic(err) // two parts of this package have one kind
		}
	}
}

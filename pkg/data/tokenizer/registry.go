package tokenizer

// The kinds that tokenizer.json may name. To add one, write its type and add its
// line here; error messages list these keys.

func normalizerKinds() map[string]func(*part) (normalizer, error) {
	return map[string]func(*part) (normalizer, error){
		"BertNormalizer": newBERTNormalizer,
		"Lowercase":      plain[normalizer](lowercase{}),
		"NFC":            plain[normalizer](unicodeForm{compose: true}),
		"NFD":            plain[normalizer](unicodeForm{}),
		"NFKC":           plain[normalizer](unicodeForm{compose: true, compat: true}),
		"NFKD":           plain[normalizer](unicodeForm{compat: true}),
		"Sequence":       newNormalizerSequence,
		"StripAccents":   plain[normalizer](stripAccents{}),
	}
}

func preTokenizerKinds() map[string]func(*part) (preTokenizer, error) {
	return map[string]func(*part) (preTokenizer, error){
		"BertPreTokenizer": plain[preTokenizer](byClass{drop: propSpace, alone: propPunctuation}),
		"Punctuation":      newPunctuation,
		"Sequence":         newPreTokenizerSequence,
		"Whitespace":       plain[preTokenizer](wordRuns{}),
		"WhitespaceSplit":  plain[preTokenizer](byClass{drop: propSpace}),
	}
}

func modelKinds() map[string]func(*part) (model, error) {
	return map[string]func(*part) (model, error){
		"WordPiece": newWordPiece,
	}
}

func postProcessorKinds() map[string]func(*part) (postProcessor, error) {
	return map[string]func(*part) (postProcessor, error){
		"BertProcessing":     newBERTProcessing,
		"TemplateProcessing": newTemplateProcessing,
	}
}

func decoderKinds() map[string]func(*part) (decoder, error) {
	return map[string]func(*part) (decoder, error){
		"WordPiece": newWordPieceDecoder,
	}
}

// plain is the constructor of a kind without settings.
func plain[T any](v T) func(*part) (T, error) {
	return func(*part) (T, error) { return v, nil }
}

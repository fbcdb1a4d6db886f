package pretrained

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// family maps one model_type of Hugging Face transformers to our names and back.
type family struct {
	// prefix stands before the encoder's tensors in a checkpoint with a task head
	// ("bert." in BertForTokenClassification) and is absent in one without.
	prefix string
	// class is the stem of the class names in "architectures".
	class string
	// read takes the fields that are this family's own into a config, and write is its inverse.
	read  func(f *fields, c *transformer.Config)
	write func(c transformer.Config, out map[string]any)
	// names maps the last parts of our paths to theirs; "layer_#" stands for any layer.
	// Names below /head are complete, the others follow the prefix.
	names map[string]string
	// ignored lists tensors that a checkpoint may have and that carry no information
	// for us, as path prefixes after the family's prefix is cut off.
	ignored []string
}

// families is the registry: one entry per model_type.
var families = map[string]family{
	"bert": {
		prefix: "bert.", class: "Bert",
		read:  func(f *fields, c *transformer.Config) { readBERT(f, c) },
		write: func(c transformer.Config, out map[string]any) { writeBERT(c, out) },
		names: bertNames("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias", "cls.predictions.decoder"),
		ignored: []string{
			"embeddings.position_ids",      // the numbers 0, 1, 2, …
			"cls.seq_relationship.",        // next-sentence head of pretraining
			"cls.predictions.decoder.",     // where it is tied to the word embeddings and cls.predictions.bias
			"cls.predictions.bias",         // where it is not, and the decoder has a bias of its own
			"embeddings.token_type_ids",    // zeros
			"cls.predictions.decoder_bias", // older name of the same
		},
	},
	"roberta": {
		prefix: "roberta.", class: "Roberta",
		read: func(f *fields, c *transformer.Config) {
			readBERT(f, c)
			c.PositionsFromPad = true
			c.PadID = int(f.number("pad_token_id", 1))
		},
		write:   func(c transformer.Config, out map[string]any) { writeBERT(c, out) },
		names:   bertNames("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
		ignored: []string{"embeddings.position_ids", "lm_head.decoder.", "lm_head.bias"},
	},
	"distilbert": {
		prefix: "distilbert.", class: "DistilBert",
		read: func(f *fields, c *transformer.Config) {
			c.Hidden = f.integer("dim")
			c.Layers = f.integer("n_layers")
			c.FeedForward = f.integer("hidden_dim")
			c.Activation = f.activation("activation")
			c.Dropout = f.number("dropout", 0.1)
			c.Attention = attention.Spec{Heads: f.integer("n_heads"), Dropout: f.number("attention_dropout", 0.1)}
			c.Head.Dropout = f.number("seq_classif_dropout", 0.2)
			if c.Head.Kind == transformer.Tokens {
				c.Head.Dropout = c.Dropout // DistilBertForTokenClassification uses the general rate
			}
			c.NormEpsilon = 1e-12
		},
		write: func(c transformer.Config, out map[string]any) {
			out["dim"], out["n_layers"], out["hidden_dim"], out["n_heads"] = c.Hidden, c.Layers, c.FeedForward, c.Attention.Heads
			out["activation"] = hfActivation(c.Activation)
			out["dropout"], out["attention_dropout"] = c.Dropout, c.Attention.Dropout
			out["sinusoidal_pos_embds"] = false
		},
		names: map[string]string{
			"embeddings/word":            "embeddings.word_embeddings.weight",
			"embeddings/position":        "embeddings.position_embeddings.weight",
			"embeddings/norm":            "embeddings.LayerNorm",
			"layer_#/attention/query":    "transformer.layer.#.attention.q_lin",
			"layer_#/attention/key":      "transformer.layer.#.attention.k_lin",
			"layer_#/attention/value":    "transformer.layer.#.attention.v_lin",
			"layer_#/attention/output":   "transformer.layer.#.attention.out_lin",
			"layer_#/attention/norm":     "transformer.layer.#.sa_layer_norm",
			"layer_#/feed_forward/inner": "transformer.layer.#.ffn.lin1",
			"layer_#/feed_forward/outer": "transformer.layer.#.ffn.lin2",
			"layer_#/feed_forward/norm":  "transformer.layer.#.output_layer_norm",
			"head/classifier":            "classifier",
			"head/transform":             "vocab_transform",
			"head/norm":                  "vocab_layer_norm",
			"head/bias":                  "vocab_projector.bias",
			"head/decoder":               "vocab_projector",
		},
		ignored: []string{"embeddings.position_ids", "vocab_projector.weight"},
	},
}

// Families lists the model types that can be loaded, sorted.
func Families() []string { return slices.Sorted(maps.Keys(families)) }

// familyOf returns the model_type that a config is written as.
func familyOf(c transformer.Config) string {
	switch {
	case c.PositionsFromPad:
		return "roberta"
	case c.TypeVocab == 0:
		return "distilbert"
	default:
		return "bert"
	}
}

func bertNames(transform, norm, bias, decoder string) map[string]string {
	return map[string]string{
		"embeddings/word":            "embeddings.word_embeddings.weight",
		"embeddings/position":        "embeddings.position_embeddings.weight",
		"embeddings/type":            "embeddings.token_type_embeddings.weight",
		"embeddings/norm":            "embeddings.LayerNorm",
		"layer_#/attention/query":    "encoder.layer.#.attention.self.query",
		"layer_#/attention/key":      "encoder.layer.#.attention.self.key",
		"layer_#/attention/value":    "encoder.layer.#.attention.self.value",
		"layer_#/attention/output":   "encoder.layer.#.attention.output.dense",
		"layer_#/attention/norm":     "encoder.layer.#.attention.output.LayerNorm",
		"layer_#/feed_forward/inner": "encoder.layer.#.intermediate.dense",
		"layer_#/feed_forward/outer": "encoder.layer.#.output.dense",
		"layer_#/feed_forward/norm":  "encoder.layer.#.output.LayerNorm",
		"head/pooler":                "pooler.dense",
		"head/classifier":            "classifier",
		"head/transform":             transform,
		"head/norm":                  norm,
		"head/bias":                  bias,
		"head/decoder":               decoder,
	}
}

// place is where one of our variables stands in a checkpoint.
type place struct {
	name       string // the tensor's name, with the family's prefix
	transposed bool   // stored [outputs, inputs], as torch's Linear does
	elastic    bool   // of a part of our attention, which the family does not have
}

// The marks of a model whose attention no published family has.
const (
	elasticPrefix  = "elastic." // of the names of its parts' tensors
	elasticType    = "elastic-" // before the family's model_type
	elasticField   = "elastic_attention"
	poolingField   = "elastic_pooling" // Head.Pooling, where it is not the family's
	elasticVersion = 1
)

// elasticAttention is the field of config.json that holds the attention of such a model.
type elasticAttention struct {
	Version int            `json:"version"`
	Spec    attention.Spec `json:"spec"`
}

// place returns where the variable with a path stands. The prefix is cut from names
// when the checkpoint is a bare encoder.
func (f family) place(path string, bare bool) (place, error) {
	key := strings.TrimPrefix(path, "/")
	layer := ""
	if rest, ok := strings.CutPrefix(key, "layer_"); ok {
		layer, key, _ = strings.Cut(rest, "/")
		key = "layer_#/" + key
	}
	name, whole := f.names[key], true
	if name == "" {
		at := strings.LastIndexByte(key, '/')
		name, whole = f.names[key[:max(at, 0)]], false
		if rest, ok := strings.CutPrefix(key, "layer_#/attention/"); ok && name == "" {
			return place{name: elasticPrefix + "layer." + layer + ".attention." + strings.ReplaceAll(rest, "/", "."), elastic: true}, nil
		}
		if strings.HasPrefix(key, "head/pooling/") {
			return place{name: elasticPrefix + strings.ReplaceAll(key, "/", "."), elastic: true}, nil
		}
		if name == "" {
			return place{}, fmt.Errorf("%s has no name for %s", f.class, path)
		}
		name += map[string]string{"weights": ".weight", "scale": ".weight", "bias": ".bias"}[key[at+1:]]
	}
	name = strings.Replace(name, "#", layer, 1)
	inEncoder := !strings.HasPrefix(key, "head/") || strings.HasPrefix(key, "head/pooler/")
	if inEncoder && !bare {
		name = f.prefix + name
	}
	return place{name: name, transposed: !whole && strings.HasSuffix(path, "/weights")}, nil
}

// fields reads a config.json and collects what is wrong with it.
type fields struct {
	raw      map[string]json.RawMessage
	problems []error
}

func (f *fields) get(name string, into any) bool {
	raw, ok := f.raw[name]
	if !ok || string(raw) == "null" {
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil {
		f.problems = append(f.problems, fmt.Errorf("%s is %s: %w", name, raw, err))
	}
	return true
}

func (f *fields) integer(name string) (value int) {
	if !f.get(name, &value) {
		f.problems = append(f.problems, fmt.Errorf("%s is missing", name))
	}
	return value
}

func (f *fields) number(name string, missing float64) float64 {
	value := missing
	f.get(name, &value)
	return value
}

func (f *fields) text(name string) (value string) {
	f.get(name, &value)
	return value
}

// activationKinds maps the names of transformers to ours.
var activationKinds = map[string]string{
	"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python": "gelu", "relu": "relu", "tanh": "tanh",
}

func (f *fields) activation(name string) string {
	value := f.text(name)
	kind, ok := activationKinds[value]
	if !ok {
		f.problems = append(f.problems, fmt.Errorf("%s %q is not supported; supported: %v", name, value, slices.Sorted(maps.Keys(activationKinds))))
	}
	return kind
}

func hfActivation(kind string) string {
	if kind == "gelu_tanh" {
		return "gelu_new"
	}
	return kind
}

func readBERT(f *fields, c *transformer.Config) {
	c.Hidden = f.integer("hidden_size")
	c.Layers = f.integer("num_hidden_layers")
	c.FeedForward = f.integer("intermediate_size")
	c.TypeVocab = f.integer("type_vocab_size")
	c.Activation = f.activation("hidden_act")
	c.NormEpsilon = f.number("layer_norm_eps", 1e-12)
	c.Dropout = f.number("hidden_dropout_prob", 0.1)
	c.Attention = attention.Spec{Heads: f.integer("num_attention_heads"), Dropout: f.number("attention_probs_dropout_prob", 0.1)}
	c.Head.Dropout = f.number("classifier_dropout", c.Dropout)
	if kind := f.text("position_embedding_type"); kind != "" && kind != "absolute" {
		f.problems = append(f.problems, fmt.Errorf("position_embedding_type %q is not supported; supported: absolute", kind))
	}
	var decoder, cross bool
	f.get("is_decoder", &decoder)
	f.get("add_cross_attention", &cross)
	if decoder || cross {
		f.problems = append(f.problems, errors.New("is_decoder and add_cross_attention are not supported"))
	}
}

func writeBERT(c transformer.Config, out map[string]any) {
	out["hidden_size"], out["num_hidden_layers"], out["intermediate_size"] = c.Hidden, c.Layers, c.FeedForward
	out["num_attention_heads"], out["type_vocab_size"] = c.Attention.Heads, c.TypeVocab
	out["hidden_act"] = hfActivation(c.Activation)
	out["layer_norm_eps"] = c.NormEpsilon
	out["hidden_dropout_prob"], out["attention_probs_dropout_prob"] = c.Dropout, c.Attention.Dropout
	if c.Head.Dropout != c.Dropout {
		out["classifier_dropout"] = c.Head.Dropout
	}
	out["position_embedding_type"] = "absolute"
}

// headClasses maps what follows the stem of a class name to a head.
var headClasses = map[string]string{
	"Model":                     transformer.Pooled,
	"ForMaskedLM":               transformer.MaskedLM,
	"ForPreTraining":            transformer.MaskedLM,
	"ForTokenClassification":    transformer.Tokens,
	"ForSequenceClassification": transformer.Sequence,
}

// readConfig turns a config.json into a Config.
func readConfig(data []byte) (transformer.Config, family, error) {
	f := &fields{}
	if err := json.Unmarshal(data, &f.raw); err != nil {
		return transformer.Config{}, family{}, err
	}
	modelType, isElastic := strings.CutPrefix(f.text("model_type"), elasticType)
	fam, ok := families[modelType]
	if !ok {
		return transformer.Config{}, family{}, fmt.Errorf("model_type %q is not supported; supported: %v", modelType, Families())
	}
	c := transformer.Config{
		VocabSize:    f.integer("vocab_size"),
		MaxPositions: f.integer("max_position_embeddings"),
		PadID:        int(f.number("pad_token_id", 0)),
		InitStd:      f.number("initializer_range", 0.02),
	}
	var architectures []string
	if f.get("architectures", &architectures) && len(architectures) > 0 {
		suffix, ok := strings.CutPrefix(architectures[0], fam.class)
		kind, known := headClasses[suffix]
		if !ok || !known {
			f.problems = append(f.problems, fmt.Errorf("architecture %q is not supported; supported: %s followed by one of %v",
				architectures[0], fam.class, slices.Sorted(maps.Keys(headClasses))))
		}
		c.Head.Kind = kind
	}
	if c.Head.Kind == transformer.MaskedLM {
		tied := true
		f.get("tie_word_embeddings", &tied)
		c.Head.Untied = !tied
	}
	if modelType == "distilbert" && c.Head.Kind == transformer.Pooled {
		c.Head.Kind = transformer.NoHead // DistilBertModel has no pooler
	}
	if modelType != "bert" && c.Head.Kind == transformer.Sequence {
		f.problems = append(f.problems, fmt.Errorf("architecture %q is not supported: its head differs from BERT's", architectures[0]))
	}
	if c.Head.Kind == transformer.Tokens || c.Head.Kind == transformer.Sequence {
		c.Head.Labels = f.labels()
	}
	fam.read(f, &c)
	f.attention(&c, isElastic)
	if len(f.problems) == 0 {
		if err := c.Validate(); err != nil {
			f.problems = append(f.problems, err)
		}
	}
	return c, fam, errors.Join(f.problems...)
}

// attention reads the spec of a model whose attention is not the family's own, and the
// pooling of one whose pooling is not.
func (f *fields) attention(c *transformer.Config, isElastic bool) {
	_, has := f.raw[elasticField]
	pooled := f.get(poolingField, &c.Head.Pooling)
	if (has || pooled) != isElastic {
		f.problems = append(f.problems, fmt.Errorf("model_type and %s or %s do not fit: a model with one begins with %q", elasticField, poolingField, elasticType))
		return
	}
	if !has {
		return
	}
	var version struct {
		Version int `json:"version"`
	}
	if f.get(elasticField, &version); version.Version != elasticVersion {
		f.problems = append(f.problems, fmt.Errorf("%s has version %d, this program reads version %d", elasticField, version.Version, elasticVersion))
		return
	}
	var read elasticAttention
	f.get(elasticField, &read)
	c.Attention = read.Spec
}

// labels reads id2label, whose keys are the ids 0, 1, … in any order. Without it there are num_labels
// (by default two) labels called LABEL_i, as in transformers.
func (f *fields) labels() []string {
	var byID map[string]string
	if !f.get("id2label", &byID) {
		count := int(f.number("num_labels", 2))
		if count < 1 || count > 1<<20 {
			f.problems = append(f.problems, fmt.Errorf("num_labels is %d", count))
			return nil
		}
		labels := make([]string, count)
		for i := range labels {
			labels[i] = "LABEL_" + strconv.Itoa(i)
		}
		return labels
	}
	labels := make([]string, len(byID))
	for i := range labels {
		label, ok := byID[strconv.Itoa(i)]
		if !ok {
			f.problems = append(f.problems, fmt.Errorf("id2label has %d entries but none for id %d", len(byID), i))
		}
		labels[i] = label
	}
	return labels
}

// writeConfig is the inverse of readConfig.
func writeConfig(c transformer.Config) ([]byte, error) {
	modelType := familyOf(c)
	fam := families[modelType]
	suffix := ""
	for _, candidate := range slices.Sorted(maps.Keys(headClasses)) {
		if headClasses[candidate] == c.Head.Kind && candidate != "ForPreTraining" {
			suffix = candidate
		}
	}
	if c.Head.Kind == transformer.NoHead {
		suffix = "Model"
	}
	out := map[string]any{
		"architectures":           []string{fam.class + suffix},
		"model_type":              modelType,
		"vocab_size":              c.VocabSize,
		"max_position_embeddings": c.MaxPositions,
		"pad_token_id":            c.PadID,
		"initializer_range":       c.InitStd,
		"dtype":                   "float32",
		"tie_word_embeddings":     !c.Head.Untied,
	}
	if len(c.Head.Labels) > 0 {
		id2label, label2id := map[string]string{}, map[string]int{}
		for i, label := range c.Head.Labels {
			id2label[strconv.Itoa(i)], label2id[label] = label, i
		}
		out["id2label"], out["label2id"] = id2label, label2id
	}
	fam.write(c, out)
	if !c.Attention.Plain() {
		out["model_type"] = elasticType + modelType
		out[elasticField] = elasticAttention{elasticVersion, c.Attention}
	}
	if kind := c.Head.Pooling; kind != "" && kind != transformer.FirstPooling {
		out["model_type"] = elasticType + modelType
		out[poolingField] = kind
	}
	data, err := json.MarshalIndent(out, "", "  ")
	return append(data, '\n'), err
}

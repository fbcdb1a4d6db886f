package pretrained

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/internal/strictjson"
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
	// for us, as path prefixes after the family's prefix is cut off; * stands for a layer.
	ignored []string
	// zeros lists tensors that the model does not have and that are therefore refused unless
	// all their elements are 0.
	zeros []string
	// generates is what follows the stem in the name of the class with a language-model head;
	// empty if the family has none that we know.
	generates string
	// positions and initStd are the names of two fields of config.json; empty means BERT's.
	positions, initStd string
	// untransposed says that matrices are stored [inputs, outputs].
	untransposed bool
	// own sets what the family's structure is, beside its sizes; nil means BERT's.
	own func(c *transformer.Config)
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
	"gpt2": {
		prefix: "transformer.", class: "GPT2", generates: "LMHeadModel", positions: "n_positions", untransposed: true,
		read: readGPT2, write: writeGPT2,
		own: func(c *transformer.Config) {
			c.NormOrder = transformer.PreNorm
			c.Attention = attention.Spec{Heads: c.Attention.Heads, Dropout: c.Attention.Dropout, Mask: attention.Causal{}}
		},
		names: map[string]string{
			"embeddings/word":            "wte.weight",
			"embeddings/position":        "wpe.weight",
			"layer_#/attention/query":    "h.#.attn.c_attn" + partMark + "0/3",
			"layer_#/attention/key":      "h.#.attn.c_attn" + partMark + "1/3",
			"layer_#/attention/value":    "h.#.attn.c_attn" + partMark + "2/3",
			"layer_#/attention/output":   "h.#.attn.c_proj",
			"layer_#/attention/norm":     "h.#.ln_1",
			"layer_#/feed_forward/inner": "h.#.mlp.c_fc",
			"layer_#/feed_forward/outer": "h.#.mlp.c_proj",
			"layer_#/feed_forward/norm":  "h.#.ln_2",
			"norm":                       "ln_f",
		},
		ignored: []string{"h.*.attn.bias", "h.*.attn.masked_bias", "lm_head.weight"}, // the causal mask; the word embeddings
	},
	"bart": {
		prefix: "model.", class: "Bart", generates: "ForConditionalGeneration", initStd: "init_std",
		read: readBART, write: writeBART,
		own: func(c *transformer.Config) {
			c.NormOrder = ""
			c.Attention = attention.Spec{Heads: c.Attention.Heads, Dropout: c.Attention.Dropout}
			d := *c.Decoder
			d.Attention = attention.Spec{Heads: d.Attention.Heads, Dropout: c.Attention.Dropout, Mask: attention.Causal{}}
			d.Cross = attention.Spec{Heads: d.Attention.Heads, Dropout: c.Attention.Dropout}
			c.Decoder = &d
		},
		names:   bartNames(),
		ignored: []string{"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}, // the word embeddings
		zeros:   []string{"final_logits_bias"},
	},
}

// Families lists the model types that can be loaded, sorted.
func Families() []string { return slices.Sorted(maps.Keys(families)) }

// familyOf returns the model_type that a config is written as.
func familyOf(c transformer.Config) string {
	switch {
	case c.Decoder != nil:
		return "bart"
	case c.Head.Kind == transformer.LM || c.NormOrder == transformer.PreNorm && c.Head.Kind == transformer.NoHead && c.TypeVocab == 0:
		return "gpt2"
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
	elastic    bool   // of a part of ours, which the family does not have
	part       int    // which of parts along the last axis of the tensor; parts is 0 for the whole
	parts      int
	copies     int // of the tensor, which make the variable's first axis; 0 for none
}

// partMark stands in a family's names before "i/n": the variable is the i-th of n equal parts.
const partMark = " part "

// The marks of a model that no published family has.
const (
	elasticPrefix  = "elastic." // of the names of its parts' tensors
	elasticType    = "elastic-" // before the family's model_type
	elasticField   = "elastic_attention"
	structureField = "elastic_structure"
	poolingField   = "elastic_pooling" // Head.Pooling, where it is not the family's
	elasticVersion = 1
)

// elasticStructure is the field of config.json that holds the structure of such a model.
type elasticStructure struct {
	Version   int                  `json:"version"`
	NormOrder string               `json:"norm_order,omitempty"`
	Depth     *transformer.Depth   `json:"depth,omitempty"`
	Experts   *transformer.Experts `json:"experts,omitempty"`
	Decoder   *transformer.Decoder `json:"decoder,omitempty"`
}

func structureOf(c transformer.Config) elasticStructure {
	return elasticStructure{elasticVersion, c.NormOrder, c.Depth, c.Experts, c.Decoder}
}

// standard returns c with the family's own attention and structure in place of c's.
func (f family) standard(c transformer.Config) transformer.Config {
	c.Depth, c.Experts = nil, nil
	if f.own != nil {
		f.own(&c)
		return c
	}
	c.NormOrder, c.Decoder = "", nil
	c.Attention = attention.Spec{Heads: c.Attention.Heads, Dropout: c.Attention.Dropout}
	return c
}

// same tells whether two values are the same in JSON.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// elasticAttention is the field of config.json that holds the attention of such a model.
type elasticAttention struct {
	Version int            `json:"version"`
	Spec    attention.Spec `json:"spec"`
}

// place returns where the variable with a path stands. The prefix is cut from names
// when the checkpoint is a bare encoder.
func (f family) place(path string, bare bool) (place, error) {
	key, layer := strings.TrimPrefix(path, "/"), ""
	for _, stack := range []string{"", "decoder/"} {
		if rest, ok := strings.CutPrefix(key, stack+"layer_"); ok {
			layer, key, _ = strings.Cut(rest, "/")
			key = stack + "layer_#/" + key
		}
	}
	name, whole := f.names[key], true
	if name == "" {
		at := strings.LastIndexByte(key, '/')
		name, whole = f.names[key[:max(at, 0)]], false
		if name == "" && !strings.HasPrefix(key, "head/") { // of a part of ours
			key = strings.Replace(key, "layer_#", "layer."+layer, 1)
			return place{name: elasticPrefix + strings.ReplaceAll(key, "/", "."), elastic: true}, nil
		}
		if strings.HasPrefix(key, "head/pooling/") {
			return place{name: elasticPrefix + strings.ReplaceAll(key, "/", "."), elastic: true}, nil
		}
		if name == "" {
			return place{}, fmt.Errorf("%s has no name for %s", f.class, path)
		}
	}
	p := place{transposed: !whole && !f.untransposed && strings.HasSuffix(path, "/weights")}
	if stem, part, ok := strings.Cut(name, partMark); ok {
		name = stem
		if _, err := fmt.Sscanf(part, "%d/%d", &p.part, &p.parts); err != nil {
			return place{}, fmt.Errorf("%s: part %q: %w", f.class, part, err)
		}
	}
	if !whole {
		name += map[string]string{"weights": ".weight", "scale": ".weight", "bias": ".bias"}[key[strings.LastIndexByte(key, '/')+1:]]
	}
	name = strings.Replace(name, "#", layer, 1)
	inEncoder := !strings.HasPrefix(key, "head/") || strings.HasPrefix(key, "head/pooler/")
	if inEncoder && !bare {
		name = f.prefix + name
	}
	p.name = name
	return p, nil
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
	if err := strictjson.DecodeKnown(raw, into); err != nil {
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

// classes maps what follows the stem of the family's class names to a head.
func (f family) classes() map[string]string {
	if f.generates == "" {
		return headClasses
	}
	return map[string]string{"Model": transformer.NoHead, f.generates: transformer.LM}
}

func (f family) positionsField() string { return cmp.Or(f.positions, "max_position_embeddings") }

func (f family) initField() string { return cmp.Or(f.initStd, "initializer_range") }

// readConfig turns a config.json into a Config.
func readConfig(data []byte) (transformer.Config, family, error) {
	f := &fields{}
	if err := strictjson.DecodeKnown(data, &f.raw); err != nil {
		return transformer.Config{}, family{}, err
	}
	modelType, isElastic := strings.CutPrefix(f.text("model_type"), elasticType)
	fam, ok := families[modelType]
	if !ok {
		return transformer.Config{}, family{}, fmt.Errorf("model_type %q is not supported; supported: %v", modelType, Families())
	}
	c := transformer.Config{
		VocabSize:    f.integer("vocab_size"),
		MaxPositions: f.integer(fam.positionsField()),
		PadID:        int(f.number("pad_token_id", 0)),
		InitStd:      f.number(fam.initField(), 0.02),
	}
	var architectures []string
	if f.get("architectures", &architectures) && len(architectures) > 0 {
		suffix, ok := strings.CutPrefix(architectures[0], fam.class)
		classes := fam.classes()
		kind, known := classes[suffix]
		if !ok || !known {
			f.problems = append(f.problems, fmt.Errorf("architecture %q is not supported; supported: %s followed by one of %v",
				architectures[0], fam.class, slices.Sorted(maps.Keys(classes))))
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
	f.elastic(&c, isElastic)
	if len(f.problems) == 0 {
		if err := c.Validate(); err != nil {
			f.problems = append(f.problems, err)
		}
	}
	return c, fam, errors.Join(f.problems...)
}

// elastic reads the attention, the structure and the pooling of a model where they are not the
// family's own.
func (f *fields) elastic(c *transformer.Config, isElastic bool) {
	_, hasSpec := f.raw[elasticField]
	_, hasStructure := f.raw[structureField]
	pooled := f.get(poolingField, &c.Head.Pooling)
	if (hasSpec || hasStructure || pooled) != isElastic {
		f.problems = append(f.problems, fmt.Errorf("model_type and %s, %s or %s do not fit: a model with one begins with %q",
			elasticField, structureField, poolingField, elasticType))
		return
	}
	var spec elasticAttention
	if hasSpec && f.versioned(elasticField, &spec) {
		c.Attention = spec.Spec
	}
	var structure elasticStructure
	if hasStructure && f.versioned(structureField, &structure) {
		c.NormOrder, c.Depth, c.Experts, c.Decoder = structure.NormOrder, structure.Depth, structure.Experts, structure.Decoder
	}
}

// versioned reads a field of our own, if it is of the version that we know.
func (f *fields) versioned(name string, into any) bool {
	var version struct {
		Version int `json:"version"`
	}
	if f.get(name, &version); version.Version != elasticVersion {
		f.problems = append(f.problems, fmt.Errorf("%s has version %d, this program reads version %d", name, version.Version, elasticVersion))
		return false
	}
	decoder := json.NewDecoder(bytes.NewReader(f.raw[name]))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		f.problems = append(f.problems, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "json: ")))
		return false
	}
	return true
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
	classes := fam.classes()
	for _, candidate := range slices.Sorted(maps.Keys(classes)) {
		if classes[candidate] == c.Head.Kind && candidate != "ForPreTraining" {
			suffix = candidate
		}
	}
	if c.Head.Kind == transformer.NoHead {
		suffix = "Model"
	}
	out := map[string]any{
		"architectures":       []string{fam.class + suffix},
		"model_type":          modelType,
		"vocab_size":          c.VocabSize,
		fam.positionsField():  c.MaxPositions,
		"pad_token_id":        c.PadID,
		fam.initField():       c.InitStd,
		"dtype":               "float32",
		"tie_word_embeddings": !c.Head.Untied,
	}
	if c.PadID < 0 {
		out["pad_token_id"] = nil
	}
	if len(c.Head.Labels) > 0 {
		id2label, label2id := map[string]string{}, map[string]int{}
		for i, label := range c.Head.Labels {
			id2label[strconv.Itoa(i)], label2id[label] = label, i
		}
		out["id2label"], out["label2id"] = id2label, label2id
	}
	fam.write(c, out)
	standard := fam.standard(c)
	if !same(c.Attention, standard.Attention) {
		out["model_type"] = elasticType + modelType
		out[elasticField] = elasticAttention{elasticVersion, c.Attention}
	}
	if !same(structureOf(c), structureOf(standard)) {
		out["model_type"] = elasticType + modelType
		out[structureField] = structureOf(c)
	}
	if kind := c.Head.Pooling; kind != "" && kind != transformer.FirstPooling {
		out["model_type"] = elasticType + modelType
		out[poolingField] = kind
	}
	data, err := json.MarshalIndent(out, "", "  ")
	return append(data, '\n'), err
}

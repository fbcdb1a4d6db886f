package pretrained

import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
)

// refuse notes fields whose values mean something that our models do not compute.
func (f *fields) refuse(wrong bool, format string, args ...any) {
	if wrong {
		f.problems = append(f.problems, fmt.Errorf(format, args...))
	}
}

// flag reads a boolean.
func (f *fields) flag(name string, missing bool) bool {
	value := missing
	f.get(name, &value)
	return value
}

// readGPT2 reads a decoder-only model: pre-norm blocks under a causal mask.
func readGPT2(f *fields, c *transformer.Config) {
	c.Hidden = f.integer("n_embd")
	c.Layers = f.integer("n_layer")
	c.FeedForward = int(f.number("n_inner", float64(4*c.Hidden)))
	c.Activation = f.activation("activation_function")
	c.NormEpsilon = f.number("layer_norm_epsilon", 1e-5)
	c.NormOrder = transformer.PreNorm
	c.Dropout = f.number("resid_pdrop", 0.1)
	c.PadID = int(f.number("pad_token_id", -1))
	c.Attention = attention.Spec{Heads: f.integer("n_head"), Dropout: f.number("attn_pdrop", 0.1), Mask: attention.Causal{}}
	f.refuse(f.number("embd_pdrop", 0.1) != c.Dropout, "embd_pdrop and resid_pdrop differ, which is not supported")
	f.refuse(!f.flag("scale_attn_weights", true) || f.flag("scale_attn_by_inverse_layer_idx", false),
		"scale_attn_weights false and scale_attn_by_inverse_layer_idx are not supported")
	f.refuse(f.flag("add_cross_attention", false), "add_cross_attention is not supported")
	f.refuse(!f.flag("tie_word_embeddings", true), "tie_word_embeddings false is not supported")
}

func writeGPT2(c transformer.Config, out map[string]any) {
	out["n_embd"], out["n_layer"], out["n_head"], out["n_inner"] = c.Hidden, c.Layers, c.Attention.Heads, c.FeedForward
	out["activation_function"] = hfActivation(c.Activation)
	out["layer_norm_epsilon"] = c.NormEpsilon
	out["resid_pdrop"], out["embd_pdrop"], out["attn_pdrop"] = c.Dropout, c.Dropout, c.Attention.Dropout
}

// bartOffset is how many rows stand before the first position in BART's position embeddings.
const bartOffset = 2

// readBART reads an encoder–decoder. Its positions begin behind the padding id, 1. Dropout of
// activations, which BART has while training, is not applied.
func readBART(f *fields, c *transformer.Config) {
	c.Hidden = f.integer("d_model")
	c.MaxPositions += bartOffset
	c.Layers = f.integer("encoder_layers")
	c.FeedForward = f.integer("encoder_ffn_dim")
	c.Activation = f.activation("activation_function")
	c.NormEpsilon = 1e-5
	c.PositionsFromPad = true
	c.Dropout = f.number("dropout", 0.1)
	rate := f.number("attention_dropout", 0)
	c.Attention = attention.Spec{Heads: f.integer("encoder_attention_heads"), Dropout: rate}
	heads := f.integer("decoder_attention_heads")
	c.Decoder = &transformer.Decoder{
		Layers: f.integer("decoder_layers"), FeedForward: f.integer("decoder_ffn_dim"),
		Attention: attention.Spec{Heads: heads, Dropout: rate, Mask: attention.Causal{}}, Cross: attention.Spec{Heads: heads, Dropout: rate},
	}
	f.refuse(c.PadID != bartOffset-1, "pad_token_id is %d, want %d, behind which BART's positions begin", c.PadID, bartOffset-1)
	f.refuse(f.flag("scale_embedding", false), "scale_embedding is not supported")
	f.refuse(!f.flag("tie_word_embeddings", true), "tie_word_embeddings false is not supported")
}

func writeBART(c transformer.Config, out map[string]any) {
	out["max_position_embeddings"] = c.MaxPositions - bartOffset
	out["d_model"], out["encoder_layers"], out["encoder_ffn_dim"] = c.Hidden, c.Layers, c.FeedForward
	out["encoder_attention_heads"], out["decoder_attention_heads"] = c.Attention.Heads, c.Decoder.Attention.Heads
	out["decoder_layers"], out["decoder_ffn_dim"] = c.Decoder.Layers, c.DecoderFeedForward()
	out["activation_function"] = hfActivation(c.Activation)
	out["dropout"], out["attention_dropout"], out["activation_dropout"] = c.Dropout, c.Attention.Dropout, 0
	out["is_encoder_decoder"], out["scale_embedding"] = true, false
}

// bartNames maps both stacks, which have the same layout.
func bartNames() map[string]string {
	names := map[string]string{"embeddings/word": "shared.weight"}
	for ours, theirs := range map[string]string{"": "encoder.", "decoder/": "decoder."} {
		names[ours+"embeddings/position"] = theirs + "embed_positions.weight"
		names[ours+"embeddings/norm"] = theirs + "layernorm_embedding"
		layer, stored := ours+"layer_#/", theirs+"layers.#."
		for part, attn := range map[string]string{"attention": "self_attn", "cross": "encoder_attn"} {
			for name, projection := range map[string]string{"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"} {
				names[layer+part+"/"+name] = stored + attn + "." + projection
			}
			names[layer+part+"/norm"] = stored + attn + "_layer_norm"
		}
		names[layer+"feed_forward/inner"] = stored + "fc1"
		names[layer+"feed_forward/outer"] = stored + "fc2"
		names[layer+"feed_forward/norm"] = stored + "final_layer_norm"
	}
	return names
}

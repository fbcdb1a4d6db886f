"""Writes tiny random checkpoints with what transformers computes from them, for tests of package pretrained.

usage: python tools/golden/checkpoints.py pkg/elastic/pretrained/testdata/golden/checkpoints
(needs: torch 2.15, transformers 5.23, safetensors 0.8.0)

The layout is that of the other checkpoints in that folder. These cover what those do not: output matrices that are not
the word embedding, and padding whose hidden states reach the loss (padding on the left of a sequence classifier).
"""
import json
import pathlib
import sys

import torch
import transformers as tf
from safetensors.torch import save_file

BERT = dict(vocab_size=23, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
            max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
DISTILBERT = dict(vocab_size=19, dim=12, n_layers=1, n_heads=3, hidden_dim=20, max_position_embeddings=16, dropout=0.0,
                  attention_dropout=0.0)
CASES = {
    "bert-mlm-untied": (tf.BertForMaskedLM, tf.BertConfig(**BERT, tie_word_embeddings=False)),
    "roberta-mlm-untied": (tf.RobertaForMaskedLM, tf.RobertaConfig(**BERT, tie_word_embeddings=False)),
    "distilbert-mlm-untied": (tf.DistilBertForMaskedLM, tf.DistilBertConfig(**DISTILBERT, tie_word_embeddings=False)),
    "bert-seqcls-leftpad": (tf.BertForSequenceClassification, tf.BertConfig(
        **BERT, num_labels=3, hidden_act="gelu_new", layer_norm_eps=1e-5, type_vocab_size=3)),
}
LENGTHS, WIDTH = [7, 4, 2], 7


def write(folder, name, cls, config, seed):
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    model = cls(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            center = 1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0
            parameter.copy_(center + 0.2 * torch.randn_like(parameter))

    mask = torch.stack([(torch.arange(WIDTH) < n).int() for n in LENGTHS])
    if name.endswith("leftpad"):
        mask = mask.flip(1)
    inputs = {"input_ids": torch.randint(5, config.vocab_size, mask.shape) * mask + config.pad_token_id * (1 - mask),
              "attention_mask": mask}
    if isinstance(config, tf.BertConfig):
        inputs["token_type_ids"] = torch.randint(config.type_vocab_size, mask.shape)
    if "mlm" in name:
        labels = torch.where(mask == 1, torch.randint(5, config.vocab_size, mask.shape), -100)
    else:
        labels = torch.randint(config.num_labels, (len(LENGTHS),))
    out = model(**inputs, labels=labels, output_hidden_states=True, output_attentions=True)
    out.loss.backward()

    tensors = {key: value.int() for key, value in inputs.items()} | {"labels": labels.int()}
    tensors |= {"logits": out.logits, "loss": out.loss.reshape(1)}
    tensors |= {f"hidden_states.{i}": state for i, state in enumerate(out.hidden_states)}
    tensors |= {f"attentions.{i}": weights for i, weights in enumerate(out.attentions)}
    folder = folder / name
    model.save_pretrained(folder)
    save_file({key: value.detach().contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    about = {"class": cls.__name__, "transformers": tf.__version__, "torch": torch.__version__,
             "grad_norms": {key: p.grad.norm().item() for key, p in model.named_parameters() if p.grad is not None}}
    (folder / "golden.json").write_text(json.dumps(about, indent=1) + "\n")


for number, (name, (cls, config)) in enumerate(CASES.items()):
    write(pathlib.Path(sys.argv[1]), name, cls, config, number)

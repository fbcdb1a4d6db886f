"""Trains a tiny classifier in transformers on one batch, for tests of package classify.

usage: python tools/golden/classify_trace.py pkg/task/classify/testdata/golden/classify
(needs: torch 2.15, transformers 5.23)

The folder has model/, a BertForSequenceClassification without dropout that Classifier.Save wrote. All texts are one batch, so that the
losses do not depend on an order; the recipe is AdamW with decay 0.01 (none on biases and normalisations) at a constant rate, gradients
clipped at norm 1. Pooling by the mean gives the model's pooler the mean of the tokens in place of the first.
"""
import json
import pathlib
import sys

import torch
import transformers as tf

RATE, STEPS = 1e-2, 12
TEXTS = [["the river warm warm", "place"], ["the museum", "thing"], ["river", "place"], ["the museum warm warm warm", "thing"],
         ["a river of the north is warm", "place"], ["museum and museum", "thing"], ["warm", "thing"]]


def trace(folder, pooling):
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder)
    model.train()  # the model has no dropout
    batch = tokenizer([text for text, _ in TEXTS], padding=True, return_tensors="pt")
    labels = torch.tensor([model.config.label2id[label] for _, label in TEXTS])
    pooler = model.bert.pooler.forward
    if pooling == "mean":
        mask = batch["attention_mask"].unsqueeze(-1).float()
        model.bert.pooler.forward = lambda hidden: pooler(((hidden * mask).sum(1) / mask.sum(1)).unsqueeze(1))
    plain = lambda name: "bias" in name or "LayerNorm" in name
    optimizer = torch.optim.AdamW([
        {"params": [p for n, p in model.named_parameters() if not plain(n)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if plain(n)], "weight_decay": 0.0}], lr=RATE)
    losses = []
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def main():
    root = pathlib.Path(sys.argv[1])
    out = {"source": f"torch {torch.__version__}, transformers {tf.__version__}", "rate": RATE, "texts": TEXTS,
           "losses": {pooling: trace(root / "model", pooling) for pooling in ("cls", "mean")}}
    (root / "trace.json").write_text(json.dumps(out, indent=1) + "\n")


main()

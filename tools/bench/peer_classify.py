#!/usr/bin/env python3
"""Peer of "elastic train classify": transformers' BertForSequenceClassification on banking77, on CPU, with the same recipe.

usage: python tools/bench/peer_classify.py --dir DIR --model DIR [--train-limit 1500] [--epochs 1] [--lr 2e-4] [--seed 42] [--pooling cls|mean]
  --dir has train.csv(.gz) and test.csv of banking77, --model config.json, model.safetensors and tokenizer.json of MiniLM-L6

As in ours: every tenth text of train is dev, the training texts are evenly spread over the rest; AdamW (decay 0.01, none on biases
and normalisations), batches of 16, a tenth of warm-up and linear decay, gradients clipped at norm 1, a fresh classifier N(0, 0.02)
on the checkpoint's pooler. Order and dropout come from other generators. Prints one JSON object.
"""
import argparse, csv, gzip, io, json, os, sys, time
import numpy as np, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def read(path):
    raw = gzip.open(path + ".gz").read() if not os.path.exists(path) else open(path, "rb").read()
    return [(r["text"], r["category"]) for r in csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""))]


def mean_pool(model):
    """Makes a model pool by the mean of its tokens: what its pooler is given is that in place of the first token."""
    original, mask = model.bert.pooler.forward, {}
    model.bert.register_forward_pre_hook(lambda m, args, kw: mask.update(now=kw["attention_mask"]), with_kwargs=True)

    def forward(hidden):
        weights = mask["now"].unsqueeze(-1).to(hidden.dtype)
        return original(((hidden * weights).sum(1) / weights.sum(1)).unsqueeze(1))
    model.bert.pooler.forward = forward


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--dir", required=True); ap.add_argument("--model", required=True); ap.add_argument("--train-limit", type=int, default=1500)
    ap.add_argument("--epochs", type=int, default=1); ap.add_argument("--lr", type=float, default=2e-4); ap.add_argument("--seed", type=int, default=42)
    ap.add_argument("--batch", type=int, default=16); ap.add_argument("--max-len", type=int, default=64)
    ap.add_argument("--pooling", choices=["cls", "mean"], default="cls")
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    train, test = read(a.dir + "/train.csv"), read(a.dir + "/test.csv")
    train = [t for i, t in enumerate(train) if i % 10 != 9]
    if a.train_limit: train = [train[i * len(train) // a.train_limit] for i in range(a.train_limit)]
    labels = sorted({label for _, label in train + test}); number = {label: i for i, label in enumerate(labels)}
    tok = AutoTokenizer.from_pretrained(a.model)
    encode = lambda texts: [(tok(text, truncation=True, max_length=a.max_len)["input_ids"], number[label]) for text, label in texts]
    train, test = encode(train), encode(test)
    model = AutoModelForSequenceClassification.from_pretrained(a.model, num_labels=len(labels))
    with torch.no_grad(): model.classifier.weight.normal_(0, 0.02); model.classifier.bias.zero_()
    if a.pooling == "mean": mean_pool(model)
    plain = lambda name: "bias" in name or "LayerNorm" in name
    opt = torch.optim.AdamW([{"params": [p for n, p in model.named_parameters() if not plain(n)], "weight_decay": 0.01},
                             {"params": [p for n, p in model.named_parameters() if plain(n)], "weight_decay": 0.0}], lr=a.lr)
    total = (len(train) + a.batch - 1) // a.batch * a.epochs; warm = int(0.1 * total)
    rate = lambda s: (s + 1) / max(1, warm) if s < warm else max(0.0, (total - s) / max(1, total - warm))

    def collate(batch):
        length = max(len(ids) for ids, _ in batch)
        ids = torch.zeros(len(batch), length, dtype=torch.long); mask = torch.zeros_like(ids)
        for i, (x, _) in enumerate(batch): ids[i, :len(x)] = torch.tensor(x); mask[i, :len(x)] = 1
        return ids, mask, torch.tensor([y for _, y in batch])
    step, losses, begin = 0, [], time.time()
    model.train()
    for epoch in range(a.epochs):
        order = np.random.Generator(np.random.PCG64(a.seed * 1000 + epoch)).permutation(len(train))
        for k in range(0, len(order), a.batch):
            ids, mask, want = collate([train[i] for i in order[k:k + a.batch]])
            for group in opt.param_groups: group["lr"] = a.lr * rate(step)
            loss = torch.nn.functional.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, want)
            loss.backward(); torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0); opt.step(); opt.zero_grad()
            step += 1; losses.append(loss.item())
            if step % 10 == 0: print(f"{step}/{total} loss {np.mean(losses[-10:]):.4f}, {time.time() - begin:.0f} s", file=sys.stderr)
    seconds = time.time() - begin
    model.eval(); right, confidence = 0, 0.0
    order = sorted(range(len(test)), key=lambda i: len(test[i][0]))
    with torch.no_grad():
        for k in range(0, len(order), 32):
            ids, mask, want = collate([test[i] for i in order[k:k + 32]])
            p = model(input_ids=ids, attention_mask=mask).logits.softmax(-1).max(-1)
            right += int((p.indices == want).sum()); confidence += float(p.values.sum())
    print(json.dumps({"args": vars(a), "torch": torch.__version__, "threads": torch.get_num_threads(), "texts": [len(train), len(test)], "labels": len(labels),
                      "updates": step, "first_loss": losses[0], "last_loss": float(np.mean(losses[-10:])), "train_seconds": seconds,
                      "test_accuracy": right / len(test), "test_confidence": confidence / len(test)}))


main()

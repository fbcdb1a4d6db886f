#!/usr/bin/env python3
"""Peer of the study "claim-rates-ner": the same layers of MiniLM in transformers and torch, the same sentences and recipes.

    elastic study data docs/claim/rates-ner/study.json --to DATA
    peer_rates_ner.py --study docs/claim/rates-ner/study.json --data DATA --model MODEL --out peer.jsonl

MODEL is the folder that "elastic fetch minilm-l6" names. What is read from the study: layers, sizes of batches, epochs, clipping, schedule, optimizer
and seeds of each variant that torch, prodigyopt or schedulefree can train. The order of sentences and the fresh classifier are torch's own, so
seeds are other draws, not the same ones.
"""
import argparse, json
import torch, torch.nn.functional as F
from seqeval.metrics import f1_score
from torch import nn
from transformers import AutoModelForTokenClassification, AutoTokenizer

from peer_lm import optimizer, rate, train_all


def read(path):
    sentences, words, tags = [], [], []
    for line in list(open(path, encoding="utf-8")) + ["\n"]:
        line = line.rstrip("\n")
        if line.startswith("# "):
            continue
        if line:
            fields = line.split("\t")
            words.append(fields[1])
            tags.append(fields[2])
        elif words:
            sentences.append((words, tags))
            words, tags = [], []
    return sentences


def encode(sentence, tokenizer, number, longest):
    """The tag of a word is that of its first piece; the other pieces have none."""
    words, tags = sentence
    pieces = tokenizer(words, is_split_into_words=True, truncation=True, max_length=longest)
    labels, first, before = [], [-1] * len(words), None
    for at, word in enumerate(pieces.word_ids()):
        fresh = word is not None and word != before
        labels.append(number[tags[word]] if fresh else -100)
        if fresh:
            first[word] = at
        before = word
    return pieces["input_ids"], labels, first


def collate(batch):
    length = max(len(ids) for ids, _, _ in batch)
    ids, seen, labels = (torch.full((len(batch), length), fill) for fill in (0, 0, -100))
    for row, (pieces, tags, _) in enumerate(batch):
        ids[row, :len(pieces)], seen[row, :len(pieces)], labels[row, :len(tags)] = torch.tensor(pieces), 1, torch.tensor(tags)
    return ids, seen, labels


def score(model, sentences, encoded, tags):
    model.eval()
    predicted = [None] * len(encoded)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i][0]))
    with torch.no_grad():
        for k in range(0, len(order), 32):
            chosen = order[k:k + 32]
            ids, seen, _ = collate([encoded[i] for i in chosen])
            best = model(input_ids=ids, attention_mask=seen).logits.argmax(-1)
            for row, i in enumerate(chosen):
                predicted[i] = [tags[best[row, at]] if at >= 0 else "O" for at in encoded[i][2]]
    return f1_score([tags for _, tags in sentences], predicted)


def run(study, variant, seed, parts, tokenizer, folder):
    recipe = {**study["recipe"], **variant.get("recipe", {})}
    torch.manual_seed(seed)
    tags = ["O"] + sorted({tag for _, tags in parts["train"] for tag in tags if tag != "O"})
    number = {tag: i for i, tag in enumerate(tags)}
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=len(tags), num_hidden_layers=study["layers"])
    nn.init.normal_(model.classifier.weight, std=0.02)
    nn.init.zeros_(model.classifier.bias)
    model.bert.embeddings.requires_grad_(False)  # the factor 0 of "/embeddings/*"
    rule = None if recipe.get("control") else optimizer(model, recipe)
    if rule is None:
        return None
    trainable = [p for p in model.parameters() if p.requires_grad]
    for group in rule.param_groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    encoded = [encode(s, tokenizer, number, recipe["max_length"]) for s in parts["train"]]
    size = recipe["batch_size"]
    total, update = (len(encoded) + size - 1) // size * recipe["epochs"], 0
    for _ in range(recipe["epochs"]):
        model.train()
        if hasattr(rule, "train"):
            rule.train()
        order = torch.randperm(len(encoded))
        for k in range(0, len(order), size):
            ids, seen, labels = collate([encoded[i] for i in order[k:k + size]])
            logits = model(input_ids=ids, attention_mask=seen).logits
            F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100).backward()
            norm = nn.utils.clip_grad_norm_(trainable, recipe["clip_norm"])
            for group in rule.param_groups:
                group["lr"] = recipe["schedule"]["peak"] * rate(recipe["schedule"], update, total)
            if torch.isfinite(norm):
                rule.step()
            rule.zero_grad()
            update += 1
    if hasattr(rule, "eval"):
        rule.eval()
    result = {"variant": variant["name"], "seed": seed, "updates": update}
    for name in ("dev", "test"):
        part = [encode(s, tokenizer, number, 512) for s in parts[name]]
        result[name] = score(model, parts[name], part, tags)
    return result


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--study", required=True)
    args.add_argument("--data", required=True, help="folder that elastic study data wrote")
    args.add_argument("--model", required=True, help="folder in Hugging Face layout")
    args.add_argument("--out", required=True)
    args.add_argument("--variants", help="names, by semicolon; all that can be by default")
    args = args.parse_args()
    study = json.load(open(args.study))
    parts = {name: read(f"{args.data}/{name}.iob2") for name in ("train", "dev", "test")}
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    train_all(study, args, lambda variant, seed: run(study, variant, seed, parts, tokenizer, args.model))


if __name__ == "__main__":
    main()

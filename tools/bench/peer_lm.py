#!/usr/bin/env python3
"""Peer of the study "claim-rates-lm": the same byte-level GPT-2 block in torch, the same text, windows, updates and recipes.

    peer_lm.py --study docs/claim/rates-lm/study.json --text input.txt --out peer.jsonl

What it reads from the study: sizes of batches and windows, epochs, clipping, schedule, optimizer and seeds of each variant that torch,
prodigyopt or schedulefree can train. The order of windows is torch's own, so seeds are other draws, not the same ones.
"""
import argparse, json, math, sys
import torch, torch.nn.functional as F
from torch import nn

HIDDEN, HEADS, FEED_FORWARD, VOCAB = 128, 4, 512, 256  # lm.Small


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(HIDDEN, eps=1e-5), nn.LayerNorm(HIDDEN, eps=1e-5)
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.inner, self.outer = nn.Linear(HIDDEN, FEED_FORWARD), nn.Linear(FEED_FORWARD, HIDDEN)

    def forward(self, x):
        b, l, _ = x.shape
        q, k, v = (t.view(b, l, HEADS, HIDDEN // HEADS).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(HIDDEN, 2))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, l, HIDDEN)
        x = x + self.out(a)
        return x + self.outer(F.gelu(self.inner(self.norm2(x)), approximate="tanh"))


class LM(nn.Module):
    def __init__(self, layers, context):
        super().__init__()
        self.word, self.position = nn.Embedding(VOCAB, HIDDEN), nn.Embedding(context, HIDDEN)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(layers)), nn.LayerNorm(HIDDEN, eps=1e-5)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
            elif "norm" not in name:
                nn.init.zeros_(p)

    def forward(self, ids):
        x = self.word(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.word.weight.T


def optimizer(model, recipe):
    rule = recipe["optimizer"]
    decay = rule.get("weight_decay", 0.0)
    groups = [{"params": [p for p in model.parameters() if p.dim() == 2], "weight_decay": decay},
              {"params": [p for p in model.parameters() if p.dim() != 2], "weight_decay": 0.0}]
    betas = (rule.get("beta1", 0.9), rule.get("beta2", 0.999))
    peak = recipe["schedule"]["peak"]
    kind = rule.get("kind", "adamw")
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=peak, betas=betas)
    if kind == "prodigy":
        from prodigyopt import Prodigy
        return Prodigy(groups, lr=peak, betas=betas, d0=rule.get("d0", 1e-6), d_coef=rule.get("coefficient", 1.0),
                       safeguard_warmup=rule.get("safeguard", False), use_bias_correction=rule.get("bias_correction", False))
    if kind == "schedule_free_adamw":
        from schedulefree import AdamWScheduleFree
        return AdamWScheduleFree(groups, lr=peak, betas=betas, warmup_steps=0)
    return None


def rate(schedule, update, total):
    warm = round(schedule.get("warmup", 0) * total)
    if update < warm:
        return (update + 1) / warm
    kind = schedule.get("kind", "linear")
    at = (update - warm) / max(1, total - warm)
    return {"linear": 1 - at, "constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * at))}[kind]


def run(study, variant, seed, parts):
    recipe = {**study["recipe"], **variant.get("recipe", {})}
    torch.manual_seed(seed)
    length, size = recipe["max_length"], recipe["batch_size"]
    model = LM(study["layers"], 64)
    rule = optimizer(model, recipe)
    if rule is None or recipe.get("control"):
        return None
    text, windows = parts["train"], (len(parts["train"]) - 1) // length - 1
    steps = windows // size
    total, update = steps * recipe["epochs"], 0
    if hasattr(rule, "train"):
        rule.train()
    for _ in range(recipe["epochs"]):
        first, order = int(torch.randint(length, ())), torch.randperm(windows)
        for step in range(steps):
            at = first + order[step * size:(step + 1) * size, None] * length + torch.arange(length)
            loss = F.cross_entropy(model(text[at]).flatten(0, 1), text[at + 1].flatten())
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe["clip_norm"])
            for group in rule.param_groups:
                group["lr"] = recipe["schedule"]["peak"] * rate(recipe["schedule"], update, total)
            if torch.isfinite(norm):
                rule.step()
            rule.zero_grad()
            update += 1
    if hasattr(rule, "eval"):
        rule.eval()
    result = {"variant": variant["name"], "seed": seed, "updates": update}
    with torch.no_grad():
        for name in ("dev", "test"):
            part = parts[name]
            windows = [(part[i:i + 64], part[i + 1:i + 65]) for i in range(0, len(part) - 1, 64)]
            hits = sum(int((model(x[None, :len(y)]).argmax(-1)[0] == y).sum()) for x, y in windows)
            result[name] = hits / (len(part) - 1)
    return result


def train_all(study, args, run):
    """Makes the runs of the study, or of the variants that args names, and writes each to args.out when it has ended."""
    with open(args.out, "a") as out:
        for variant in study["variants"]:
            if args.variants and variant["name"] not in args.variants.split(";"):
                continue
            for seed in study["seeds"]:
                result = run(variant, seed)
                if result is None:
                    print(f"{variant['name']}: no peer", file=sys.stderr)
                    break
                print(json.dumps(result), file=out, flush=True)
                print(result, file=sys.stderr)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--study", required=True)
    args.add_argument("--text", required=True, help="tinyshakespeare, plain")
    args.add_argument("--out", required=True)
    args.add_argument("--variants", help="names, by semicolon; all that can be by default")
    args = args.parse_args()
    study = json.load(open(args.study))
    text = torch.tensor(list(open(args.text, "rb").read()))
    held = len(text) // 20
    parts = {"train": text[:-2 * held], "dev": text[-2 * held:-held], "test": text[-held:]}
    limits = {"train": study["train"].get("limit"), "dev": study["dev"].get("limit"), "test": study["sets"][0].get("limit")}
    parts = {name: part[:limits[name] or len(part)] for name, part in parts.items()}
    train_all(study, args, lambda variant, seed: run(study, variant, seed, parts))


if __name__ == "__main__":
    main()

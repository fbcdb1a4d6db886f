"""Golden vectors of elastic structure: adaptive depth, experts, decoders.

usage: python structure.py OUT_DIR [--seed N]

Each case is a transformer.Config, weights by our variable paths, inputs, outputs, and the gradients of
sum(ct.o * out.o) over the outputs o with respect to every weight. The models are written down here anew, in
float64 on float32-rounded weights, and share no code with ours. Made with torch 2.15.0 (CPU).
"""
import argparse
import json
import math
import os
import random
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file


class Weights:
    def __init__(self, seed):
        self.generator, self.values = torch.Generator().manual_seed(seed), {}

    def __call__(self, path, *shape, scale=0.4, shift=0.0):
        if path not in self.values:
            t = torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale + shift
            self.values[path] = t.float().double().requires_grad_()
        return self.values[path]


class Model:
    """A transformer as a function of a config and weights that are made where they are met first."""

    def __init__(self, config, seed):
        self.c, self.w = config, Weights(seed)
        self.penalty, self.steps = 0, set()
        self.act = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu}[config["activation"]]

    def pre(self):
        return self.c.get("norm_order") == "pre"

    def dense(self, path, x, outputs):
        return x @ self.w(path + "/weights", x.shape[-1], outputs) + self.w(path + "/bias", outputs)

    def norm(self, path, x):
        d = x.shape[-1]
        return F.layer_norm(x, (d,), self.w(path + "/scale", d, shift=1.0), self.w(path + "/bias", d), self.c["norm_epsilon"])

    def attention(self, path, x, memory, allowed, heads):
        d = x.shape[-1]

        def split(t):
            return t.view(t.shape[0], t.shape[1], heads, -1).transpose(1, 2)

        q, k, v = (split(self.dense(f"{path}/{n}", s, d)) for n, s in (("query", x), ("key", memory), ("value", memory)))
        s = (q @ k.transpose(-1, -2) / math.sqrt(d / heads)).masked_fill(~allowed, -1e300)
        return self.dense(path + "/output", (torch.softmax(s, -1) @ v).transpose(1, 2).flatten(2), d)

    def residual(self, path, x, f):
        return x + f(self.norm(path, x)) if self.pre() else self.norm(path, x + f(x))

    def feed_forward(self, path, x, real, width):
        e, d = self.c.get("experts"), x.shape[-1]
        if not e:
            return self.dense(path + "/outer", self.act(self.dense(path + "/inner", x, width)), d)
        n, keep = e["count"], e.get("keep") or (1 if e.get("switch") else 2)
        r = x @ self.w(path + "/router/weights", d, n, scale=1.0)
        p = torch.softmax(r, -1)
        chosen = torch.zeros_like(p)
        y = torch.zeros_like(x)
        w1, b1 = self.w(path + "/experts/inner/weights", n, d, width), self.w(path + "/experts/inner/bias", n, width)
        w2, b2 = self.w(path + "/experts/outer/weights", n, width, d), self.w(path + "/experts/outer/bias", n, d)
        rows = []
        for b in range(x.shape[0]):  # token by token, only the experts that it uses
            row = []
            for t in range(x.shape[1]):
                values, index = torch.topk(r[b, t], keep)
                gates = p[b, t][index] if e.get("switch") else torch.softmax(values, -1)
                out = 0
                for gate, i in zip(gates, index.tolist()):
                    chosen[b, t, i] = 1
                    out = out + gate * (self.act(x[b, t] @ w1[i] + b1[i]) @ w2[i] + b2[i])
                row.append(out)
            rows.append(torch.stack(row))
        y = torch.stack(rows)
        fraction, probability = chosen[real].mean(0).detach() / keep, p[real].mean(0)
        self.penalty = self.penalty + e.get("balance", 0) * n * (fraction * probability).sum()
        self.penalty = self.penalty + e.get("router_z", 0) * (torch.logsumexp(r[real], -1) ** 2).mean()
        return y

    def embed(self, path, ids):
        x = self.w("/embeddings/word", self.c["vocab_size"], self.c["hidden"])[ids]
        x = x + self.w(path + "/position", self.c["max_positions"], self.c["hidden"])[: ids.shape[1]]
        if path == "/embeddings" and self.c["type_vocab"]:
            x = x + self.w(path + "/type", self.c["type_vocab"], self.c["hidden"])[0]
        return x if self.pre() else self.norm(path + "/norm", x)

    def stack(self, prefix, x, layers, spec, allowed, real, width, memory=None, memory_real=None, cross=None):
        states = [x]
        for i in range(layers):
            layer = f"{prefix}/layer_{i}"
            x = self.residual(layer + "/attention/norm", x, lambda x: self.attention(layer + "/attention", x, x, allowed, spec["heads"]))
            if memory is not None:
                seen = memory_real[:, None, None, :]
                x = self.residual(layer + "/cross/norm", x, lambda x: self.attention(layer + "/cross", x, memory, seen, cross["heads"]))
            x = self.residual(layer + "/feed_forward/norm", x, lambda x: self.feed_forward(layer + "/feed_forward", x, real, width))
            states.append(x)
        if self.pre():
            states[-1] = self.norm(prefix + "/norm", x)
        return states

    def head(self, path, x):
        head = self.c["head"]
        if head["kind"] == "lm":
            return x @ self.w("/embeddings/word").T
        return self.dense(path + "/classifier", x, len(head["labels"]))

    def __call__(self, inputs):
        c = self.c
        ids, real = inputs["ids"], inputs["mask"].bool()
        allowed = real[:, None, None, :]
        if c["attention"].get("mask") == "causal":
            allowed = allowed & torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        states = self.stack("", self.embed("/embeddings", ids), c["layers"], c["attention"], allowed, real, c["feed_forward"])
        hidden, out = states[-1], {}
        depth = c.get("depth") or {}
        if depth.get("kind") == "act":
            p = [torch.sigmoid(self.dense("/depth/halt", x, 1)[..., 0]) for x in states[1:]]
            rows, ponder, steps = [], [], []
            for b in range(ids.shape[0]):  # token by token, as the paper tells it
                row = []
                for t in range(ids.shape[1]):
                    total, y, n = 0.0, 0, 0
                    while True:
                        last = n == c["layers"] - 1 or (total + p[n][b, t]).item() >= 1 - depth.get("epsilon", 0.01)
                        weight = 1 - total if last else p[n][b, t]
                        y = y + weight * states[n + 1][b, t]
                        n += 1
                        if last:
                            break
                        total = total + weight
                    row.append(y)
                    if real[b, t]:
                        ponder.append(n + weight)
                        steps.append(n)
                rows.append(torch.stack(row))
            hidden = torch.stack(rows)
            mean = sum(ponder) / len(ponder)
            self.steps = set(steps)
            self.penalty = self.penalty + depth.get("penalty", 0) * mean
        if depth.get("kind") == "early_exit":
            logits = []
            for i, x in enumerate(states[1:-1]):
                x = self.norm("/norm", x) if self.pre() else x
                logits.append(self.head(f"/depth/exit_{i}", x))
            logits.append(self.head("/head", hidden))
            weights = [1.0] * len(logits) if depth.get("loss") == "sum" else [i + 1 for i in range(len(logits))]
            total = 1 if depth.get("loss") == "sum" else sum(weights)
            losses = [F.cross_entropy(l.flatten(0, 1), inputs["labels"].long().flatten(), ignore_index=-100, reduction="sum") for l in logits]
            for i, l in enumerate(logits):
                out[f"exit_{i}"] = l * real[..., None]
            out["loss"] = sum(w * l for w, l in zip(weights, losses)) / total
            return out
        if c.get("decoder"):
            d = c["decoder"]
            own = inputs["decoder_ids"]
            causal = torch.ones(own.shape[1], own.shape[1], dtype=torch.bool).tril()[None, None]
            out["hidden"] = hidden * real[..., None]
            hidden = self.stack("/decoder", self.embed("/decoder/embeddings", own), d["layers"], d["attention"], causal,
                                torch.ones_like(own).bool(), d.get("feed_forward") or c["feed_forward"], hidden, real, d["cross"])[-1]
            out["logits"] = self.head("/head", hidden)
        else:
            out["logits"] = self.head("/head", hidden) * real[..., None]
        if torch.is_tensor(self.penalty):
            out["penalty"] = self.penalty
        return out


def base(**more):
    config = dict(vocab_size=23, hidden=8, layers=1, feed_forward=12, attention=dict(heads=2), max_positions=9, pad_id=0, type_vocab=2,
                  activation="gelu", norm_epsilon=1e-5, dropout=0, init_std=0.3, head=dict(kind="tokens", labels=["a", "b", "c"]))
    return {**config, **more}


LM = dict(attention=dict(heads=2, mask="causal"), type_vocab=0, head=dict(kind="lm"))
SEQ2SEQ = dict(type_vocab=0, head=dict(kind="lm"), decoder=dict(layers=1, feed_forward=10, attention=dict(heads=4, mask="causal"), cross=dict(heads=2)))
CASES = {
    "act": base(layers=3, depth=dict(kind="act", epsilon=0.2, penalty=0.3)),
    "early_exit_weighted": base(layers=3, depth=dict(kind="early_exit")),
    "early_exit_sum_pre_norm": base(layers=2, norm_order="pre", depth=dict(kind="early_exit", loss="sum")),
    "experts": base(experts=dict(count=4, keep=2, balance=0.5, router_z=0.1)),
    "experts_switch": base(experts=dict(count=3, switch=True, balance=0.5)),
    "decoder_pre_norm": base(**LM, norm_order="pre", activation="gelu_tanh"),
    "decoder_post_norm": base(**LM),
    "encoder_decoder_pre_norm": base(**SEQ2SEQ, norm_order="pre"),
    "encoder_decoder_post_norm": base(**SEQ2SEQ, activation="relu"),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    shapes = random.Random(args.seed)
    manifest = dict(kind="structure", seed=args.seed, torch=torch.__version__, cases=[])
    for name, config in CASES.items():
        seed = (zlib.crc32(name.encode()) ^ args.seed * 2654435761) & 0x7FFFFFFF
        g = torch.Generator().manual_seed(seed)
        b, l, m = 2 + shapes.randrange(2), 5 + shapes.randrange(4), 3 + shapes.randrange(3)
        inputs = dict(ids=torch.randint(1, config["vocab_size"], (b, l), generator=g, dtype=torch.int32), mask=torch.ones(b, l, dtype=torch.int32))
        inputs["ids"][-1, -2:], inputs["mask"][-1, -2:] = 0, 0
        if "decoder" in config:
            inputs["decoder_ids"] = torch.randint(1, config["vocab_size"], (b, m), generator=g, dtype=torch.int32)
        if config.get("depth", {}).get("kind") == "early_exit":
            inputs["labels"] = torch.randint(0, 3, (b, l), generator=g, dtype=torch.int32)
            inputs["labels"][inputs["mask"] == 0] = -100
        while True:
            model = Model(config, seed)
            out = model(inputs)
            if len(model.steps) != 1:  # tokens differ in their number of layers
                break
            seed += 1
        cts = {k: torch.randn(v.shape, generator=g, dtype=torch.float64).float().double() for k, v in out.items()}
        total = sum((cts[k] * v).sum() for k, v in out.items())
        paths = list(model.w.values)
        grads = dict(zip(paths, torch.autograd.grad(total, [model.w.values[p] for p in paths])))
        tensors = {"in." + k: v.numpy() for k, v in inputs.items()}
        for kind, group in (("weight.", {p: model.w.values[p] for p in paths}), ("grad.", grads), ("out.", out), ("ct.", cts)):
            tensors.update({kind + k: np.ascontiguousarray(v.detach().numpy().astype(np.float32)) for k, v in group.items()})
        save_file(tensors, os.path.join(args.out, name + ".safetensors"))
        largest = max(float(v.detach().abs().max()) for v in list(out.values()) + list(grads.values()))
        manifest["cases"].append(dict(name=name, file=name + ".safetensors", config=config, outputs=sorted(out), atol=5e-6 * max(1.0, largest)))
        print(name, {k: tuple(v.shape) for k, v in out.items()}, f"largest {largest:.3g}")
    with open(os.path.join(args.out, "manifest.json"), "w") as f:
        json.dump(manifest, f, indent=1, sort_keys=True)


if __name__ == "__main__":
    main()

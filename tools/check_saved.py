#!/usr/bin/env python3
"""Checks that a saved token classifier is what Hugging Face transformers expects, without torch or transformers.

usage: check_saved.py RUN_FOLDER...

Reads config.json and the weights with the Python safetensors package and compares names, shapes and dtypes with those
of BertForTokenClassification; also the label tables, the marker of the file's format, and that every number is finite.
"""

import json
import pathlib
import sys

import numpy as np
from safetensors import safe_open


def linear(name, out, into):
    return {f"{name}.weight": [out, into], f"{name}.bias": [out]}


def norm(name, size):
    return {f"{name}.weight": [size], f"{name}.bias": [size]}


def expected(c):
    """Names and shapes of BertForTokenClassification(config): the encoder without the pooler, and the classifier."""
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    want = {
        "bert.embeddings.word_embeddings.weight": [c["vocab_size"], hidden],
        "bert.embeddings.position_embeddings.weight": [c["max_position_embeddings"], hidden],
        "bert.embeddings.token_type_embeddings.weight": [c["type_vocab_size"], hidden],
        **norm("bert.embeddings.LayerNorm", hidden),
        **linear("classifier", len(c["id2label"]), hidden),
    }
    for i in range(c["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            want |= linear(f"{layer}.attention.self.{part}", hidden, hidden)
        want |= linear(f"{layer}.attention.output.dense", hidden, hidden) | norm(f"{layer}.attention.output.LayerNorm", hidden)
        want |= linear(f"{layer}.intermediate.dense", inner, hidden)
        want |= linear(f"{layer}.output.dense", hidden, inner) | norm(f"{layer}.output.LayerNorm", hidden)
    return want


def check(folder):
    errors = []
    c = json.loads((folder / "config.json").read_text())
    if c.get("model_type") != "bert":
        return [f"config.json: model_type is {c.get('model_type')!r}; this script knows only bert"]
    if c.get("architectures") != ["BertForTokenClassification"]:
        errors.append(f"config.json: architectures is {c.get('architectures')!r}, want ['BertForTokenClassification']")
    labels = c.get("id2label") or {}
    if not labels:
        return errors + ["config.json: no id2label: transformers would make two labels of its own"]
    if sorted(labels) != sorted(map(str, range(len(labels)))):
        errors.append(f"config.json: id2label has keys {sorted(labels)}, want 0 to {len(labels) - 1}")
    if {v: int(k) for k, v in labels.items()} != c.get("label2id"):
        errors.append("config.json: label2id is not the inverse of id2label")
    if not (folder / "tokenizer.json").exists():
        errors.append("no tokenizer.json: the folder cannot be used without the one it was made from")

    want = expected(c)
    with safe_open(folder / "model.safetensors", framework="np") as f:
        if (f.metadata() or {}).get("format") != "pt":
            errors.append(f"model.safetensors: metadata format is {(f.metadata() or {}).get('format')!r}, want 'pt': transformers refuses others")
        names = set(f.keys())
        errors += [f"model.safetensors: {n} is missing" for n in sorted(want.keys() - names)]
        errors += [f"model.safetensors: {n} is not part of the model" for n in sorted(names - want.keys())]
        for n in sorted(names & want.keys()):
            part = f.get_slice(n)
            if part.get_shape() != want[n]:
                errors.append(f"model.safetensors: {n} has shape {part.get_shape()}, want {want[n]}")
            if part.get_dtype() != "F32":
                errors.append(f"model.safetensors: {n} has dtype {part.get_dtype()}, want F32")
            elif not np.isfinite(f.get_tensor(n)).all():
                errors.append(f"model.safetensors: {n} has numbers that are not finite")
    return errors


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    bad = False
    for name in sys.argv[1:]:
        folder = pathlib.Path(name)
        try:
            errors = check(folder)
        except Exception as e:  # a damaged file is a finding, not a crash
            errors = [f"{type(e).__name__}: {e}"]
        for e in errors:
            print(f"check_saved: {folder}: {e}", file=sys.stderr)
        print(f"{folder}: {'FAILED' if errors else 'ok: names, shapes, dtypes and labels are those of BertForTokenClassification'}")
        bad = bad or bool(errors)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()

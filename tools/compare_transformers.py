"""Load a saved tagger or classifier in Hugging Face transformers and compare its logits with ours.

    python tools/compare_transformers.py runs/first/model [FILE]

needs torch and transformers (pip install torch transformers), and bin/elastic (make build). Each line of
FILE, or a few sentences of our own, goes through both programs. Exit code 1 if token ids differ, if
transformers finds tensors missing or unexpected, or if a logit differs by more than 1e-4.
"""
import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

TOLERANCE = 1e-4
SENTENCES = [
    "Angela Merkel met Tim Cook of Apple in Berlin .",
    "The cat sat on the mat .",
    "Đường phố Hà Nội rất đông , nói ông Nguyễn Văn An",
    "Straße 42 , 北京 2023",
    "x",
]


def main():
    folder = sys.argv[1]
    lines = SENTENCES if len(sys.argv) < 3 else [l.strip() for l in open(sys.argv[2], encoding="utf-8") if l.strip()]
    elastic = pathlib.Path(__file__).resolve().parents[1] / "bin" / "elastic"
    out = subprocess.run([elastic, "predict", folder, "--logits"], input="\n".join(lines), text=True, capture_output=True, check=True).stdout
    ours = [json.loads(line) for line in out.splitlines()]
    assert len(ours) == len(lines), f"{len(ours)} answers for {len(lines)} lines"

    tokenizer = AutoTokenizer.from_pretrained(folder)
    classifier = AutoConfig.from_pretrained(folder).architectures[0].endswith("ForSequenceClassification")
    kind = AutoModelForSequenceClassification if classifier else AutoModelForTokenClassification
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    model.eval()
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            sys.exit(f"{key}: {sorted(info[key])}")
    worst = 0.0
    for line, windows in zip(lines, ours):
        if classifier:
            with torch.no_grad():
                theirs = model(**tokenizer(line, return_tensors="pt")).logits[0]
            worst = max(worst, (theirs - torch.tensor(windows)).abs().max().item())
            continue
        if len(windows) != 1:
            print(f"left out, longer than one window: {line[:60]}")
            continue
        encoded = tokenizer(line.split(), is_split_into_words=True, return_tensors="pt")
        if encoded["input_ids"][0].tolist() != windows[0]["input_ids"]:
            sys.exit(f"token ids differ: {line}\n{encoded['input_ids'][0].tolist()}\n{windows[0]['input_ids']}")
        with torch.no_grad():
            theirs = model(**encoded).logits[0]
        difference = (theirs - torch.tensor(windows[0]["logits"])).abs().max().item()
        worst = max(worst, difference)
    print(f"{len(lines)} sentences, labels {list(model.config.id2label.values())[:16]}, largest difference of a logit {worst:.2g}, tolerance {TOLERANCE}")
    sys.exit(0 if worst <= TOLERANCE else 1)


main()

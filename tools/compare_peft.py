"""Load a saved adapter in Python's peft, compare its logits with ours, and let peft save it again.

    python tools/compare_peft.py runs/first/model

needs torch, transformers and peft (pip install torch transformers peft), and bin/elastic (make build). A few sentences
go through both programs, and every tensor that peft writes must equal ours, bit by bit. Exit code 1 if a tensor or a
token id differs, if a tensor has no place, or if a logit differs by more than 1e-4.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import peft
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

TOLERANCE = 1e-4
SENTENCES = [
    "Angela Merkel met Tim Cook of Apple in Berlin .",
    "The cat sat on the mat .",
    "x",
]


def main():
    folder = pathlib.Path(sys.argv[1])
    elastic = pathlib.Path(__file__).resolve().parents[1] / "bin" / "elastic"
    out = subprocess.run([elastic, "predict", folder, "--logits"], input="\n".join(SENTENCES), text=True, capture_output=True, check=True).stdout
    ours = [json.loads(line)[0] for line in out.splitlines()]

    settings = json.loads((folder / "adapter_config.json").read_text())
    base = AutoModelForTokenClassification.from_pretrained(settings["base_model_name_or_path"], config=AutoConfig.from_pretrained(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        warnings.filterwarnings("error", message=".*[Uu]nexpected.*")
        model = peft.PeftModel.from_pretrained(base, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    virtual = settings.get("num_virtual_tokens", 0) if settings["peft_type"] == "PROMPT_TUNING" else 0
    worst = 0.0
    for line, window in zip(SENTENCES, ours):
        encoded = tokenizer(line.split(), is_split_into_words=True, return_tensors="pt")
        if encoded["input_ids"][0].tolist() != window["input_ids"]:
            sys.exit(f"token ids differ: {line}")
        with torch.no_grad():
            theirs = model(**encoded).logits[0][virtual:]
        worst = max(worst, (theirs - torch.tensor(window["logits"])).abs().max().item())

    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        theirs, mine = load_file(f"{again}/adapter_model.safetensors"), load_file(folder / "adapter_model.safetensors")
    if theirs.keys() != mine.keys():
        sys.exit(f"tensors differ: {sorted(theirs.keys() ^ mine.keys())}")
    unequal = [name for name in mine if not torch.equal(mine[name], theirs[name])]
    if unequal:
        sys.exit(f"values differ: {unequal}")
    print(f"peft {peft.__version__}, {settings['peft_type']}: {len(mine)} tensors equal after a round trip, largest difference of a logit {worst:.2g}, tolerance {TOLERANCE}")
    sys.exit(0 if worst <= TOLERANCE else 1)


main()

"""Adapters that Python's peft saved, on tiny random models of transformers, with what they compute.

    python tools/golden/adapters.py OUT [SEED]

needs torch, transformers and peft (made with 2.15.0, 5.23.0 and 0.21.2). OUT/<family>/base is the model, and
OUT/<family>/<case> an adapter as peft writes it, with all of its tensors set to random numbers. OUT/manifest.json
lists the cases; OUT/<family>/<case>.safetensors has input ids, mask, and logits in evaluation.
"""
import json
import os
import sys

import peft
import torch
import transformers
from safetensors.torch import save_file

QUERY_VALUE = ["query", "value"]


def cases(layers):
    """yields the name and config of each case"""
    common = dict(task_type="TOKEN_CLS", inference_mode=False)
    yield "lora", peft.LoraConfig(r=3, lora_alpha=5, target_modules=QUERY_VALUE, **common)
    yield "lora_ranks", peft.LoraConfig(r=3, lora_alpha=5, target_modules=["query", "intermediate.dense"], rank_pattern={"layer.1.attention.self.query": 2}, **common)
    yield "rslora", peft.LoraConfig(r=4, lora_alpha=5, use_rslora=True, target_modules=["key"], **common)
    yield "dora", peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=QUERY_VALUE, **common)
    yield "ia3", peft.IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"], **common)
    yield "adalora", peft.AdaLoraConfig(init_r=4, target_r=2, tinit=1, tfinal=1, deltaT=2, total_step=9, lora_alpha=5, target_modules=QUERY_VALUE, **common)
    yield "prefix", peft.PrefixTuningConfig(num_virtual_tokens=3, **common)
    yield "prompt", peft.PromptTuningConfig(num_virtual_tokens=4, **common)


def patterns(model):
    """ranks kept of an AdaLoRA: some of each layer, of one none"""
    kept = {}
    for i, name in enumerate(n for n, _ in model.named_parameters() if "lora_E" in n):
        rank = 4 if i == 0 else i - 1
        kept[name.removeprefix("base_model.model.")] = [(j * 3 + i) % 4 < rank for j in range(4)]
    return kept


def main():
    out, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    sizes = dict(vocab_size=31, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=18, max_position_embeddings=20, num_labels=3)
    bert = transformers.BertForTokenClassification(transformers.BertConfig(pad_token_id=0, **sizes))
    roberta = transformers.RobertaForTokenClassification(transformers.RobertaConfig(pad_token_id=1, type_vocab_size=1, **sizes))
    manifest = dict(versions={m.__name__: m.__version__ for m in (torch, transformers, peft)}, seed=seed, cases=[])
    for family, base in dict(bert=bert, roberta=roberta).items():
        folder = os.path.join(out, family, "base")
        for parameter in base.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        base.save_pretrained(folder)
        pad = base.config.pad_token_id
        ids = torch.randint(2, sizes["vocab_size"], (2, 7))
        ids[1, 5:] = pad
        mask = (ids != pad).long()
        for name, config in cases(sizes["num_hidden_layers"]):
            model = peft.get_peft_model(type(base).from_pretrained(folder), config)
            for n, parameter in model.named_parameters():
                if parameter.requires_grad:
                    torch.nn.init.normal_(parameter, mean=float("ia3" in n or "magnitude" in n), std=0.3)
            if name == "adalora":
                kept = patterns(model)
                for n, parameter in model.named_parameters():
                    if "lora_E" in n:
                        parameter.data *= torch.tensor(kept[n.removeprefix("base_model.model.")])[:, None]
                model.peft_config["default"].rank_pattern = kept
            model.eval()
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=mask).logits
            virtual = getattr(config, "num_virtual_tokens", 0) if name == "prompt" else 0
            model.peft_config["default"].base_model_name_or_path = "../base"
            model.save_pretrained(os.path.join(out, family, name))
            save_file(dict(ids=ids.int(), mask=mask.int(), logits=logits[:, virtual:].contiguous()), os.path.join(out, family, name + ".safetensors"))
            manifest["cases"].append(f"{family}/{name}")
            for left in ("README.md",):
                path = os.path.join(out, family, name, left)
                if os.path.exists(path):
                    os.remove(path)
    with open(os.path.join(out, "manifest.json"), "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)


main()

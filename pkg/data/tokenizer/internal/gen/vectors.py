"""Writes ../../testdata/vectors.json: what the Python package tokenizers makes of variants of one small tokenizer.

    pip install tokenizers==0.23.3
    python vectors.py

The golden sets know only whole published tokenizers; this covers the single kinds and options
that other files of the BERT family combine. All texts are made up here, from a fixed seed.
"""

import json
import os
import random

import tokenizers
from tokenizers import Tokenizer

rng = random.Random(7)
HERE = os.path.dirname(os.path.abspath(__file__))

POOLS = [
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789 \t\n.,;:!?'\"()-_@#$%&*+=<>[]{}|\\/~^`",
    "\u00e4\u00f6\u00fc\u00df\u00e9\u00e8\u00ea\u00f1\u00e7\u00c5\u0130\u0131\u0141\u0142\u01c5\ufb01\ufb03\u2126\u212b\u1e9b\u0344\u0958\u0f73\u0f75",
    "\u0300\u0301\u0302\u0308\u0323\u0327\u0334\u0345\u05b0\u05bc\u064b\u0651\u093c\u094d\u0e38\u0f71\u0f72\u0f39\u20d0\u302a\u302e\u302f\u3099\U0001d165\U0001d16d",
    "\u0591\u1abf\u1ac0\u08ca\u08d3\u1df6\U00011938\U00011930\U00016ff0\ua7f2\u32ff\uab69",
    "\u4e2d\u6587\uf900\U00020000\U0002b740\u3042\u30ab\u30ac\uff76\uff9e\ud55c\uae00\u1112\u1161\u11ab\u1100\u1173",
    "\u00a0\u2003\u3000\u200b\u200d\ufeff\u0085\u2028\u00ad\u0000\u007f\ufffd\ue000\u0378\U000e0041\u180e",
    "\u0391\u03a3\u03c2\u03b1\u0301\u0410\u0439\u0451\u05d0\u05e9\u0627\u0644\u0915\u0995\u0e01\u10d0\u1c90\u13a0\uab70\U00010400\u00b2\u2460\u00bd\u2167",
    "\U0001f600\U0001f468\u200d\U0001f469\ufe0f\u2764\u00a9\u2122\u20ac\u2026\u2014\u201c\u00bf\u3002\uff01\u00b7",
]


def word(pools, n):
    return "".join(rng.choice(rng.choice(pools)) for _ in range(n))


texts = ["", " ", "\t\n", "\u0301", "\u0301\u0323", "\u0000", "a", "[CLS] a [SEP]", "don't do not, I 've . it 's ' x"]
for _ in range(36):
    pools = rng.sample(POOLS, rng.randint(1, 4)) + POOLS[:1]
    texts.append(" ".join(word(pools, rng.randint(1, 7)) for _ in range(rng.randint(1, 6))))
for _ in range(8):  # long runs of marks, which stream-safe normalisation would break
    texts.append("a" + word(POOLS[3:5], rng.randint(31, 40)) + "b")

ADDED = [
    ("[PAD]", {}), ("[UNK]", {}), ("[CLS]", {}), ("[SEP]", {}),
    ("<l>", {"lstrip": True}), ("<r>", {"rstrip": True}), ("<lr>", {"lstrip": True, "rstrip": True}),
    ("<w>", {"single_word": True}), ("<ww>", {}), ("ab", {"single_word": True, "special": False}),
    ("Caf\u00e9", {"normalized": True, "special": False}), ("<N>", {"normalized": True}),
    ("Xy Z", {"normalized": True, "special": False, "lstrip": True, "rstrip": True, "single_word": True}),
    ("\u4e2d", {"special": False}),
]
pieces = [t for t, _ in ADDED] + ["<n>", "x", " ", "  ", "\t", "caf\u00e9", "CAFE\u0301", "xy z", "XY  Z", "_", ".", "ab", "Ab", "\u00e9", "<", "wx", "\u3000"]
added_texts = ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 9))) for _ in range(60)]

added_texts += ["a<r>  <l>b", "<lr> \t<lr>\n<lr>", "<l>  <r>  <w> <w>x x<w>", "Xy Z  xy z\u3000XY Z", "abab ab_ab ab", "  <l><l>  <l>"]
texts += ["\u00e9" * 30, "\u00e9" * 31, "x" * 30 + " " + "x" * 31]

FIELDS = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}


def seq(*kinds):
    return {"type": "Sequence", "normalizers": [k if isinstance(k, dict) else {"type": k} for k in kinds]}


normalizers = {
    "none": None, "bert": BERT, "bert-cased": BERT | {"lowercase": False}, "bert-strip-cased": BERT | {"lowercase": False, "strip_accents": True},
    "bert-lower-accents": BERT | {"strip_accents": False}, "bert-unclean": BERT | {"clean_text": False}, "bert-nochinese": BERT | {"handle_chinese_chars": False},
    "nfc": {"type": "NFC"}, "nfd": {"type": "NFD"}, "nfkc": {"type": "NFKC"}, "nfkd": {"type": "NFKD"}, "lowercase": {"type": "Lowercase"},
    "strip": {"type": "StripAccents"}, "nfd-lower-strip": seq("NFD", "Lowercase", "StripAccents"), "nfc-bert": seq("NFC", BERT),
    "nested": seq(seq("NFKC"), "Lowercase", seq()),
}
BP = {"type": "BertPreTokenizer"}
pretokenizers = {"none": None, "bert": BP, "whitespace": {"type": "Whitespace"}, "split": {"type": "WhitespaceSplit"},
                 "sequence": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation"}]}}
for b in ["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]:
    pretokenizers["punct-" + b] = {"type": "Punctuation", "behavior": b}

def piece(s, typ):
    return {"Sequence": {"id": s, "type_id": typ}} if len(s) == 1 else {"SpecialToken": {"id": s, "type_id": typ}}


SPECIALS = {t: {"id": t, "ids": ids, "tokens": ids and [t] * len(ids)} for t, ids in {"[CLS]": [2], "[SEP]": [3], "[TWO]": [3, 3]}.items()}
TEMPLATE = {"type": "TemplateProcessing", "single": [piece("[CLS]", 0), piece("A", 0), piece("[SEP]", 0)],
            "pair": [piece("[CLS]", 0), piece("A", 0), piece("[SEP]", 0), piece("B", 1), piece("[SEP]", 1)], "special_tokens": SPECIALS}
posts = {
    "none": None, "bert": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}, "template": TEMPLATE,
    "odd": TEMPLATE | {"single": [piece("A", 4), piece("[TWO]", 5)], "pair": [piece("[TWO]", 2), piece("B", 3), piece("[CLS]", 0), piece("A", 6)]},
    "first-only": TEMPLATE | {"pair": [piece("[CLS]", 0), piece("A", 1)]}, "second-only": TEMPLATE | {"pair": [piece("[CLS]", 0), piece("B", 0)]},
    "neither": TEMPLATE | {"pair": [piece("[CLS]", 0)]},
}

base = {"version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, **FIELDS} for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])],
        "normalizer": BERT, "pre_tokenizer": BP, "post_processor": TEMPLATE,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 30, "vocab": {}}}


def load(patch):
    d = {k: v for k, v in base.items()} | patch
    return Tokenizer.from_str(json.dumps(d))


# Every character that any normalizer makes of the texts is in the vocabulary, alone and within words.
chars = set()
for n in normalizers.values():
    f = load({"normalizer": n}).normalizer
    for t in texts + added_texts:
        chars |= set(f.normalize_str(t) if f else t)
vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ab", "##ab", "do", "not", "'", "##n't", "n't", "caf", "##e\u0301"]
for c in sorted(chars):
    if rng.random() < 0.97:
        vocab += [c, "##" + c]
base["model"]["vocab"] = {t: i for i, t in enumerate(dict.fromkeys(vocab))}


def window(e):
    return {"ids": e.ids, "off": [x for o in e.offsets for x in o], "type": e.type_ids if any(e.type_ids) else 0,
            "spec": [i for i, s in enumerate(e.special_tokens_mask) if s], "word": e.word_ids}


def row(t, kind, text=None, pair=None, words=None, max_length=0, stride=0):
    special = not kind.endswith("_nospecial")
    t.no_truncation()
    if max_length:
        t.enable_truncation(max_length, stride=stride)
    e = t.encode(words, is_pretokenized=True, add_special_tokens=special) if words is not None else t.encode(text, pair, add_special_tokens=special)
    r = {"kind": kind} | window(e)
    for k, v in (("text", text), ("pair", pair), ("words", words)):
        if v is not None:
            r[k] = v
    if max_length:
        r |= {"max_length": max_length, "stride": stride, "overflow": [window(o) for o in e.overflowing]}
    elif pair is None and words is None:
        r["dec"], r["dec_all"] = t.decode(e.ids), t.decode(e.ids, skip_special_tokens=False)
    return r


variants = []


def variant(name, patch, rows):
    t = load(patch)
    variants.append({"name": name, "patch": patch, "rows": [row(t, **r) for r in rows]})


def singles(ts):
    return [{"kind": "single", "text": t} for t in ts]


for name, n in normalizers.items():
    variant("normalizer/" + name, {"normalizer": n}, singles(texts))
for name, p in pretokenizers.items():
    variant("pretokenizer/" + name, {"pre_tokenizer": p, "normalizer": BERT | {"clean_text": False, "strip_accents": False}}, singles(texts[::2]))
for name, n in {"bert": BERT, "none": None, "nfd-lower-strip": normalizers["nfd-lower-strip"]}.items():
    added = [{"id": i, "content": t, **(FIELDS | f)} for i, (t, f) in enumerate(ADDED)]
    variant("added/" + name, {"normalizer": n, "added_tokens": added},
            singles(added_texts) + [{"kind": "words", "words": added_texts[i:i + 3]} for i in range(0, 60, 3)])
long = [" ".join(word(POOLS[:2], 3) for _ in range(n)) for n in (2, 7, 10)]
for name, p in posts.items():
    rows = [{"kind": k, "text": t} for k in ("single", "single_nospecial") for t in texts[:12]]
    rows += [{"kind": k, "text": a, "pair": b} for k in ("pair", "pair_nospecial") for a, b in zip(texts[4:14], texts[9:19])]
    rows += [{"kind": "trunc", "text": t, "max_length": m, "stride": s} for t in long for m, s in ((8, 0), (9, 3), (16, 4))]
    rows += [{"kind": "trunc", "text": a, "pair": b, "max_length": m, "stride": s} for a in long for b in long for m, s in ((17, 3), (30, 2))]
    rows += [{"kind": "trunc_nospecial", "text": a, "pair": b, "max_length": 13, "stride": 1} for a in long for b in long]
    rows += [{"kind": "trunc", "words": t.split(), "max_length": 12, "stride": 5} for t in long]
    variant("post/" + name, {"post_processor": p}, rows)
variant("decoder/none", {"decoder": None}, singles(texts[:20]))
variant("decoder/plain", {"decoder": base["decoder"] | {"cleanup": False, "prefix": "#"}}, singles(texts[:20]))
variant("model/short", {"model": base["model"] | {"max_input_chars_per_word": 2}}, singles(texts[:40]))
variant("model/noprefix", {"model": base["model"] | {"continuing_subword_prefix": ""}}, singles(texts[:40]))
variants[-2]["patch"] = {"model": {"max_input_chars_per_word": 2}}
variants[-1]["patch"] = {"model": {"continuing_subword_prefix": ""}}

with open(os.path.join(HERE, "..", "..", "testdata", "vectors.json"), "w") as f:
    f.write('{"source":"tokenizers %s, internal/gen/vectors.py",\n"base":%s,\n"variants":[' % (tokenizers.__version__, json.dumps(base, separators=(",", ":"))))
    for i, v in enumerate(variants):
        rows = ",\n".join(json.dumps(r, separators=(",", ":")) for r in v["rows"])
        f.write('%s\n{"name":"%s","patch":%s,"rows":[\n%s]}' % ("," if i else "", v["name"], json.dumps(v["patch"], separators=(",", ":")), rows))
    f.write("\n]}\n")
print(len(variants), "variants", sum(len(v["rows"]) for v in variants), "rows")

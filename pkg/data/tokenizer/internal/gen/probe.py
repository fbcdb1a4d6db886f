"""Asks the Python package tokenizers how it sees every code point and writes unicode.json beside this file.

    pip install tokenizers==0.23.3
    python probe.py

Not needed to build or to test the package; go generate reads what it wrote. Unlike a table of
differences to one version of Go, unicode.json holds whole classes, so that a later Go with newer
Unicode tables changes nothing.
"""

import json
import os

import tokenizers
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P

ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def ranges(points):
    out = []
    for c in points:
        if out and c == out[-1][1] + 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return [f"{a:X}" if a == b else f"{a:X}-{b:X}" for a, b in out]


def mapping(f):
    return {c: s for c in ALL if (s := f(chr(c))) != chr(c)}


clean = N.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False).normalize_str
chinese = N.BertNormalizer(clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False).normalize_str
nfd, nfkd, nfc, nfkc = (f.normalize_str for f in (N.NFD(), N.NFKD(), N.NFC(), N.NFKC()))
lower, strip = N.Lowercase().normalize_str, N.StripAccents().normalize_str
bertstrip = N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False).normalize_str
split, word, punct = P.WhitespaceSplit().pre_tokenize_str, P.Whitespace().pre_tokenize_str, P.BertPreTokenizer().pre_tokenize_str

cleaned = mapping(clean)
D, KD = mapping(nfd), mapping(nfkd)

# A combining class shows only in the order of two marks: U+0334 has class 1, U+0345 has 240, the largest.
nonstarter = [c for c in ALL if c not in D and c != 0x334
              and (nfd("a" + chr(c) + "\u0334") == "a\u0334" + chr(c) or nfd("a\u0345" + chr(c)) == "a" + chr(c) + "\u0345")]
nonstarter = sorted(set(nonstarter) | {0x334, 0x345})


def before(a, b):
    """Whether class(a) < class(b): b a is then reordered."""
    return nfd("a" + chr(b) + chr(a)) == "a" + chr(a) + chr(b)


classes = []  # groups of equal class, in order
for c in nonstarter:
    lo, hi = 0, len(classes)
    while lo < hi:
        mid = (lo + hi) // 2
        rep = classes[mid][0]
        if before(c, rep):
            hi = mid
        elif before(rep, c):
            lo = mid + 1
        else:
            classes[mid].append(c)
            break
    else:
        classes.insert(lo, [c])

# What composes: every canonical decomposition into two characters that NFC puts together again.
compose = {}
for c, s in D.items():
    if nfc(s) == chr(c) and not 0xAC00 <= c <= 0xD7A3:
        head = nfc(s[:-1])
        assert len(head) == 1, hex(c)
        compose[c] = [ord(head), ord(s[-1])]
for c in ALL:  # the compatibility forms must be the canonical ones composed
    assert nfkc(chr(c)) == nfc(nfkd(chr(c))), hex(c)

out = {
    "source": f"tokenizers {tokenizers.__version__}, every code point except surrogates",
    "ranges": {
        "removed": ranges(c for c in ALL if cleaned.get(c) == ""),
        "blank": ranges(c for c in ALL if cleaned.get(c) == " "),
        "chinese": ranges(c for c in ALL if chinese(chr(c)) == f" {chr(c)} "),
        "space": ranges(c for c in ALL if split("a" + chr(c) + "a") == [("a", (0, 1)), ("a", (2, 3))]),
        "punctuation": ranges(c for c in ALL if len(punct("a" + chr(c) + "a")) == 3),
        "word": ranges(c for c in ALL if len(word("a" + chr(c) + "a")) == 1),
        # general category Mn of the crate that BERT's normalizer uses; what decomposes is judged after that
        "nonspacing": ranges(c for c in ALL if c not in D and bertstrip("a" + chr(c)) == "a"),
        # general category M of the crate that StripAccents uses
        "mark": ranges(c for c in ALL if strip("a" + chr(c)) == "a"),
    },
    "classes": [ranges(sorted(g)) for g in classes],
    "lower": {f"{c:X}": [f"{ord(x):X}" for x in s] for c, s in mapping(lower).items()},
    "nfd": {f"{c:X}": [f"{ord(x):X}" for x in s] for c, s in D.items() if not 0xAC00 <= c <= 0xD7A3},
    "nfkd": {f"{c:X}": [f"{ord(x):X}" for x in s] for c, s in KD.items() if D.get(c) != s},
    "compose": {f"{c:X}": [f"{x:X}" for x in v] for c, v in compose.items()},
}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "unicode.json"), "w") as f:
    json.dump(out, f, indent=0, separators=(",", ":"))
    f.write("\n")
for k, v in out.items():
    if k not in ("source", "ranges"):
        print(k, len(v))
print({k: len(v) for k, v in out["ranges"].items()})

"""Measures Python tokenizers and pkg/data/tokenizer on the same texts, each on one thread of the same CPU.

    pip install tokenizers==0.23.3
    python tools/bench/tokenizer_peer.py [--texts FILE] [--cpu N]

FILE has one text a line; without it, the texts are those of the package's own benchmark.
Prints tokens a second (special tokens included), best of several rounds, and the ratio.
"""

import argparse
import os
import re
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tokenizers  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = os.path.join(ROOT, "pkg", "data", "tokenizer")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--texts", default=os.path.join(PACKAGE, "testdata", "bench.txt"))
parser.add_argument("--cpu", type=int, default=0)
parser.add_argument("--rounds", type=int, default=5)
args = parser.parse_args()
args.texts = os.path.abspath(args.texts)
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {args.cpu})  # the Go benchmark inherits it

with open(args.texts, encoding="utf-8") as f:
    texts = f.read().strip().split("\n")


def best(run):
    rates = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        n = run()
        rates.append(n / (time.perf_counter() - start))
    return max(rates)


python = {}
families = ["bert-minilm", "bert-cased-small"]
for family in families:
    tok = tokenizers.Tokenizer.from_file(os.path.join(PACKAGE, "testdata", "golden", "tokenizers", family, "tokenizer.json"))
    tok.no_truncation()
    tok.no_padding()
    python[family] = (best(lambda: sum(len(tok.encode(t).ids) for t in texts)),
                      best(lambda: sum(len(e.ids) for e in tok.encode_batch_fast(texts))))

env = dict(os.environ, ELASTIC_BENCH_TEXTS=args.texts, GOMAXPROCS="1")
out = subprocess.run(["go", "test", "-run", "^$", "-bench", "^BenchmarkEncode$", "-benchtime", "1s", "-count", str(args.rounds), "."],
                     cwd=PACKAGE, env=env, check=True, capture_output=True, text=True).stdout
print(f"{len(texts)} texts; tokenizers {tokenizers.__version__}; tokens/s on one thread")
print(f"{'family':18}{'Python encode':>15}{'encode_batch_fast':>19}{'Go Encode':>12}{'ratio':>8}")
for family in families:
    rates = [float(m) for m in re.findall(rf"BenchmarkEncode/{family}\S*\s.*?([\d.e+]+) tokens/s", out)]
    encode, fast = python[family]
    print(f"{family:18}{encode:15,.0f}{fast:19,.0f}{max(rates):12,.0f}{max(rates) / encode:8.2f}")

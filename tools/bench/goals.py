"""Holds a log of run.sh against the project's goals: a row a goal, with the median of its rounds, met or missed.

    python tools/bench/goals.py log.jsonl
"""

import collections
import json
import statistics
import sys

# What is measured, workload, engine, field, the engine it is divided by ("" for none), and the goal.
AT_MOST, AT_LEAST = "<=", ">="
GOALS = [
    ("forward 16x128, time", "fwd-b16s128", "xla", "median_s", "torch", AT_MOST, 0.85),
    ("training step 16x128, time", "train-b16s128", "xla", "median_s", "jax", AT_MOST, 1.0),
    ("training step 16x128, time", "train-b16s128", "xla", "median_s", "torch", AT_MOST, 1.2),
    ("training step 16x128, peak memory", "train-b16s128", "xla", "rss_mb", "jax", AT_MOST, 1.05),
    ("training step 4x128, peak memory", "train-b4s128", "xla", "rss_mb", "jax", AT_MOST, 1.05),
    ("inference 1x32, p50", "infer-b1s32", "xla", "median_s", "torch", AT_MOST, 0.8),
    ("inference 1x32, p50, pure Go", "infer-b1s32", "go", "median_s", "torch", AT_MOST, 2.5),
    ("attention 4096, time", "attn-l4096", "xla", "median_s", "torch", AT_MOST, 1.2),
    ("attention 4096 with gradients, time", "attn-l4096-train", "xla", "median_s", "torch", AT_MOST, 1.5),
    ("attention 512 with gradients, eager, time", "attn-l512-train", "xla", "median_s", "torch", AT_MOST, 1.1),
    ("attention 4096 with gradients, first call, s", "attn-l4096-train", "xla", "first_s", "", AT_MOST, 2.5),
    ("fine-tuning, sentences/s, all steps", "ner-b16", "xla", "epoch_sentences_s", "torch:sentences_s", AT_LEAST, 1.0),
    ("fine-tuning, compilations while training", "ner-b16", "xla", "compilations", "", AT_MOST, 4),
    ("fine-tuning, process start to first update, s", "ner-b16", "xla", "ready_s", "", AT_MOST, 8),
]

rows = collections.defaultdict(dict)
with open(sys.argv[1]) as f:
    for line in f:
        row = json.loads(line)
        rows[row["workload"], row["name"]][row["round"]] = row

print(f"{'goal':48}{'against':9}{'median':>8}{'min..max':>16}{'goal':>9}  ")
for what, workload, engine, field, against, sign, goal in GOALS:
    mine = rows.get((workload, engine), {})
    if against:
        against, _, other = against.partition(":")
        theirs = rows.get((workload, against), {})
        values = [mine[r][field] / theirs[r][other or field] for r in mine if r in theirs]
    else:
        values = [row[field] for row in mine.values()]
    label = f"{sign} {goal:g}"
    if not values:
        print(f"{what:48}{against:9}{'-':>8}{'':16}{label:>9}  not measured")
        continue
    middle = statistics.median(values)
    met = middle <= goal if sign == AT_MOST else middle >= goal
    print(f"{what:48}{against:9}{middle:8.3f}{f'{min(values):.2f}..{max(values):.2f}':>16}{label:>9}  {'met' if met else 'MISSED'}")

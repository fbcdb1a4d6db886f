"""Fine-tunes MiniLM on UNER English-EWT by transformers and by ours, in turns, and compares sentences a second.

    python tools/bench/compare_ner.py --dir DIR [--rounds 3] [--steps 120] [--out log.jsonl]

DIR is what "bin/bench data DIR" laid out. Both take the recipe of the preset "quick" (batch 16, dropout .1): the peer pads
each batch to its longest sentence, ours packs it. Evaluation and checkpoints are left out on both sides, and so is reading
the corpus; ours is counted both over steady steps and over all, compilation included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BATCH = 16

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--dir", required=True)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=120)
parser.add_argument("--out", default="")
args = parser.parse_args()


def last_json(command):
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"{command[0]} {command[1]} failed ({done.returncode}): {done.stderr.strip()[-500:]}")
    return json.loads(lines[-1]), time.perf_counter() - began


def peer(seed):
    with tempfile.TemporaryDirectory() as scratch:
        record = os.path.join(scratch, "peer.json")
        epoch, seconds = last_json([
            sys.executable, os.path.join(HERE, "peer_ner.py"), "--data", "uner", "--dir", args.dir, "--model", os.path.join(args.dir, "model"),
            "--epochs", "1", "--max-steps", str(args.steps), "--no-eval", "--seed", str(seed), "--out", record])
        with open(record) as f:
            rss = json.load(f)["peak_rss_mib"]
    return {"name": "torch", "sentences_s": BATCH * epoch["steps_per_s"], "real_tok_per_s": epoch["real_tok_per_s"], "rss_mb": rss,
            "process_s": seconds}


def ours(seed):
    line, seconds = last_json(["bin/bench", "ner", "--max-steps", str(args.steps), "--seed", str(seed), "--dropout", "-1"])
    ner = line["ner"]
    return {"name": "xla", "sentences_s": ner["sentences_s"], "sentences_s_all": ner["sentences_s_all"], "epoch_sentences_s": ner["epoch_sentences_s"],
            "real_tok_per_s": ner["real_tok_per_s"], "rss_mb": line["rss_mb"], "ready_s": line["ready_s"], "compilations": ner["compilations"],
            "padding": ner["padding"], "process_s": seconds}


print(f"## fine-tuning, {args.steps} updates of {BATCH} sentences; load before: {open('/proc/loadavg').read().strip()}", flush=True)
print(f"{'round':6}{'engine':8}{'sent/s':>9}{'all':>8}{'epoch':>8}{'tok/s':>8}{'rss MB':>8}{'ready s':>9}{'comp':>6}{'process s':>11}")
for number in range(args.rounds):
    for run in (peer, ours):
        row = run(number) | {"workload": f"ner-b{BATCH}", "round": number}
        cell = lambda name, form: format(row[name], form) if name in row else "-"
        print(f"{number:<6}{row['name']:8}{cell('sentences_s', '.1f'):>9}{cell('sentences_s_all', '.1f'):>8}{cell('epoch_sentences_s', '.1f'):>8}"
              f"{cell('real_tok_per_s', '.0f'):>8}{cell('rss_mb', '.0f'):>8}{cell('ready_s', '.1f'):>9}{cell('compilations', 'd'):>6}{row['process_s']:>11.1f}", flush=True)
        if args.out:
            with open(args.out, "a") as f:
                f.write(json.dumps(row) + "\n")

"""Compares what TensorBoard and an MLflow server show with the journals of runs; see tools/track.sh.

One more run is made here, by an own writer of journals, long enough to be killed while it is exported.
"""
import argparse
import csv
import hashlib
import io
import json
import math
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from datetime import datetime

BIN = pathlib.Path(sys.executable).parent


def crc32c(data, table=[]):
    if not table:
        for n in range(256):
            for _ in range(8):
                n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
            table.append(n)
    c = 0xFFFFFFFF
    for x in data:
        c = table[(c ^ x) & 255] ^ (c >> 8)
    return c ^ 0xFFFFFFFF


def write_run(folder, steps):
    folder.mkdir(parents=True)
    start = 1795000000000
    (folder / "run.json").write_text(json.dumps({
        "task": "made", "seed": 1, "started": "2026-11-18T11:06:40Z", "config": {"model": "made", "train": {"lr": 0.1}, "odd": {"/embeddings/*": 1}}}))
    with open(folder / "journal.jsonl", "wb") as file:
        def line(event):
            text = json.dumps(event, separators=(",", ":"))[:-1].encode()
            file.write(text + b',"crc32c":"%08x"}\n' % crc32c(text))
        line({"event": "begin", "time_ms": start, "machine": {"host": "made", "platform": "", "cpus": 1, "pid": 1}})
        for step in range(1, steps + 1):
            values = {"train/loss": 2 / step, "odd/näme*": math.sin(step), "train/rate": 1e-300 / step}
            if step % 100 == 0:
                values |= {"nan": "NaN", "up": "Infinity", "down": "-Infinity"}
            line({"event": "metrics", "time_ms": start + 50 * step, "step": step, "values": values})
        line({"event": "end", "time_ms": start + 50 * steps, "status": "finished"})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(url, body=None):
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def started(command, url, **more):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **more)
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"{command[0]} ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return process
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"{command[0]} does not answer")


def stop(process):
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def same(name, got, want):
    if got != want:
        extra, missing = got - want, want - got
        sys.exit(f"{name}: {sum(extra.values())} points too many, {sum(missing.values())} missing, as {list(extra)[:2]} and {list(missing)[:2]}")
    return sum(want.values())


def points(args):
    """What the store has: by run and metric, (step, milliseconds, value as text)."""
    out = subprocess.run([args.elastic, "runs", "export", "points", "--dir", args.dir, "--where", "status=finished"], check=True, capture_output=True, text=True).stdout
    runs = {}
    for row in csv.DictReader(io.StringIO(out)):
        ms = round(datetime.fromisoformat(row["time"].replace("Z", "+00:00")).timestamp() * 1000)
        runs.setdefault(row["run"], {}).setdefault(row["metric"], []).append((int(row["step"]), ms, float(row["value"].replace("Inf", "inf"))))
    return runs


def float32(value):
    """A value as an event file has it, as text."""
    return str(struct.unpack("<f", struct.pack("<f", value))[0])


def tensorboard(args, runs):
    logs = pathlib.Path(args.dir).parent / "track-logs"
    shutil.rmtree(logs, ignore_errors=True)
    command = [args.elastic, "runs", "export", "tensorboard", "--dir", args.dir, "--where", "status=finished", "--to", str(logs)]
    for _ in range(10):  # killed exports leave nothing half
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(random.random() * 0.3)
        process.kill()
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    data = f"http://127.0.0.1:{port}/data"
    process = started([BIN / "tensorboard", "--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port), "--reload_interval", "1",
                       "--samples_per_plugin", "scalars=1000000"], data + "/runs")
    try:
        scalars = lambda run, name: get(f"{data}/plugin/scalars/scalars?" + urllib.parse.urlencode({"run": run, "tag": name}))
        for _ in range(300):  # until it has read the files
            tags = get(data + "/plugin/scalars/tags")
            if all(sorted(tags.get(r, {})) == sorted(runs[r]) and all(len(scalars(r, n)) == len(runs[r][n]) for n in runs[r]) for r in runs):
                break
            time.sleep(0.2)
        total = 0
        for run, metrics in runs.items():
            if sorted(tags.get(run, {})) != sorted(metrics):
                sys.exit(f"TensorBoard has {sorted(tags.get(run, {}))} of {run}, the store {sorted(metrics)}")
            for name, want in metrics.items():
                got = scalars(run, name)
                total += same(f"TensorBoard, {run}, {name}", Counter((s, round(t * 1000), float32(float(v))) for t, s, v in got),
                              Counter((s, t, float32(v)) for s, t, v in want))
        sessions = get(data + "/plugin/hparams/session_groups", {
            "experimentName": "", "startIndex": 0, "sliceSize": 10, "colParams": [],
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]})
        names = sorted(s["name"] for g in sessions["sessionGroups"] for s in g["sessions"])
        if names != sorted(runs):
            sys.exit(f"TensorBoard has hyperparameters of {names}")
        print(f"TensorBoard: {len(runs)} runs, {total} points, the same as in the store; hyperparameters of all runs")
    finally:
        stop(process)


def mlflow(args, runs):
    state = pathlib.Path(args.dir).parent / "track-mlflow"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    state = state.resolve()
    port = free_port()
    server = f"http://127.0.0.1:{port}"
    process = started([BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{state}/mlflow.db",
                       "--artifacts-destination", str(state / "artifacts")], server + "/health", cwd=state,
                      env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
    api = server + "/api/2.0/mlflow"
    command = [args.elastic, "runs", "export", "mlflow", "--dir", args.dir, "--where", "status=finished", "--to", server, "--experiment", "check", "--artefacts"]
    try:
        kills = 0
        for _ in range(40):
            export = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                if export.wait(0.3 + 2 * random.random()) == 0:
                    break
                sys.exit("the export failed")
            except subprocess.TimeoutExpired:
                export.kill()
                export.wait()
                kills += 1
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        experiment = get(api + "/experiments/get-by-name?experiment_name=check")["experiment"]["experiment_id"]
        found = get(api + "/runs/search", {"experiment_ids": [experiment], "max_results": 100})["runs"]
        if sorted(r["info"]["run_name"] for r in found) != sorted(runs):
            sys.exit(f"MLflow has runs {[r['info']['run_name'] for r in found]}, the store {list(runs)}")
        noted = {r["id"]: {a["path"]: a["sha256"] for a in r.get("artefacts", [])} for r in json.loads(subprocess.run(
            [args.elastic, "runs", "ls", "--dir", args.dir, "--json"], check=True, capture_output=True, text=True).stdout)}
        total = files = 0
        for run in found:
            for path, sum in noted[run["info"]["run_name"]].items():
                there = f"{server}/get-artifact?" + urllib.parse.urlencode({"run_uuid": run["info"]["run_id"], "path": path})
                with urllib.request.urlopen(there, timeout=60) as answer:
                    if hashlib.sha256(answer.read()).hexdigest() != sum:
                        sys.exit(f"MLflow has another {path} of {run['info']['run_name']}")
                files += 1
            want = Counter()
            for name, list_of in runs[run["info"]["run_name"]].items():
                for step, ms, value in list_of:
                    # The server keeps infinities as the greatest finite numbers.
                    value = math.copysign(sys.float_info.max, value) if math.isinf(value) else value
                    want[(step, ms, str(value))] += 1
            got, token = Counter(), ""
            for metric in {m["key"] for m in run["data"]["metrics"]}:
                token = ""
                while True:
                    page = get(f"{api}/metrics/get-history?" + urllib.parse.urlencode({"run_id": run["info"]["run_id"], "metric_key": metric, "max_results": 20000, "page_token": token}))
                    got.update((int(m.get("step", 0)), int(m["timestamp"]), str(float(m["value"]))) for m in page.get("metrics", []))
                    token = page.get("next_page_token", "")
                    if not token:
                        break
            total += same("MLflow, " + run["info"]["run_name"], got, want)
            if run["info"]["status"] != "FINISHED" or not run["data"]["params"]:
                sys.exit(f"MLflow has {run['info']}")
        print(f"MLflow: {len(runs)} runs, {total} points and {files} files, the same as in the store, after {kills} exports that were killed")
    finally:
        stop(process)


parser = argparse.ArgumentParser()
parser.add_argument("--elastic", required=True)
parser.add_argument("--dir", required=True)
parser.add_argument("what", nargs="*", default=["tensorboard", "mlflow"])
options = parser.parse_args()
random.seed(1)
write_run(pathlib.Path(options.dir) / "made", 8000)
found = points(options)
for part in options.what:
    {"tensorboard": tensorboard, "mlflow": mlflow}[part](options, found)

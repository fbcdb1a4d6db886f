#!/usr/bin/env python3
"""Run GoNB notebooks headless by Python's nbclient: the cross-check of "elastic nb run".

Both must agree on which notebooks pass, and on their numbers; "make nb-selftest" sees to it. What they look for is
told in pkg/nb/execute: errors, the line "exit status N" that GoNB writes to the stderr of a cell whose program failed,
time, and the numbers that the notebook's metadata expects.

Parameters: -p NAME=VALUE sets the environment variable NB_NAME, which the notebook's parameter cell reads.

Output: one JSON line per notebook on stdout, remarks on stderr; the executed notebooks and what the kernel
logged in the folder --out. Exit status 1 if any notebook failed.
"""

import argparse
import json
import math
import os
import pathlib
import re
import signal
import sys
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

# What GoNB writes when a cell's program fails. The program's own last words may lack a newline,
# so the message counts at the end of the stream too, not only on a line of its own.
FAILED = re.compile(r"(?:^|(?<=\n))(?P<line>(?:exit status \d+|signal: [a-z ]+(?: \(core dumped\))?)[ \t]*)(?=\n|\Z)"
                    r"|(?P<end>(?:exit status \d+|signal: [a-z ]+(?: \(core dumped\))?)\s*\Z)")
RESULT = re.compile(r"^result: *([A-Za-z_][\w.\-/]*) *= *(\S+) *$", re.M)
ANSI = re.compile(r"\x1b\[[0-9;]*m")
WORDS = 12  # lines of a failing cell's last words that go into the report


def streams(cell, name):
    """The text that a cell wrote to stdout or stderr."""
    return "".join(o.get("text", "") for o in cell.get("outputs", [])
                   if o["output_type"] == "stream" and o["name"] == name)


def failures(cell):
    """What went wrong in an executed cell although the kernel said ok."""
    stderr = streams(cell, "stderr")
    bad = [(m["line"] or m["end"]).strip() for m in FAILED.finditer(stderr)]
    if "raises-exception" in cell.metadata.get("tags", []):
        raised = bad or any(o["output_type"] == "error" for o in cell.get("outputs", []))
        return [] if raised else ["was expected to fail (tag raises-exception), but did not"]
    if not bad:
        return []
    words = ANSI.sub("", streams(cell, "stdout")[-2000:] + stderr[-4000:]).strip().splitlines()
    return [bad[-1] + "".join("\n    " + w for w in words[-WORDS:])]


def results(nb):
    """The numbers that the notebook printed; of one printed twice the last."""
    found = {}
    for cell in nb.cells:
        for name, value in RESULT.findall(streams(cell, "stdout")):
            try:
                found[name] = float(value)
            except ValueError:
                found[name] = math.nan
    return found


def compare(expect, found):
    """Complaints about numbers that are missing or beyond their tolerance."""
    errors = []
    for name, want in expect.items():
        if not (isinstance(want, (list, tuple)) and len(want) == 2
                and all(isinstance(v, (int, float)) and math.isfinite(v) for v in want) and want[1] >= 0):
            errors.append(f'metadata workbench.expect: "{name}" is {want!r}, want [value, tolerance >= 0]')
        elif name not in found:
            errors.append(f'expected number "{name}" was not printed; a cell must print "result: {name}=<number>"')
        elif not abs(found[name] - want[0]) <= want[1]:  # so written, NaN is never close
            errors.append(f"{name} = {found[name]:g}, want {want[0]:g} within {want[1]:g}")
    return errors


def run(path, out, params, cell_timeout):
    """Executes one notebook, prints its JSON line and says whether all is well."""
    try:
        nb = nbformat.read(path, as_version=4)
    except Exception as e:  # whatever the file holds, the other notebooks still run
        print(json.dumps({"notebook": str(path), "ok": False, "errors": [f"reading: {e}"]}), flush=True)
        return False
    house = nb.metadata.get("workbench", {})
    cell_timeout = house.get("cell_timeout", cell_timeout)
    budget = house.get("budget")
    errors, cells, began = [], [], time.monotonic()
    at = {"cell": 0, "began": began}  # the cell that runs

    def start(cell, cell_index):
        at.update(cell=cell_index, began=time.monotonic())

    def done(cell, cell_index, execute_reply):
        cells.append({"cell": cell_index, "seconds": round(time.monotonic() - at["began"], 2)})
        errors.extend(f"cell {cell_index}: {what}" for what in failures(cell))

    client = NotebookClient(
        nb, timeout=cell_timeout, kernel_name="gonb", coalesce_streams=True, record_timing=False,
        on_cell_start=start, on_cell_executed=done, resources={"metadata": {"path": str(path.parent)}})
    out.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ)
    os.environ.update({f"NB_{k}": v for k, v in params.items()})
    os.environ["NB_HEADLESS"] = "1"
    group = []
    try:
        client.km = client.create_kernel_manager()
        with (out / "kernel.log").open("ab") as log, client.setup_kernel(stderr=log):
            group.append(getattr(client.km.provisioner, "pgid", None))
            for index, cell in enumerate(nb.cells):
                if budget and time.monotonic() - began > budget:
                    errors.append(f"cell {index}: not run, the notebook's budget of {budget} s is spent")
                    break
                client.execute_cell(cell, index)
                if errors and cell.cell_type == "code" and errors[-1].startswith(f"cell {index}:"):
                    break  # what follows would only repeat the failure
    except CellTimeoutError:
        errors.append(f"cell {at['cell']}: no end after {cell_timeout:g} s")
    except CellExecutionError as e:
        text = ANSI.sub("", str(e)).strip().splitlines()
        errors.append(f"cell {at['cell']}: does not compile or the kernel refused it:" + "".join("\n    " + t for t in text[-WORDS:]))
    except DeadKernelError as e:
        errors.append(f"the kernel died, see {out / 'kernel.log'}: {e}")
    except Exception as e:
        errors.append(f"{type(e).__name__}: {e}")
    finally:
        # A hung cell is a process of its own, which outlives a killed kernel.
        for pgid in filter(None, group):
            try:
                os.killpg(pgid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.environ.clear()
        os.environ.update(env)

    seconds = time.monotonic() - began
    if budget and seconds > budget:
        errors.append(f"took {seconds:.0f} s, the budget is {budget} s")
    found = results(nb)
    line = {"notebook": path.name, "ok": not errors, "seconds": round(seconds, 2), "params": params,
            "results": {k: v if math.isfinite(v) else str(v) for k, v in found.items()}, "cells": cells, "errors": errors}
    if params:
        line["expect"] = "not compared: parameters were given"
    elif not errors:  # a notebook that broke off has not printed everything; its own error is the news
        errors += compare(house.get("expect", {}), found)
        line["ok"] = not errors
    nbformat.write(nb, out / path.name)
    print(json.dumps(line), flush=True)
    for e in errors:
        print(f"nbrun: {path.name}: {e}", file=sys.stderr)
    return not errors


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("notebooks", nargs="+", type=pathlib.Path)
    ap.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="parameter, read as NB_NAME")
    ap.add_argument("--cell-timeout", type=float, default=300, metavar="S", help="seconds for one cell (default %(default)s)")
    ap.add_argument("--out", type=pathlib.Path, default=pathlib.Path("executed"), help="folder for the executed copies")
    a = ap.parse_args()
    params = {}
    for p in a.p:
        name, eq, value = p.partition("=")
        if not eq or not name.isidentifier():
            ap.error(f"-p {p!r}: want NAME=VALUE")
        params[name] = value
    ok = [run(p, a.out, params, a.cell_timeout) for p in a.notebooks]
    print(f"nbrun: {sum(ok)} of {len(ok)} notebooks passed", file=sys.stderr)
    sys.exit(0 if all(ok) else 1)


if __name__ == "__main__":
    main()

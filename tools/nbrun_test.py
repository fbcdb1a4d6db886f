#!/usr/bin/env python3
"""Tests tools/nbrun.py through the real kernel: broken notebooks must fail, each for its own reason.

Stock runners find only the compile errors among these. Run by "make nb-selftest".
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import nbformat

RUNNER = pathlib.Path(__file__).resolve().with_name("nbrun.py")
FIRST = '%noautoget\nimport "fmt"'
TIMEOUT = 60  # for the first build with an empty cache on a busy machine; the hang below has its own


def notebook(path, *cells, expect=None, **house):
    nb = nbformat.v4.new_notebook()
    nb.metadata["kernelspec"] = {"name": "gonb", "display_name": "Go (gonb)", "language": "go"}
    nb.metadata["workbench"] = {"cell_timeout": TIMEOUT, **house, **({"expect": expect} if expect else {})}
    nb.cells = [nbformat.v4.new_code_cell(c) if isinstance(c, str) else c for c in cells]
    nbformat.write(nb, path)
    return path


class Runner(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.dir = pathlib.Path(tmp.name)

    def run_notebook(self, *cells, args=(), **meta):
        path = notebook(self.dir / "case.ipynb", *cells, **meta)
        # GOPROXY=off: what these cells import must come from the module and its pins, not from the network.
        p = subprocess.run([sys.executable, RUNNER, "--out", self.dir / "out", *args, path], capture_output=True,
                           text=True, timeout=5 * TIMEOUT, env={**os.environ, "GOPROXY": "off"})
        lines = p.stdout.strip().splitlines()
        self.assertEqual(len(lines), 1, p.stdout + p.stderr)
        line = json.loads(lines[0])
        self.assertEqual(p.returncode, 0 if line["ok"] else 1, p.stdout + p.stderr)
        return line

    def must_fail(self, line, *words):
        self.assertFalse(line["ok"], line)
        text = "\n".join(line["errors"])
        for w in words:
            self.assertIn(w, text)

    def test_good(self):
        line = self.run_notebook(
            FIRST,
            '%%\nfmt.Println("result: half=0.5")\nfmt.Println("result: count=3")',
            'import "github.com/elastic-attention/workbench/pkg/viz"\n%%\n'
            'svg, err := viz.Curves("t", "x", "y", viz.Series{Name: "a", X: []float64{0, 1}, Y: []float64{1, 2}})\n'
            'fmt.Println(len(svg) > 0, err)',
            'import "testing"\nfunc TestFine(t *testing.T) {}\n%test',
            expect={"half": [0.5, 0], "count": [3.2, 0.25]})
        self.assertTrue(line["ok"], line)
        self.assertEqual(line["results"], {"half": 0.5, "count": 3})

    def test_display(self):
        line = self.run_notebook(
            FIRST,
            'import "github.com/elastic-attention/workbench/pkg/viz/nb"\n%%\n'
            'nb.Markdown("**bold**")\nlive := nb.NewLive()\n'
            'for i := range 3 { live.Update(func() string { return fmt.Sprint("step ", i) }) }\n'
            'live.Done(func() string { return "<p>final</p>" })')
        self.assertTrue(line["ok"], line)
        outputs = nbformat.read(self.dir / "out" / "case.ipynb", as_version=4).cells[1].outputs
        shown = [v for o in outputs for k, v in o.get("data", {}).items()]
        self.assertEqual(shown, ["**bold**", "<p>final</p>"])  # headless: the final picture only

    def test_panic(self):
        self.must_fail(self.run_notebook(FIRST, '%%\npanic("boom")', '%%\nfmt.Println("later")'), "cell 1", "exit status 2", "boom")

    def test_exit_without_newline(self):
        self.must_fail(self.run_notebook(FIRST, '%%\nfmt.Fprint(os.Stderr, "last words")\nos.Exit(3)'), "cell 1", "exit status 3")

    def test_signal(self):
        self.must_fail(self.run_notebook(FIRST, '%%\nsyscall.Kill(os.Getpid(), syscall.SIGKILL)\nselect {}'), "cell 1", "signal: killed")

    def test_failing_test(self):
        self.must_fail(self.run_notebook(FIRST, 'import "testing"\nfunc TestWrong(t *testing.T) { t.Error("one is not two") }\n%test'),
                       "cell 1", "exit status 1", "one is not two")

    def test_hang(self):
        pidfile = json.dumps(str(self.dir / "pid"))
        line = self.run_notebook(FIRST, '%%\nfmt.Println("warm")',
                                 f'%%\nos.WriteFile({pidfile}, []byte(fmt.Sprint(os.Getpid())), 0o600)\n'
                                 'for { time.Sleep(time.Second) }', cell_timeout=20)
        self.must_fail(line, "cell 2", "no end after 20 s")
        pid = int((self.dir / "pid").read_text())
        self.assertFalse(alive(pid), "the hung program outlives its notebook")

    def test_missing_import(self):
        self.must_fail(self.run_notebook(FIRST, 'import "example.invalid/nothing"\n%%\nnothing.Do()'), "cell 1", "example.invalid/nothing")

    def test_compile_error(self):
        self.must_fail(self.run_notebook(FIRST, '%%\nvar x int = "text"\nfmt.Println(x)'), "cell 1", "cannot use")

    def test_expected_failure(self):
        cell = nbformat.v4.new_code_cell('%%\npanic("shown on purpose")', metadata={"tags": ["raises-exception"]})
        self.assertTrue(self.run_notebook(FIRST, cell)["ok"])
        cell = nbformat.v4.new_code_cell('%%\nfmt.Println("fine")', metadata={"tags": ["raises-exception"]})
        self.must_fail(self.run_notebook(FIRST, cell), "was expected to fail")

    def test_numbers(self):
        cells = FIRST, '%%\nfmt.Println("result: f1=0.70")\nfmt.Println("result: loss=NaN")'
        self.must_fail(self.run_notebook(*cells, expect={"f1": [0.75, 0.01]}), "f1 = 0.7, want 0.75 within 0.01")
        self.must_fail(self.run_notebook(*cells, expect={"loss": [1, 100]}), "loss = nan")
        self.must_fail(self.run_notebook(*cells, expect={"recall": [1, 1]}), '"recall" was not printed')
        self.must_fail(self.run_notebook(*cells, expect={"f1": 0.7}), "want [value, tolerance >= 0]")

    def test_parameters(self):
        line = self.run_notebook(FIRST, '%%\nfmt.Println("result: steps=" + os.Getenv("NB_STEPS"))',
                                 args=["-p", "STEPS=7"], expect={"steps": [300, 0]})
        self.assertTrue(line["ok"], line)
        self.assertEqual(line["results"], {"steps": 7})
        self.assertIn("not compared", line["expect"])

    def test_rules(self):
        self.must_fail(self.run_notebook('%%\nfmt.Println("no setup")'), "%noautoget")

    def test_budget(self):
        self.must_fail(self.run_notebook(FIRST, '%%\ntime.Sleep(time.Second)', '%%\nfmt.Println(1)', budget=0.5), "budget")

    def test_broken_file(self):
        (self.dir / "broken.ipynb").write_text("{")
        p = subprocess.run([sys.executable, RUNNER, "--out", self.dir / "out", self.dir / "broken.ipynb"], capture_output=True, text=True)
        self.assertEqual(p.returncode, 1)
        self.assertIn("reading", json.loads(p.stdout)["errors"][0])


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        pass
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Records what the reference library says of each file of our hostile corpus.

usage: python tools/golden/safetensors-hostile.py VERDICTS.json        (needs: safetensors 0.8.0, numpy 2.4, go)

The corpus is a table in pkg/elastic/checkpoint/safetensors/corpus_test.go, so that the Go tests need no Python.
Run this from the root of the repository after adding a case, with VERDICTS.json being
pkg/elastic/checkpoint/safetensors/testdata/hostile-verdicts.json. A file is accepted if it opens and each of its
tensors can be had as a numpy array.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

from safetensors import safe_open

verdicts = {}
with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
        ["go", "test", "-count=1", "-run=TestGoldenHostile$", "./pkg/elastic/checkpoint/safetensors", "-corpus=" + folder],
        check=True,
    )
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as f:
                for name in f.keys():
                    f.get_tensor(name)
            verdicts[path.stem] = {"reference": "accept", "error": ""}
        except BaseException as error:  # panics of the Rust part derive from BaseException
            verdicts[path.stem] = {"reference": "reject", "error": f"{type(error).__name__}: {str(error)[:120]}"}

text = json.dumps(verdicts, indent=1, sort_keys=True) + "\n"
pathlib.Path(sys.argv[1]).write_text(text)
accepted = [name for name, verdict in verdicts.items() if verdict["reference"] == "accept"]
print(len(verdicts), "files; the reference accepts:", ", ".join(accepted))

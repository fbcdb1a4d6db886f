"""Writes small safetensors files with the reference library, for tests of our reader and writer.

usage: python tools/golden/safetensors-written.py pkg/elastic/checkpoint/safetensors/testdata
(needs: safetensors 0.8.0, numpy 2.4, ml_dtypes 0.6)

Writes written-NAME.safetensors and written.json, which says what is in them. No file has more than one entry of
metadata, since the library writes several in a random order.
"""
import json
import pathlib
import sys
from importlib.metadata import version

import ml_dtypes
import numpy as np
from safetensors.numpy import save

TYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16, "F16": np.float16,
    "BF16": ml_dtypes.bfloat16, "I32": np.int32, "U32": np.uint32, "F32": np.float32, "C64": np.complex64,
    "F64": np.float64, "I64": np.int64, "U64": np.uint64,
}


def tensor(dtype, *shape):
    """Numbers that every type has exactly: 0, 1, 2, ..., with changing signs where there are signs."""
    n = np.arange(int(np.prod(shape)), dtype=np.int64)
    if dtype == "BOOL":
        n = n % 2
    elif not dtype.startswith("U"):
        n = np.where(n % 2 == 1, -n, n)
    n = n.astype(np.float64)
    if dtype.startswith(("F", "BF", "C")):
        n = n / 4
    return n.astype(TYPES[dtype]).reshape(shape)


files = {
    "types": ({name.lower(): tensor(name, 2, 3) for name in TYPES}, {"format": "pt"}),
    "shapes": ({"scalar": tensor("F32"), "none": tensor("F32", 0), "empty": tensor("I64", 3, 0, 2), "one": tensor("U8", 1),
                "cube": tensor("F16", 3, 2, 5), "odd": tensor("I8", 7)}, None),
    "names": ({name: tensor("F32", 1) for name in
               ["b", "a", "a.b", "a/b", "../x", "", " ", "é", "注意", "\U0001f600", '"', "\\", "\n\r\t\b\f", "\0\x01\x1f\x7f", "z" * 300]},
              {'k"\n é': '\\ \u2028 </script> 注'}),
    "nothing": ({}, None),
    "metadata": ({"a": tensor("F32", 1)}, {}),  # without any tensor, version 0.8.0 writes invalid JSON here
}
out = pathlib.Path(sys.argv[1])
listing = []
for name, (tensors, metadata) in files.items():
    (out / f"written-{name}.safetensors").write_bytes(save(tensors, metadata))
    listing.append({
        "file": f"written-{name}.safetensors",
        "metadata": metadata,
        "tensors": [{
            "name": key,
            "dtype": next(t for t, numpy in TYPES.items() if value.dtype == numpy),
            "shape": list(value.shape),
            "values": [float(x.real) for x in value.ravel()],
        } for key, value in tensors.items()],
    })
source = ", ".join(f"{package} {version(package)}" for package in ["safetensors", "numpy", "ml_dtypes"])
rows = ",\n".join("  " + json.dumps(row) for row in listing)
(out / "written.json").write_text(f'{{\n "source": {json.dumps(source)},\n "files": [\n{rows}\n ]\n}}\n')

"""Makes pkg/track/tensorboard/testdata: an event file by TensorBoard's own messages and record writer, and what it holds as JSON.

pip install tensorboard==2.21.0; python tools/golden/tensorboard_events.py
"""
import json
import math
import pathlib

import tensorboard.version
from google.protobuf import struct_pb2
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

out = pathlib.Path(__file__).parents[2] / "pkg/track/tensorboard/testdata"
out.mkdir(parents=True, exist_ok=True)
start = 1795000000.125
config = {"model": "scratch", "train": {"lr": 0.001, "epochs": 3, "amp": True, "name": "größer"}, "layers": [1, 2]}
flat = {"model": "scratch", "train.lr": 0.001, "train.epochs": 3.0, "train.amp": True, "train.name": "größer", "layers.0": 1.0, "layers.1": 2.0}
steps = [
    (1, 1795000001000, {"dev/f1": 0.0, "train/loss": 2.302585092994046}),
    (2, 1795000001500, {"train/loss": 0.1, "train/rate": 1e-300}),
    (200, 1795000002000, {"train/loss": math.nan}),
    (70000, 1795000003000, {"train/loss": math.inf, "train/rate": -math.inf}),
]


def value(x):
    if isinstance(x, bool):
        return struct_pb2.Value(bool_value=x)
    return struct_pb2.Value(number_value=x) if isinstance(x, float) else struct_pb2.Value(string_value=x)


with open(out / "events.tfevents", "wb") as file:
    writer = RecordWriter(file)
    write = lambda e: writer.write(e.SerializeToString(deterministic=True))
    write(event_pb2.Event(wall_time=start, file_version="brain.Event:2"))
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=start)
    for name, x in flat.items():
        info.hparams[name].CopyFrom(value(x))
    meta = hparams.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_start_info=info))
    content = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    meta.plugin_data.content = content.SerializeToString(deterministic=True)
    write(event_pb2.Event(wall_time=start, summary=summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag=hparams.SESSION_START_INFO_TAG, metadata=meta, tensor=hparams.NULL_TENSOR)])))
    for step, time, values in steps:
        summary = summary_pb2.Summary()
        for name in sorted(values):
            summary.value.add(tag=name, simple_value=values[name])
        write(event_pb2.Event(wall_time=time / 1000, step=step, summary=summary))
    writer.flush()

word = lambda x: x if math.isfinite(x) else {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(x)]
(out / "events.json").write_text(json.dumps({
    "source": f"tensorboard {tensorboard.version.VERSION}, tools/golden/tensorboard_events.py",
    "start": start, "config": config,
    "steps": [{"step": s, "time_ms": t, "values": {k: word(x) for k, x in v.items()}} for s, t, v in steps],
}, indent=1, ensure_ascii=False) + "\n")

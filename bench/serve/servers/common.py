"""What every peer's server in Python is told by its environment, and the one session that it runs."""

import json
import os
import pathlib

WORK = pathlib.Path(os.environ["BENCH_WORK"])
MODEL = os.environ["BENCH_MODEL"]
PORT = int(os.environ["BENCH_PORT"])
# Batching as each peer has it; 0 is without.
BATCH = int(os.environ.get("BENCH_BATCH", "0"))
BATCH_DELAY_MS = 10
META = json.loads((WORK / "meta.json").read_text())[MODEL]
INPUTS, OUTPUT = META["inputs"], META["output"]


def session():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(WORK / MODEL / "model.onnx", options, providers=["CPUExecutionProvider"])


def dtypes():
    import numpy

    return {name: {"FP32": numpy.float32, "INT64": numpy.int64}[datatype] for name, (datatype, _) in INPUTS.items()}

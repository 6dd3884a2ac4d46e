#!/usr/bin/env python3
"""Runs a model in this process, one thread, for SECONDS: inprocess.py WORK_FOLDER MODEL BATCH SECONDS [sklearn]

Prints the median of one run in milliseconds, and rows a second: what no server can beat.
"""

import json
import pathlib
import pickle
import sys
import time

import numpy as np


def main():
    work, model, batch, seconds = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    inputs = {name: np.repeat(value, batch, 0) for name, value in np.load(work / model / "inputs.npz").items()}
    if sys.argv[5:] == ["sklearn"]:
        classifier = pickle.loads((work / model / "model.pkl").read_bytes())
        features = next(iter(inputs.values())).astype(np.float64)

        def run():
            classifier.predict_proba(features)
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(work / model / "model.onnx", options, providers=["CPUExecutionProvider"])

        def run():
            session.run(None, inputs)

    for _ in range(5):
        run()
    took, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        run()
        took.append(time.perf_counter() - begin)
    took.sort()
    print(json.dumps({"p50": took[len(took) // 2] * 1e3, "rows_per_s": len(took) * batch / sum(took)}))


if __name__ == "__main__":
    main()

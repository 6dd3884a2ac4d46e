"""Writes a scikit-learn classifier as an ONNX model with golden examples beside it.

The model takes one FP32 tensor `input` of shape [batch, features] and answers `label` (INT64, [batch]) and
`probabilities` (FP32, [batch, classes]). The golden examples are V2 requests with what the Python ONNX Runtime
answered; a replica that answers something else does not become ready.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

OPSET = 18
DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}


def write(classifier, held_out, sizes, folder):
    """Writes `model.onnx` and `golden.json` into `folder`.

    classifier: fitted, with `predict_proba`.
    held_out: float32 [rows, features] that it was not trained on.
    sizes: the batch size of each golden example, taken from the rows in order.
    """
    features = held_out.shape[1]
    model = to_onnx(
        classifier,
        initial_types=[("input", FloatTensorType([None, features]))],
        # Without it the probabilities are a sequence of maps, which V2 cannot carry.
        options={id(classifier): {"zipmap": False}},
        target_opset=OPSET,
    )
    # The default is random, and two runs must make the same bytes.
    model.graph.name = type(classifier).__name__
    content = model.SerializeToString(deterministic=True)

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    examples = []
    start = 0
    for size in sizes:
        rows = held_out[start : start + size]
        assert len(rows) == size, "the golden examples want more rows than were held out"
        start += size
        answers = dict(zip(names, session.run(names, {"input": rows})))
        agrees(classifier, rows, answers)
        examples.append(
            {
                "request": {"inputs": [tensor("input", rows)]},
                "response": {"outputs": [tensor(name, answers[name]) for name in names]},
            }
        )
    golden = {"tolerance": {"absolute": 1e-5, "relative": 1e-4}, "examples": examples}

    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "model.onnx", content)
    replace(folder / "golden.json", (json.dumps(golden) + "\n").encode())
    print(f"{folder}: {len(content)} bytes, {len(examples)} golden examples")


def agrees(classifier, rows, answers):
    """Stops if the exported model does not say what the classifier says."""
    np.testing.assert_array_equal(answers["label"], classifier.predict(rows))
    np.testing.assert_allclose(answers["probabilities"], classifier.predict_proba(rows), rtol=1e-3, atol=1e-5)


def tensor(name, array):
    """A tensor of the Open Inference Protocol, its data flat and row-major."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPES[array.dtype],
        # float32 as the shortest decimal that reads back as the same float32.
        "data": [float(str(x)) if array.dtype == np.float32 else int(x) for x in array.ravel()],
    }


def replace(path, content):
    """Writes a file so that a reader sees the old one or the new one, whole."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.rename(path)


def output_folder(name):
    """`<argument>/<name>/1`, where the model goes."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUTPUT_DIRECTORY")
    return Path(sys.argv[1]) / name / "1"

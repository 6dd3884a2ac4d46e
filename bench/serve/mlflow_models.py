#!/usr/bin/env python3
"""Saves the models as MLflow models, for its own server and for ours: mlflow_models.py WORK_FOLDER

Run it with the environment `mlflow`, after models.py.
"""

import json
import pathlib
import pickle
import shutil
import sys

import mlflow
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec


def main():
    work = pathlib.Path(sys.argv[1])
    types = {"FP32": "float32", "INT64": "int64"}
    one_thread = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    for name in ("iris", "mlp", "encoder"):
        inputs = json.loads((work / "meta.json").read_text())[name]["inputs"]
        named = len(inputs) > 1
        specs = [TensorSpec(np.dtype(types[kind]), [-1, *shape], key if named else None) for key, (kind, shape) in inputs.items()]
        folder = work / f"{name}-mlflow-onnx"
        shutil.rmtree(folder, ignore_errors=True)
        mlflow.onnx.save_model(
            onnx.load(work / name / "model.onnx"), folder, signature=ModelSignature(Schema(specs)),
            onnx_session_options=one_thread, pip_requirements=["onnxruntime"])
    folder = work / "iris-mlflow"
    shutil.rmtree(folder, ignore_errors=True)
    classifier = pickle.loads((work / "iris" / "model.pkl").read_bytes())
    features = np.array([[5.1, 3.5, 1.4, 0.2]])
    signature = mlflow.models.infer_signature(features, classifier.predict(features))
    mlflow.sklearn.save_model(classifier, folder, signature=signature, serialization_format="cloudpickle")


if __name__ == "__main__":
    main()

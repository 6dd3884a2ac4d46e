#!/usr/bin/env python3
"""Makes the models that are measured and the bodies that are sent: models.py WORK_FOLDER

iris: logistic regression, four features: what a server costs by itself. mlp: 768-768-768-10, where joining requests
pays. encoder: six layers in the shape of MiniLM at sequence 64, random weights: bound by compute.
Run it with the environment `models`.
"""

import json
import pathlib
import pickle
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

OPSET, IR = 17, 9
LAYERS, HIDDEN, HEADS, INNER, WORDS, SEQUENCE = 6, 384, 12, 1536, 30522, 64
random = np.random.default_rng(7)


def weights(*shape):
    return (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def finish(graph):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR
    onnx.checker.check_model(model)
    return model


def iris(folder):
    features, classes = load_iris(return_X_y=True)
    classifier = LogisticRegression(max_iter=500).fit(features, classes)
    (folder / "model.pkl").write_bytes(pickle.dumps(classifier))
    model = to_onnx(classifier, features[:1].astype(np.float32), options={id(classifier): {"zipmap": False}}, target_opset=OPSET)
    # One output, so that every server answers the same.
    kept = [output for output in model.graph.output if output.name == "probabilities"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model, {model.graph.input[0].name: np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)}


def mlp():
    stored, nodes, flow = [], [], "x"
    for place, (wide, narrow) in enumerate([(768, 768), (768, 768), (768, 10)]):
        last = place == 2
        stored += [numpy_helper.from_array(weights(wide, narrow), f"w{place}")]
        stored += [numpy_helper.from_array(weights(narrow), f"b{place}")]
        nodes.append(helper.make_node("Gemm", [flow, f"w{place}", f"b{place}"], ["y" if last else f"g{place}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{place}"], [f"h{place}"]))
        flow = f"h{place}"
    into = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 768])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    return finish(helper.make_graph(nodes, "mlp", [into], [out], stored)), {"x": random.standard_normal((1, 768)).astype(np.float32)}


class Graph:
    """Collects nodes and constants under names of its own."""

    def __init__(self):
        self.nodes, self.stored = [], []

    def add(self, operator, *inputs, out=None, **attributes):
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def constant(self, value):
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def linear(self, flow, wide, narrow):
        product = self.add("MatMul", flow, self.constant(weights(wide, narrow)))
        return self.add("Add", product, self.constant(np.zeros(narrow, np.float32)))

    def norm(self, flow):
        ones, zeros = self.constant(np.ones(HIDDEN, np.float32)), self.constant(np.zeros(HIDDEN, np.float32))
        return self.add("LayerNormalization", flow, ones, zeros, axis=-1, epsilon=1e-12)

    def gelu(self, flow):
        one, half, root = (self.constant(np.float32(value)) for value in (1, 0.5, np.sqrt(2)))
        grown = self.add("Add", self.add("Erf", self.add("Div", flow, root)), one)
        return self.add("Mul", self.add("Mul", flow, grown), half)


def encoder():
    graph = Graph()
    split = graph.constant(np.array([0, 0, HEADS, HIDDEN // HEADS]))
    back = graph.constant(np.array([0, 0, HIDDEN]))
    words = graph.add("Gather", graph.constant(weights(WORDS, HIDDEN)), "input_ids", axis=0)
    flow = graph.norm(graph.add("Add", words, graph.constant(weights(1, SEQUENCE, HIDDEN))))
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    wide = graph.add("Unsqueeze", mask, graph.constant(np.array([1, 2])))
    missing = graph.add("Sub", graph.constant(np.float32(1)), wide)
    bias = graph.add("Mul", missing, graph.constant(np.float32(-10000)))
    scale = graph.constant(np.float32(1 / np.sqrt(HIDDEN // HEADS)))
    for _ in range(LAYERS):
        heads = [
            graph.add("Transpose", graph.add("Reshape", graph.linear(flow, HIDDEN, HIDDEN), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        ]
        scores = graph.add("Add", graph.add("Mul", graph.add("MatMul", heads[0], heads[1]), scale), bias)
        mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), heads[2])
        joined = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), back)
        flow = graph.norm(graph.add("Add", flow, graph.linear(joined, HIDDEN, HIDDEN)))
        inner = graph.linear(graph.gelu(graph.linear(flow, HIDDEN, INNER)), INNER, HIDDEN)
        flow = graph.norm(graph.add("Add", flow, inner))
    kept = graph.add("Unsqueeze", mask, graph.constant(np.array([2])))
    total = graph.add("ReduceSum", graph.add("Mul", flow, kept), graph.constant(np.array([1])), keepdims=0)
    count = graph.add("ReduceSum", kept, graph.constant(np.array([1])), keepdims=0)
    graph.add("Div", total, count, out="embedding")
    names = ("input_ids", "attention_mask")
    into = [helper.make_tensor_value_info(name, TensorProto.INT64, ["N", SEQUENCE]) for name in names]
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", HIDDEN])
    attention = np.ones((1, SEQUENCE), np.int64)
    attention[:, 48:] = 0
    inputs = {"input_ids": random.integers(1, WORDS, (1, SEQUENCE)), "attention_mask": attention}
    return finish(helper.make_graph(graph.nodes, "encoder", into, [out], graph.stored)), inputs


def plain(array):
    """Numbers as people write them: 5.1 and not 5.099999904632568."""
    return [float(str(value)) for value in array.ravel()] if array.dtype == np.float32 else array.ravel().tolist()


def exact(array):
    """Numbers as tritonclient and kserve write them."""
    return array.ravel().tolist()


def described(inputs):
    types = {np.dtype("float32"): "FP32", np.dtype("int64"): "INT64"}
    return [{"name": key, "shape": list(value.shape), "datatype": types[value.dtype]} for key, value in inputs.items()]


def compact(body):
    return json.dumps(body, separators=(",", ":"))


def v2(folder, name, inputs, output, numbers=plain):
    """The request of the open protocol, in JSON and in binary."""
    tensors = described(inputs)
    body = {"inputs": [{**tensor, "data": numbers(value)} for tensor, value in zip(tensors, inputs.values())]}
    (folder / f"{name}.v2").write_text(compact(body))
    sized = [{**t, "parameters": {"binary_data_size": v.nbytes}} for t, v in zip(tensors, inputs.values())]
    header = json.dumps({"inputs": sized, "outputs": [{"name": output, "parameters": {"binary_data": True}}]}).encode()
    (folder / f"{name}.binary").write_bytes(header + b"".join(value.tobytes() for value in inputs.values()))


def others(folder, name, inputs):
    """The same request as the other servers want it."""
    rows = {key: [plain(value)] for key, value in inputs.items()}
    first = next(iter(rows.values()))
    alone = len(rows) == 1
    every = {
        "plain": {"inputs": rows},
        "mlflow": {"inputs": first if alone else rows},
        "bento": {"x": first if alone else [[row[0] for row in rows.values()]]},
        "v1": {"instances": first},
    }
    for kind, body in every.items():
        (folder / f"{name}.{kind}").write_text(compact(body))


def main():
    work = pathlib.Path(sys.argv[1])
    (work / "bodies").mkdir(parents=True, exist_ok=True)
    meta = {}
    for name, make in {"iris": lambda: iris(work / "iris"), "mlp": mlp, "encoder": encoder}.items():
        folder = work / name
        folder.mkdir(exist_ok=True)
        model, inputs = make()
        onnx.save(model, folder / "model.onnx")
        output = model.graph.output[0].name
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        expected = session.run([output], inputs)[0]
        v2(work / "bodies", name, inputs, output)
        others(work / "bodies", name, inputs)
        v2(work / "bodies", f"{name}-clients", inputs, output, exact)
        v2(work / "bodies", f"{name}-8", {key: np.repeat(value, 8, 0) for key, value in inputs.items()}, output)
        meta[name] = {
            "inputs": {tensor["name"]: [tensor["datatype"], tensor["shape"][1:]] for tensor in described(inputs)},
            "output": output,
            "output_size": int(expected.shape[1]),
            "expected": expected[0, :5].tolist(),
        }
        np.savez(folder / "inputs.npz", **inputs)
    (work / "meta.json").write_text(json.dumps(meta, indent=1))


if __name__ == "__main__":
    main()

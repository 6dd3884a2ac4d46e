"""Makes the models of the model server's tests, and what onnxruntime itself answers for one of them.

Usage: make.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy
import odd
import onnx
from onnx import TensorProto, helper

OPSET = 18

# Datatype of the protocol -> element type of ONNX.
IDENTITIES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def save(folder, graph):
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def identity(folder, kind):
    node = helper.make_node("Identity", ["x"], ["y"])
    save(folder, helper.make_graph([node], "identity", [tensor("x", kind, ["n", 2])], [tensor("y", kind, ["n", 2])]))


def add(folder, constant=0.0):
    """sum = a + b + constant, and product = a * b."""
    shape = ["n"]
    extra = helper.make_tensor("extra", TensorProto.FLOAT, [1], [constant])
    nodes = [
        helper.make_node("Add", ["a", "b"], ["bare"]),
        helper.make_node("Add", ["bare", "extra"], ["sum"]),
        helper.make_node("Mul", ["a", "b"], ["product"]),
    ]
    inputs = [tensor("a", TensorProto.FLOAT, shape), tensor("b", TensorProto.FLOAT, shape)]
    outputs = [tensor("sum", TensorProto.FLOAT, shape), tensor("product", TensorProto.FLOAT, shape)]
    save(folder, helper.make_graph(nodes, "add", inputs, outputs, initializer=[extra]))


def slow(folder):
    """Multiplies a matrix with itself as often as it is told: runs for as long as a test wants."""
    body_in = [
        tensor("i", TensorProto.INT64, []),
        tensor("go_in", TensorProto.BOOL, []),
        tensor("m_in", TensorProto.FLOAT, [64, 64]),
    ]
    body_out = [tensor("go_out", TensorProto.BOOL, []), tensor("m_out", TensorProto.FLOAT, [64, 64])]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "m_in"], ["m_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        body_in,
        body_out,
    )
    eye = helper.make_tensor("eye", TensorProto.FLOAT, [64, 64], numpy.eye(64, dtype=numpy.float32).flatten())
    go = helper.make_tensor("go", TensorProto.BOOL, [], [True])
    zero = helper.make_tensor("zero", TensorProto.INT64, [1], [0])
    nodes = [
        helper.make_node("Squeeze", ["rounds", "zero"], ["count"]),
        helper.make_node("Loop", ["count", "go", "eye"], ["last"], body=body),
    ]
    inputs, outputs = [tensor("rounds", TensorProto.INT64, [1])], [tensor("last", TensorProto.FLOAT, [64, 64])]
    save(folder, helper.make_graph(nodes, "slow", inputs, outputs, initializer=[eye, go, zero]))


def patient(folder):
    """Doubles its numbers, one a row, after as many rounds of work as the largest of them says."""
    body_in = [
        tensor("i", TensorProto.INT64, []),
        tensor("go_in", TensorProto.BOOL, []),
        tensor("m_in", TensorProto.FLOAT, [64, 64]),
    ]
    body_out = [tensor("go_out", TensorProto.BOOL, []), tensor("m_out", TensorProto.FLOAT, [64, 64])]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "m_in"], ["m_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        body_in,
        body_out,
    )
    eye = helper.make_tensor("eye", TensorProto.FLOAT, [64, 64], numpy.eye(64, dtype=numpy.float32).flatten())
    go = helper.make_tensor("go", TensorProto.BOOL, [], [True])
    one = helper.make_tensor("one", TensorProto.INT64, [], [1])
    nodes = [
        helper.make_node("ReduceMax", ["rounds"], ["count"], keepdims=0),
        helper.make_node("Loop", ["count", "go", "eye"], ["last"], body=body),
        helper.make_node("ReduceMax", ["last"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["whole"], to=TensorProto.INT64),
        # Nothing, but only known after the work.
        helper.make_node("Sub", ["whole", "one"], ["nothing"]),
        helper.make_node("Add", ["rounds", "rounds"], ["twice"]),
        helper.make_node("Add", ["twice", "nothing"], ["doubled"]),
    ]
    inputs, outputs = [tensor("rounds", TensorProto.INT64, ["n"])], [tensor("doubled", TensorProto.INT64, ["n"])]
    save(folder, helper.make_graph(nodes, "patient", inputs, outputs, initializer=[eye, go, one]))


def pick(folder):
    """Gathers from ten numbers: an index out of range fails inside the model."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [10], [float(n) for n in range(10)])
    node = helper.make_node("Gather", ["table", "index"], ["picked"])
    inputs, outputs = [tensor("index", TensorProto.INT64, ["n"])], [tensor("picked", TensorProto.FLOAT, ["n"])]
    save(folder, helper.make_graph([node], "pick", inputs, outputs, initializer=[table]))


def mixed(folder):
    """One column of text and one of numbers, as pipelines of scikit-learn have them."""
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    nodes = [
        helper.make_node("Identity", ["color"], ["named"]),
        helper.make_node("Mul", ["size", "two"], ["twice"]),
    ]
    inputs = [tensor("color", TensorProto.STRING, ["n", 1]), tensor("size", TensorProto.FLOAT, ["n", 1])]
    outputs = [tensor("named", TensorProto.STRING, ["n", 1]), tensor("twice", TensorProto.FLOAT, ["n", 1])]
    save(folder, helper.make_graph(nodes, "mixed", inputs, outputs, initializer=[two]))


def arithmetic(folder, kind):
    """OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1, on rows of 16; strings are numbers in words."""
    shape = ["n", 16]
    if kind == TensorProto.STRING:
        nodes = [
            helper.make_node("Cast", ["INPUT0"], ["a"], to=TensorProto.INT32),
            helper.make_node("Cast", ["INPUT1"], ["b"], to=TensorProto.INT32),
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
            helper.make_node("Cast", ["sum"], ["OUTPUT0"], to=TensorProto.STRING),
            helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=TensorProto.STRING),
        ]
    else:
        nodes = [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ]
    inputs = [tensor(name, kind, shape) for name in ("INPUT0", "INPUT1")]
    outputs = [tensor(name, kind, shape) for name in ("OUTPUT0", "OUTPUT1")]
    save(folder, helper.make_graph(nodes, "arithmetic", inputs, outputs))


def repository(root):
    """The models that Triton's example clients ask, in the layout of its repositories."""
    arithmetic(root / "simple" / "1", TensorProto.INT32)
    arithmetic(root / "simple_string" / "1", TensorProto.STRING)
    node = helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])
    shape = ["n", "m"]
    inputs, outputs = [tensor("INPUT0", TensorProto.STRING, shape)], [tensor("OUTPUT0", TensorProto.STRING, shape)]
    save(root / "simple_identity" / "1", helper.make_graph([node], "identity", inputs, outputs))
    for name, kind, dims, count in [
        ("simple", "TYPE_INT32", 16, 2),
        ("simple_string", "TYPE_STRING", 16, 2),
        ("simple_identity", "TYPE_STRING", -1, 1),
    ]:

        def tensors(word):
            entries = [f'  {{ name: "{word}{n}" data_type: {kind} dims: [ {dims} ] }}' for n in range(count)]
            return "[\n" + ",\n".join(entries) + "\n]"

        text = f'''name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: 8
input {tensors("INPUT")}
output {tensors("OUTPUT")}
'''
        (root / name / "config.pbtxt").write_text(text)


def classifiers(root):
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    flowers, kinds = load_iris(return_X_y=True)
    flowers = flowers.astype(numpy.float32)
    names = numpy.array(["setosa", "versicolor", "virginica"])[kinds]
    for folder, labels, options in [
        ("iris", kinds, {"zipmap": False}),
        ("zipmap", kinds, {}),
        ("zipmap_names", names, {}),
    ]:
        model = LogisticRegression(max_iter=1000).fit(flowers, labels)
        made = to_onnx(model, flowers[:1], options={id(model): options}, target_opset=OPSET)
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "model.onnx").write_bytes(made.SerializeToString())

    import onnxruntime

    session = onnxruntime.InferenceSession(root / "iris" / "model.onnx")
    label, probabilities = session.run(None, {"X": flowers})
    expected = {
        "input": flowers.flatten().tolist(),
        "rows": len(flowers),
        "label": label.tolist(),
        "probabilities": probabilities.flatten().tolist(),
    }
    (root / "iris" / "expected.json").write_text(json.dumps(expected))


def main():
    root = Path(sys.argv[1])
    for datatype, kind in IDENTITIES.items():
        identity(root / "identity" / datatype, kind)
    add(root / "add")
    for version in (9, 10):
        add(root / "versions" / str(version), constant=float(version))
    slow(root / "slow")
    patient(root / "patient")
    pick(root / "pick")
    mixed(root / "mixed")
    add(root / "many" / "adder" / "1")
    pick(root / "many" / "picker" / "3")
    (root / "broken").mkdir(exist_ok=True)
    (root / "broken" / "model.onnx").write_bytes(b"this is not a model")
    odd.make(root)
    repository(root / "triton")
    classifiers(root)


if __name__ == "__main__":
    main()

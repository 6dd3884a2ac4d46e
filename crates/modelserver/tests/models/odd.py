"""Models that are unlike most: what a runtime must bear, or refuse in plain words."""

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name, kind, shape, values):
    return helper.make_tensor(name, kind, shape, values)


def save(folder, nodes, inputs, outputs, initializers=(), opset=18, ir=9, **how):
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, folder.name, inputs, outputs, initializer=list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir
    onnx.save(model, folder / "model.onnx", **how)


def sequence(folder):
    """Splits x into single rows, as a sequence; `ragged` splits it at `sizes`."""
    rows = helper.make_tensor_sequence_value_info("rows", FLOAT, None)
    ragged = helper.make_tensor_sequence_value_info("ragged", FLOAT, None)
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0, keepdims=0),
        helper.make_node("SplitToSequence", ["x", "sizes"], ["ragged"], axis=0),
    ]
    inputs = [tensor("x", FLOAT, ["n", 2]), tensor("sizes", TensorProto.INT64, ["s"])]
    save(folder, nodes, inputs, [rows, ragged])


def optional(folder):
    """An optional that is there if `some` is true."""
    inner = helper.make_tensor_type_proto(FLOAT, [2])
    kind = helper.make_optional_type_proto(inner)
    value = helper.make_value_info("y", kind)
    some = helper.make_graph([helper.make_node("Optional", ["x"], ["y"])], "some", [], [value])
    none = helper.make_graph([helper.make_node("Optional", [], ["y"], type=inner)], "none", [], [value])
    nodes = [
        helper.make_node("Squeeze", ["some"], ["flag"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=some, else_branch=none),
        helper.make_node("Identity", ["x"], ["plain"]),
    ]
    inputs = [tensor("x", FLOAT, [2]), tensor("some", TensorProto.BOOL, [1])]
    save(folder, nodes, inputs, [value, tensor("plain", FLOAT, [2])])


def external(folder):
    """x times a matrix, and plus a vector, both in a file of their own."""
    size = 256
    matrix = numpy_helper.from_array(numpy.eye(size, dtype=numpy.float32), "matrix")
    vector = numpy_helper.from_array(numpy.ones(size, dtype=numpy.float32), "vector")
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["m"]), helper.make_node("Add", ["m", "vector"], ["y"])]
    shape = ["n", size]
    how = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
    (folder / "model.onnx.data").unlink(missing_ok=True)
    save(folder, nodes, [tensor("x", FLOAT, shape)], [tensor("y", FLOAT, shape)], [matrix, vector], **how)


def endless(folder, limit):
    """Counts from x, for ever, if it is beyond the limit."""
    scalar = []
    body_in = [tensor("i", TensorProto.INT64, scalar), tensor("on", TensorProto.BOOL, scalar), tensor("c", FLOAT, ["n"])]
    body_out = [tensor("still", TensorProto.BOOL, scalar), tensor("more", FLOAT, ["n"])]
    body = helper.make_graph(
        [helper.make_node("Add", ["c", "step"], ["more"]), helper.make_node("Identity", ["on"], ["still"])],
        "body",
        body_in,
        body_out,
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["go"]),
        helper.make_node("Loop", ["", "go", "x"], ["y"], body=body),
    ]
    initializers = [constant("step", FLOAT, [1], [1.0]), constant("limit", FLOAT, [], [limit])]
    save(folder, nodes, [tensor("x", FLOAT, ["n"])], [tensor("y", FLOAT, ["n"])], initializers)


def expand(folder):
    """As many numbers as it is told."""
    nodes = [helper.make_node("Expand", ["one", "size"], ["y"])]
    initializers = [constant("one", FLOAT, [1], [1.0])]
    save(folder, nodes, [tensor("size", TensorProto.INT64, [1])], [tensor("y", FLOAT, ["n"])], initializers)


def over_rows(folder):
    """Divides by the largest of all rows: looks like a model of rows and is none."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0), helper.make_node("Div", ["x", "most"], ["y"])]
    save(folder, nodes, [tensor("x", FLOAT, ["n", 2])], [tensor("y", FLOAT, ["n", 2])])


def pairs(folder):
    """Wants an even number of columns, which its signature cannot say."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    initializers = [constant("shape", TensorProto.INT64, [2], [-1, 2])]
    save(folder, nodes, [tensor("x", FLOAT, ["c"])], [tensor("y", FLOAT, ["p", 2])], initializers)


def opset(folder, version, ir):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    save(folder, nodes, [tensor("x", FLOAT, ["n"])], [tensor("y", FLOAT, ["n"])], opset=version, ir=ir)


def unknown_operator(folder):
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"])]
    save(folder, nodes, [tensor("x", FLOAT, ["n"])], [tensor("y", FLOAT, ["n"])])


def make(root):
    sequence(root / "sequence")
    optional(root / "optional")
    external(root / "external")
    endless(root / "endless", 100.0)
    endless(root / "always_endless", -1e9)
    expand(root / "expand")
    over_rows(root / "over_rows")
    pairs(root / "pairs")
    opset(root / "opset" / "old", 1, 3)
    opset(root / "opset" / "new", 99, 9)
    opset(root / "opset" / "new_ir", 18, 99)
    unknown_operator(root / "unknown_operator")

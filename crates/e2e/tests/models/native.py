"""ONNX models that try a server: `native.py FOLDER` makes FOLDER/{sliced,trimmed,shortened,sized}/1/model.onnx, and
`native.py FOLDER warmed` makes FOLDER/warmed/1/model.onnx."""

import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper


def save(name, nodes, inputs, outputs, constants):
    graph = helper.make_graph(nodes, name, inputs, outputs, initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    folder = Path(sys.argv[1]) / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")


tensor, constant = helper.make_tensor_value_info, helper.make_tensor


def recurrent(name, steps, before, inputs=(), constants=(), end="end"):
    """A GRU over the steps of x from `start` on, which `before` may make. The runtime does not survive a sequence without
    steps."""
    save(
        name,
        [
            *before,
            helper.make_node("Slice", ["x", "start", end], ["rest"]),
            helper.make_node("GRU", ["rest", "w", "r"], ["", "y"], hidden_size=2),
        ],
        [tensor("x", TensorProto.FLOAT, [steps, 1, 3]), *inputs],
        [tensor("y", TensorProto.FLOAT, [1, 1, 2])],
        [
            constant("w", TensorProto.FLOAT, [1, 6, 3], [0.1] * 18),
            constant("r", TensorProto.FLOAT, [1, 6, 2], [0.1] * 12),
            constant("end", TensorProto.INT64, [1], [1 << 40]),
            *constants,
        ],
    )


if sys.argv[2:] == ["warmed"]:
    # It leaves no step of the only one.
    recurrent("warmed", 1, [], constants=[constant("start", TensorProto.INT64, [1], [1])])
    sys.exit()
# The request decides how many steps are left.
recurrent("sliced", 3, [], inputs=[tensor("start", TensorProto.INT64, [1])])
# Of n steps it leaves 60 / n - 15 at most: all of up to three and none of more. The server takes the other dimension of a
# Reshape to n rows to grow with n.
recurrent(
    "trimmed",
    "n",
    [
        helper.make_node("Shape", ["x"], ["n"], end=1),
        helper.make_node("Concat", ["n", "rest_of_it"], ["rows"], axis=0),
        helper.make_node("Reshape", ["sixty", "rows"], ["grid"]),
        helper.make_node("Shape", ["grid"], ["width"], start=1),
        helper.make_node("Sub", ["width", "fifteen"], ["more"]),
        helper.make_node("Max", ["more", "start"], ["until"]),
    ],
    constants=[
        constant("start", TensorProto.INT64, [1], [0]),
        constant("rest_of_it", TensorProto.INT64, [1], [-1]),
        constant("fifteen", TensorProto.INT64, [1], [15]),
        constant("sixty", TensorProto.FLOAT, [60], [0.0] * 60),
    ],
    end="until",
)
# Without the first two steps.
recurrent("shortened", "n", [], constants=[constant("start", TensorProto.INT64, [1], [2])])

# As many zeros as `size` says, and their sum.
save(
    "sized",
    [helper.make_node("Expand", ["zero", "size"], ["zeros"]), helper.make_node("ReduceSum", ["zeros"], ["y"], keepdims=0)],
    [tensor("size", TensorProto.INT64, [1])],
    [tensor("y", TensorProto.FLOAT, [])],
    [constant("zero", TensorProto.FLOAT, [1], [0.0])],
)

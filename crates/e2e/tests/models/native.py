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


def recurrent(name, steps, before, inputs=(), constants=(), end=1 << 40):
    """A GRU over the steps of x from `start` on, which `before` may make. The runtime does not survive a sequence without
    steps."""
    save(
        name,
        [
            *before,
            helper.make_node("Slice", ["x", "start", "end"], ["rest"]),
            helper.make_node("GRU", ["rest", "w", "r"], ["", "y"], hidden_size=2),
        ],
        [tensor("x", TensorProto.FLOAT, [steps, 1, 3]), *inputs],
        [tensor("y", TensorProto.FLOAT, [1, 1, 2])],
        [
            constant("w", TensorProto.FLOAT, [1, 6, 3], [0.1] * 18),
            constant("r", TensorProto.FLOAT, [1, 6, 2], [0.1] * 12),
            constant("end", TensorProto.INT64, [1], [end]),
            *constants,
        ],
    )


if sys.argv[2:] == ["warmed"]:
    # It leaves no step of the only one.
    recurrent("warmed", 1, [], constants=[constant("start", TensorProto.INT64, [1], [1])])
    sys.exit()
# The request decides how many steps are left.
recurrent("sliced", 3, [], inputs=[tensor("start", TensorProto.INT64, [1])])
# From the last but one to the second: something is left of up to three, and nothing of more, which no smaller size tells.
recurrent("trimmed", "n", [], constants=[constant("start", TensorProto.INT64, [1], [-2])], end=2)
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

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


def counting():
    """What counts from x for as long as it is told."""
    scalar = []
    body_in = [tensor("i", TensorProto.INT64, scalar), tensor("on", TensorProto.BOOL, scalar), tensor("c", FLOAT, ["n"])]
    body_out = [tensor("still", TensorProto.BOOL, scalar), tensor("more", FLOAT, ["n"])]
    body = helper.make_graph(
        [helper.make_node("Add", ["c", "step"], ["more"]), helper.make_node("Identity", ["on"], ["still"])],
        "body",
        body_in,
        body_out,
    )
    return helper.make_node("Loop", ["", "go", "x"], ["y"], body=body)


def endless(folder, limit):
    """Counts from x, for ever, if it is beyond the limit."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["go"]),
        counting(),
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


def gate(folder):
    """y is 0 where the scalar `training` is true, else 2x."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["twice"]),
        helper.make_node("Where", ["training", "zero", "twice"], ["y"]),
    ]
    inputs = [tensor("x", FLOAT, ["n", 3]), tensor("training", TensorProto.BOOL, [])]
    initializers = [constant("two", FLOAT, [], [2.0]), constant("zero", FLOAT, [], [0.0])]
    save(folder, nodes, inputs, [tensor("y", FLOAT, ["n", 3])], initializers)


def unranked(folder):
    """The size of x, whatever rank it has."""
    save(folder, [helper.make_node("Shape", ["x"], ["y"])], [tensor("x", FLOAT, None)], [tensor("y", TensorProto.INT64, ["r"])])


def scaled(folder):
    """x times `scale`, which the model has as 3 and a request may send."""
    inputs = [tensor("x", FLOAT, ["n", 2]), tensor("scale", FLOAT, [1])]
    nodes = [helper.make_node("Mul", ["x", "scale"], ["y"])]
    save(folder, nodes, inputs, [tensor("y", FLOAT, ["n", 2])], [constant("scale", FLOAT, [1], [3.0])])


def words(folder):
    """The words of each text: as many columns as the longest of the run has."""
    nodes = [helper.make_node("StringSplit", ["x"], ["y", "count"], delimiter=" ")]
    outputs = [tensor("y", TensorProto.STRING, ["n", "w"]), tensor("count", TensorProto.INT64, ["n"])]
    save(folder, nodes, [tensor("x", TensorProto.STRING, ["n"])], outputs, opset=20)


def few_columns(folder):
    """The first columns of x, as many as its largest number says. Made-up rows have no such number."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Less", ["most", "limit"], ["small"]),
        helper.make_node("Where", ["small", "all", "one"], ["end"]),
        helper.make_node("Slice", ["x", "start", "end", "axis"], ["y"]),
    ]
    initializers = [
        constant("limit", FLOAT, [1], [1000.0]),
        constant("all", TensorProto.INT64, [1], [1 << 40]),
        constant("one", TensorProto.INT64, [1], [1]),
        constant("start", TensorProto.INT64, [1], [0]),
        constant("axis", TensorProto.INT64, [1], [1]),
    ]
    save(folder, nodes, [tensor("x", FLOAT, ["n", "c"])], [tensor("y", FLOAT, ["n", "d"])], initializers)


def one_node(folder, operator, kinds, shapes, output, opset=18, **attributes):
    """One operator, with inputs a, b, … of these datatypes and shapes, and output y."""
    names = "abcd"[: len(kinds)]
    inputs = [tensor(name, kind, shape) for name, kind, shape in zip(names, kinds, shapes)]
    save(folder, [helper.make_node(operator, list(names), ["y"], **attributes)], inputs, [output], opset=opset)


def values(root):
    """Operators that refuse some values, and those whose inputs need not have the same rows."""
    integer, boolean, text = TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
    one_node(root / "compress", "Compress", [FLOAT, boolean], [["n", 2], ["m"]], tensor("y", FLOAT, ["k", 2]), axis=0)
    one_node(root / "and", "And", [boolean] * 2, [["n"], ["m"]], tensor("y", boolean, ["k"]))
    one_node(root / "matmul", "MatMul", [FLOAT] * 2, [["n", "k"], ["k", "m"]], tensor("y", FLOAT, ["n", "m"]))
    one_node(root / "concat", "StringConcat", [text] * 2, [["n"], ["m"]], tensor("y", text, ["k"]), opset=20)
    one_node(root / "divide", "Div", [integer] * 2, [["n"], ["m"]], tensor("y", integer, ["k"]))
    one_node(root / "gather", "Gather", [FLOAT, integer], [["n", 2], ["m"]], tensor("y", FLOAT, ["m", 2]))
    one_node(root / "squeeze", "Squeeze", [FLOAT, integer], [["n", "m"], ["a"]], tensor("y", FLOAT, None))
    one_node(root / "dft", "DFT", [FLOAT, integer, integer], [["n", 4, 1], None, None], tensor("y", FLOAT, None), opset=20)
    one_node(root / "no_kernel", "Acosh", [TensorProto.DOUBLE], [["n"]], tensor("y", TensorProto.DOUBLE, ["n"]))


def memory(root):
    """`peak` takes as much memory as it is told, `held` keeps it for as long as it counts from x, which is for ever if x is beyond 100."""
    size, one = tensor("size", TensorProto.INT64, [1]), constant("one", FLOAT, [1], [1.0])
    many = [helper.make_node("Expand", ["one", "size"], ["many"]), helper.make_node("ReduceMax", ["many"], ["most"])]
    save(root / "peak", many, [size], [tensor("most", FLOAT, [1])], [one])
    nodes = [
        *many,
        helper.make_node("Mul", ["x", "most"], ["far"]),
        helper.make_node("Greater", ["far", "limit"], ["over"]),
        helper.make_node("Squeeze", ["over"], ["go"]),
        counting(),
        helper.make_node("ReduceMin", ["many"], ["least"]),
        helper.make_node("Add", ["y", "least"], ["sum"]),
    ]
    initializers = [one, constant("step", FLOAT, [1], [1.0]), constant("limit", FLOAT, [1], [100.0])]
    save(root / "held", nodes, [size, tensor("x", FLOAT, [1])], [tensor("sum", FLOAT, [1])], initializers)


def recurrent(folder):
    """A GRU over x, whose first dimension is time. The runtime does not survive a time of 0."""
    weights = [
        constant("w", FLOAT, [1, 6, 3], [0.1] * 18),
        constant("r", FLOAT, [1, 6, 2], [0.1] * 12),
    ]
    nodes = [helper.make_node("GRU", ["x", "w", "r"], ["y", "last"], hidden_size=2)]
    outputs = [tensor("y", FLOAT, ["t", 1, "b", 2]), tensor("last", FLOAT, [1, "b", 2])]
    save(folder, nodes, [tensor("x", FLOAT, ["t", "b", 3])], outputs, weights)


def recurrent_inside(root):
    """The same GRU: `sliced` over the steps of x from `start` on, `shortened` over all but the first two, `flagged` over
    all of x if `flag` is true, `until` over those before x's size less 5, which counts from the end where it is below 0."""
    x, flag = tensor("x", FLOAT, ["t", 1, 3]), tensor("flag", TensorProto.BOOL, [1])
    weights = [constant("w", FLOAT, [1, 6, 3], [0.1] * 18), constant("r", FLOAT, [1, 6, 2], [0.1] * 12)]
    last = tensor("last", FLOAT, [1, 1, 2])
    gru = lambda steps: helper.make_node("GRU", [steps, "w", "r"], ["", "last"], hidden_size=2)
    cut = [helper.make_node("Slice", ["x", "start", "end"], ["rest"]), gru("rest")]
    end, start = (constant(name, TensorProto.INT64, [1], [value]) for name, value in (("end", 1 << 40), ("start", 2)))
    save(root / "sliced", cut, [x, tensor("start", TensorProto.INT64, [1])], [last], [*weights, end])
    save(root / "shortened", cut, [x], [last], [*weights, start, end])
    zero, five = (constant(name, TensorProto.INT64, [1], [value]) for name, value in (("zero", 0), ("five", 5)))
    until = [
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "zero"], ["steps"]),
        helper.make_node("Sub", ["steps", "five"], ["until"]),
        helper.make_node("Slice", ["x", "zero", "until", "zero"], ["rest"]),
        gru("rest"),
    ]
    save(root / "until", until, [x], [last], [*weights, zero, five])
    nothing = helper.make_node("Constant", [], ["last"], value=constant("none", FLOAT, [1, 1, 2], [0.0] * 2))
    run, leave = (helper.make_graph([node], "body", [], [last]) for node in (gru("x"), nothing))
    nodes = [
        helper.make_node("Squeeze", ["flag"], ["is"]),
        helper.make_node("If", ["is"], ["last"], then_branch=run, else_branch=leave),
    ]
    save(root / "flagged", nodes, [x, flag], [last], weights)


def below(folder):
    """Counts from x for ever if the number k is below 0."""
    nodes = [helper.make_node("Less", ["k", "zero"], ["go"]), counting()]
    initializers = [constant("step", FLOAT, [1], [1.0]), constant("zero", TensorProto.INT64, [], [0])]
    inputs = [tensor("x", FLOAT, ["n"]), tensor("k", TensorProto.INT64, [])]
    save(folder, nodes, inputs, [tensor("y", FLOAT, ["n"])], initializers)


def frames(folder):
    """Frames of x, of this `length`. The runtime divides by it."""
    nodes = [helper.make_node("STFT", ["x", "step", "", "length"], ["y"])]
    inputs = [tensor("x", FLOAT, [1, 16, 1]), tensor("length", TensorProto.INT64, [])]
    save(folder, nodes, inputs, [tensor("y", FLOAT, [1, "f", "b", 2])], [constant("step", TensorProto.INT64, [], [4])])


def make(root):
    frames(root / "frames")
    recurrent(root / "recurrent")
    recurrent_inside(root)
    below(root / "below")
    memory(root)
    gate(root / "gate")
    unranked(root / "unranked")
    scaled(root / "scaled")
    words(root / "words")
    few_columns(root / "few_columns")
    values(root)
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

"""Saves MLflow models in a folder and prints requests with what MLflow's own scoring function answers, one JSON each.

The requests are generated: datatypes x forms of body x values, null, NaN and absence x signature or none x parameters.
A line has `model`, `body` (text: Python's NaN stands in some), `csv`, `status` and `answer`. A model is one folder.

To a model with columns every form of body says the same as `dataframe_records`, so that MLflow's answer to that is the
one that is wanted: MLflow itself makes the text "None" of null in `inputs` and `instances`.
"""

import base64
import datetime
import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc.scoring_server import invocations
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

warnings.filterwarnings("ignore")
FORMS = ["dataframe_split", "dataframe_records", "instances", "inputs", "inputs of columns"]
NAN, INFINITE = float("nan"), float("inf")
ABSENT = object()

#: The kinds of columns: values that fit, and values that do not or only by a cast.
KINDS = {
    "double": ([1.5, 2, -0.0], ["2.5", True, "a", INFINITE]),
    "float": ([1.5, 2], ["2.5", True, "a", 1e300]),
    "long": ([3, 9007199254740993, 4.0], ["3", True, "a"]),
    "integer": ([3, -3], ["3", True, "a"]),
    "boolean": ([True, False], [1, 0]),
    "string": (["a", "", "é\n\"", "None", "nan"], [1, 1.5, True]),
    "binary": ([base64.b64encode(b"\x00\xff").decode(), ""], [1]),
    "datetime": (["2024-01-31T12:00:00", "31/01/2024"], ["no time", 5]),
}


class Seen(mlflow.pyfunc.PythonModel):
    """Answers what it was given: for each row the type and the value of each column."""

    def predict(self, context, model_input, params=None):
        rows = [
            {str(name): f"{model_input[name].dtype} {model_input[name].iloc[row]!r}" for name in model_input.columns}
            for row in range(len(model_input))
        ]
        return [{"row": row, "params": repr(sorted((params or {}).items()))} for row in rows]


class Told(mlflow.pyfunc.PythonModel):
    """Answers what it was given, whatever that is."""

    def predict(self, context, model_input, params=None):
        return [_told(model_input)]


class Asked(mlflow.pyfunc.PythonModel):
    """Answers the parameters that it was given, whatever they are, and how many rows."""

    def predict(self, context, model_input, params=None):
        return [repr(params and sorted(params.items())), len(model_input)]


def _told(given):
    if isinstance(given, pd.DataFrame):
        return {"frame": {str(name): [str(column.dtype), [repr(v) for v in column]] for name, column in given.items()}}
    if isinstance(given, np.ndarray):
        return {"array": [str(given.dtype), list(given.shape), [repr(v) for v in given.ravel().tolist()]]}
    if isinstance(given, dict):
        return {"dict": {name: _told(value) for name, value in given.items()}}
    if isinstance(given, list):
        return {"list": [_told(value) for value in given]}
    return {type(given).__name__: repr(given)}


#: What a model may answer, by name: made for a number of rows.
ANSWERS = {
    "floats": lambda n: np.linspace(0, 1, n),
    "singles": lambda n: np.full(n, 0.5, np.float32),
    "ints": lambda n: np.arange(n),
    "bools": lambda n: np.arange(n) % 2 == 0,
    "texts": lambda n: np.array(["a"] * n),
    "objects": lambda n: np.array(["a", None, 1.5][:n] + ["b"] * (n - 3), object),
    "masked floats": lambda n: np.ma.masked_greater(np.linspace(0, 1, n), 0.75),
    "masked ints": lambda n: np.ma.masked_greater(np.arange(n), 1),
    "masked texts": lambda n: np.ma.masked_equal(["a"] * n, "a"),
    "days": lambda n: np.array(["2024-01-31", "NaT", "1999-12-31"][:n], "datetime64[D]"),
    "nan": lambda n: np.full(n, NAN),
    "infinite": lambda n: np.full(n, 2.5),
    "matrix": lambda n: np.ones((n, 2)),
    "cube": lambda n: np.ones((n, 2, 2), np.float32),
    "scalar array": lambda n: np.array(3.5),
    "list": lambda n: [0.5] * n,
    "mixed numbers": lambda n: [0, 2.25, 3][:n],
    "mixed": lambda n: [1, "a", None][:n],
    "bool and int": lambda n: [True, 2, 3][:n],
    "None among floats": lambda n: [0.5, None, 1.5][:n],
    "None among ints": lambda n: [1, None, 3][:n],
    "None among texts": lambda n: ["a", None, "b"][:n],
    "None among bools": lambda n: [True, None, False][:n],
    "all None": lambda n: [None] * n,
    "large ints": lambda n: [2**60 + 1, 2, 3][:n],
    "huge ints": lambda n: [2**70, 2, 3][:n],
    "ragged": lambda n: [[1], [1, 2], []][:n],
    "nested": lambda n: [[1.5, 2.5]] * n,
    "nested None": lambda n: [[1.5, None]] * n,
    "dicts": lambda n: [{"label": "a", "score": np.float32(0.5), "ids": np.arange(2), "none": None}] * n,
    "dict of lists": lambda n: {"a": [1, 2], "b": ["x"], "c": None},
    "dict of arrays": lambda n: {"a": np.arange(2), "b": np.array([0.5, NAN])},
    "dict": lambda n: {"text": "a", "n": np.int64(3), "deep": {"list": [1, {"x": NAN}]}},
    "text": lambda n: "just a text",
    "number": lambda n: 3,
    "None": lambda n: None,
    "empty list": lambda n: [],
    "empty array": lambda n: np.empty((0, 2)),
    "fewer": lambda n: np.arange(max(n - 1, 0)).tolist(),
    "more": lambda n: np.arange(n + 2.0),
    "frame": lambda n: pd.DataFrame({"a": np.arange(n), "b": ["x"] * n}),
    "frame of one": lambda n: pd.DataFrame({"a": np.arange(n)}),
    "frame with missing": lambda n: pd.DataFrame(
        {
            "f": [NAN] * n,
            "i": pd.array([1, None, 3][:n], "Int64"),
            "s": ["a", None, "b"][:n],
            "b": pd.array([True, None, False][:n], "boolean"),
            "o": [1, None, "x"][:n],
        }
    ),
    "frame of times": lambda n: pd.DataFrame({"at": pd.to_datetime(["2024-01-31T12:00:00.5"] * n)}),
    "frame of objects": lambda n: pd.DataFrame({"o": [{"k": [1, NAN]}] * n, "l": [np.arange(2)] * n}),
    "frame with index": lambda n: pd.DataFrame({"a": np.arange(n)}, index=range(10, 10 + n)),
    "frame of categories": lambda n: pd.DataFrame({"c": pd.Categorical(["x"] * n)}),
    "empty frame": lambda n: pd.DataFrame({"a": []}),
    "series": lambda n: pd.Series(np.arange(n), name="y"),
    "series without name": lambda n: pd.Series(["a", None, "b"][:n]),
    "missing of each": lambda n: pd.DataFrame(
        {
            "f": [0.5, None, 1.5][:n],
            "i": pd.array([1, None, 3][:n], "Int64"),
            "b": [True, None, False][:n],
            "s": ["a", None, "b"][:n],
            "t": pd.to_datetime(["2024-01-31T12:00:00", None, "2024-02-01T00:00:00"][:n]),
            "o": [{"k": [np.int64(1)]}, None, ["x"]][:n],
        }
    ),
    "tuple": lambda n: (1, 2.5, None),
    "numpy scalar": lambda n: np.float32(0.25),
    "date": lambda n: [datetime.date(2024, 1, 31)] * n,
    "bytes": lambda n: [b"\x00\xff", b"a"] * n,
}


#: Signatures of answers that some of these fit.
OUTPUTS = {
    "none": None,
    "long": Schema([ColSpec("long")]),
    "float": Schema([ColSpec("float", "y")]),
    "boolean": Schema([ColSpec("boolean")]),
    "string": Schema([ColSpec("string", "text")]),
    "datetime": Schema([ColSpec("datetime", "at")]),
    "columns": Schema([ColSpec("long", "a"), ColSpec("string", "b", required=False)]),
    "list": Schema([ColSpec(Array("double"))]),
    "tensor": Schema([TensorSpec(np.dtype("float32"), (-1, 2))]),
    "tensors": Schema([TensorSpec(np.dtype("int64"), (-1,), "a"), TensorSpec(np.dtype("float64"), (-1,), "b")]),
}
KIND = ParamSchema([ParamSpec("kind", "string", "floats")])


class Answers(mlflow.pyfunc.PythonModel):
    """Answers what the parameter `kind` names."""

    def predict(self, context, model_input, params=None):
        return ANSWERS[(params or {}).get("kind", "floats")](len(model_input))


class Words(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[str]) -> list[str]:
        return [text.upper() for text in model_input]


class Things(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"keys": sorted(thing), "was": thing} for thing in model_input]


class Chat(mlflow.pyfunc.ChatModel):
    def predict(self, context, messages, params):
        from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage

        said = ChatMessage(role="assistant", content=f"{len(messages)} {messages[-1].content} {params.temperature}")
        return ChatCompletionResponse(choices=[ChatChoice(index=0, message=said)], created=0)


def rows_in(form, rows):
    """A body of this form. A row is a dict whose values may be ABSENT."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if form == "dataframe_records":
        return {form: [{k: v for k, v in row.items() if v is not ABSENT} for row in rows]}
    if form == "dataframe_split":
        # A table has no absent cells, but absent columns.
        names = [name for name in names if any(row.get(name) is not ABSENT for row in rows)]
        data = [[None if row.get(name) is ABSENT else row.get(name) for name in names] for row in rows]
        return {form: {"columns": names, "data": data}}
    if form == "inputs of columns":
        names = [name for name in names if any(row.get(name) is not ABSENT for row in rows)]
        return {"inputs": {name: [None if row[name] is ABSENT else row[name] for row in rows] for name in names}}
    return {form: [{k: v for k, v in row.items() if v is not ABSENT} for row in rows]}


def as_records(body):
    """The same rows as `dataframe_records`, if the body has rows by the names of columns."""
    form = next(iter(body))
    rows = body[form]
    if form == "inputs" and isinstance(rows, dict) and all(isinstance(value, list) for value in rows.values()):
        rows = [dict(zip(rows, cells)) for cells in zip(*rows.values())]
    # Without rows there are no names in them.
    if form not in ("inputs", "instances") or not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        return body
    return {"dataframe_records": rows, **{name: body[name] for name in body if name == "params"}}


def columns(required):
    return [ColSpec(kind, kind, required=required) for kind in KINDS]


def of_columns(full):
    """One column at a time, in each form: alone, beside a value that fits, and in a second row."""
    for form, (kind, (good, odd)) in itertools.product(FORMS, KINDS.items()):
        values = good + odd + [None, NAN, ABSENT]
        for value in values if full else good[:1] + odd[:1] + [None, NAN]:
            if value is not ABSENT:
                yield kind, form, [{kind: value}]
            yield kind, form, [{kind: good[0]}, {kind: value}]
            if full:
                yield kind, form, [{kind: value, "double" if kind != "double" else "string": None}]
                yield kind, form, [{kind: value, "extra": 5}, {kind: good[0], "extra": None}]


def cases(folder, full):
    """Saves the models; yields each model's name and bodies: of JSON, or a text of CSV."""

    def save(name, model, **saved):
        # Without requirements nobody looks for them, which takes longer than all the rest.
        mlflow.pyfunc.save_model(Path(folder) / name, python_model=model, pip_requirements=[], **saved)
        return name

    csv = "double,float,long,integer,boolean,string\n1.5,2,9007199254740993,3,True,a\n"
    tags = ParamSchema(
        [ParamSpec("tag", "string", "x"), ParamSpec("stops", "string", [], shape=(-1,)), ParamSpec("maybe", "double", None)]
    )
    name = save("optional", Seen(), signature=ModelSignature(Schema(columns(False)), None, tags))
    for _, form, rows in of_columns(full):
        yield name, rows_in(form, rows)
    for params in [{"tag": "y"}, {"maybe": None}, {"maybe": 2}, {"stops": ["a", "b"]}, {"stops": []}, {"stops": None}, {"tag": None}, {"other": 1}, {}, None]:
        yield name, {"dataframe_records": [{"double": 1.0}], "params": params}
    for params in [{"tag": 5}, {"stops": "a"}, {"stops": [1]}, {"tag": ["a"]}]:
        yield name, {"dataframe_records": [{"double": 1.0}], "params": params}
    for text in [csv, csv + "2,,4,4,False,\n", "long\n\n3\n", "double,long\n1.5,\n", "long\n4.0\n", "string\n1\n", "boolean\n1\n", "extra\n1\n"]:
        yield name, text
    yield name, {"inputs": {"double": 1.5, "string": "a"}}
    yield name, {"inputs": [{"double": 1.5, "string": "a"}, {"double": None}]}
    yield name, {"dataframe_records": []}
    yield name, {"dataframe_records": {"double": 1}}
    yield name, {"dataframe_split": {"columns": ["double"]}}
    yield name, {"dataframe_split": {"columns": ["double"], "data": [[1]], "index": [5]}}
    yield name, {"dataframe_split": {"columns": ["double"], "data": [[1]], "index": [5, 6]}}
    yield name, {"dataframe_split": {"columns": ["double"], "data": [[1]], "extra": 1}}
    yield name, {"dataframe_split": {"columns": ["double"], "data": [[1, 2]]}}

    required = Schema([ColSpec("double", "x"), ColSpec("string", "text")])
    several = ParamSchema(
        [
            ParamSpec("whole", "integer", 3),
            ParamSpec("long", "long", 5),
            ParamSpec("share", "double", 0.5),
            ParamSpec("single", "float", 0.5),
            ParamSpec("flag", "boolean", True),
            ParamSpec("word", "string", "x"),
            ParamSpec("at", "datetime", np.datetime64("2024-01-31T12:00:00")),
            ParamSpec("weights", "double", [1.0, 2.0], shape=(-1,)),
            ParamSpec("maybe", "long", None),
        ]
    )
    for label, schema in [("none", None), ("several", several)]:
        name = save(f"params {label}", Asked(), signature=ModelSignature(required, None, schema))
        row = {"x": 1.5, "text": "a"}
        # MLflow ignores what is no object where the model has no parameters.
        odd: list = [{}, None, {"other": 1}] + ([[], "a", 5] if schema else [])
        given = [1, 1.0, 1.5, True, None, "a", "2024-01-31T12:00:00", [1], [1.5, None], [], {}, 2**40, 1e300, NAN]
        odd += [{spec.name: value} for spec in (schema or ParamSchema([])).params for value in given]
        odd += [{"whole": 1, "other": 2}, {"word": "y", "flag": False, "share": 2}]
        for params in odd if full else odd[:6] + odd[6::5]:
            yield name, {"dataframe_records": [row], "params": params}
            yield name, {"inputs": [row], "params": params}
        for form in FORMS:
            yield name, rows_in(form, [row])
        for body in [
            {"dataframe_records": []},
            {"dataframe_split": {"columns": ["x", "text"], "data": []}},
            {"dataframe_split": {"columns": ["text"], "data": []}},
            {"inputs": {"x": [], "text": []}},
            {"instances": []},
            {"inputs": []},
        ]:
            yield name, body
        # A value that is a list, in a column that has none.
        for value, text in [([1.5], "a"), (1.5, ["a"]), ([], "a"), ([1.5, 2], "a"), ({"k": 1}, "a"), (1.5, {"k": 1}), ([[1.5]], "a")]:
            for form in FORMS:
                yield name, rows_in(form, [{"x": value, "text": text}])
                yield name, rows_in(form, [{"x": 1.5, "text": "b"}, {"x": value, "text": text}])

    name = save("answers", Answers(), signature=infer_signature(pd.DataFrame({"x": [1.0]}), np.array([0.5]), {"kind": "floats"}))
    for kind, count in itertools.product(ANSWERS, [1, 3] if full else [3]):
        yield name, {"dataframe_records": [{"x": 1.0}] * count, "params": {"kind": kind}}

    if full:
        # Whatever was logged of the answer, the model answers what it wants.
        for label, output in OUTPUTS.items():
            name = save(f"answers-{label}", Answers(), signature=ModelSignature(Schema([ColSpec("double", "x")]), output, KIND))
            for kind, count in itertools.product(ANSWERS, [1, 3]):
                yield name, {"dataframe_records": [{"x": 1.0}] * count, "params": {"kind": kind}}
                yield name, {"instances": [{"x": 1.0}] * count, "params": {"kind": kind}}

        for text in ["x,text\n1.5,a\n2,b\n", "text,x\na,\n", "x,text\n,\n", "x,text\r\n1,\"a, \"\"b\"\"\"\r\n", "x\n1\n", "x,text,extra\n1,a,5\n", "x,text\nb,a\n", "x,text\n", "", "\"x"]:
            yield name, text

    name = save("bare", Told())
    for text in ["a,b\n1,x\n2.5,\n", "a\nTrue\nFalse\n", "1,2\n3,4\n", "a\n"]:
        yield name, text
    for form, value in itertools.product(FORMS, [1, 1.5, "a", True, None, NAN, [1, 2], {"k": 1}]):
        yield name, rows_in(form, [{"a": value, "b": "x"}])
        yield name, rows_in(form, [{"a": value, "b": "x"}, {"a": 2, "b": None}])
    for data in [[1, 2], [[1, 2], [3, 4]], [["a", None]], "text", 5, [], {"a": [1]}, {"a": {"b": 1}}, [[1], [2, 3]]]:
        yield name, {"inputs": data}
        yield name, {"instances": data}

    tensors = {"f": ("float32", (-1,)), "m": ("float64", (-1, 2)), "i": ("int64", (-1,)), "b": ("bool", (-1,)), "s": ("str", (-1,))}
    schema = Schema([TensorSpec(np.dtype(kind), shape, name) for name, (kind, shape) in tensors.items()])
    name = save("tensors", Told(), signature=ModelSignature(schema))
    sound = {"f": [0.5, 1], "m": [[1, 2], [3, 4]], "i": [1, 2], "b": [True, False], "s": ["a", "b"]}
    yield name, {"inputs": sound}
    for which, value in itertools.product(tensors, [None, NAN]):
        for place in (0, 1):
            odd = json.loads(json.dumps(sound))
            if which == "m":
                odd[which][place][1] = value
            else:
                odd[which][place] = value
            if which != "s":
                yield name, {"inputs": odd}
    yield name, {"inputs": {**sound, "extra": [1, 2]}}
    yield name, {"inputs": {key: value for key, value in sound.items() if key != "f"}}
    free = {"m": ("float32", (-1, -1)), "c": ("int32", (-1, -1, 2)), "d": ("bool", (-1, 1))}
    schema = Schema([TensorSpec(np.dtype(kind), shape, name) for name, (kind, shape) in free.items()])
    name = save("free", Told(), signature=ModelSignature(schema))
    sound = {"m": [[1.5, 2]], "c": [[[1, 2], [3, 4], [5, 6]]], "d": [[True]]}
    others = {"m": [[[1]], [1], 1, [[]], [[1], [1, 2]], [["a"]]], "c": [[[1, 2]], [[[1, 2, 3]]], [[[1.5, 2]]], [[[2**31, 0]]]], "d": [[[True, False]], [[1]]]}
    yield name, {"inputs": sound}
    yield name, {"inputs": {"m": [[1], [2]], "c": [[[1, 2]], [[3, 4]]], "d": [[True], [False]]}}
    for which, value in [(which, value) for which, values in others.items() for value in values]:
        yield name, {"inputs": {**sound, which: value}}
    if full:
        name = save("alone", Told(), signature=ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, -1))])))
        for data in [[[1.5, 2], [3, 4]], [[1.5]], [1.5, 2], 1.5, [[None, 1]], [[True]], [["a"]], [], [[]]]:
            yield name, {"inputs": data}
            yield name, {"instances": data}
        yield name, {"dataframe_split": {"columns": ["a"], "data": [[[1, 2]]]}}
    name = save("text", Told(), signature=ModelSignature(Schema([TensorSpec(np.dtype("str"), (-1, 2))])))
    for data in [[["a", "b"]], [["a", "b"], ["", "é"]], [["a"]], [[1, 2]]]:
        yield name, {"inputs": data}
        yield name, {"instances": data}
    name = save("one", Told(), signature=ModelSignature(Schema([ColSpec("string")])))
    for data in [["a", "b"], [["a"], ["b"]], "a"]:
        yield name, {"inputs": data}
    yield name, {"dataframe_split": {"data": [["a"], ["b"]]}}
    yield name, {"dataframe_split": {"columns": ["t"], "data": [["a"], [None]]}}

    nested = Schema(
        [
            ColSpec(Array("string"), "tags", required=False),
            ColSpec(Object([Property("x", "double"), Property("y", "string", required=False)]), "thing", required=False),
            ColSpec(Map("long"), "counts", required=False),
            ColSpec(AnyType(), "any", required=False),
            ColSpec("string", "text", required=False),
        ]
    )
    name = save("nested", Told(), signature=ModelSignature(nested))
    for form, row in itertools.product(
        FORMS[:4],
        [
            {"tags": ["a", "b"], "text": "t"},
            {"tags": [], "text": None},
            {"thing": {"x": 1.5}},
            {"thing": {"x": 1.5, "y": "b"}, "any": {"k": [1, None]}},
            {"thing": {"y": "b"}},
            {"counts": {"a": 1}},
            {"any": None, "text": "t"},
            {"any": [1, "a"]},
            {"tags": "a"},
        ],
    ):
        yield name, rows_in(form, [row])

    name = save("words", Words())
    for body in [{"inputs": ["a", "b"]}, {"inputs": [1]}, {"inputs": [["a"]]}, {"inputs": [["a"], "b"]}, {"inputs": "a"}]:
        yield name, body
    name = save("things", Things())
    for body in [{"inputs": [{"a": 1, "b": [None, {"c": 2.5}]}]}, {"inputs": [{}]}, {"inputs": ["a"]}, {"inputs": {"a": 1}}]:
        yield name, body
    name = save("chat", Chat())
    yield name, {"messages": [{"role": "user", "content": "hi"}]}
    yield name, {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.25}
    yield name, {"messages": "hi"}
    said = {"role": "user", "content": "hi"}
    for messages in [[{"role": "user"}], [{"content": "hi"}], [{}], ["hi"], [said, {"role": "user", "content": 5}], None, [{**said, "x": 1}]]:
        yield name, {"messages": messages}
    for field, value in [("temperature", "hot"), ("max_tokens", "5"), ("stop", ["a"]), ("n", 1.5), ("unknown", 1)]:
        yield name, {"messages": [said], field: value}

    yield from natives(folder, full)
    yield from graphs(folder, full)


def graphs(folder, full):
    """Models in ONNX, with a signature of columns, of tensors, and without one. Unless `full`, one model for each of these."""
    from onnx import TensorProto, helper
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression, LogisticRegression

    names = ["a", "b", "c"]
    table = pd.DataFrame(np.arange(36.0).reshape(12, 3) % 7, columns=names)
    linear = to_onnx(LinearRegression().fit(table.to_numpy(), table @ [1, 2, 3]), table.to_numpy(np.float32))
    labels = LogisticRegression().fit(table.to_numpy(), table["a"] > 3)
    classes = to_onnx(labels, table.to_numpy(np.float32), options={"zipmap": False})
    one = helper.make_tensor_value_info("a", TensorProto.FLOAT, [None])
    other = helper.make_tensor_value_info("b", TensorProto.FLOAT, [None])
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("sum", "difference")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    several = helper.make_model(helper.make_graph(nodes, "g", [one, other], made), opset_imports=[helper.make_opsetid("", 13)])
    several.ir_version = 8

    def save(name, model, signature):
        mlflow.onnx.save_model(model, Path(folder) / name, signature=signature, pip_requirements=[])
        return name

    columns = Schema([ColSpec("double", name) for name in names])
    tensors = Schema([TensorSpec(np.dtype(np.float32), (-1, 3))])
    for kind, schema in [("columns", columns), ("tensors", tensors), ("bare", None)]:
        signature = None if schema is None else ModelSignature(schema)
        for name, model in [("linear", linear), ("classes", classes)][: 2 if kind == "bare" else 1]:
            if not full and (kind, name) not in [("columns", "linear"), ("bare", "classes")]:
                continue
            name = save(f"onnx {name} {kind}", model, signature)
            rows = [{"a": 1.5, "b": 2, "c": 3}, {"a": 0, "b": 1, "c": -2}]
            for count in (1, 2):
                # A classifier's labels and scores are of different lengths, which are no data frame.
                if name.startswith("onnx linear"):
                    yield name, rows_in("dataframe_records", rows[:count])
                    yield name, rows_in("dataframe_split", rows[:count])
                if kind != "columns":
                    yield name, {"inputs": [list(row.values()) for row in rows[:count]]}
                    yield name, {"instances": [list(row.values()) for row in rows[:count]]}
            if name == "onnx linear columns":
                for form in FORMS:
                    yield name, rows_in(form, [{"c": 3, "a": 1, "extra": 5, "b": 2}, {"b": 0, "c": 1, "a": 2, "extra": 1}])
                    yield name, rows_in(form, [{"a": 1, "c": 3}])
                yield name, rows_in("dataframe_split", [{"a": 1, "b": None, "c": NAN}])
                for text in ["c,a,b\n1,2,3\n4,5.5,6\n", "a,b,c,extra\n1,2,3,x\n", "a,b\n1,2\n", "a,b,c\n1,,NA\n", "a,b,c\n1,x,2\n"]:
                    yield name, text
    pair = Schema([ColSpec("float", "a"), ColSpec("float", "b")])
    arrays = Schema([TensorSpec(np.dtype(np.float32), (-1,), name) for name in ("a", "b")])
    for kind, schema in [("columns", pair), ("tensors", arrays)]:
        if not full and kind == "columns":
            continue
        name = save(f"onnx several {kind}", several, ModelSignature(schema))
        for form in FORMS if kind == "columns" else FORMS[:2]:
            yield name, rows_in(form, [{"a": 1, "b": 2}])
            yield name, rows_in(form, [{"b": 5.5, "a": 1}, {"a": 3, "b": -1}])
        if kind != "columns":
            yield name, {"inputs": {"a": [1, 2], "b": [3, 4.5]}}
            yield name, {"inputs": {"b": [1], "a": [3]}}


def natives(folder, full):
    """Models that are loaded without MLflow."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def save(name, model, **saved):
        mlflow.sklearn.save_model(model, Path(folder) / name, serialization_format="cloudpickle", pip_requirements=[], **saved)
        return name

    table = pd.DataFrame({"a": [1.0, np.nan, 3.0, 4.0] * 30, "b": [1, 2, 3, 0] * 30, "c": [0.5] * 120})
    boosted = HistGradientBoostingClassifier(max_iter=5).fit(table, ["no", "yes", "no", "yes"] * 30)
    name = save("boosted", boosted, signature=infer_signature(table, np.array(["no"])))
    for form in FORMS:
        first, second = [1.5, None, NAN, "x", 2, "2.5"], [1, None, 2.0, True]
        for a, b in itertools.product(first if full else first[:4], second if full else second[:2]):
            yield name, rows_in(form, [{"a": a, "b": b, "c": 1}])
        yield name, rows_in(form, [{"b": 1, "c": 1}])
        yield name, rows_in(form, [{"c": 1, "extra": "x", "b": 1, "a": 2}, {"a": None, "b": 2, "c": 2, "extra": 1}])

    import xgboost

    numbers = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0] * 30, "b": [1, 2, 3, 0] * 30})
    booster = xgboost.XGBRegressor(n_estimators=3).fit(numbers, [0.5, 1.5, 2.5, 3.5] * 30)
    for label, model, signature in [
        ("regressor", booster, infer_signature(numbers, np.array([0.5]))),
        ("booster", booster.get_booster(), infer_signature(numbers, np.array([0.5]))),
        ("bare", booster, None),
    ]:
        if full or label == "bare":
            name = f"xgboost {label}"
            mlflow.xgboost.save_model(model, Path(folder) / name, pip_requirements=[], signature=signature)
            for form in FORMS[:2] if label == "bare" else FORMS:
                yield name, rows_in(form, [{"a": 1.5, "b": 2}, {"a": 4, "b": 0}])
                yield name, rows_in(form, [{"a": 1.5}])
                yield name, rows_in(form, [{"a": "x", "b": 1}])
                if label != "bare":
                    yield name, rows_in(form, [{"b": 2, "a": 1.5}])
                    yield name, rows_in(form, [{"a": None, "b": 1}])
                    yield name, rows_in(form, [{"a": 1, "b": 2, "extra": 5}])
                    yield name, "a,b\n1,2.5\n" if form == FORMS[0] else "b,a\n1,2.5\n"

    sites = pd.DataFrame({"site": ["north", "south"] * 20, "age": range(40)})
    mixed = make_pipeline(ColumnTransformer([("s", OneHotEncoder(), ["site"])], remainder="passthrough"), LinearRegression())
    mixed.fit(sites, range(40))
    name = save("mixed", mixed)
    for form in FORMS[:2]:
        yield name, rows_in(form, [{"site": "south", "age": 3}])
        yield name, rows_in(form, [{"age": 3, "site": "south"}, {"site": "north", "age": 4.5}])
        yield name, rows_in(form, [{"site": "west", "age": 3}])
        yield name, rows_in(form, [{"site": "south", "age": None}])
        yield name, rows_in(form, [{"site": "south"}])
    for text in ["age,site\n3,south\n", "site,age\nwest,3\n", "site\nsouth\n"]:
        yield name, text
    plain = HistGradientBoostingRegressor(max_iter=5).fit(table, range(120))
    name = save("plain", plain)
    for form in FORMS[:2]:
        yield name, rows_in(form, [{"a": 1, "b": 2, "c": 3}, {"a": None, "b": 2, "c": 3}])
        yield name, rows_in(form, [{"a": 1, "b": 2}])
    yield name, {"inputs": [[1, 2, 3]]}
    yield name, {"instances": [[1, 2, 3], [4, 5, 6]]}


def without_nan(value):
    """The same with null for NaN, and a word for infinity: JSON has neither."""
    if isinstance(value, float) and value - value != 0:
        return None if value != value else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    # MLflow writes a time that is missing as a text.
    return None if value == "NaT" else value


def main():
    folder, full = sys.argv[1], sys.argv[2:] == ["full"]
    loaded = {}
    for name, body in cases(folder, full):
        model = loaded.get(name) or loaded.setdefault(name, mlflow.pyfunc.load_model(Path(folder) / name))
        csv = isinstance(body, str)
        text = body if csv else json.dumps(body)
        schema = model.metadata.get_input_schema()
        table = schema is not None and schema.has_input_names() and not schema.is_tensor_spec()
        try:
            asked = text if csv else json.dumps(as_records(body) if table else body)
            answer = invocations(asked, "text/csv" if csv else "application/json", model, schema)
            status, said = answer.status, json.loads(answer.response)
        except Exception as error:
            status, said = 400, f"{type(error).__name__}: {error}"
        print(json.dumps({"model": name, "body": text, "csv": csv, "status": status, "answer": without_nan(said)}))


if __name__ == "__main__":
    main()

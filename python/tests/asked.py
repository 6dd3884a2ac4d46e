"""What a data scientist has in hand, sent by the client to the real server. The e2e tests run it, with the binary in
MODELWAY_BINARY: once without pandas, once with it."""

import dataclasses
import datetime
import decimal
import fractions
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import unittest
import urllib.request
from typing import NamedTuple

import numpy as np

import modelway
from modelway import AbstractModel, Tensor, TensorSpec

try:
    import pandas as pd
except ModuleNotFoundError:
    pd = None


class Sums(NamedTuple):
    total: float
    parts: Tensor["FP32", 4]


class Every(AbstractModel):
    """One method for each kind of input, told apart by the model's name."""

    batch = False
    #: What it was last asked.
    seen = None
    parameters = None


class Matrix(Every):
    def predict(self, x: Tensor["FP32", -1, 4], parameters: dict) -> Tensor["FP32", -1, 4]:
        Every.seen, Every.parameters = x.copy(), parameters
        return x


class Column(Every):
    inputs = [TensorSpec("x", "FP64", [-1, 1])]

    def predict(self, x: np.ndarray) -> Tensor["FP64", -1]:
        Every.seen = x.copy()
        return x[:, 0]


class Whole(Every):
    def predict(self, n: list[int], *, horizon: int = 1) -> list[int]:
        Every.seen = n
        return [item * horizon for item in n]


class Small(Every):
    def predict(self, n: Tensor["UINT8", -1], flag: Tensor["BOOL", -1]) -> Tensor["UINT8", -1]:
        Every.seen = n.copy(), flag.copy()
        return n


class Raw(Every):
    def predict(self, image: list[bytes]) -> list[bytes]:
        Every.seen = image
        return image


class Person(Every):
    def predict(self, name: str, age: float) -> str:
        return f"{name} {age:g}"


class Greeting(Every):
    def predict(self, name: str, mark: str = "!", *, share: float = 0.0) -> str:
        return f"{name}{mark} {share}"


class Units(Every):
    def predict(self, x: float, *, input_parameters: dict) -> str:
        return str(input_parameters)


class Gate(Every):
    inputs = [TensorSpec("x", "FP32", [-1, 3]), TensorSpec("training", "BOOL", [])]
    outputs = [TensorSpec("y", "FP32", [-1, 3])]

    def predict(self, x: np.ndarray, training: np.ndarray) -> np.ndarray:
        return 0 * x if training else 2 * x


class Half(Every):
    def predict(self, x: Tensor["FP16", -1]) -> Tensor["FP16", -1]:
        return x


class Odd(Every):
    """Answers what JSON has no word for."""

    def predict(self, text: str) -> Sums:
        return Sums(math.nan, [1.5, math.nan, math.inf, -math.inf])


class Stream(Every):
    def predict(self, x: Tensor["FP32", -1], *, times: int = 2) -> Tensor["FP32", -1]:
        for time in range(times):
            yield x * time


class Picture:
    """An image as PIL has it."""

    __array_interface__ = np.zeros((2, 2, 3), np.uint8).__array_interface__

    def save(self, file): ...

    def tobytes(self): ...


class Bfloat16:
    """A tensor of PyTorch that NumPy has no type for."""

    def __init__(self, array):
        self._array = array

    def detach(self):
        return self

    cpu = detach

    def numpy(self):
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self):
        return NumpyTensor(self._array)


class NumpyTensor(Bfloat16):
    def numpy(self):
        return self._array


class Named(NamedTuple):
    name: str
    age: float


@dataclasses.dataclass
class Fielded:
    name: str
    age: float


class Asking(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.servers = {}
        cls.addClassCleanup(lambda: [server.stop() for server in cls.servers.values()])

    def server(self, model):
        if model not in self.servers:
            self.servers[model] = modelway.serve(model)
        return self.servers[model]

    def check(self, model, wanted, *data, **inputs):
        with self.subTest(model=model.__name__, data=data, inputs=inputs):
            made = self.server(model).predict(*data, **inputs)
            if isinstance(wanted, np.ndarray):
                np.testing.assert_array_equal(made, wanted)
            else:
                self.assertEqual(made, wanted)
                self.assertIs(type(made), type(wanted))


class Asked(Asking):
    def test_a_row_without_its_brackets_is_one_row_and_many_are_many(self):
        row = [5.0, 3.5, 1.5, 0.25]
        one, two = np.float32(row), np.float32([row, row])
        for given in (row, tuple(row), np.array(row), np.float16(row), [np.float64(5), 3.5, 1.5, 0.25]):
            self.check(Matrix, one, given)
            self.check(Matrix, one, x=given)
        for given in ([row, row], np.array([row, row]), [np.array(row), row], two.astype(">f8"), two[::-1], np.asfortranarray(two)):
            self.check(Matrix, two, given)
        self.check(Matrix, two[:1], [row])
        self.check(Matrix, two, Bfloat16(two))
        self.check(Matrix, two, NumpyTensor(two))
        self.check(Matrix, np.float32([1, 0, 1, 0]), [True, False, True, False])
        self.check(Matrix, np.float32([1, 2, 3, 4]), np.arange(1, 5))
        self.check(Column, np.float64([1, 2, 3]), [1, 2, 3])
        self.check(Column, 1.0, 1)
        self.check(Column, 2.5, np.float32(2.5))

    def test_scalars_of_every_kind_are_one_row(self):
        for given in (3, np.int8(3), np.uint64(3), np.array(3), 3.0, np.float64(3), decimal.Decimal("3.0"), fractions.Fraction(6, 2)):
            self.check(Whole, 3, n=given)
        self.check(Whole, 1, n=True)
        self.check(Small, 255, n=255, flag=np.bool_(True))
        self.check(Person, "Ada 36", name="Ada", age=36)
        self.check(Person, "Ada 36", name=np.str_("Ada"), age=np.int64(36))
        self.check(Gate, np.float32([2, 4, 6]), x=[1, 2, 3], training=False)
        self.check(Gate, np.float32([[0, 0, 0]]), x=[[1, 2, 3]], training=np.True_)

    def test_names_and_dicts_and_lists_of_dicts(self):
        ada = {"name": "Ada", "age": 36}
        self.check(Person, "Ada 36", ada)
        self.check(Person, "Ada 36", **ada)
        self.check(Person, np.array(["Ada 36", "Bob 7.5"], object), [ada, {"age": 7.5, "name": "Bob"}])
        self.check(Person, np.array(["Ada 36", "Bob 7.5"], object), {"name": ["Ada", "Bob"], "age": [36, 7.5]})
        self.check(Person, "Ada nan", {"name": "Ada", "age": None})
        self.check(Person, "Ada 36", Named("Ada", 36))
        self.check(Person, np.array(["Ada 36", "Bob 7.5"], object), [Named("Ada", 36), Fielded("Bob", 7.5)])
        for rows in ([["Ada", 36], ("Bob", 7.5)], np.array([["Ada", 36], ["Bob", 7.5]], object), zip(["Ada", "Bob"], [36, 7.5])):
            self.check(Person, np.array(["Ada 36", "Bob 7.5"], object), rows)
        self.check(Person, np.array(["Ada 36", "Bob nan"], object), [ada, {"name": "Bob"}])

    def test_what_is_a_list_once_it_is_read_is_rows(self):
        self.check(Column, np.float64([0, 1, 2]), range(3))
        self.check(Column, np.float64([1, 2]), map(float, "12"))
        self.check(Column, np.float64([1, 2]), {"a": 1, "b": 2}.values())
        self.check(Matrix, np.ones((2, 4), np.float32), (np.ones(4) for _ in range(2)))
        self.check(Person, np.array(["Ada 36"], object), ({"name": name, "age": 36} for name in ["Ada"]))
        self.check(Raw, "1.5", decimal.Decimal("1.5"))
        self.check(Raw, "a/b", pathlib.PurePosixPath("a/b"))

    def test_numbers_that_json_lacks_reach_a_model_as_parameters_of_requests_and_of_inputs(self):
        server = self.server(Greeting)
        body = b'{"instances": [{"name": "Ada"}], "parameters": {"share": %s}}'
        for word, wanted in [(b"NaN", "Ada! nan"), (b"-Infinity", "Ada! -inf"), (b"1", "Ada! 1.0")]:
            with urllib.request.urlopen(f"{server.url}/v1/models/{server.name}:predict", body % word) as answer:
                self.assertEqual(json.load(answer)["predictions"], [wanted])
        server = self.server(Units)
        body = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1], "parameters": {"low": -Infinity, "unit": "cm"}}]}'
        with urllib.request.urlopen(f"{server.url}/v2/models/{server.name}/infer", body) as answer:
            self.assertEqual(json.load(answer)["outputs"][0]["data"], ["{'x': {'low': -inf, 'unit': 'cm'}}"])

    def test_no_rows_have_the_dimensions_of_some(self):
        for given in ([], np.empty((0, 4)), np.array([], object)):
            made = self.server(Matrix).predict(given)
            self.assertEqual(made.shape, (0, 4))

    def test_missing_numbers_are_nan_and_answers_are_floats(self):
        made = self.server(Odd).predict(text="a")
        self.assertIs(type(made["total"]), float)
        self.assertTrue(math.isnan(made["total"]))
        np.testing.assert_array_equal(made["parts"], np.float32([1.5, math.nan, math.inf, -math.inf]))
        for given in ([1, None, math.nan, math.inf], np.array([1, None, math.nan, math.inf], object), [1, float("nan"), np.nan, np.inf]):
            self.check(Matrix, np.float32([1, math.nan, math.nan, math.inf]), given)
        self.check(Matrix, np.float32([1, math.nan, 2, 3]), np.ma.masked_equal([1, 9, 2, 3], 9))

    def test_bytes_are_bytes(self):
        image = b"\x89PNG\xff\x00"
        self.check(Raw, image, image)
        self.check(Raw, image, image=bytearray(image))
        self.check(Raw, image, image=memoryview(image))
        made = self.server(Raw).predict([image, "text"])
        self.assertEqual(list(made), [image, "text"])
        self.check(Raw, image, np.array([image], object)[0])
        self.check(Raw, "2024-01-31T12:00:00", datetime.datetime(2024, 1, 31, 12))
        self.check(Raw, "2024-01-31", datetime.date(2024, 1, 31))
        self.check(Raw, np.array(["2024-01-31"], object), np.array(["2024-01-31"], "M8[D]"))
        self.check(Raw, np.array(["NaT", "a"], object), ["NaT", "a"])
        with self.assertRaisesRegex(modelway.ServerError, "null"):
            self.server(Raw).predict(np.array(["2024-01-31", "NaT"], "M8[D]"))
        self.check(Raw, '{"role": "user"}', image={"role": "user"})
        self.check(Raw, np.array(['{"a": 1}', '{"a": [1.5]}'], object), [{"a": 1}, {"a": np.array([1.5])}])

    def test_other_names_are_parameters(self):
        self.check(Whole, 6, n=3, horizon=2)
        self.check(Whole, 6, 3, horizon=np.int64(2))
        self.check(Whole, 6, n=3, parameters={"horizon": 2})
        self.check(Matrix, np.zeros(4, np.float32), np.zeros(4), top_k=2, mode="fast", deep=True, share=0.5)
        self.assertEqual({k: v for k, v in Every.parameters.items()}, {"top_k": 2, "mode": "fast", "deep": True, "share": 0.5})
        self.check(Matrix, np.zeros(4, np.float32), np.zeros(4), stops=["a"], weights=np.array([1, 2]), at=datetime.date(2024, 1, 31),
                   low=float("nan"), high=math.inf, deep={"k": (1, np.float32(2))}, price=decimal.Decimal("0.5"))
        self.assertTrue(math.isnan(Every.parameters.pop("low")))
        self.assertEqual(Every.parameters, {"stops": '["a"]', "weights": "[1, 2]", "at": "2024-01-31", "high": math.inf,
                                            "deep": '{"k": [1, 2.0]}', "price": 0.5})
        self.check(Greeting, "Ada! 0.0", name="Ada")
        self.check(Greeting, "Ada? inf", name="Ada", mark="?", share=math.inf)
        self.check(Greeting, "Ada! 2.0", name="Ada", share=np.int64(2), other=["a"])
        for words, given in [("parameter `h` is a value of type complex", {"h": 1j}), ("parameter `h` holds a value of type object", {"h": [object()]})]:
            with self.assertRaisesRegex(ValueError, words):
                self.server(Matrix).predict([1, 2, 3, 4], **given)
        with self.assertRaisesRegex(ValueError, "`parameters` is a dict with each parameter by its name, not a list"):
            self.server(Matrix).predict([1, 2, 3, 4], parameters=["a"])
        for words, given in [("`nam`; did you mean `name`", {"nam": "Ada", "age": 1}), ("no input `rows`; its inputs are name, age", {"rows": [1]})]:
            with self.assertRaisesRegex(ValueError, words):
                self.server(Person).predict(**given)
        with self.assertRaisesRegex(ValueError, "the model has 2 inputs: name each of them.*name, age"):
            self.server(Person).predict("Ada")

    def test_arrays_that_do_not_fit_say_which_value(self):
        for model, given, words in [
            (Matrix, {"x": np.array([1, 1e300, 0, 0])}, "input `x` holds 1e\\+300, which FP32 cannot"),
            (Half, {"x": np.array([70000])}, "input `x` holds 70000, which FP16 cannot"),
            (Whole, {"n": np.array([1, 2.5])}, "input `n` holds 2.5, and the model wants whole numbers"),
            (Whole, {"n": np.array([2**63], np.uint64)}, "input `n` holds 9223372036854775808, which INT64 cannot"),
            (Whole, {"n": np.array([1e19])}, "input `n` holds 1e\\+19, which INT64 cannot"),
            (Whole, {"n": np.array([1, math.inf])}, "input `n` holds inf, which INT64 cannot"),
            (Small, {"n": np.array([3, 256]), "flag": [True, True]}, "input `n` holds 256, which UINT8 cannot"),
            (Small, {"n": np.array([-1]), "flag": [True]}, "input `n` holds -1, which UINT8 cannot"),
            (Small, {"n": [1], "flag": np.array([2])}, "input `flag` holds 2, which BOOL cannot"),
            (Matrix, {"x": np.array([1j, 0, 0, 0])}, "an array of complex128"),
            (Matrix, {"x": 1j}, "input `x` holds a value of type complex, and the model wants FP32"),
            (Whole, {"n": [1, object()]}, "input `n` holds a value of type object, and the model wants INT64"),
            (Raw, {"image": {"a", "b"}}, "input `image` holds a value of type set, and the model wants BYTES"),
            (Matrix, {"x": [{"k": object()}]}, "input `x` holds a value of type dict, and the model wants FP32"),
            (Raw, {"image": [{(1, 2): 3}]}, "input `image` is no JSON: keys must be"),
            (Raw, {"image": io.BytesIO(b"a")}, "an open file is no value: read it first"),
            (Raw, {"image": Picture()}, "input `image` is an image.*send its file, as in"),
            (Raw, {"image": {"k": object()}}, "input `image` holds a value of type object, which JSON cannot"),
            (Matrix, {"x": [[1, 2, 3, 4], [5]]}, "input `x` is a list whose parts have different lengths"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(ValueError, words):
                self.server(model).predict(**given)
        # Where the value is in a list, the server says so.
        for model, given, words in [
            (Matrix, {"x": [1, 1e300, 0, 0]}, "FP32"),
            (Matrix, {"x": [1, "a", 0, 0]}, "`x`"),
            (Matrix, {"x": [10**400, 0, 0, 0]}, "`x`"),
            (Whole, {"n": [2**70]}, "not a whole number"),
            (Whole, {"n": [2.5]}, "not a whole number"),
            (Small, {"n": [300], "flag": [True]}, "from 0 to 255"),
            (Raw, {"image": [1.5]}, "image"),
            (Matrix, {"x": [1, 2, 3]}, r"\[3\]"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(modelway.ServerError, words) as raised:
                self.server(model).predict(**given)
            self.assertEqual(raised.exception.status, 400)

    def test_values_at_the_edge_of_a_datatype_pass(self):
        self.check(Whole, 2**63 - 1, n=np.array(2**63 - 1))
        self.check(Whole, -(2**63), n=-(2**63))
        self.check(Small, np.uint8([0, 255]), n=np.array([0.0, 255.0]), flag=np.array([0, 1]))
        self.check(Half, 65504.0, x=np.float64(65504))
        self.check(Half, np.float16([0.5]), x=np.array([0.5]))
        largest = float(np.finfo(np.float32).max)
        self.check(Matrix, np.float32([largest, 0, 0, 0]), np.array([largest, 0, 0, 0]))

    def test_infer_takes_the_same_values(self):
        client = self.server(Matrix).client
        np.testing.assert_array_equal(client.infer("matrix", {"x": np.ones((2, 4))})["output"], np.ones((2, 4)))
        np.testing.assert_array_equal(client.infer("matrix", {"x": [1, 2, 3, 4]}, version=1)["output"], [[1, 2, 3, 4]])

    def test_a_stream_takes_and_gives_the_same_values(self):
        server = self.server(Stream)
        pieces = list(server.client.stream("stream", np.array([1.0, math.nan]), times=3))
        np.testing.assert_array_equal(pieces, np.float32([[0, math.nan], [1, math.nan], [2, math.nan]]))
        self.assertEqual(list(server.client.stream("stream", x=1, parameters={"times": 1})), [0.0])

    def test_without_numpy_the_values_are_the_same(self):
        script = """
import math, sys
import modelway
matrix, raw, odd, whole = (modelway.Client(url) for url in sys.argv[1:])
assert matrix.predict("matrix", [1, 2, None, 4])[1] == 2.0
assert math.isnan(matrix.predict("matrix", x=[1, 2, float("nan"), 4])[2])
assert matrix.predict("matrix", [[1, 2, 3, 4]] * 2) == [[1.0, 2.0, 3.0, 4.0]] * 2
assert raw.predict("raw", b"\\xff\\x00") == b"\\xff\\x00"
assert raw.predict("raw", ["a", b"\\xff"]) == ["a", b"\\xff"]
made = odd.predict("odd", text="a")
assert math.isnan(made["total"]) and made["parts"][2] == math.inf, made
assert whole.predict("whole", n=3, horizon=2) == 6
assert "numpy" not in sys.modules
"""
        urls = [self.server(model).url for model in (Matrix, Raw, Odd, Whole)]
        source = os.path.join(os.path.dirname(modelway.__file__), "..")
        # Without the packages that are installed.
        ran = subprocess.run([sys.executable, "-S", "-c", script, *urls], env={**os.environ, "PYTHONPATH": source}, timeout=60)
        self.assertEqual(ran.returncode, 0)


@unittest.skipIf(pd is None, "pandas is not installed")
class AskedWithPandas(Asking):
    def test_tables_columns_and_rows(self):
        table = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False], "d": [0, 0]})
        wanted = np.float32([[1, 0.5, 1, 0], [2, 1.5, 0, 0]])
        for given in (table, table.to_numpy(), [table.iloc[0], table.iloc[1]]):
            self.check(Matrix, wanted, given)
            self.check(Matrix, wanted, x=given)
        self.check(Matrix, wanted[0], table.iloc[0])
        self.check(Matrix, wanted[0], x=table.iloc[0])
        self.check(Whole, np.int64([1, 2]), n=table["a"])
        self.check(Whole, np.int64([1, 2]), table["a"].astype(float))
        self.check(Column, np.float64([1, 2]), table["a"])
        people = pd.DataFrame({"age": [36, 7], "name": ["Ada", "Bob"]})
        answers = np.array(["Ada 36", "Bob 7"], object)
        self.check(Person, answers, people)
        self.check(Person, answers, name=people["name"], age=people["age"])
        self.check(Person, answers, people.to_dict("list"))
        self.check(Person, answers, people.to_dict("records"))
        self.check(Person, answers, people.itertuples(index=False))
        self.check(Person, answers, people.astype({"age": "Int64", "name": "category"}))
        self.check(Person, "Ada 36", people.iloc[0])
        self.check(Person, "Ada 36", **people.iloc[0])
        missing = pd.DataFrame({"age": pd.array([36, None], "Int64"), "name": ["Ada", "Bob"]})
        self.check(Person, np.array(["Ada 36", "Bob nan"], object), missing)
        times = pd.Series(pd.to_datetime(["2024-01-31 12:00"]))
        self.assertTrue(self.server(Raw).predict(times)[0].startswith("2024-01-31T12:00:00"))
        self.check(Raw, "2024-01-31T12:00:00+01:00", pd.Timestamp("2024-01-31 12:00", tz="Europe/Berlin"))
        with self.assertRaisesRegex(modelway.ServerError, "no input `city`"):
            self.server(Person).predict(people.assign(city="Bonn"))


if __name__ == "__main__":
    unittest.main()

"""Models that are a Python class: what their hints say, and how they are run."""

import json
import textwrap
import typing
import unittest

import numpy as np

from classes import answers, opened, specs, texts
from modelway import InvalidInput


class Signatures(unittest.TestCase):
    def check(self, body, inputs, outputs, rows=True, streams=False):
        model = opened("class M(AbstractModel):\n" + textwrap.indent(textwrap.dedent(body), "    "))
        self.assertEqual(specs(model), [inputs, outputs])
        self.assertEqual((model.rows, model.streams), (rows, streams))

    def test_the_hints_are_the_signature(self):
        self.check(
            "def predict(self, text: str, age: int) -> float: ...",
            [("text", "BYTES", [-1]), ("age", "INT64", [-1])],
            [("output", "FP64", [-1])],
        )
        self.check(
            "def predict(self, texts: list[str]) -> List[bool]: ...",
            [("texts", "BYTES", [-1])],
            [("output", "BOOL", [-1])],
        )
        self.check(
            'def predict(self, x: Tensor["FP32", -1, 4], y: Tensor["INT8", -1]) -> Tensor["FP32", -1, 2]: ...',
            [("x", "FP32", [-1, 4]), ("y", "INT8", [-1])],
            [("output", "FP32", [-1, 2])],
        )
        self.check(
            'def predict(self, x: Annotated[np.ndarray, Tensor("FP32", [2, 4])]) -> list[list[float]]: ...',
            [("x", "FP32", [2, 4])],
            [("output", "FP64", [-1, -1])],
            rows=False,
        )
        self.check(
            "def predict(self, x: list[list[float]], names: Sequence[tuple[str, ...]]) -> list[int]: ...",
            [("x", "FP64", [-1, -1]), ("names", "BYTES", [-1, -1])],
            [("output", "INT64", [-1])],
        )
        self.check(
            'def predict(self, text: str) -> Tensor["FP32", 3]: ...',
            [("text", "BYTES", [-1])],
            [("output", "FP32", [-1, 3])],
        )

    def test_new_names_and_remarks_in_a_hint_change_nothing(self):
        body = """
            def predict(self, x: list[Annotated[NewType("Id", int), "a remark"]]) -> Annotated[list[float], []]:
                return x
        """
        self.check(body, [("x", "INT64", [-1])], [("output", "FP64", [-1])])

    def test_the_fields_of_a_typed_dict_may_say_whether_they_are_required(self):
        remarks = """
            class Answer(TypedDict, total=False):
                label: Marked[str]
            class M(AbstractModel):
                def predict(self, x: str) -> Answer: ...
        """
        for name in ("Required", "NotRequired"):
            if hasattr(typing, name):
                model = opened(textwrap.dedent(remarks).replace("Marked", name))
                self.assertEqual(specs(model)[1], [("label", "BYTES", [-1])])

    def test_a_name_that_occurs_within_itself_is_any_value(self):
        # As `type Json = …` makes one since Python 3.12.
        body = """
            def predict(self, x: Json) -> Json:
                return x
        """
        alias = """
            class TypeAliasType:
                def __call__(self): ...
            Json = TypeAliasType()
            Json.__value__ = Union[dict[str, Json], list[Json], str, float, None]
        """
        model = opened(textwrap.dedent(alias) + "\nclass M(AbstractModel):" + body)
        self.assertEqual(specs(model), [[("x", "BYTES", [-1])], [("output", "BYTES", [-1])]])

    def test_specs_in_the_class_say_what_hints_do_not(self):
        body = """
            inputs = [TensorSpec("features", "FP32", [-1, 4])]
            outputs = [TensorSpec("label", "INT64", [-1])]
            {}
            def predict(self, features: np.ndarray) -> np.ndarray: ...
        """
        for batch, rows in [("", True), ("batch = False", False), ("batch = True", True)]:
            self.check(body.format(batch), [("features", "FP32", [-1, 4])], [("label", "INT64", [-1])], rows)

    def test_several_outputs_are_a_namedtuple_a_dataclass_or_a_typeddict(self):
        for base in ("class A(NamedTuple)", "@dataclasses.dataclass\nclass A", "class A(TypedDict)"):
            made = {
                "class A(TypedDict)": '{"label": text, "score": 0.5}',
            }.get(base, "A(text, 0.5)")
            model = opened(
                f"{base}:\n    label: str\n    score: float\n"
                f"class M(AbstractModel):\n    def predict(self, text: str) -> A:\n        return {made}\n"
            )
            self.assertEqual(specs(model)[1], [("label", "BYTES", [-1]), ("score", "FP64", [-1])])
            self.assertEqual(answers(model, text=texts("a", "b")), [{"label": [b"a", b"b"], "score": [0.5, 0.5]}])

    def test_a_generator_streams_one_text_at_a_time(self):
        for kind in ("def", "async def"):
            for hint in ("str", "Iterator[str]" if kind == "def" else "AsyncIterator[str]"):
                self.check(
                    f"{kind} predict(self, text: str) -> {hint}:\n    yield text",
                    [("text", "BYTES", [1])],
                    [("output", "BYTES", [1])],
                    rows=False,
                    streams=True,
                )


class Runs(unittest.TestCase):
    def test_text_is_answered_row_by_row(self):
        model = opened("class M(AbstractModel):\n    def predict(self, text: str) -> str:\n        return text.upper()")
        self.assertEqual(answers(model, text=texts("a", "ü")), [{"output": [b"A", "Ü".encode()]}])
        self.assertEqual(answers(model, text=texts()), [{"output": []}])
        with self.assertRaisesRegex(InvalidInput, "input `text`, row 1, is not UTF-8"):
            answers(model, text=texts("a", b"\xff"))

    def test_a_list_for_each_row_is_a_list_of_lists(self):
        model = opened(
            """
            class M(AbstractModel):
                def predict(self, x: list[list[float]], words: list[list[str]]) -> list[list[str]]:
                    assert type(x) is list and type(x[0]) is list and type(x[0][0]) is float
                    return [[word * int(number) for word in row] for row, (number, *_) in zip(words, x)]
            """
        )
        words = np.array([[b"a", b"b"], [b"c", b"d"]], object)
        self.assertEqual(answers(model, x=np.array([[2.0, 0], [1, 0]]), words=words), [{"output": [[b"aa", b"bb"], [b"c", b"d"]]}])
        words[1, 1] = b"\xff"
        with self.assertRaisesRegex(InvalidInput, "input `words`, row 1, is not UTF-8"):
            answers(model, x=np.ones((2, 2)), words=words)

    def test_hints_that_are_no_tensor_are_json(self):
        for hint, value, form in [
            ("dict", {"a": [1, None]}, "dict"),
            ("Dict[str, float]", {}, "dict"),
            ("Mapping[str, Any]", {"a": 1}, "dict"),
            ("Person", {"name": "x"}, "dict"),
            ("Union[str, dict]", "a", "str"),
            ("Any", [1, [2]], "list"),
        ]:
            with self.subTest(hint):
                model = opened(
                    f"class Person(TypedDict):\n    name: str\n"
                    f"class M(AbstractModel):\n    def predict(self, x: {hint}) -> list[Any]:\n        return [x, type(x).__name__]"
                )
                self.assertEqual(specs(model), [[("x", "BYTES", [-1])], [("output", "BYTES", [-1])]])
                self.assertEqual((model.json, model.trials, model.rows), (["x"], False, True))
                (answer,) = model.predict({"x": texts(json.dumps(value))}, {})
                self.assertEqual(json.loads(answer["output"].texts[0]), [value, form])
        model = opened("class M(AbstractModel):\n    def predict(self, x: list[list[dict]]) -> str: ...")
        for text, words in [("{", "is not JSON"), ("{}", "is dict in JSON, and the model wants a list"), ("[" * 99999, "is not JSON"), (b"\xff", "is not JSON")]:
            with self.subTest(text[:3]), self.assertRaisesRegex(InvalidInput, "input `x`, row 1, " + words):
                list(model.predict({"x": texts("[]", text)}, {}))

    def test_what_is_returned_as_json_is_one_value_for_each_row(self):
        def run(hint, made, each=True):
            x, rows = ("str", "texts('a', 'b')") if each else ("list[str]", "")
            model = opened(
                f"class Answer(NamedTuple):\n    label: str\n    more: dict\n"
                f"@dataclasses.dataclass\nclass Point:\n    x: float\n"
                f"class M(AbstractModel):\n    def predict(self, x: {x}) -> {hint}:\n        return {made}"
            )
            (answer,) = model.predict({"x": texts("a", "b")}, {})
            return {name: [json.loads(t) for t in a.texts] if hasattr(a, "texts") else a.tolist() for name, a in answer.items()}

        self.assertEqual(run("dict", "{'a': np.int8(1), 2: np.array([0.5, np.nan])}"), {"output": [{"a": 1, "2": [0.5, None]}] * 2})
        self.assertEqual(run("list[dict]", "[{}] * len(x)"), {"output": [[{}]] * 2})
        self.assertEqual(run("list[dict]", "[{'x': i} for i in x]", False), {"output": [{"x": "a"}, {"x": "b"}]})
        self.assertEqual(run("list[Point]", "[Point(1.5), None]", False), {"output": [{"x": 1.5}, None]})
        self.assertEqual(run("list[Answer]", "[Answer(i, {}) for i in x]", False), {"output": [{"label": "a", "more": {}}, {"label": "b", "more": {}}]})
        self.assertEqual(run("Answer", "Answer(x, {'k': (1, 2)})"), {"label": [b"a", b"b"], "more": [{"k": [1, 2]}] * 2})
        self.assertEqual(run("Optional[list[float]]", "[1.0] if x == 'a' else None"), {"output": [[1.0], None]})
        self.assertEqual(run("list[Any]", "np.array([[1, 2], [3, 4]])", False), {"output": [[1, 2], [3, 4]]})
        self.assertEqual(run("dict", "{'all': x}", False), {"output": [{"all": ["a", "b"]}]})
        self.assertEqual(run("Optional[int]", "None if x == 'a' else 7"), {"output": [None, 7]})
        self.assertEqual(run("list[Optional[bool]]", "[None, np.True_]", False), {"output": [None, True]})
        self.assertEqual(run("list[list[Optional[str]]]", "[['a', None], ['b', 'c']]", False), {"output": ["a", None, "b", "c"]})
        self.assertEqual(run("list[Optional[int]]", "[1, None] if x == 'a' else [2, 3]"), {"output": [1, None, 2, 3]})
        self.assertEqual(run("int", "float('nan') if x == 'a' else 7"), {"output": [None, 7]})
        for hint, made, each, words in [
            ("dict", "{'a': object()}", True, "is no JSON: .*object, which JSON cannot hold"),
            ("list[dict]", "{}", False, "is a dict, and the model declares a list with a value for each row"),
            ("list[dict]", "[{}]", False, "has 1 rows for an input of 2"),
            ("list[float]", "[1.0] * (1 + (x == 'a'))", True, "hint it as Any, and its rows are JSON"),
        ]:
            with self.subTest(made), self.assertRaisesRegex(TypeError, words):
                run(hint, made, each)

    def test_an_optional_hint_is_an_input_that_may_be_left_out(self):
        for hint, spec in [
            ("Optional[float]", ("x", "FP64", [-1])),
            ("Optional[dict]", ("x", "BYTES", [-1])),
            ("Union[None, str]", ("x", "BYTES", [-1])),
        ]:
            model = opened(f"class M(AbstractModel):\n    def predict(self, a: str, x: {hint} = None) -> Any:\n        return x")
            self.assertEqual((specs(model)[0][1], model.optional, model.each_row), (spec, ["x"], True))
        for hint, spec in [
            ("Optional[list[float]]", ("x", "FP64", [-1])),
            ('Optional[Tensor["FP32", -1, 4]]', ("x", "FP32", [-1, 4])),
        ]:
            model = opened(f"class M(AbstractModel):\n    def predict(self, a: list[str], x: {hint}) -> list[Any]:\n        return [x is None] * len(a)")
            self.assertEqual((specs(model)[0][1], model.optional), (spec, ["x"]))
            (answer,) = model.predict({"a": texts("b")}, {})
            self.assertEqual(answer["output"].texts, ["true"])

    def test_an_input_with_a_default_may_be_left_out(self):
        model = opened("class M(AbstractModel):\n    def predict(self, a: str, n: int = 3) -> str:\n        return a * n")
        self.assertEqual(model.optional, ["n"])
        self.assertEqual(answers(model, a=texts("b")), [{"output": [b"bbb"]}])
        self.assertEqual(answers(model, a=texts("b"), n=np.array([2])), [{"output": [b"bb"]}])

    def test_parameters_of_inputs_reach_a_model_that_takes_them(self):
        model = opened(
            "class M(AbstractModel):\n    def predict(self, a: str, b: str, *, input_parameters) -> Any:\n        return input_parameters"
        )
        self.assertTrue(model.input_parameters)
        (answer,) = model.predict({"a": texts("x"), "b": texts("y")}, {}, {"a": {"unit": "cm"}})
        self.assertEqual(json.loads(answer["output"].texts[0]), {"a": {"unit": "cm"}, "b": {}})

    def test_an_input_that_is_left_out_is_none_or_the_models_own(self):
        model = opened("class M(AbstractModel):\n    def predict(self, a: str, b: str, c: str = 'own') -> str:\n        return f'{a}{b}{c}'")
        self.assertEqual(answers(model, a=texts("x", "y")), [{"output": [b"xNoneown", b"yNoneown"]}])
        self.assertEqual(answers(model, b=texts("x"), c=texts("z")), [{"output": [b"Nonexz"]}])
        self.assertEqual(answers(model), [{"output": [b"NoneNoneown"]}])

    def test_loading_finds_the_files_beside_the_model(self):
        model = opened(
            """
            from beside import SUFFIX
            class M(AbstractModel):
                def load(self):
                    self.word = (self.folder / "word.txt").read_text()
                def predict(self, text: str) -> str:
                    return text + self.word + SUFFIX
            """,
            **{"word.txt": "!", "beside.py": "SUFFIX = '?'"},
        )
        self.assertEqual(answers(model, text=texts("a")), [{"output": [b"a!?"]}])

    def test_arrays_are_cast_only_where_nothing_but_precision_is_lost(self):
        def run(made, datatype="FP32", shape="-1"):
            model = opened(
                f"""
                class M(AbstractModel):
                    def predict(self, x: Tensor["FP32", -1]) -> Tensor["{datatype}", {shape}]:
                        return {made}
                """
            )
            (answer,) = model.predict({"x": np.ones(2, np.float32)}, {})
            return answer["output"]

        self.assertEqual(run("x.astype('float64')").dtype, np.float32)
        self.assertEqual(run("[1, 2]", "INT8").tolist(), [1, 2])
        # A number that is missing is NaN.
        self.assertEqual(str(run("[1.5, None]").tolist()), "[1.5, nan]")
        self.assertEqual(str(run("[[None, np.int64(2)], [0.5, 1]]", "FP64", "-1, 2").tolist()), "[[nan, 2.0], [0.5, 1.0]]")
        # So is what an array's mask hides.
        self.assertEqual(str(run("np.ma.masked_greater([1.5, 99], 9)").tolist()), "[1.5, nan]")
        self.assertEqual(run("np.ma.masked_greater([1, 99], 9)", "INT64").texts, ["1", "null"])
        self.assertEqual(run("np.ma.masked_equal(['a', 'b'], 'b')", "BYTES").texts, ['"a"', "null"])
        self.assertEqual(run("np.ma.masked_greater([1, 2], 9)", "INT8").tolist(), [1, 2])
        self.assertEqual(run("['a', b'b']", "BYTES").tolist(), [b"a", b"b"])
        for made, datatype, shape, words in [
            ("x", "INT64", "-1", "is float32, and the model declares INT64"),
            ("[1, 300]", "UINT8", "-1", "holds 300, which UINT8 cannot"),
            ("[-1, 3]", "UINT64", "-1", "holds -1, which UINT64 cannot"),
            ("[[1.0], [2.0]]", "FP32", "-1", r"has the shape \[2, 1\], and the model declares \[-1\]"),
            ("[1.0]", "FP32", "-1", "has 1 rows for an input of 2"),
            ("[1.5, None]", "INT64", "-1", "is float64, and the model declares INT64"),
            ("[1, None, '2']", "INT64", "-1", "and the model declares INT64"),
            ("[300, None]", "UINT8", "-1", "holds 300, which UINT8 cannot"),
            ("['a', {}]", "BYTES", "-1", "holds a dict, .* hint it as dict or Any, and it is JSON"),
            ("[b'\\xff', None]", "BYTES", "-1", "bytes that are no text beside a missing value"),
            ("[1.0, '2']", "FP32", "-1", "and the model declares FP32"),
            ("np.array([1.0, True], object)", "FP32", "-1", "is object, and the model declares FP32"),
            ("[1.0, 2.0]", "BYTES", "-1", "holds a float, and the model declares text"),
        ]:
            with self.subTest(made), self.assertRaisesRegex(TypeError, words):
                run(made, datatype, shape)

    def test_what_comes_back_is_held_against_what_is_declared(self):
        body = """
            class M(AbstractModel):
                outputs = [TensorSpec("a", "FP32", [-1]), TensorSpec("b", "FP32", [-1])]
                def predict(self, x: Tensor["FP32", -1]):
                    return {}
        """
        x = np.ones(2, np.float32)
        self.assertEqual(answers(opened(body.format('{"b": x, "a": 2 * x}')), x=x), [{"a": [2, 2], "b": [1, 1]}])
        self.assertEqual(answers(opened(body.format("x, 3 * x")), x=x), [{"a": [1, 1], "b": [3, 3]}])
        for made, words in [
            ('{"a": x}', "did not return `b`"),
            ('{"a": x, "b": x, "c": x}', "returned `c`, which the model does not declare in `outputs`"),
            ("None", "returned a NoneType, and the model declares the outputs `a`, `b`"),
        ]:
            with self.subTest(made), self.assertRaisesRegex(TypeError, words):
                answers(opened(body.format(made)), x=x)

    def test_async_rows_run_concurrently(self):
        model = opened(
            """
            import asyncio
            class M(AbstractModel):
                async def load(self):
                    self.here, self.all = 0, asyncio.Event()
                async def predict(self, text: str) -> str:
                    self.here += 1
                    if self.here == 2:
                        self.all.set()
                    await asyncio.wait_for(self.all.wait(), 30)
                    return text
            """
        )
        self.assertEqual(answers(model, text=texts("a", "b")), [{"output": [b"a", b"b"]}])

    def test_a_stream_gives_each_piece_and_is_closed_when_nobody_reads_on(self):
        for kind in ("def", "async def"):
            model = opened(
                f"""
                class M(AbstractModel):
                    closed = False
                    {kind} predict(self, text: str) -> str:
                        try:
                            for word in text.split():
                                yield word
                        finally:
                            M.closed = True
                """
            )
            made = answers(model, text=texts("once upon a time"))
            self.assertEqual([answer["output"] for answer in made], [[b"once"], [b"upon"], [b"a"], [b"time"]])
            type(model.model).closed = False
            stream = model.predict({"text": texts("once upon")}, {})
            next(stream)
            stream.close()
            self.assertTrue(type(model.model).closed, kind)

    def test_parameters_reach_the_model(self):
        model = opened(
            """
            class M(AbstractModel):
                def predict(self, text: str, parameters: dict, *, scale: float, mark: str = "!") -> str:
                    return f"{text}{scale}{mark}{len(parameters)}"
            """
        )
        self.assertEqual(answers(model, {"scale": 2, "other": 1}, text=texts("a")), [{"output": [b"a2.0!2"]}])
        with self.assertRaisesRegex(InvalidInput, "the parameter `scale` is missing"):
            answers(model, text=texts("a"))
        with self.assertRaisesRegex(InvalidInput, "the parameter `mark` is 7, and the model wants str"):
            answers(model, {"scale": 1.0, "mark": 7}, text=texts("a"))

    def test_parameters_are_held_to_their_hints(self):
        for hint, value, wanted in [
            ("Optional[int]", 3, "3"),
            ("Optional[int]", None, "None"),
            ("Literal['a', 'b']", "b", "'b'"),
            ("Literal[1, True]", True, "True"),
            ("Union[int, str]", "x", "'x'"),
            ("Optional[float]", 2, "2.0"),
            ("Annotated[int, []]", 2, "2"),
            ("NewType('Id', int)", 2, "2"),
            ("list[float]", "[1, 2.5]", "[1.0, 2.5]"),
            ("Union[str, list[str]]", '["a", "b"]', "['a', 'b']"),
            ("Union[str, list[str]]", "[1]", "'[1]'"),
            ("tuple[int, str]", '[1, "a"]', "(1, 'a')"),
            ("Optional[Annotated[NewType('Id', int), 'a remark']]", 2, "2"),
            ("str", "[1]", "'[1]'"),
            ("float", float("inf"), "inf"),
            ("Optional[list]", "[]", "[]"),
            ("dict[str, int]", '{"a": 1}', "{'a': 1}"),
            ("object", "x", "'x'"),
            ("bytes", "é", r"b'\xc3\xa9'"),
            ("Optional[bytes]", '{"b64": "/wA="}', r"b'\xff\x00'"),
            ("bytes", '{"a": 1}', """b'{"a": 1}'"""),
            ("Union[str, bytes]", "a", "'a'"),
            ("list[bytes]", '["a", {"b64": "YQ=="}]', "[b'a', b'a']"),
        ]:
            with self.subTest(hint=hint, value=value):
                head = f"from typing import *\nHint = {hint}\n"
                model = opened(f"{head}class M(AbstractModel):\n    def predict(self, text: str, *, k: Hint = None) -> str:\n        return repr(k)")
                self.assertEqual(answers(model, {"k": value}, text=texts("a")), [{"output": [wanted.encode()]}])
        for hint, value, named in [
            ("Optional[int]", "x", r"Optional\[int\]"),
            ("Optional[int]", True, r"Optional\[int\]"),
            ("Literal['a', 'b']", "c", r"Literal\['a', 'b'\]"),
            ("Literal[1, 2]", True, r"Literal\[1, 2\]"),
            ("Union[int, str]", 1.5, r"int \| str"),
            ("list[float]", "1, 2", r"list\[float\]"),
            ("list[float]", '{"a": 1}', r"list\[float\]"),
            ("dict", "[1]", "dict"),
            ("list[float]", '["a"]', r"list\[float\]"),
            ("list", "[" * 100_000, "list"),
            ("list[float]", f"[1{'0' * 400}]", r"list\[float\]"),
            ("Optional[float]", int("1" + "0" * 400), r"Optional\[float\]"),
            ("tuple[int, int]", "[1]", r"tuple\[int, int\]"),
            ("dict[str, int]", '{"a": "b"}', r"dict\[str, int\]"),
            ("bytes", 5, "bytes"),
            ("list[bytes]", '[{"b64": "?"}]', r"list\[bytes\]"),
        ]:
            with self.subTest(hint=hint, value=value):
                head = f"from typing import *\nHint = {hint}\n"
                model = opened(f"{head}class M(AbstractModel):\n    def predict(self, text: str, *, k: Hint = None) -> str: ...")
                with self.assertRaisesRegex(InvalidInput, f"the parameter `k` is .*, and the model wants {named}$"):
                    answers(model, {"k": value}, text=texts("a"))

    def test_features_stand_beside_the_outputs(self):
        model = opened(
            """
            class M(AbstractModel):
                features = [TensorSpec("length", "INT64", [-1])]
                def predict(self, text: str) -> Result[str]:
                    return Result(text, features={"length": len(text)} if text != "none" else {})
            """
        )
        self.assertEqual(specs(model)[1], [("output", "BYTES", [-1]), ("features.length", "INT64", [-1])])
        made = answers(model, text=texts("a", "bcd"))
        self.assertEqual(made, [{"output": [b"a", b"bcd"], "features.length": [1, 3]}])
        self.assertEqual(answers(model, text=texts("none")), [{"output": [b"none"]}])
        self.assertEqual(answers(model, text=texts("none", "a")), [{"output": [b"none", b"a"]}])

    def test_inputs_of_different_lengths_are_the_callers_fault(self):
        model = opened("class M(AbstractModel):\n    def predict(self, a: str, b: str) -> str: ...")
        with self.assertRaisesRegex(InvalidInput, "`a` has 2, `b` has 1"):
            answers(model, a=texts("x", "y"), b=texts("z"))


if __name__ == "__main__":
    unittest.main()

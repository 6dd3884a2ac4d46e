"""Models that are a Python class: what their mistakes are told as."""

import re
import unittest

from classes import opened
from modelway import ModelError, _worker
from modelway._models import open_model


class Mistakes(unittest.TestCase):
    def check(self, body, words):
        with self.subTest(body), self.assertRaisesRegex(ModelError, words):
            opened(body)

    def method(self, signature, words):
        self.check(f"class M(AbstractModel):\n    def predict(self{signature}: ...", words)

    def test_the_class_is_found_or_its_want_is_told(self):
        self.check("x = 1", "has no subclass of modelway.AbstractModel$")
        self.check("class M:\n    def predict(self, text: str) -> str: ...", "let `M` extend it, as in `class M.Abs")
        two = "class {}(AbstractModel):\n    def predict(self, text: str) -> str: ...\n"
        self.check(two.format("M") + two.format("N"), r"more than one subclass of AbstractModel \(M, N\)")
        model = opened(two.format("Base") + "class M(Base): ...")
        self.assertEqual(type(model.model).__name__, "M")
        with self.assertRaisesRegex(ModelError, "nowhere.py is not there"):
            open_model("class", "/nowhere.py")

    def test_a_signature_that_is_not_understood_names_the_parameter(self):
        self.check("class M(AbstractModel): ...", "M has no method `predict`")
        self.method(") -> str", "takes no input")
        self.method(", x) -> str", "`x` has no type hint")
        self.method(", x: np.ndarray) -> str", r'`x` is an array of unknown .* `inputs = \[TensorSpec\("x"')
        self.method(", x: set) -> str", "`x: set` is nothing that a request can carry")
        self.method(", *x: str) -> str", r"`\*x: .*` does not say which inputs")
        self.method(", x: str, y: list[str]) -> str", "`x` is the value of one row and `y` is all rows")
        self.method(", x: str)", "does not say what it returns")
        self.method(", x: str) -> complex", "`complex` does not say what it returns")
        self.method(", x: Nothing) -> str", "its type hints cannot be read: name 'Nothing'")
        self.method(', x: Tensor["F32", -1]) -> str', "`x` has the datatype 'F32'; known are BOOL")
        self.method(', x: Tensor["FP32", -2]) -> str', r"`x` has the shape \[-2\]")
        self.check(
            'class M(AbstractModel):\n    inputs = [TensorSpec("y", "FP32", [-1])]\n    def predict(self, x: str) -> str: ...',
            "has no parameter `y`, which `M.inputs` declares",
        )
        self.check(
            'class M(AbstractModel):\n    batch = True\n    def predict(self, x: Tensor["FP32", 4]) -> list[str]: ...',
            r"wants -1 as every first dimension, and `x` \(FP32, \[4\]\)",
        )

    def test_a_hint_that_is_no_tensor_names_the_one_that_is(self):
        for hint, better in [
            ("list", "list[float], a value for each row, or list[list[float]], a list for each row"),
            ("List", "list[list[float]]"),
            ("list[list]", "list[list[float]]"),
            ("np.float32", "hint it as float$"),
            ("list[np.int64]", r"hint it as list[int]$"),
            ("list[list[np.float64]]", "hint it as list[list[float]]$"),
            ("np.bool_", "hint it as bool$"),
            ("np.str_", "hint it as str$"),
            ("bytearray", "hint it as bytes$"),
            ("set[int]", "hint it as list[int]$"),
            ("Optional[set]", "hint it as list[float]"),
            ("list[Optional[float]]", "hint it as list[float], where a missing number is NaN"),
            ("np.typing.NDArray[np.int64]", 'hint it as Tensor["INT64", -1, 4], with its own'),
            ("list[np.ndarray]", 'hint it as Tensor["FP32", -1, 4]'),
            ("Literal['a', 'b']", "hint it as str$"),
            ("Literal[1, 2]", "hint it as int$"),
            ("datetime.datetime", "hint it as str$"),
            ("list[datetime.date]", "hint it as list[str]$"),
            ("decimal.Decimal", "hint it as float$"),
            ("Kind", "hint it as str$"),
            ("pathlib.Path", "hint it as str$"),
            ("Person", "take each of its fields as a parameter, as in `name: str, age: float`, or all of them as a `dict`"),
            ("list[list]", "or list[Any], where rows are JSON of any form"),
            ("tuple[str, float]", "parameters of their own, as in `name: str, age: float`"),
            ("DataFrame", "take each column as a parameter, as in `age: list[float], city: list[str]`"),
            ("Image", "take the file as `bytes`"),
            ("Tensor", 'hint it as Tensor["FP32", -1, 4]'),
            ("Union[int, float]", "hint it as float$"),
            ("Union[int, float, None]", "`x: int | float | None` is nothing that a request can carry: hint it as Optional[float]"),
            ("tuple[float, float]", "hint it as list[list[float]], a list for each row"),
            ("list[tuple[float, float]]", "hint it as list[list[float]]$"),
            ("object", "use str, int, bool, bytes, float (a value for each row), list[float]"),
            ("List", "hint it as list[float], a value for each row"),
            ("Iterator[str]", "hint it as list[str]$"),
            ("Deque[int]", "hint it as list[int]$"),
            ("Optional[set[int]]", "hint it as list[int]$"),
            ("list[Tensor['FP32', 4]]", '`x: list[Tensor["FP32", 4]]` is nothing that a request can carry: hint it as Tensor["FP32", -1, 4]'),
            ("np.datetime64", "hint it as str$"),
            ("datetime.timedelta", "hint it as float$"),
            ("Union[str, bytes]", "hint it as bytes$"),
            ("Union[bool, int]", "hint it as int$"),
            ("AnyStr", "hint it as str$"),
            ("complex", "use str, int"),
        ]:
            head = (
                "import datetime, decimal, enum, pathlib, numpy.typing\nclass DataFrame: ...\nclass Image: ...\n"
                "class Kind(enum.Enum):\n    A = 'a'\nclass Person(NamedTuple):\n    name: str\n"
            )
            words = re.escape(better.rstrip("$")) + "$" * better.endswith("$")
            self.check(f"{head}class M(AbstractModel):\n    def predict(self, x: {hint}) -> str: ...", words)
        for hint, better in [
            ("np.float32", "hint it as float"),
            ("list", "list[list[float]], a list for each row"),
            ("tuple[str, float]", "class Answer(NamedTuple): label: str; score: float"),
            ("np.ndarray", 'hint it as Tensor["FP32", -1, 4]'),
            ("Series", "hint it as list[float], a value for each row"),
            ("Iterator", "`Iterator` does not say what it yields: hint it, as in `-> Iterator[str]`"),
            ("AsyncGenerator", "does not say what it yields"),
            ("Awaitable[str]", "hint it as str"),
            ("Optional[Tensor['FP32', -1]]", 'hint it as Tensor["FP32", -1]'),
        ]:
            self.check(f"class Series: ...\nclass Answer(NamedTuple):\n    a: str\nclass M(AbstractModel):\n    def predict(self, x: str) -> {hint}: ...", re.escape(better))
        self.method(", x: str, y: list[str]) -> str", r"hint both alike, `x` as list\[str\]")
        self.method(', x: Tensor["float32", -1]) -> str', "known are .*: did you mean FP32")

    def test_what_loading_raises_is_passed_on(self):
        with self.assertRaisesRegex(FileNotFoundError, "weights.bin"):
            opened(
                """
                class M(AbstractModel):
                    def load(self):
                        open(self.folder / "weights.bin")
                    def predict(self, text: str) -> str: ...
                """
            )

    def test_a_package_that_is_missing_is_said_with_its_interpreter(self):
        words = _worker._not_installed("numpy", "Traceback ...")
        self.assertRegex(words, r"NumPy.*not installed for .*requirements.txt.*-m pip install numpy")
        self.assertNotIn("Traceback", words)
        words = _worker._not_installed("no_such_module", "Traceback ...")
        self.assertRegex(words, "no module `no_such_module` for .*python")
        self.assertIn("Traceback", words)
        self.assertEqual(_worker._not_installed("numpy.nothing", "its words"), "its words")


if __name__ == "__main__":
    unittest.main()

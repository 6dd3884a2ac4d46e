"""Hints are read before the environment is built: in an interpreter without any package, and running nothing of the model."""

import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

import modelway
from modelway import _check

HEAD = "from __future__ import annotations\nfrom typing import *\nfrom modelway import AbstractModel, Tensor, TensorSpec\n"


def fault(body, head=HEAD):
    file = Path(tempfile.mkdtemp(), "model.py")
    file.write_text(head + textwrap.dedent(body))
    return _check.fault(file)


class Checked(unittest.TestCase):
    def test_what_is_certainly_wrong_is_said(self):
        for body, words in [
            ("class M(AbstractModel):\n    def predict(self, x: set) -> str: ...", "hint it as list[float]"),
            ("class M(AbstractModel):\n    def predict(self, x) -> str: ...", "`x` has no type hint"),
            ("class M(AbstractModel):\n    def predict(self, x: str): ...", "does not say what it returns"),
            ("class M(AbstractModel):\n    def predict(self, x: Nothing) -> str: ...", "name 'Nothing' is not defined"),
            ("class M(AbstractModel):\n    pass", "M has no method `predict`"),
            ("import numpy as np\nclass M(AbstractModel):\n    def predict(self, x: np.ndarray) -> str: ...", "array of unknown"),
            ("import numpy as np\nclass M(AbstractModel):\n    def predict(self, x: np.float32) -> str: ...", "hint it as float"),
            ("import pandas as pd\nclass M(AbstractModel):\n    def predict(self, t: pd.DataFrame) -> str: ...", "each column"),
            ("from torch import Tensor as T\nclass M(AbstractModel):\n    def predict(self, t: T) -> str: ...", "from_numpy"),
            ('N = 4\nX = Tensor["F32", -1, N]\nclass M(AbstractModel):\n    def predict(self, x: X) -> str: ...', "datatype 'F32'"),
            ("class A(NamedTuple):\n    a: set\nclass M(AbstractModel):\n    def predict(self, x: str) -> A: ...", "its output `a`"),
            ("@dataclass\nclass A:\n    a: set = None\nclass M(AbstractModel):\n    def predict(self, x: str) -> A: ...", "its output `a`"),
            ("try:\n    import torch\nexcept ImportError:\n    torch = None\nclass M(AbstractModel):\n    def predict(self, x: Optional[set]) -> str: ...", "list[float]"),
            ('class M(AbstractModel):\n    inputs = [TensorSpec("y", "FP32", [-1])]\n    def predict(self, x: str) -> str: ...', "no parameter `y`"),
        ]:
            with self.subTest(body):
                self.assertIn(words, fault(body, HEAD + "from dataclasses import dataclass\n") or "nothing")

    def test_what_may_be_right_is_left_to_the_worker(self):
        for body in [
            "class M(AbstractModel):\n    def predict(self, x: list[list[float]]) -> list[float]: ...",
            "from beside import X\nclass M(AbstractModel):\n    def predict(self, x: X) -> str: ...",
            "from beside import *\nclass M(AbstractModel):\n    def predict(self, x: X) -> str: ...",
            "from .beside import np\nclass M(AbstractModel):\n    def predict(self, x: np.X) -> str: ...",
            "import beside\nclass M(AbstractModel):\n    def predict(self, x: beside.X) -> beside.Y: ...",
            "from beside import Answer\nclass M(AbstractModel):\n    def predict(self, x: str) -> Answer: ...",
            "from beside import Base\nclass M(Base, AbstractModel):\n    pass",
            "from beside import hinted\nclass M(AbstractModel):\n    @hinted\n    def predict(self, x) -> str: ...",
            "from beside import hinted\n@hinted\nclass M(AbstractModel):\n    def predict(self, x) -> str: ...",
            "def make():\n    return float\nX = make()\nclass M(AbstractModel):\n    def predict(self, x: X) -> str: ...",
            "for X in [float]: pass\nclass M(AbstractModel):\n    def predict(self, x: X) -> str: ...",
            "class M(AbstractModel):\n    inputs = [s for s in []]\n    def predict(self, x: object) -> str: ...",
            "import numpy as np\nfrom beside import specs\nclass M(AbstractModel):\n    inputs = specs\n    def predict(self, x: np.ndarray) -> str: ...",
            "class A(AbstractModel):\n    def predict(self, x): ...\nclass B(AbstractModel):\n    def predict(self, x): ...",
            "def (:",
            "x = 1",
        ]:
            with self.subTest(body):
                self.assertIsNone(fault(body))

    def test_nothing_of_the_model_is_run(self):
        mark = Path(tempfile.mkdtemp(), "mark")
        touch = f"open({str(mark)!r}, 'w').close()"
        fault(
            f"""
            import collections
            {touch}
            A = [{touch}]
            class Meta(type):
                def __new__(cls, *a, **k):
                    {touch}
                    return super().__new__(cls, *a, **k)
            class M(AbstractModel, metaclass=Meta):
                {touch}
                B = {touch}
                def predict(self, x: set = {touch}) -> str:
                    {touch}
            """
        )
        self.assertFalse(mark.exists())

    def test_it_runs_without_any_package(self):
        file = Path(tempfile.mkdtemp(), "model.py")
        file.write_text(HEAD + "import torch\nclass M(AbstractModel):\n    def predict(self, x: torch.Tensor) -> str: ...\n")
        source = Path(modelway.__file__).parent.parent
        code = f"import sys; sys.path.insert(0, {str(source)!r}); from modelway._check import main; sys.exit(main({str(file)!r}))"
        told = subprocess.run([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, text=True)
        self.assertEqual(told.returncode, 3)
        self.assertIn('Tensor["FP32", -1, 4]', told.stdout)


if __name__ == "__main__":
    unittest.main()

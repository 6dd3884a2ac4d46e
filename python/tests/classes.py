"""Models that are a Python class, for the tests of them."""

import tempfile
import textwrap
from pathlib import Path

import numpy as np

from modelway._models import open_model

HEAD = """
from __future__ import annotations
import dataclasses
from typing import *
import numpy as np
from modelway import *
"""


def opened(body, **files):
    """The model that this source is, opened as the server does."""
    folder = Path(tempfile.mkdtemp())
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "model.py").write_text(HEAD + textwrap.dedent(body))
    return open_model("class", str(folder))


def texts(*items):
    made = np.empty(len(items), object)
    made[:] = [item.encode() if isinstance(item, str) else item for item in items]
    return made


def answers(model, parameters=None, **inputs):
    return [
        {name: array.tolist() for name, array in answer.items()} for answer in model.predict(inputs, parameters or {})
    ]


def specs(model):
    return [[(spec.name, spec.datatype, spec.shape) for spec in side] for side in (model.inputs, model.outputs)]

"""Models that are a Python class: finds the class in its file.

A file is imported under a private name, with its folder on ``sys.path``, so that it may import what lies beside it
and never hides a package of its own name.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from . import _hints
from ._spec import ModelError, Opened

#: The file that a folder must have.
FILE = "model.py"
_MODULE = "_modelway_model"


def open_class(path: str) -> Opened:
    """Opens a ``.py`` file, or a folder with ``model.py``, that has one subclass of ``AbstractModel``."""
    # Training a model needs no NumPy, and running it does.
    from ._opened import OpenedClass

    file = file_of(Path(path))
    return OpenedClass(find(file)(), file.parent)


def file_of(path: Path) -> Path:
    """The Python file of the model at `path`."""
    path = path.resolve()
    return path / FILE if path.is_dir() else path


def find(file: Path) -> type:
    """The one subclass of ``AbstractModel`` that a file defines."""
    if not file.is_file():
        raise ModelError(f"{file} is not there: a Python model is a .py file, or a folder with {FILE}")
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(_MODULE, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"{file} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Type hints and dataclasses look their module up by its name.
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    own = [value for value in vars(module).values() if _hints.is_model(value) and value.__module__ == _MODULE]
    # A base class that others in the file extend is not the model.
    models = [model for model in dict.fromkeys(own) if not any(model in other.__mro__[1:] for other in own)]
    if len(models) == 1:
        return models[0]
    if models:
        names = ", ".join(model.__name__ for model in models)
        raise ModelError(f"{file} has more than one subclass of AbstractModel ({names}): keep one in each file")
    lookalike = next((name for name, value in vars(module).items() if _looks_like_one(value)), None)
    hint = f": let `{lookalike}` extend it, as in `class {lookalike}(AbstractModel):`" if lookalike else ""
    raise ModelError(f"{file} has no subclass of modelway.AbstractModel{hint}")


def _looks_like_one(value: Any) -> bool:
    return isinstance(value, type) and value.__module__ == _MODULE and callable(getattr(value, "predict", None))

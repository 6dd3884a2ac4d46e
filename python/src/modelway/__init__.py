"""Modelway's Python package: write a model, serve it, ask it.

    from modelway import AbstractModel

    class Shout(AbstractModel):
        def predict(self, text: str) -> str:
            return text.upper()

``modelway serve shout.py`` serves it, and so does ``modelway.serve(Shout)`` in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._model import AbstractModel, Result
from ._spec import InvalidInput, ModelError, Tensor, TensorSpec

if TYPE_CHECKING:
    from .client import Client, ServerError
    from .notebook import Server, serve

__all__ = [
    "AbstractModel",
    "Client",
    "InvalidInput",
    "ModelError",
    "Result",
    "Server",
    "ServerError",
    "Tensor",
    "TensorSpec",
    "serve",
]

# What a worker process never needs is imported when it is asked for.
_LATER = {"Client": "client", "ServerError": "client", "Server": "notebook", "serve": "notebook"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module `modelway` has no attribute `{name}`")

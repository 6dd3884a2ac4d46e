"""From a kind and a path to a model that predicts: the one place that knows every kind."""

from __future__ import annotations

from ._spec import ModelError, Opened


def open_model(kind: str, path: str) -> Opened:
    """Opens the model at `path`, loaded.

    kind: ``class``, a ``.py`` file or a folder with ``model.py`` that has a subclass of ``AbstractModel``, or
        ``mlflow``, a folder with an ``MLmodel`` file.

    Raises :class:`ModelError` where the model must be changed; whatever else its own code raises is passed on.
    """
    if kind == "class":
        from ._class import open_class

        return open_class(path)
    if kind == "mlflow":
        from ._mlflow import open_mlflow

        return open_mlflow(path)
    raise ModelError(f"there is no kind of Python model called {kind!r}")

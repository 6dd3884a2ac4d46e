"""From the protocol's arrays to the values that a model's hints ask for, and back.

What goes in was checked by the server. What comes out is checked here, because the model may return anything.
"""

from __future__ import annotations

from typing import Any, List, Sequence

import numpy as np

from ._spec import NUMPY_NAMES, InvalidInput, TensorSpec


class BadOutput(TypeError):
    """The model returned something that is not what it declares."""


def values(name: str, array: np.ndarray, text: bool) -> List[Any]:
    """An array as (nested) lists of Python values; ``bytes`` as ``str`` if `text`."""
    if text:
        decoded = np.empty(array.shape, object)
        try:
            decoded.ravel()[:] = [item.decode() for item in array.ravel().tolist()]
        except UnicodeDecodeError as error:
            row = next(row for row, part in enumerate(array) if not all(map(_is_utf8, np.ravel(part).tolist())))
            raise InvalidInput(f"input `{name}`, row {row}, is not UTF-8 text: {error.reason}") from None
        array = decoded
    return array.tolist()


def array(value: Any, spec: TensorSpec) -> np.ndarray:
    """What a model returned for `spec`, as an array of its datatype and with as many dimensions.

    Numbers are cast where nothing but precision is lost: never from a fraction to a whole number, never to a
    smaller range than their own values need.
    """
    if spec.datatype == "BYTES":
        made = _bytes(value, spec)
    else:
        made = _numbers(value, spec)
    if len(made.shape) != len(spec.shape) or any(
        wanted not in (-1, given) for wanted, given in zip(spec.shape, made.shape)
    ):
        raise BadOutput(f"output `{spec.name}` has the shape {list(made.shape)}, and the model declares {spec.shape}")
    return made


def stacked(rows: Sequence[Any], spec: TensorSpec) -> np.ndarray:
    """One value for each row as one array."""
    if len(spec.shape) == 1:
        return array(rows, spec)
    row = TensorSpec(spec.name, spec.datatype, spec.shape[1:])
    arrays = [array(value, row) for value in rows]
    if not arrays:
        return np.empty([0] + [max(size, 0) for size in row.shape], NUMPY_NAMES[spec.datatype])
    if any(one.shape != arrays[0].shape for one in arrays):
        shapes = sorted({str(list(one.shape)) for one in arrays})
        raise BadOutput(f"output `{spec.name}` has rows of different shapes ({', '.join(shapes)}), which is no tensor")
    return np.stack(arrays)


def _numbers(value: Any, spec: TensorSpec) -> np.ndarray:
    wanted = np.dtype(NUMPY_NAMES[spec.datatype])
    if type(value) is not np.ndarray:
        if hasattr(value, "detach"):
            # A PyTorch tensor that is part of a graph, or on a GPU, refuses to be an array.
            value = value.detach().cpu().numpy()
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise BadOutput(f"output `{spec.name}` is no array: {error}") from None
    if value.dtype.kind == "O" and wanted.kind == "f":
        value = _with_missing(value, wanted)
    given = value.dtype
    if given == wanted:
        return value
    if given.kind not in "biuf" or not np.can_cast(given, wanted, "same_kind"):
        if not (given.kind in "iu" and wanted.kind in "iu"):
            raise BadOutput(f"output `{spec.name}` is {given}, and the model declares {spec.datatype}")
    if wanted.kind in "iu" and value.size and not np.can_cast(given, wanted, "safe"):
        bounds = np.iinfo(wanted)
        low, high = int(value.min()), int(value.max())
        if low < bounds.min or high > bounds.max:
            beyond = low if low < bounds.min else high
            raise BadOutput(f"output `{spec.name}` holds {beyond}, which {spec.datatype} cannot")
    return value.astype(wanted)


def _with_missing(value: np.ndarray, wanted: np.dtype) -> np.ndarray:
    """Numbers of which some are None, which is NaN; the same array if there is anything else in it."""
    numbers = (int, float, np.integer, np.floating)
    right = all(item is None or (isinstance(item, numbers) and not isinstance(item, bool)) for item in value.ravel().tolist())
    return value.astype(wanted) if right else value


def _bytes(value: Any, spec: TensorSpec) -> np.ndarray:
    """Text as UTF-8, whatever holds it."""
    if isinstance(value, (str, bytes)):
        items, shape = [value], []
    elif isinstance(value, np.ndarray):
        items, shape = value.ravel().tolist(), value.shape
    elif isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple, np.ndarray)) for item in value):
        items, shape = value, [len(value)]
    else:
        nested = np.asarray(value, dtype=object)
        items, shape = nested.ravel().tolist(), nested.shape
    made = np.empty(len(items), object)
    for place, item in enumerate(items):
        if isinstance(item, str):
            made[place] = item.encode("utf-8", "surrogateescape")
        elif isinstance(item, bytes):
            made[place] = item
        else:
            raise BadOutput(f"output `{spec.name}` holds a {type(item).__name__}, and the model declares text (BYTES)")
    return made.reshape(shape)


def _is_utf8(item: bytes) -> bool:
    try:
        item.decode()
    except UnicodeDecodeError:
        return False
    return True

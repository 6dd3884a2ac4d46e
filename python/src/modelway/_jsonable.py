"""Values of Python, NumPy and pandas as JSON, with null for what is missing: None, NaN, NaT, NA."""

from __future__ import annotations

import base64
import json
import math
from typing import Any, List, Sequence

import numpy as np


#: Units of NumPy's times that have no time of day.
_DATES = ("Y", "M", "W", "D")


def text_of(value: Any) -> str:
    """JSON, with no line between its parts."""
    return json.dumps(value, separators=(",", ":"))


def jsonable(value: Any) -> Any:
    """What MLflow's server would write, with null for what is missing."""
    if value is None or isinstance(value, (str, bool, int)):
        return value if not isinstance(value, np.generic) else value.item()
    if isinstance(value, float):
        return _float(float(value))
    if isinstance(value, dict):
        return {_key(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return _of_array(unmasked(value))
    if isinstance(value, np.generic):
        return _of_scalar(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.encodebytes(value).decode("ascii")
    if is_frame(value):
        columns = [_key(name) for name in value.columns]
        cells = [_column(value.iloc[:, place]) for place in range(len(columns))]
        return [dict(zip(columns, row)) for row in zip(*cells)] if columns else [{} for _ in range(len(value))]
    if is_series(value):
        name = _key(0 if value.name is None else value.name)
        return [{name: item} for item in _column(value)]
    if is_missing(value):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "model_dump"):
        return jsonable(value.model_dump())
    if hasattr(value, "toarray"):
        return jsonable(value.toarray())
    if hasattr(value, "detach"):
        # A PyTorch tensor that is part of a graph, or on a GPU, refuses to be an array.
        return jsonable(value.detach().cpu().numpy())
    if hasattr(value, "to_numpy"):
        return jsonable(value.to_numpy())
    if type(value).__module__ == "decimal":
        return str(value)
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses

        return jsonable(dataclasses.asdict(value))
    raise TypeError(f"the model answered with a {type(value).__name__}, which JSON cannot hold")


def _key(name: Any) -> str:
    if name is None or isinstance(name, bool):
        return json.dumps(name)
    return name if isinstance(name, str) else str(name)


def _float(value: float) -> Any:
    if math.isfinite(value):
        return value
    # JSON has no numbers for these.
    return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _of_scalar(value: np.generic) -> Any:
    if value.dtype.kind in "mM":
        return None if np.isnat(value) else _moment(value)
    return jsonable(value.item())


def _moment(value: np.generic) -> str:
    """A time as pandas writes it, without what is nought at its end; of NumPy's days, months and years the date."""
    if value.dtype.kind == "M" and np.datetime_data(value.dtype)[0] in _DATES:
        return str(value.astype("datetime64[D]"))
    import pandas as pd

    kind = pd.Timestamp if value.dtype.kind == "M" else pd.Timedelta
    return str(kind(value).isoformat())


def _of_array(array: np.ndarray) -> Any:
    if array.dtype.kind in "mMO":
        flat = [jsonable(item) for item in (array.ravel() if array.dtype.kind != "O" else array.ravel().tolist())]
        return _nested(flat, array.shape)
    if array.dtype.kind == "S":
        return _nested([base64.encodebytes(item).decode("ascii") for item in array.ravel().tolist()], array.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _nested([_float(item) for item in array.ravel().tolist()], array.shape)
    return array.tolist()


def unmasked(array: np.ndarray) -> np.ndarray:
    """The array without NumPy's mask: what that hides is missing."""
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if array.dtype.names or not np.ma.is_masked(array):
        return array.data
    if array.dtype.kind == "f":
        return array.filled(np.nan)
    if array.dtype.kind in "mM":
        return array.filled(np.array("NaT", array.dtype))
    made = array.data.astype(object)
    made[np.ma.getmaskarray(array)] = None
    return made


def _nested(flat: List[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else [[] for _ in range(shape[0])]
    return flat


def _column(series: Any) -> List[Any]:
    """The cells of a column."""
    values = values_of(series)
    return _of_array(values) if values.dtype.kind != "O" else [jsonable(item) for item in values.tolist()]


def values_of(series: Any) -> np.ndarray:
    """A column as an array; pandas' own whole numbers and booleans stay what they are beside missing ones."""
    if isinstance(series.dtype, np.dtype) or not series.hasnans:
        return series.to_numpy()
    return series.to_numpy(object)


def is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "iloc")


def is_series(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "to_numpy")


def is_missing(value: Any) -> bool:
    """Whether pandas calls it missing, without asking pandas."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant")

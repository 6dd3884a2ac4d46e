"""What an MLflow model answered: as the tensors that its signature promises, or as whatever it is.

An answer that the signature describes is arrays and no more, which is the fast way. MLflow promises nothing: a model
may answer with other types, fewer rows, objects, or values that are missing. Such an answer describes itself: V1 gets
the JSON that MLflow's own server would write, V2 tensors with whatever datatypes the values have.

A value is missing where pandas says so: None, NaN, NaT, NA. It is null in JSON.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ._frames import Described, JsonArray
from ._jsonable import is_frame, is_series, jsonable, text_of, unmasked, values_of
from ._mlflow_flavors import ALONE, Made, word_of
from ._spec import NUMPY_NAMES, TensorSpec

#: Whole numbers up to here are exact in a float.
_EXACT = {"FP16": 1 << 11, "FP32": 1 << 24, "FP64": 1 << 53}


def typed(made: Made, outputs: List[TensorSpec], rows: Optional[int]) -> Optional[Dict[str, np.ndarray]]:
    """The answer as the signature has it; ``None`` if that would change a value, or V1 could not tell what it was."""
    value = made.predictions
    if made.probabilities is not None:
        if len(outputs) != 2:
            return None
        values = [value, made.probabilities]
    elif is_frame(value):
        if len(outputs) < 2 or [str(name) for name in value.columns] != [spec.name for spec in outputs]:
            return None
        values = [values_of(value.iloc[:, place]) for place in range(len(outputs))]
    elif isinstance(value, (np.ndarray, list)) and len(outputs) == 1:
        values = [value]
    else:
        return None
    arrays = {}
    for one, spec in zip(values, outputs):
        array = _array(one)
        fitted = None if array is None else _as(array, spec)
        if fitted is None or (rows is not None and len(fitted) != rows):
            return None
        arrays[spec.name] = fitted
    return arrays


def described(made: Made, outputs: List[TensorSpec], v1: bool, v2: bool, ignored: Sequence[str] = ()) -> Described:
    """The answer as whatever it is."""
    document = None
    if v1:
        said = {"predictions": jsonable(made.predictions)}
        if made.probabilities is not None:
            said["probabilities"] = jsonable(made.probabilities)
        document = text_of(said)
    return Described(tensors(made, outputs) if v2 else {}, document, False, ignored)


def whole(value: Any) -> Described:
    """The answer to a request that is not in one of MLflow's forms: the value and nothing around it."""
    return Described({}, text_of(jsonable(value)), True, ())


def _array(value: Any) -> Optional[np.ndarray]:
    """Nested lists of values of one kind as an array; ``None`` if they are no such lists."""
    if isinstance(value, np.ndarray):
        return unmasked(value)
    if not isinstance(value, list):
        return None
    kinds: set = set()
    if not _kinds(value, kinds, 0) or len(kinds) > 1:
        return None
    try:
        array = np.asarray(value, object if kinds == {"s"} else None)
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind == "f" and any(isinstance(item, int) and abs(item) > _EXACT["FP64"] for item in value):
        return None
    return array if array.dtype.kind in "biufO" else None


def _kinds(value: Any, kinds: set, depth: int) -> bool:
    """Collects what kinds of values there are. ``False``: one of them is of none that an array holds."""
    if depth > 32:
        return False
    for item in value:
        if isinstance(item, list):
            if not _kinds(item, kinds, depth + 1):
                return False
        elif isinstance(item, (bool, np.bool_)):
            kinds.add("b")
        elif isinstance(item, (int, float, np.integer, np.floating)):
            kinds.add("f")
        elif isinstance(item, str):
            kinds.add("s")
        elif isinstance(item, np.ndarray) and item.dtype.kind in "biuf":
            kinds.add("b" if item.dtype.kind == "b" else "f")
        else:
            return False
    return True


def _as(array: np.ndarray, spec: TensorSpec) -> Optional[np.ndarray]:
    """The array in a datatype and shape; ``None`` if it does not fit, or a value would change."""
    wanted, shape = spec.datatype, array.shape
    if len(shape) != len(spec.shape) or any(size not in (-1, given) for size, given in zip(spec.shape, shape)):
        return None
    if wanted == "BYTES":
        return _texts(array)
    dtype = np.dtype(NUMPY_NAMES[wanted])
    kind = array.dtype.kind
    if array.dtype == dtype:
        return array
    if kind not in "iuf" or dtype.kind == "b":
        return array.astype(dtype) if kind == dtype.kind == "b" else None
    if np.can_cast(array.dtype, dtype, "safe") and (kind == "f" or dtype.kind != "f"):
        return array.astype(dtype)
    if not array.size:
        return array.astype(dtype)
    if dtype.kind == "f":
        if kind != "f" and np.abs(array.astype(np.float64)).max() <= _EXACT[wanted]:
            return array.astype(dtype)
        return None
    if kind == "f":
        return None
    bounds = np.iinfo(dtype)
    return array.astype(dtype) if bounds.min <= int(array.min()) and int(array.max()) <= bounds.max else None


def _texts(array: np.ndarray) -> Optional[np.ndarray]:
    if array.dtype.kind == "U":
        array = array.astype(object)
    if array.dtype.kind != "O" or any(type(item) is not str for item in array.ravel().tolist()):
        return None
    return array


def tensors(made: Made, outputs: List[TensorSpec]) -> Dict[str, Any]:
    """The answer as tensors with the datatypes that the values have."""
    value, declared = made.predictions, {spec.name: spec for spec in outputs}
    if made.probabilities is not None:
        return {ALONE: _tensor(value, None), "probabilities": _tensor(made.probabilities, None)}
    if is_frame(value):
        names = [str(name) for name in value.columns]
        return {
            name: _tensor(values_of(value.iloc[:, place]), declared.get(name)) for place, name in enumerate(names) if name
        }
    name = outputs[0].name if len(outputs) == 1 else made.name
    if is_series(value):
        own = name if value.name is None else str(value.name)
        return {own: _tensor(values_of(value), declared.get(own))}
    if isinstance(value, dict) and value and all(isinstance(key, str) and key for key in value):
        if all(isinstance(item, np.ndarray) for item in value.values()) or set(value) == set(declared):
            return {key: _tensor(item, declared.get(key)) for key, item in value.items()}
    return {name: _tensor(value, declared.get(name))}


def _tensor(value: Any, spec: Optional[TensorSpec]) -> Any:
    """An array, or JSON values where no array says the same."""
    if hasattr(value, "toarray"):
        value = value.toarray()
    array = _array(value)
    if array is None:
        # A list is a tensor of its items, and anything else is one item.
        items = value if isinstance(value, (list, tuple)) else [value]
        return _json_array([jsonable(item) for item in items], (len(items),), spec)
    if array.dtype.kind in "biuf":
        if array.dtype.name not in NUMPY_NAMES.values():
            array = array.astype(np.float64)
        fitted = None if spec is None else _as(array, spec)
        return array if fitted is None else fitted
    texts = _texts(array)
    if texts is not None:
        return texts
    if array.dtype.kind == "S" or (array.dtype.kind == "O" and all(type(v) is bytes for v in array.ravel().tolist())):
        return array.astype(object)
    items = array.ravel() if array.dtype.kind != "O" else array.ravel().tolist()
    return _json_array([jsonable(item) for item in items], array.shape, spec)


def _json_array(items: List[Any], shape: Sequence[int], spec: Optional[TensorSpec]) -> Any:
    there = [item for item in items if item is not None]
    kinds = {bool if isinstance(item, bool) else type(item) for item in there}
    if kinds <= {int, float} and kinds and (float in kinds or (spec is not None and spec.datatype in _EXACT)):
        # Floats have a value for what is missing.
        return np.array([math.nan if item is None else item for item in items], np.float64).reshape(shape)
    if not there and spec is not None and spec.datatype in _EXACT:
        return np.full(shape, math.nan)
    datatype = {frozenset([bool]): "BOOL", frozenset([int]): "INT64", frozenset([str]): "BYTES"}.get(frozenset(kinds))
    if not there:
        datatype = spec.datatype if spec is not None else "BYTES"
    if len(there) == len(items) and datatype is not None:
        try:
            return np.array(items, NUMPY_NAMES[datatype]).reshape(shape)
        except OverflowError:
            datatype = None
    return JsonArray(datatype, tuple(shape), [text_of(item) for item in items])


def spec_of(name: str, value: Any, rows: int) -> TensorSpec:
    """What a tensor of a trial says of later ones."""
    shape = list(value.shape)
    if shape and shape[0] == rows:
        shape[0] = -1
    return TensorSpec(name, value.datatype or "BYTES" if isinstance(value, JsonArray) else word_of(value.dtype), shape)

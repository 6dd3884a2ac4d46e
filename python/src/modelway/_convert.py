"""From the protocol's arrays to the values that a model's hints ask for, and back.

What goes in was checked by the server. What comes out is checked here, because the model may return anything.
"""

from __future__ import annotations

import base64
import collections.abc
import json
from typing import Any, List, Literal, Optional, Sequence, Union, get_args, get_origin

import numpy as np

from . import _advice
from ._frames import JsonArray
from ._jsonable import is_missing, jsonable, text_of, unmasked
from ._spec import NUMPY_NAMES, InvalidInput, TensorSpec


#: What a row of JSON must be.
_ROWS = {"object": "an object", "list": "a list"}


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


def json_values(name: str, array: np.ndarray, rows: str) -> List[Any]:
    """The values whose JSON an array of texts holds. rows: what each must be, ``object``, ``list`` or ``any``."""
    made = []
    for row, text in enumerate(array.tolist()):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"input `{name}`, row {row}, is not JSON: {error}") from None
        if rows != "any" and not isinstance(value, dict if rows == "object" else list):
            found = "null" if value is None else type(value).__name__
            raise InvalidInput(f"input `{name}`, row {row}, is {found} in JSON, and the model wants {_ROWS[rows]}")
        made.append(value)
    return made


def json_array(value: Any, spec: TensorSpec) -> JsonArray:
    """What a model returned for an output of JSON: a list with a value for each row, or one value if there are no rows."""
    if spec.shape == [1]:
        return JsonArray(None, (1,), [_text(value, spec)])
    if isinstance(value, (list, tuple)):
        rows = value
    else:
        rows = jsonable(value)
        if not isinstance(rows, list):
            raise BadOutput(f"output `{spec.name}` is a {type(value).__name__}, and the model declares a list with a value for each row")
    return JsonArray(None, (len(rows),), [_text(row, spec) for row in rows])


def _text(value: Any, spec: TensorSpec) -> str:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    try:
        return text_of(jsonable(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadOutput(f"output `{spec.name}` is no JSON: {error}") from None


def parameter(name: str, value: Any, hint: Any) -> Any:
    """A request's parameter as its hint has it. A list or an object comes as a text that is its JSON.

    Raises :class:`InvalidInput` where it is something else.
    """
    candidates = [value]
    if isinstance(value, str) and any(_is_list(kind) or _is_object(kind) or _is_b64(kind, value) for kind in _kinds(hint)):
        candidates.insert(0, _read(value))
    for candidate in candidates:
        try:
            return _held(candidate, hint)
        except (TypeError, OverflowError):
            # An integer may be too large for a float.
            pass
    raise InvalidInput(f"the parameter `{name}` is {value!r}, and the model wants {_advice.named(hint)}")


def _held(value: Any, hint: Any) -> Any:
    """A value as its hint has it. Raises ``TypeError`` where it is something else."""
    for kind in _kinds(hint):
        named, of = get_origin(kind) or kind, get_args(kind)
        try:
            if named is Literal:
                if any(value == known and type(value) is type(known) for known in of):
                    return value
            elif _is_list(kind):
                if isinstance(value, (list, tuple)):
                    return _held_items(value, named, of)
            elif _is_object(kind):
                if isinstance(value, dict):
                    return {name: _held(item, of[1]) for name, item in value.items()} if len(of) == 2 else value
            elif named is float and isinstance(value, int) and not isinstance(value, bool):
                return float(value)
            elif named is bytes:
                return _bytes_of(value)
            elif named in (str, bool, int, float, type(None)):
                if isinstance(value, named) and isinstance(value, bool) == (named is bool):
                    return value
            else:
                # What this hint means is for the model to say.
                return value
        except (TypeError, OverflowError):
            continue
    raise TypeError


def _bytes_of(value: Any) -> bytes:
    """Bytes: as they are, as text in UTF-8, or as JSON has them. Raises ``TypeError`` where it is something else."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and list(value) == ["b64"]:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError:
            raise TypeError from None
    if isinstance(value, bytes):
        return value
    raise TypeError


def _is_b64(kind: Any, text: str) -> bool:
    return kind is bytes and text.startswith("{") and isinstance(_read(text), dict)


def _held_items(items: Sequence[Any], named: Any, of: Sequence[Any]) -> Any:
    if named is not tuple:
        return [_held(item, of[0]) for item in items] if of else list(items)
    if of and of[-1] is not Ellipsis:
        if len(of) != len(items):
            raise TypeError
        return tuple(map(_held, items, of))
    return tuple(_held(item, of[0]) for item in items) if of else tuple(items)


def _kinds(hint: Any) -> Sequence[Any]:
    return get_args(hint) if get_origin(hint) in _advice.UNIONS else (hint,)


def _is_list(kind: Any) -> bool:
    return (get_origin(kind) or kind) in _advice.LISTS


def _is_object(kind: Any) -> bool:
    return (get_origin(kind) or kind) in (dict, collections.abc.Mapping)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def array(value: Any, spec: TensorSpec) -> Union[np.ndarray, JsonArray]:
    """What a model returned for `spec`, as an array of its datatype and with as many dimensions.

    Numbers are cast where nothing but precision is lost: never from a fraction to a whole number, never to a
    smaller range than their own values need. Values that are missing are NaN among floats, and null in JSON among
    others.
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


def stacked(rows: Sequence[Any], spec: TensorSpec) -> Union[np.ndarray, JsonArray]:
    """One value for each row as one array."""
    if len(spec.shape) == 1:
        return array(rows, spec)
    row = TensorSpec(spec.name, spec.datatype, spec.shape[1:])
    arrays = [array(value, row) for value in rows]
    if not arrays:
        return np.empty([0] + [max(size, 0) for size in row.shape], NUMPY_NAMES[spec.datatype])
    if any(one.shape != arrays[0].shape for one in arrays):
        shapes = sorted({str(list(one.shape)) for one in arrays})
        raise BadOutput(
            f"output `{spec.name}` has rows of different shapes ({', '.join(shapes)}), which is no tensor; hint it as Any, and "
            "its rows are JSON"
        )
    if any(isinstance(one, JsonArray) for one in arrays):
        texts = [text for one in arrays for text in _texts_of(one, spec)]
        return JsonArray(spec.datatype, (len(arrays), *arrays[0].shape), texts)
    return np.stack(arrays)


def _numbers(value: Any, spec: TensorSpec) -> Union[np.ndarray, JsonArray]:
    wanted = np.dtype(NUMPY_NAMES[spec.datatype])
    if hasattr(value, "detach"):
        # A PyTorch tensor that is part of a graph, or on a GPU, refuses to be an array.
        value = value.detach().cpu().numpy()
    if type(value) is not np.ndarray:
        value = unmasked(value)
    given = value
    if type(value) is not np.ndarray:
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise BadOutput(f"output `{spec.name}` is no array: {error}") from None
    if value.dtype.kind == "O" and wanted.kind == "f":
        value = _with_missing(value, wanted)
    elif value.dtype.kind in "OfmM" and wanted.kind != "f":
        missing = _missing_among(given, spec)
        if missing is not None:
            return missing
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
    items = [None if is_missing(item) else item for item in value.ravel().tolist()]
    right = all(item is None or (isinstance(item, numbers) and not isinstance(item, bool)) for item in items)
    return np.array(items, wanted).reshape(value.shape) if right else value


def _missing_among(value: Any, spec: TensorSpec) -> Optional[JsonArray]:
    """Whole numbers or booleans of which some are missing; ``None`` if none is."""
    try:
        items = np.asarray(value, object)
    except ValueError:
        return None
    flat = items.ravel().tolist()
    there = [item for item in flat if not is_missing(item)]
    if len(there) == len(flat):
        return None
    # What is there is held against the datatype as it would be alone.
    checked = iter(_numbers(there, spec._replace(shape=[-1])).tolist() if there else [])
    texts = ["null" if is_missing(item) else text_of(next(checked)) for item in flat]
    return JsonArray(spec.datatype, items.shape, texts)


def _texts_of(array: Union[np.ndarray, JsonArray], spec: TensorSpec) -> List[str]:
    """The JSON of each element."""
    if isinstance(array, JsonArray):
        return array.texts
    return [_text_of_bytes(item, spec) if isinstance(item, bytes) else text_of(item) for item in array.ravel().tolist()]


def _bytes(value: Any, spec: TensorSpec) -> Union[np.ndarray, JsonArray]:
    """Text as UTF-8, whatever holds it."""
    if isinstance(value, (str, bytes)) or is_missing(value):
        items, shape = [value], ()
    elif isinstance(value, np.ndarray):
        items, shape = unmasked(value).ravel().tolist(), value.shape
    elif isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple, np.ndarray)) for item in value):
        items, shape = value, (len(value),)
    else:
        nested = np.asarray(value, dtype=object)
        items, shape = nested.ravel().tolist(), nested.shape
    made, missing = np.empty(len(items), object), False
    for place, item in enumerate(items):
        if isinstance(item, str):
            made[place] = item.encode("utf-8", "surrogateescape")
        elif isinstance(item, bytes):
            made[place] = item
        elif is_missing(item):
            missing = True
        else:
            hint = "; hint it as dict or Any, and it is JSON" if isinstance(item, (dict, list, tuple)) else ""
            raise BadOutput(f"output `{spec.name}` holds a {type(item).__name__}, and the model declares text (BYTES){hint}")
    if missing:
        return JsonArray(spec.datatype, shape, ["null" if item is None else _text_of_bytes(item, spec) for item in made])
    return made.reshape(shape)


def _text_of_bytes(item: bytes, spec: TensorSpec) -> str:
    try:
        return text_of(item.decode())
    except UnicodeDecodeError as error:
        raise BadOutput(f"output `{spec.name}` has bytes that are no text beside a missing value: {error.reason}") from None


def _is_utf8(item: bytes) -> bool:
    try:
        item.decode()
    except UnicodeDecodeError:
        return False
    return True

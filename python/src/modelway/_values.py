"""Values of Python, NumPy and pandas as tensors of the Open Inference Protocol, and tensors as values.

A value is converted to the datatype that the model declares where nothing but precision is lost. A value that cannot
be converted is an error in words: a ``ValueError`` where an array does not fit, the server's own refusal where a list
does not. Nothing here imports NumPy: arrays come from a caller who has.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime
import decimal
import difflib
import fractions
import io
import json
import math
import pathlib
import struct
import sys
import uuid
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ._spec import NUMPY_NAMES

Spec = Mapping[str, Any]

_DATATYPES = {numpy: datatype for datatype, numpy in NUMPY_NAMES.items() if datatype != "BYTES"}
_WHOLE = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
_FLOATS = ("FP16", "BF16", "FP32", "FP64")
#: What is a list once it is read.
_ITERABLES = (range, collections.abc.Iterator, collections.abc.KeysView, collections.abc.ValuesView, collections.deque)
#: What is the text that it is written as.
_WRITTEN = (uuid.UUID, pathlib.PurePath)
#: Numbers that JSON has no form for.
_EXACT = (decimal.Decimal, fractions.Fraction)
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: The letter of each datatype in a ``struct``.
_LETTERS = dict(zip(_WHOLE, "?BHIQbhiq"))
_LETTERS.update(FP16="e", FP32="f", FP64="d")


class Sent(NamedTuple):
    """One input as it is sent."""

    #: Its part of the request's JSON.
    head: Dict[str, Any]
    #: Its bytes behind the JSON; empty where the JSON holds its data.
    tail: bytes
    #: Whether it is one row without the dimension that counts rows. ``None``: the model wants a scalar.
    one: Optional[bool]


def by_name(declared: Sequence[Spec], data: Any, named: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """The inputs of a request by their names, and its parameters.

    declared: the model's inputs.
    data: one row or many, as an array, a table, a list or a mapping; ``None`` if there is none.
    named: inputs and parameters by their names.

    Raises ``ValueError`` for a name that is most likely meant to be another.
    """
    names = [spec["name"] for spec in declared]
    inputs = {} if data is None else _columns(names, declared, data)
    others: Dict[str, Any] = {}
    explicit: Mapping[str, Any] = {}
    strange = []
    for name, value in named.items():
        if name in names:
            inputs[name] = value
        elif name == "parameters":
            if not isinstance(value, Mapping):
                raise ValueError(f"`parameters` is a dict with each parameter by its name, not a {type(value).__name__}")
            explicit = value
        else:
            strange.append(name)
            others[name] = _items(value)
    missing = [name for name in names if name not in inputs]
    for name in strange:
        near = difflib.get_close_matches(name, missing, 1)
        if near or (missing and not inputs and not isinstance(others[name], (str, int, float, type(None)))):
            hint = f"did you mean `{near[0]}`?" if near else f"its inputs are {', '.join(names)}"
            raise ValueError(f"the model has no input `{name}`; {hint}")
    return inputs, {**parameters(explicit), **parameters(others)}


def parameters(given: Optional[Mapping[str, Any]]) -> Dict[str, Any]:
    """Parameters of a request as the protocol has them."""
    return {name: _parameter(name, value) for name, value in (given or {}).items()}


def _parameter(name: str, value: Any) -> Any:
    """A string, a number or a boolean; lists and objects are a string that is their JSON."""
    value = _items(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, _EXACT):
        return float(value)
    if isinstance(value, _WRITTEN):
        return str(value)
    if isinstance(value, (Mapping, list, tuple)):
        return _json(f"parameter `{name}`", value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise ValueError(f"parameter `{name}` is a value of type {type(value).__name__}; it can be text, a number, a boolean, a list or a dict")


def _json(where: str, value: Any) -> str:
    def plain(item: Any) -> Any:
        made = _items(item)
        if made is item:
            raise ValueError(f"{where} holds a value of type {type(item).__name__}, which JSON cannot: make it text or a number first")
        return made

    try:
        return json.dumps(value, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        said = str(error)
        raise ValueError(said if said.startswith(where) else f"{where} is no JSON: {said}") from None


def _columns(names: List[str], declared: Sequence[Spec], data: Any) -> Dict[str, Any]:
    data = list(data) if isinstance(data, _ITERABLES) else data
    if hasattr(data, "columns") and hasattr(data, "to_numpy"):
        columns = [str(column) for column in data.columns]
        if len(names) != 1 or names[0] in columns:
            return {name: data[column] for name, column in zip(columns, data.columns)}
        return {names[0]: data}
    if isinstance(data, (list, tuple)) and data and all(_is_row(item) for item in data):
        rows = [_row(item) for item in data]
        # Objects may also be the values of the one input, as JSON.
        if len(names) != 1 or any(names[0] in row for row in rows):
            return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    elif _is_row(data):
        row = _row(data)
        if len(names) != 1 or names[0] in row:
            return row
    if len(names) == 1:
        return {names[0]: data}
    rows = _items(data)
    if names and isinstance(rows, list) and rows and all(isinstance(row, (list, tuple)) and len(row) == len(names) for row in rows):
        # A matrix has the inputs in their order.
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}
    raise ValueError(f"the model has {len(names)} inputs: name each of them, as in {names[0]}=...; they are {', '.join(names)}"
                     if names else "the model does not say which inputs it has: name each of them")


def _is_row(value: Any) -> bool:
    """Whether it holds values by their names: a mapping, a tuple or object with named fields, or a row of a pandas table."""
    if isinstance(value, Mapping) or _has_fields(value):
        return True
    return hasattr(value, "to_dict") and hasattr(value, "index") and not hasattr(value, "columns")


def _has_fields(value: Any) -> bool:
    return hasattr(value, "_asdict") or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _row(value: Any) -> Dict[str, Any]:
    if _has_fields(value):
        value = value._asdict() if hasattr(value, "_asdict") else dataclasses.asdict(value)
    return {str(name): item for name, item in (value if isinstance(value, Mapping) else value.to_dict()).items()}


def tensor(name: str, value: Any, declared: Optional[Spec]) -> Sent:
    """One input of a request.

    declared: what the model says of it; ``None`` takes the datatype from the value.

    Raises ``ValueError`` where the value is no tensor, or an array holds what the datatype cannot.
    """
    if declared and declared["datatype"] == "BYTES" and hasattr(value, "save") and hasattr(value, "tobytes"):
        raise ValueError(f"input `{name}` is an image, and the model wants BYTES: send its file, as in `open(path, 'rb').read()`")
    value = _plain(value)
    datatype = declared["datatype"] if declared else _guessed(value)
    rank = len(declared["shape"]) if declared else None
    if _is_numpy(value) and value.ndim:
        array = _cast(name, value, datatype)
        if array is not None:
            shape, one = _fitted(list(array.shape), declared)
            return _binary(name, datatype, shape, array.tobytes(), one)
        value = _listed(name, value)
    flat, shape = _flat(name, value, rank if datatype == "BYTES" else None)
    flat = [_element(name, item, datatype) for item in flat]
    shape, one = _fitted(shape, declared)
    packed = _packed(flat, datatype)
    if packed is not None:
        return _binary(name, datatype, shape, packed, one)
    data = [_b64(item) if isinstance(item, bytes) else item for item in flat]
    return Sent({"name": name, "datatype": datatype, "shape": shape, "data": data}, b"", one)


def _binary(name: str, datatype: str, shape: List[int], tail: bytes, one: Optional[bool]) -> Sent:
    parameters = {"binary_data_size": len(tail)}
    return Sent({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}, tail, one)


def _is_numpy(value: Any) -> bool:
    """Whether it is an array or a scalar of NumPy."""
    return "numpy" in sys.modules and isinstance(value, (sys.modules["numpy"].ndarray, sys.modules["numpy"].generic))


def _plain(value: Any) -> Any:
    """Arrays of all libraries as those of NumPy; everything else as it is."""
    if isinstance(value, (str, bytes, list, tuple, int, float, datetime.date, datetime.time, type(None))):
        return value
    if isinstance(value, io.IOBase):
        raise ValueError(f"an open file is no value: read it first, as in `open({str(getattr(value, 'name', ''))!r}, 'rb').read()`")
    if isinstance(value, _ITERABLES):
        return list(value)
    if _is_numpy(value):
        # A masked array's own list says what is missing.
        return value.tolist() if hasattr(value, "mask") else value
    if hasattr(value, "toarray"):
        return value.toarray()
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        try:
            return value.numpy()
        except TypeError:
            # NumPy has no bfloat16, all of whose values are floats.
            return value.float().numpy()
    if "numpy" in sys.modules:
        if hasattr(value, "to_numpy"):
            return value.to_numpy()
        if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
            return sys.modules["numpy"].asarray(value)
    return value


def _listed(name: str, array: Any) -> Any:
    """An array that has no datatype of the protocol, as a list."""
    if array.dtype.kind == "M":
        return _times(array)
    if array.dtype.kind in "OSUbiuf":
        return array.tolist()
    raise ValueError(f"input `{name}` is an array of {array.dtype}, which the protocol cannot carry")


def _times(array: Any) -> Any:
    """Times as texts; ``None`` for one that is missing."""
    np = sys.modules["numpy"]
    return np.where(np.isnat(array), None, np.datetime_as_string(array).astype(object)).tolist()


def _cast(name: str, array: Any, datatype: str) -> Any:
    """A numeric array in a datatype, little-endian. ``None`` where it must be sent value by value."""
    import numpy as np

    numeric = array.dtype.kind in "biuf"
    if datatype == "BF16" and numeric:
        return _bf16(name, array)
    if datatype not in _LETTERS or not numeric:
        return None
    wanted = np.dtype(NUMPY_NAMES[datatype])
    if wanted.kind != "f" and array.dtype.kind == "f":
        if np.isnan(array).any():
            # Missing values, which a whole number or a boolean has no word for.
            return None
        broken = array[array != np.trunc(array)]
        if broken.size:
            raise ValueError(f"input `{name}` holds {broken.flat[0]}, and the model wants whole numbers ({datatype})")
    if array.dtype != wanted and array.size:
        _check_range(name, array, wanted, datatype)
    with np.errstate(over="ignore"):
        return array.astype(wanted.newbyteorder("<"), copy=False)


def _check_range(name: str, array: Any, wanted: Any, datatype: str) -> None:
    import numpy as np

    if wanted.kind == "f":
        with np.errstate(over="ignore"):
            beyond = np.isinf(array.astype(wanted)) & np.isfinite(array)
    else:
        low, high = (0, 1) if wanted.kind == "b" else (np.iinfo(wanted).min, np.iinfo(wanted).max)
        # As objects, because 2**64 - 1 and -1 are exact together in no datatype.
        if int(array.min() if np.isfinite(array).all() else low - 1) >= low and int(array.max()) <= high:
            return
        beyond = np.array([not (math.isfinite(item) and low <= int(item) <= high) for item in array.ravel().tolist()])
        beyond = beyond.reshape(array.shape)
    if beyond.any():
        raise ValueError(f"input `{name}` holds {array[beyond].flat[0]}, which {datatype} cannot")


def _bf16(name: str, array: Any) -> Any:
    """The upper half of FP32, rounded to even."""
    import numpy as np

    _check_range(name, array, np.dtype("float32"), "BF16")
    bits = array.astype("<f4").view("<u4")
    rounded = ((bits.astype("u8") + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded).astype("<u2")


def _flat(name: str, value: Any, most: Optional[int]) -> Tuple[List[Any], List[int]]:
    """Nested lists as one, and their shape; lists below `most` dimensions are values themselves."""
    shape: List[int] = []
    rows = [_items(value)]
    while rows and all(isinstance(row, (list, tuple)) for row in rows) and (most is None or len(shape) < max(most, 1)):
        sizes = {len(row) for row in rows}
        if len(sizes) > 1:
            raise ValueError(
                f"input `{name}` is a list whose parts have different lengths ({sorted(sizes)}), which is no tensor"
            )
        shape.append(sizes.pop())
        rows = [_items(item) for row in rows for item in row]
    return rows, shape


def _items(value: Any) -> Any:
    """A value of a list: arrays and columns in it are lists too."""
    value = _plain(value)
    if _is_numpy(value) and value.dtype.kind == "M":
        return _times(value)
    return value.tolist() if _is_numpy(value) else value


def _element(name: str, item: Any, datatype: str) -> Any:
    """One value as JSON has it, or bytes. What does not fit is left as it is, and the server says so."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return math.nan if datatype in _FLOATS else None
    if datatype in _FLOATS and isinstance(item, (bool, *_EXACT)):
        return float(item)
    if datatype in _WHOLE and isinstance(item, _EXACT):
        item = int(item) if item == item // 1 else float(item)
    if isinstance(item, float) and datatype in _WHOLE:
        whole = int(item) if item.is_integer() else item
        item = None if math.isnan(item) else whole
    if datatype == "BOOL" and item in (0, 1):
        return bool(item)
    if datatype in _WHOLE and isinstance(item, bool):
        return int(item)
    if datatype == "BYTES":
        if isinstance(item, float) and math.isnan(item):
            return None
        if isinstance(item, (bytearray, memoryview)):
            return bytes(item)
        if isinstance(item, (datetime.date, datetime.time)):
            return item.isoformat()
        if isinstance(item, (Mapping, list, tuple)):
            return _json(f"input `{name}`", item)
        if isinstance(item, (*_EXACT, *_WRITTEN)):
            return str(item)
    if not isinstance(item, (str, int, float, bytes, type(None))):
        text = ", or text" if datatype == "BYTES" else ""
        kind = type(item).__name__
        raise ValueError(f"input `{name}` holds a value of type {kind}, and the model wants {datatype}: make it a number or a list{text}")
    return item


def _packed(flat: List[Any], datatype: str) -> Optional[bytes]:
    """Values as bytes where JSON has no word for one of them; else ``None``."""
    if datatype == "BYTES":
        if not all(isinstance(item, (str, bytes)) for item in flat) or all(isinstance(item, str) for item in flat):
            return None
        texts = [item.encode() if isinstance(item, str) else item for item in flat]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    if datatype not in _FLOATS or not all(isinstance(item, (int, float)) for item in flat):
        return None
    try:
        if datatype != "BF16" and all(map(math.isfinite, flat)):
            return None
        if datatype == "BF16":
            return b"".join(_halved(float(item)).to_bytes(2, "little") for item in flat)
        return struct.pack(f"<{len(flat)}{_LETTERS[datatype]}", *flat)
    except (OverflowError, struct.error):
        # Beyond its range: as JSON, so that the server says which.
        return None


def _halved(number: float) -> int:
    if math.isnan(number):
        return 0x7FC0
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def _b64(item: bytes) -> Dict[str, str]:
    import base64

    return {"b64": base64.b64encode(item).decode()}


def _guessed(value: Any) -> str:
    """The datatype of a value for which the model declares none."""
    if _is_numpy(value) and value.dtype.kind in "biuf":
        return _DATATYPES.get(value.dtype.name, "FP64")
    flat, _ = _flat("", value, None)
    known = [item for item in flat if item is not None]
    if known and all(isinstance(item, bool) for item in known):
        return "BOOL"
    if known and all(isinstance(item, int) for item in known):
        return "INT64"
    return "FP64" if all(isinstance(item, (int, float)) for item in known) else "BYTES"


def _fitted(shape: List[int], declared: Optional[Spec]) -> Tuple[List[int], Optional[bool]]:
    """The shape with the dimensions that people leave out, and whether it is one row that lacks the first one."""
    wanted = declared["shape"] if declared else [-1] * max(len(shape), 1)
    missing = len(wanted) - len(shape)
    if not wanted:
        return shape, None
    if missing > 0 and shape[-1:] == [0]:
        # No rows, of whatever size.
        return shape + [max(size, 0) for size in wanted[len(shape) :]], False
    if missing <= 0:
        return shape, False

    def fits(sizes: Sequence[int], places: Sequence[int]) -> bool:
        return all(place in (-1, size) for size, place in zip(sizes, places))

    if all(size in (-1, 1) for size in wanted[:missing]) and fits(shape, wanted[missing:]):
        return [1] * missing + shape, True
    if all(size == 1 for size in wanted[len(shape) :]) and fits(shape, wanted):
        # One value for each row of a column that is declared as [-1, 1].
        return shape + [1] * missing, False
    return shape, False


def answer(head_size: Optional[str], body: bytes, declared: Optional[Mapping[str, str]] = None) -> Dict[str, Any]:
    """The outputs of a V2 response by their names: arrays where NumPy is imported, else nested lists.

    declared: the datatypes of the model's outputs.
    """
    at = len(body) if head_size is None else int(head_size)
    outputs = {}
    for output in json.loads(body[:at])["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        if size is None:
            flat = [_read(item, output["datatype"]) for item in _flat(output["name"], output["data"], None)[0]]
        else:
            flat = _unpacked(output["datatype"], body[at : at + size])
            at += size
            if output["datatype"] == "BYTES" and (declared or {}).get(output["name"], "BYTES") != "BYTES":
                flat = _missing(flat)
        outputs[output["name"]] = _shaped(flat, output["datatype"], output["shape"])
    return outputs


def _missing(texts: List[Any]) -> List[Any]:
    """Values of which some are missing come as JSON; texts of a model that answers other than it declares stay texts."""
    if "null" not in texts and b"null" not in texts:
        return texts
    try:
        return [json.loads(text) for text in texts]
    except ValueError:
        return texts


def _read(item: Any, datatype: str) -> Any:
    """A value of JSON as one of Python."""
    if datatype in _FLOATS:
        return math.nan if item is None else _WORDS.get(item, item)
    if isinstance(item, dict) and list(item) == ["b64"]:
        import base64

        return base64.b64decode(item["b64"])
    return item


def _unpacked(datatype: str, raw: bytes) -> Any:
    if datatype == "BYTES":
        items, at = [], 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 4], "little")
            items.append(_text(raw[at + 4 : at + 4 + size]))
            at += 4 + size
        return items
    if datatype == "BF16":
        halves = struct.unpack(f"<{len(raw) // 2}H", raw)
        return list(struct.unpack(f"<{len(halves)}f", b"".join(bytes(2) + half.to_bytes(2, "little") for half in halves)))
    if "numpy" in sys.modules:
        import numpy as np

        return np.frombuffer(raw, np.dtype(NUMPY_NAMES[datatype]).newbyteorder("<"))
    letter = _LETTERS[datatype]
    return list(struct.unpack(f"<{len(raw) // struct.calcsize(letter)}{letter}", raw))


def _shaped(flat: Any, datatype: str, shape: Sequence[int]) -> Any:
    if "numpy" in sys.modules:
        import numpy as np

        if not isinstance(flat, np.ndarray):
            whole = datatype not in _FLOATS and any(item is None for item in flat)
            made = np.empty(len(flat), object if whole else NUMPY_NAMES.get(datatype, "float32"))
            made[:] = flat
            flat = made
        return flat.reshape(shape)
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
    return flat if shape else flat[0]


def first(value: Any) -> Any:
    """The one row of an output, as a plain value where it is one. More than one row stay as they are."""
    if _is_numpy(value):
        row = value[0] if value.ndim and len(value) == 1 else value
        if _is_numpy(row) and row.ndim == 0:
            return row.item()
        return row
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _text(item: bytes) -> Any:
    """Text where it is some, as JSON would have carried it."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item

"""What to write instead of a type hint that is no tensor."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import types
from typing import Any, AnyStr, Literal, Optional, Union, get_args, get_origin

from ._spec import Tensor

#: Hints that are a list of something.
LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)
#: What `Optional[int]` and `int | None` are made of.
UNIONS = (Union, getattr(types, "UnionType", Union))
_ARRAYS = {"ndarray", "NDArray", "ArrayLike", "Tensor", "EagerTensor", "Array", "matrix"}
_TABLES = {"DataFrame", "Series", "Table"}
_NUMPY = {"bool": "BOOL", "bool_": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "str_": "BYTES", "bytes_": "BYTES"}
_NUMPY.update({f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)})
_TEXT = {"datetime", "datetime64", "date", "time", "Timestamp", "Path", "PurePath", "UUID", "StrEnum"}
#: What is many values and no list: a request's rows are a list.
_MANY = (
    set,
    frozenset,
    collections.deque,
    collections.abc.Set,
    collections.abc.MutableSet,
    collections.abc.MutableSequence,
    collections.abc.Collection,
    collections.abc.Iterator,
    collections.abc.Generator,
)
_FORMS = 'float (a value for each row), list[float] (all values), list[list[float]] (a list for each row) or Tensor["FP32", -1, 4]'


def depth(hint: Any) -> "tuple[int, Any]":
    """How many lists are around a hint, and what is in them."""
    lists = 0
    while get_origin(hint) in LISTS and get_args(hint) and not _is_record(hint):
        lists, hint = lists + 1, get_args(hint)[0]
    return lists, hint


def json_rows(hint: Any) -> Optional[str]:
    """What each row is where a hint means JSON values: ``object``, ``list`` or ``any``; ``None`` where it means none."""
    lists, inner = depth(hint)
    if not is_json(inner):
        return None
    return "list" if lists > 1 else "object" if _is_object(inner) else "any"


def is_json(hint: Any) -> bool:
    """Whether it is a hint for values that only JSON holds: objects, and values of different kinds."""
    if hint is Any or _is_object(hint):
        return True
    if get_origin(hint) not in UNIONS:
        return False
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if len(kinds) == 1:
        return is_json(depth(kinds[0])[1])
    # Numbers of two kinds are numbers, and text is text.
    return not (set(kinds) <= {bool, int, float} or set(kinds) <= {str, bytes})


def tensor(hint: Any) -> Optional[Tensor]:
    """The tensor that a hint is."""
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Tensor)), None)


def optional(hint: Any) -> Any:
    """What is in an ``Optional``; ``None`` if it is none."""
    if get_origin(hint) not in UNIONS:
        return None
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and len(get_args(hint)) == 2 else None


def input_hint(name: str, hint: Any) -> str:
    """The sentence for an input that is hinted as something else than a tensor."""
    better = _better(hint)
    if better is not None:
        return f"hint it as {better}"
    word = _word(depth(hint)[1])
    if word in _TABLES:
        return (
            f"take each column as a parameter, as in `age: list[float], city: list[str]`, or all as {_tensor('FP64')}, and make "
            f"the {word} in predict"
        )
    if word == "Image" or "image" in word.lower():
        return "take the file as `bytes` and open it in predict, or its pixels as Tensor[\"UINT8\", -1, -1, 3]"
    if has_fields(depth(hint)[1]):
        return "take each of its fields as a parameter, as in `name: str, age: float`, or all of them as a `dict`"
    if _is_record(hint):
        if len(set(get_args(hint))) == 1:
            return f"hint it as list[list[{named(get_args(hint)[0])}]], a list for each row"
        return "values of different kinds are parameters of their own, as in `name: str, age: float`"
    return f"use str, int, bool, bytes, {_FORMS}, or dict for JSON, or Any for JSON of any form"


def output_hint(hint: Any) -> str:
    """The same for what ``predict`` returns."""
    better = _better(hint)
    if better is not None:
        return f"hint it as {better}"
    lists, of = depth(hint)
    word = _word(of)
    if word == "Series":
        return "hint it as list[float], a value for each row, and return the column's `tolist()`"
    if word in _TABLES or has_fields(of) or _is_record(hint):
        return (
            "several outputs are a NamedTuple, a dataclass or a TypedDict with a field for each, as in "
            "`class Answer(NamedTuple): label: str; score: float`, or a dict with `outputs` in the class"
        )
    return f"use str, int, bool, bytes, {_FORMS}, or a NamedTuple of these, or declare `outputs` in the class"


def named(hint: Any) -> str:
    """A hint as people write it."""
    if hint is Ellipsis:
        return "..."
    if hint is type(None):
        return "None"
    array = tensor(hint)
    if array is not None:
        return f'Tensor[{", ".join([chr(34) + str(array.datatype) + chr(34), *map(str, array.shape)])}]'
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is not None and arguments:
        kind = optional(hint)
        if kind is not None:
            return f"Optional[{named(kind)}]"
        if origin in UNIONS:
            return " | ".join(map(named, arguments))
        inner = ", ".join(map(repr if origin is Literal else named, arguments))
        return f"{getattr(origin, '__name__', str(origin))}[{inner}]"
    if isinstance(hint, type) or hasattr(hint, "__name__"):
        return hint.__name__
    return str(hint).replace("typing.", "")


def _better(hint: Any) -> Optional[str]:
    """The hint that means the same and is a tensor, if there is one."""
    lists, inner = depth(hint)
    kind, of = get_origin(inner) or inner, get_args(inner)
    if kind in LISTS and not of and inner != tuple[()]:
        return (
            "list[float], a value for each row, or list[list[float]], a list for each row (with int, bool or str likewise), or "
            "list[Any], where rows are JSON of any form"
        )
    if kind in _MANY:
        return _list(lists + 1, named((of or (float,))[0]))
    if kind in (collections.abc.Awaitable, collections.abc.Coroutine) and of:
        return _list(lists, named(of[-1]))
    array = tensor(inner)
    if array is not None:
        return named(Tensor[(array.datatype, *[-1] * lists, *array.shape)])
    if lists and _is_record(inner) and len(set(get_args(inner))) == 1:
        return _list(lists + 1, named(get_args(inner)[0]))
    inside = optional(inner)
    if inside is not None:
        return (_better(inside) or _list(lists, named(inside))) + (", where a missing number is NaN" if inside is float else "")
    word = _word(inner)
    if word in _ARRAYS:
        return _tensor(_element(inner)) + ", with its own datatype and shape" + _made(inner, word)
    if inner is AnyStr:
        return _list(lists, "str")
    if kind in UNIONS:
        for kinds, name in [({bool, int}, "int"), ({bool, int, float}, "float"), ({str, bytes}, "bytes")]:
            if set(of) <= {*kinds, type(None)}:
                return _list(lists, f"Optional[{name}]" if type(None) in of else name)
    scalar = _scalar(inner, word)
    return None if scalar is None else _list(lists, scalar)


def _scalar(hint: Any, word: str) -> Optional[str]:
    if word in _NUMPY:
        datatype = _NUMPY[word]
        kinds = {"BOOL": "bool", "BYTES": "bytes" if word == "bytes_" else "str"}
        return kinds.get(datatype, "int" if "INT" in datatype else "float")
    if word in ("timedelta", "timedelta64", "Timedelta"):
        return "float"
    if word in ("Decimal", "floating", "number", "Real", "Number", "double"):
        return "float"
    if word in ("integer", "Integral"):
        return "int"
    if word in ("bytearray", "memoryview", "BytesIO", "BinaryIO"):
        return "bytes"
    if word in _TEXT or word == "LiteralString":
        return "str"
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0]).__name__
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        values = [member.value for member in hint]
        return type(values[0]).__name__ if values and isinstance(values[0], (str, int, float)) else "str"
    return None


def _is_record(hint: Any) -> bool:
    """``tuple[str, float]``, which is no list of values that are alike."""
    return get_origin(hint) is tuple and get_args(hint)[-1:] != (Ellipsis,)


def _is_object(hint: Any) -> bool:
    """Whether it is a dict, a mapping or a TypedDict."""
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and issubclass(kind, (dict, collections.abc.Mapping))


def has_fields(hint: Any) -> bool:
    """Whether it is a class of values with names: a dict, a dataclass, a NamedTuple, a model of Pydantic."""
    kind = get_origin(hint) or hint
    if not isinstance(kind, type):
        return False
    return _is_object(kind) or dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") or hasattr(kind, "model_fields")


def _element(hint: Any) -> str:
    """The datatype that an array's own hint says."""
    for argument in get_args(hint):
        known = _NUMPY.get(_word(argument)) or _element(argument)
        if known:
            return known
    return "" if get_args(hint) or "[" not in named(hint) else next((d for n, d in _NUMPY.items() if n in named(hint)), "")


def _made(hint: Any, word: str) -> str:
    module = getattr(hint, "__module__", "").partition(".")[0]
    return f", and make it a tensor in predict (torch.from_numpy)" if module == "torch" else ""


def _tensor(datatype: str) -> str:
    return f'Tensor["{datatype or "FP32"}", -1, 4]'


def _list(lists: int, inner: str) -> str:
    return "list[" * lists + inner + "]" * lists


def _word(hint: Any) -> str:
    kind = get_origin(hint) or hint
    word = getattr(kind, "__name__", "") or getattr(kind, "_name", "") or ""
    return word.partition("[")[0]

"""Frames between the server and a worker: what the bytes mean, and the memory that both share.

One frame is one message of a Unix socket that keeps messages apart: a prefix, and behind it the body. A body that
is too large for that stands in shared memory instead. Numbers are in the machine's own order, since both ends are
on one machine. The other side of this is the server's `python/frame.rs`.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import numpy as np

from ._spec import NUMPY_NAMES, TensorSpec

if TYPE_CHECKING:
    from ._spec import Arrays

#: Kind, flags, detail, run, length of the body.
PREFIX = struct.Struct("=BBHIQ")

RUN, CANCEL, AREA, TAKEN = 1, 2, 3, 4
HELLO, ANSWER, END, ERROR, NEED, UNLOADABLE, GUARD = 16, 17, 18, 19, 20, 21, 22

IN_AREA, MORE, LAST, KEPT = 1, 2, 4, 8
#: The request is its JSON; the answer says itself what its outputs are.
DOCUMENT = 16
#: The parameters are a list: those of the request, and those of its inputs by their names.
INPUT_PARAMETERS = 32
#: Nobody asked for the run: what the model counts in it is not shown.
UNCOUNTED = 64

INVALID_INPUT, FAILED, INTERRUPTED = 1, 2, 3

INPUTS, OUTPUTS = 0, 1

#: Bodies beyond this go into shared memory.
INLINE = 32 * 1024
#: The largest message.
LARGEST = 64 * 1024
#: Tensors begin at multiples of this.
ALIGN = 64

#: Where an input would begin that the request leaves out.
ABSENT = (1 << 64) - 1

#: What an output's elements are: of its datatype, the JSON of such values and of null, or any JSON.
_PLAIN, _VALUES, _TEXT = 0, 1, 2

#: The protocol's datatypes, in the order of the server's own list.
CODES = {
    name: code
    for code, name in enumerate(
        ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]
    )
}

_RUN = struct.Struct("=III")
_ANSWER = struct.Struct("=II")
#: Before the head of an answer that describes itself.
_LENGTH = struct.Struct("=Q")


class BadAnswer(TypeError):
    """The model answered something that cannot be sent."""


class Layout:
    """The model's signature, made ready for reading requests and writing answers."""

    def __init__(self, inputs: List[TensorSpec], outputs: List[TensorSpec]) -> None:
        self._head = struct.Struct("=III" + "".join(f"{len(spec.shape)}qQQ" for spec in inputs))
        self._inputs = []
        at = 3
        for spec in inputs:
            rank = len(spec.shape)
            dtype = None if spec.datatype == "BYTES" else np.dtype(NUMPY_NAMES[spec.datatype])
            self._inputs.append((spec.name, dtype, at, at + rank, rank))
            at += rank + 2
        self._outputs = []
        for place, spec in enumerate(outputs):
            dtype = None if spec.datatype == "BYTES" else np.dtype(NUMPY_NAMES[spec.datatype])
            self._outputs.append((place, spec.name, dtype, CODES[spec.datatype], spec.name.startswith("features.")))
        self._heads: Dict[Tuple[int, ...], struct.Struct] = {}

    def request(self, body: Any, start: int) -> Tuple[Arrays, List[Any], bytes]:
        """The inputs, the outputs that are wanted and the parameters' JSON of the request in `body` from `start`.

        The arrays share the memory of `body`.
        """
        head = self._head.unpack_from(body, start)
        inputs = {}
        for name, dtype, first, last, rank in self._inputs:
            shape, offset = head[first:last], head[last]
            if offset == ABSENT:
                continue
            if dtype is not None:
                inputs[name] = np.ndarray(shape, dtype, body, start + offset)
            else:
                inputs[name] = _texts(body, start + offset, shape)
        _, wanted_count, parameters_length = head[:3]
        outputs = self._outputs
        at = start + self._head.size
        if wanted_count:
            outputs = [outputs[place] for place in struct.unpack_from(f"={wanted_count}H", body, at)]
            at += 2 * wanted_count
        parameters = bytes(memoryview(body)[at : at + parameters_length]) if parameters_length else b""
        return inputs, outputs, parameters

    def answer(self, made: Any, outputs: List[Any]) -> "Answer":
        """Lays out the `outputs` of what the model made."""
        if not isinstance(made, dict):
            raise BadAnswer(f"the model made a {type(made).__name__}, not a dict of arrays by their names")
        found = []
        for place, name, dtype, code, optional in outputs:
            array = made.get(name)
            if array is None:
                if optional:
                    continue
                names = ", ".join(f"`{name}`" for name in list(made)[:16]) or "nothing"
                raise BadAnswer(f"the model did not make its output `{name}`; it made {names}")
            if type(array) is JsonArray:
                form = _TEXT if array.datatype is None else _VALUES
            else:
                form = _PLAIN
                if type(array) is not np.ndarray or array.dtype is not dtype:
                    array = _fitted(array, name, dtype, code)
            found.append((place, array, code, form))
        ranks = tuple([array.ndim for _, array, _, _ in found])
        head = self._heads.get(ranks)
        if head is None:
            if len(self._heads) > 64:
                self._heads.clear()
            head = self._heads[ranks] = struct.Struct("=" + "".join(f"HBBIQQ{rank}q" for rank in ranks))
        return Answer(found, head)


class Answer:
    """An answer that knows how long it is and has still to be written."""

    flags = 0

    __slots__ = ("_found", "_fields", "_head", "length")

    def __init__(self, found: List[Any], head: struct.Struct) -> None:
        at = -(-(_ANSWER.size + head.size) // ALIGN) * ALIGN
        fields: List[int] = []
        self._found = []
        for place, array, code, form in found:
            shape = array.shape
            if form != _PLAIN:
                array = _packed_texts([text.encode() for text in array.texts])
                length = len(array)
            elif code == CODES["BYTES"]:
                (_, array), length = _packed(array)
            else:
                length = array.nbytes
            fields += (place, code, len(shape), form, at, length, *shape)
            self._found.append((at, length, array))
            at = -(-(at + length) // ALIGN) * ALIGN
        self._fields = fields
        self._head = head
        self.length = at

    def write(self, to: Any, start: int) -> None:
        """Writes the body into `to` from `start`."""
        _ANSWER.pack_into(to, start, len(self._found), self._head.size)
        self._head.pack_into(to, start + _ANSWER.size, *self._fields)
        for at, length, array in self._found:
            at += start
            if type(array) is bytes:
                to[at : at + length] = array
            elif length:
                np.ndarray(array.shape, array.dtype, to, at)[...] = array


class JsonArray:
    """Elements that are JSON values, each as its text.

    datatype: of all that are not null; ``None`` if they have none.
    """

    __slots__ = ("datatype", "shape", "texts")

    def __init__(self, datatype: Optional[str], shape: Tuple[int, ...], texts: List[str]) -> None:
        self.datatype = datatype
        self.shape = tuple(shape)
        self.texts = texts

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 1


class Described:
    """An answer that says itself what its outputs are.

    outputs: arrays, and :class:`JsonArray`, by their names.
    v1: what V1 answers, as JSON; ``whole`` if nothing stands around it.
    ignored: columns of the request that the model does not have.
    """

    def __init__(self, outputs: Dict[str, Any], v1: Optional[str], whole: bool, ignored: Any) -> None:
        self.outputs = outputs
        self.v1 = v1
        self.whole = whole
        self.ignored = list(ignored)

    def laid_out(self) -> "DescribedAnswer":
        """The answer, ready to be written."""
        return DescribedAnswer(self)


class DescribedAnswer:
    """A described answer that knows how long it is and has still to be written."""

    flags = DOCUMENT

    def __init__(self, said: Described) -> None:
        import json

        heads: List[Dict[str, Any]] = []
        self._bodies: List[bytes] = []
        at = 0
        for name, array in said.outputs.items():
            head: Dict[str, Any] = {"name": name}
            if isinstance(array, JsonArray):
                body = _packed_texts([text.encode() for text in array.texts])
                head["json"] = "values" if array.datatype else "text"
                head["datatype"], head["shape"] = array.datatype or "BYTES", list(array.shape)
            elif array.dtype.kind in "OUS":
                (_, body), _ = _packed(array)
                head["datatype"], head["shape"] = "BYTES", list(array.shape)
            else:
                words = {known: word for word, known in NUMPY_NAMES.items()}
                body = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).tobytes()
                head["datatype"], head["shape"] = words[array.dtype.name], list(array.shape)
            head["at"], head["length"] = at, len(body)
            at = -(-(at + len(body)) // ALIGN) * ALIGN
            heads.append(head)
            self._bodies.append(body)
        # Places count from the beginning of the body, and the head's own length depends on them.
        start = -(-(_LENGTH.size + len(self._head(said, heads, json)) + 32 * len(heads)) // ALIGN) * ALIGN
        for head in heads:
            head["at"] += start
        self._text = self._head(said, heads, json)
        self._start = start
        self.length = start + at

    @staticmethod
    def _head(said: Described, heads: List[Dict[str, Any]], json: Any) -> bytes:
        head = json.dumps({"outputs": heads, "whole": said.whole, "ignored": said.ignored})
        # What is JSON already is not read again.
        return (f'{head[:-1]}, "v1": {said.v1}}}' if said.v1 is not None else head).encode()

    def write(self, to: Any, start: int) -> None:
        """Writes the body into `to` from `start`."""
        _LENGTH.pack_into(to, start, len(self._text))
        at = start + _LENGTH.size
        to[at : at + len(self._text)] = self._text
        at = start + self._start
        for body in self._bodies:
            to[at : at + len(body)] = body
            at = -(-(at - start + len(body)) // ALIGN) * ALIGN + start


def _fitted(array: Any, name: str, dtype: Any, code: int) -> np.ndarray:
    """The array, if it is one of this datatype."""
    if type(array) is not np.ndarray:
        try:
            array = np.asarray(array)
        except ValueError as error:
            raise BadAnswer(f"output `{name}` is no array: {error}") from None
    if dtype is None:
        if array.dtype.kind not in "OSU":
            raise BadAnswer(f"output `{name}` is {array.dtype}, and the signature says BYTES")
        return array
    if array.dtype == dtype:
        return array
    if array.dtype.newbyteorder("=") == dtype:
        return array.astype(dtype)
    word = next(word for word, known in CODES.items() if known == code)
    raise BadAnswer(f"output `{name}` is {array.dtype}, and the signature says {word}")


def _texts(body: Any, at: int, shape: Tuple[int, ...]) -> np.ndarray:
    """BYTES: all lengths, and behind them all bytes."""
    count = 1
    for size in shape:
        count *= size
    lengths = struct.unpack_from(f"={count}I", body, at)
    at += 4 * count
    made = np.empty(count, object)
    view = memoryview(body)
    for place, length in enumerate(lengths):
        made[place] = bytes(view[at : at + length])
        at += length
    return made if len(shape) == 1 else made.reshape(shape)


def _packed(array: np.ndarray) -> Tuple[Tuple[Tuple[int, ...], bytes], int]:
    items = []
    for item in array.ravel().tolist():
        if type(item) is str:
            item = item.encode("utf-8", "surrogateescape")
        elif type(item) is not bytes:
            raise BadAnswer(f"an output of BYTES holds a {type(item).__name__}, which is no text")
        items.append(item)
    packed = _packed_texts(items)
    return (array.shape, packed), len(packed)


def _packed_texts(items: List[bytes]) -> bytes:
    return struct.pack(f"={len(items)}I", *map(len, items)) + b"".join(items)


def map_area(descriptor: int, size: int) -> mmap.mmap:
    """The shared memory behind a file descriptor, which is closed."""
    try:
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def receive_descriptor(sock: Any) -> int:
    """The file descriptor that comes with the next message."""
    _, ancillary, _, _ = sock.recvmsg(1, 64)
    for _, _, data in ancillary:
        return int.from_bytes(data[:4], sys.byteorder)
    raise ConnectionError("the server sent no file descriptor")


def in_use(arrays: List[Any]) -> bool:
    """Whether anything but this list holds one of these."""
    return bool(arrays) and max(map(sys.getrefcount, arrays)) > _ALONE


_ALONE = max(map(sys.getrefcount, [object()]))

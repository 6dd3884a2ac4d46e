"""The loop of a worker: requests in, answers out.

**Invariant:** an array that the model was given is never changed under its hands. Arrays in shared memory that it
still holds after its run are told to the server, which then takes other memory for the next request.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import signal
import sys
from typing import Any, List, Optional, Tuple

from . import _frames as frames
from ._spec import InvalidInput, Opened
from ._worker import LONGEST_TEXT, Interrupted, describe

_MSG_PEEK_NOW = 0x2 | 0x40
_LARGEST_HELLO = 32 * 1024
#: Memory that is let go when there is no other, to say so.
_RESERVE = 4 << 20


class _Closed(BaseException):
    """It is time to end: the server closed the socket during a run, or there is no memory left."""


class Serving:
    """One model at one socket.

    alone: whether this is all that the process is for, so that a run may be interrupted by a signal.
    """

    def __init__(self, sock: Any, model: Opened, alone: bool = True) -> None:
        self._sock = sock
        self._alone = alone
        self._model = model
        self._layout = frames.Layout(model.inputs, model.outputs)
        self._buffer = bytearray(frames.LARGEST)
        self._view = memoryview(self._buffer)
        self._message = bytearray(frames.LARGEST)
        self._sending = memoryview(self._message)
        self._reserve: Optional[bytearray] = bytearray(_RESERVE)
        self._areas: List[Optional[mmap.mmap]] = [None, None]
        self._run: Optional[int] = None

    def introduce(self) -> None:
        """Tells the server what the model takes and answers."""
        model = self._model
        described = {
            "platform": model.platform,
            "rows": bool(model.rows),
            "streams": bool(model.streams),
            "each_row": getattr(model, "each_row", False),
            "trials": getattr(model, "trials", True),
            "inputs": [[spec.name, spec.datatype, list(spec.shape)] for spec in model.inputs],
            "outputs": [[spec.name, spec.datatype, list(spec.shape)] for spec in model.outputs],
            "optional": getattr(model, "optional", []),
            "base64": getattr(model, "base64", []),
            "json": getattr(model, "json", []),
            "input_parameters": getattr(model, "input_parameters", False),
            "plain": getattr(model, "plain", False),
            "labels": getattr(model, "labels", {}),
        }
        body = json.dumps(described).encode()
        while True:
            part, body = body[:_LARGEST_HELLO], body[_LARGEST_HELLO:]
            self._send(frames.HELLO, frames.MORE if body else 0, 0, 0, part)
            if not body:
                break

    def run(self) -> None:
        """Tells what the model takes, and serves until the server closes the socket."""
        self.introduce()
        if self._alone:
            signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            self.serve()
        except _Closed:
            pass

    def serve(self) -> None:
        """One request after the other, until the server closes the socket."""
        receive, buffer, prefix = self._sock.recv_into, self._buffer, frames.PREFIX
        while True:
            size = receive(buffer)
            if size == 0:
                return
            kind, flags, detail, run, length = prefix.unpack_from(buffer)
            if kind == frames.RUN:
                work = self._uncounted if flags & frames.UNCOUNTED else self._serve
                if flags & frames.IN_AREA:
                    work(run, flags, self._areas[frames.INPUTS], 0, length, True)
                else:
                    # A copy that is the model's own, in one piece.
                    work(run, flags, bytearray(self._view[:size]), prefix.size, length, False)
            elif kind == frames.AREA:
                self._take_area(detail, length)

    def _serve(self, run: int, flags: int, body: Any, start: int, length: int, shared: bool) -> None:
        arrays: List[Any] = []
        made: Any = None
        try:
            self._run = run
            if flags & frames.DOCUMENT:
                said = json.loads(bytes(memoryview(body)[start : start + length]))
                outputs = []
                made = self._model.document(said["door"], said["body"], said["parameters"])
            else:
                inputs, outputs, parameters = self._layout.request(body, start)
                if shared:
                    arrays = [array for array in inputs.values() if array.base is body]
                given = (json.loads(parameters) if parameters else {},)
                made = self._model.predict(inputs, *(given[0] if flags & frames.INPUT_PARAMETERS else given))
                del inputs
            if self._model.streams:
                self._stream(run, made, outputs)
                length, flags = None, 0
            else:
                length, flags = self._write(run, self._only(made, outputs))
            made = None
            self._run = None
        except _Closed:
            raise
        except BaseException as error:
            self._run = None
            if hasattr(made, "close"):
                self._close(made)
            self._fail(run, error, frames.KEPT if shared else 0)
            return
        if shared and frames.in_use(arrays):
            flags |= frames.KEPT
        if length is None:
            self._send(frames.END, flags, 0, run, b"")
        else:
            self._answer(run, length, flags | frames.LAST)

    def _uncounted(self, *run: Any) -> None:
        """A run that nobody asked for: what the model counts in it is not shown."""
        with getattr(self._model, "uncounted", contextlib.nullcontext)():
            self._serve(*run)

    def _only(self, made: Any, outputs: List[Any]) -> Any:
        answer = None
        for item in made:
            if answer is not None:
                raise frames.BadAnswer("the model made more than one answer, and is none that streams")
            answer = item.laid_out() if isinstance(item, frames.Described) else self._layout.answer(item, outputs)
        if answer is None:
            raise frames.BadAnswer("the model made no answer")
        return answer

    def _stream(self, run: int, made: Any, outputs: List[Any]) -> None:
        for item in made:
            length, flags = self._write(run, self._layout.answer(item, outputs))
            self._answer(run, length, flags)
            if flags & frames.IN_AREA:
                # The memory is free again when the server has taken what is in it.
                self._wait_for(frames.TAKEN)

    def _close(self, made: Any) -> None:
        """Ends what would go on making answers. What it says to that is told to nobody."""
        try:
            made.close()
        except BaseException as error:
            print(f"closing the stream failed: {describe(error)}", file=sys.stderr)

    def _write(self, run: int, answer: Any) -> Tuple[int, int]:
        """Puts an answer where it is sent from. Its length, and the flags that say where it is."""
        length = answer.length
        flags = answer.flags
        if length <= frames.INLINE:
            answer.write(self._message, frames.PREFIX.size)
            return length, flags
        area = self._areas[frames.OUTPUTS]
        if area is None or len(area) < length:
            self._areas[frames.OUTPUTS] = area = None
            self._send(frames.NEED, 0, 0, run, b"", length)
            self._wait_for(frames.AREA)
            area = self._areas[frames.OUTPUTS]
            if area is None:
                raise frames.BadAnswer(f"an answer of {length} bytes is more than the server takes")
        answer.write(area, 0)
        return length, flags | frames.IN_AREA

    def _answer(self, run: int, length: int, flags: int) -> None:
        message, size = self._message, frames.PREFIX.size
        frames.PREFIX.pack_into(message, 0, frames.ANSWER, flags, 0, run, length)
        self._sock.send(self._sending[: size if flags & frames.IN_AREA else size + length])

    def _wait_for(self, wanted: int) -> None:
        while True:
            if self._sock.recv_into(self._buffer) == 0:
                raise _Closed
            kind, _, detail, run, length = frames.PREFIX.unpack_from(self._buffer)
            if kind == frames.AREA:
                self._take_area(detail, length)
            if kind == wanted:
                return
            if kind == frames.CANCEL and run == self._run:
                raise Interrupted

    def _fail(self, run: int, error: BaseException, flags: int) -> None:
        self._reserve = None if isinstance(error, MemoryError) else self._reserve
        if isinstance(error, InvalidInput):
            detail, words = frames.INVALID_INPUT, _words_of(error) or "the model refuses these inputs, and says no more"
        elif isinstance(error, Interrupted):
            detail, words = frames.INTERRUPTED, "interrupted"
        elif isinstance(error, frames.BadAnswer):
            detail, words = frames.FAILED, str(error)
        else:
            # What stands behind the zero is for the log, and for callers only where the server says so.
            detail, words = frames.FAILED, describe(error, "\0")
        # What the failed run holds is let go before anything else is tried.
        error.__traceback__ = None
        self._send(frames.ERROR, flags, detail, run, words.encode("utf-8", "replace")[:LONGEST_TEXT])
        if self._reserve is None and self._alone:
            # What is still held may be a leak, and then no later run would find more.
            print("ending after a MemoryError: a new worker has all the memory again", file=sys.stderr)
            raise _Closed
        if self._reserve is None:
            self._reserve = bytearray(_RESERVE)

    def _send(self, kind: int, flags: int, detail: int, run: int, body: bytes, length: Optional[int] = None) -> None:
        length = len(body) if length is None else length
        self._sock.send(frames.PREFIX.pack(kind, flags, detail, run, length) + body)

    def _take_area(self, which: int, size: int) -> None:
        self._areas[which] = None
        if size:
            self._areas[which] = frames.map_area(frames.receive_descriptor(self._sock), size)

    def _on_interrupt(self, *_: Any) -> None:
        """The server says, by a signal and a frame, that nobody waits for a run any more. It may be over."""
        if self._run is None:
            return
        peeked = bytearray(frames.PREFIX.size)
        try:
            size = self._sock.recv_into(peeked, 0, _MSG_PEEK_NOW)
        except BlockingIOError:
            return
        if size == frames.PREFIX.size:
            kind, _, _, run, _ = frames.PREFIX.unpack_from(peeked)
            if kind == frames.CANCEL:
                self._sock.recv_into(peeked)
                if run == self._run:
                    raise Interrupted


def _words_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return type(error).__name__

"""The process that runs one instance of a model for the server.

It loads the model, says what the model takes and answers, and then serves one request after the other until the
server closes the socket. It writes to its standard output and error freely: they only go to the server's log.

What the server asks for is trusted. What the model does is not: whatever it raises is answered in words, and
whatever kills the process is the server's to mend.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

import _socket
from typing import Any

#: As much of an error as is sent.
LONGEST_TEXT = 24 * 1024
#: Lines of a traceback that are sent.
_TRACEBACK_LINES = 24


class Interrupted(KeyboardInterrupt):
    """Nobody waits for this run any more. A model may clean up, and should let it pass."""


def main(descriptor: int, counts: int, kind: str, path: str) -> None:
    """Serves the model at `path` to the server at the other end of a socket; `counts` is memory for its metrics."""
    import faulthandler

    from . import _attach, _keeper

    os.set_inheritable(descriptor, False)
    os.set_inheritable(counts, False)
    server = _keeper.keep(descriptor, counts)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    address = _attach.address_of(path)
    if address is not None:
        return _attach.stand_in(descriptor, counts, address, server)
    sock = _socket.socket(fileno=descriptor)
    # A process that the model forks must not answer in this one's place.
    os.register_at_fork(after_in_child=sock.close)
    # What the server needs to know is no business of the model's code.
    sys.argv[:] = [path]
    # Little of what loading makes is garbage, and looking for it takes longer than loading without.
    gc.disable()
    try:
        _guard(sock)
        from . import _metrics
        from ._models import open_model

        _metrics.share(counts)
        model = open_model(kind, path)
        from ._serving import Serving

        serving = Serving(sock, model)
    except BaseException as error:
        _refuse(sock, error)
        raise SystemExit(1) from None
    gc.freeze()
    gc.enable()
    serving.run()


def _guard(sock: Any) -> None:
    """From here on only this process' own descendants can be ended from here."""
    from . import _guard

    questions = _guard.install()
    if questions is None:
        print("this kernel takes no filter: the model can end processes that are not its own", file=sys.stderr)
        return
    # Kind 22 of the frames.
    prefix = b"\x16" + bytes(15)
    sock.sendmsg([prefix], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, questions.to_bytes(4, sys.byteorder))])
    os.close(questions)
    _guard.hold_signals_back()


def _refuse(sock: Any, error: BaseException) -> None:
    from ._spec import ModelError

    words = str(error) if isinstance(error, ModelError) else describe(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        words = _not_installed(error.name, words)
    # Without NumPy there may be no `_frames`: kind 21, the length behind flags, detail and run.
    body = words.encode("utf-8", "replace")[:LONGEST_TEXT]
    try:
        sock.send(b"\x15" + bytes(7) + len(body).to_bytes(8, sys.byteorder) + body)
    except OSError:
        # The server has left; it knows why.
        pass


def _not_installed(module: str, words: str) -> str:
    advice = "write it into a requirements.txt beside the model, or install it there"
    if module == "numpy":
        # Where in here it is missed says nothing.
        install = f"`{sys.executable} -m pip install numpy`"
        return f"NumPy, which every model needs, is not installed for {sys.executable}: {advice} with {install}"
    if "." in module or module in sys.modules:
        # A part of something that is there.
        return words
    return f"there is no module `{module}` for {sys.executable}; if a package brings it, {advice}\n{words}"


def describe(error: BaseException, between: str = "\n") -> str:
    """An exception in words: its class and message, `between`, and the last lines of its traceback from the model's own code."""
    import traceback

    here = os.path.dirname(os.path.abspath(__file__))
    trace = error.__traceback__
    # What this package did before it called the model says nothing of the model.
    while trace is not None and os.path.dirname(os.path.abspath(trace.tb_frame.f_code.co_filename)) == here:
        trace = trace.tb_next
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace or error.__traceback__)).splitlines()
        last = "".join(traceback.format_exception_only(type(error), error)).strip()
    except BaseException as second:
        # An exception that cannot even be shown.
        return f"{type(error).__name__}, which cannot be shown ({type(second).__name__})"
    if len(lines) > _TRACEBACK_LINES:
        lines = ["  ..."] + lines[-_TRACEBACK_LINES:]
    return last[: LONGEST_TEXT // 2] + between + "\n".join(lines)[-LONGEST_TEXT // 2 :]

"""The parent of a worker: it outlives the model, and ends whatever the model has started.

The process that the server starts forks at once. The child becomes the worker. The parent stays, adopts every
descendant whose own parent ends (the server has made it a "child subreaper"), and kills all of them when the worker
ends or the server does. Then it ends in the same way as the worker did, so that the server sees how that was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Dict, List

#: Seconds that the kernel may take to end what was killed.
_LAST = 5.0
#: Seconds between two looks at what still lives.
_PAUSE = 0.005
_AWAITED = {signal.SIGCHLD, signal.SIGTERM}


def keep(*descriptors: int) -> int:
    """Returns in the worker, with the server's process id. In its parent it never returns.

    descriptors: what is the worker's alone.
    """
    server = os.getppid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    worker = os.fork()
    if worker == 0:
        # In a session of its own no group can be joined that the keeper is in.
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return server
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The server sees the end of the worker by the end of its socket.
    for descriptor in descriptors:
        os.close(descriptor)
    _call_itself(f"modelway-keeper of {worker}")
    status = _wait_for(worker)
    _end_descendants()
    _end_like(status)
    raise AssertionError("unreachable")


def _call_itself(words: str) -> None:
    """Shows itself under another name than the worker's in lists of processes."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as file:
            start, end = map(int, file.read().rpartition(b")")[2].split()[45:47])
        with open("/proc/self/mem", "r+b", 0) as memory:
            memory.seek(start)
            memory.write(words.encode()[: end - start - 1].ljust(end - start, b"\0"))


def _wait_for(worker: int) -> int:
    """How the worker ended; killed, if it is to end."""
    while signal.sigwait(_AWAITED) == signal.SIGCHLD:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == worker:
                return status
            if ended == 0:
                break
    # The server says so, or has ended itself.
    return signal.SIGKILL


def _end_descendants() -> None:
    until = time.monotonic() + _LAST
    while time.monotonic() < until:
        for process in _descendants():
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_PAUSE)


def _descendants() -> List[int]:
    children: Dict[int, List[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for process in found:
        found += children.get(process, ())
    return found[1:]


def _end_like(status: int) -> None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)

"""A model that lives in another process, such as a notebook: how the server's worker hands its work to it.

``modelway.serve`` writes a folder with the file ``.attach`` that holds the path of a Unix socket. The worker that the
server starts for that folder sends the server's own socket there and then only stands in: it ends when the other
process lets go, and the server ends with it, since there is nobody left to serve for.

**Invariant:** nothing is copied and nothing pickled: the object that was handed to ``serve`` answers.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Optional

FILE = ".attach"


def address_of(path: str) -> Optional[str]:
    """The socket of the process that has the model; ``None`` for a model of this process."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    file = Path(folder, FILE)
    return file.read_text() if file.is_file() else None


def stand_in(descriptor: int, counts: int, address: str, server: int) -> None:
    """Gives the server's socket to the process at `address`, and stays as long as that serves it."""
    import socket

    parent = os.getppid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        try:
            other.connect(address)
            socket.send_fds(other, [b"1"], [descriptor, counts])
            os.close(descriptor)
            os.close(counts)
            # One byte says that the server let go; none, that the other process has ended.
            left = other.recv(1) == b""
        except OSError:
            left = True
    # With the server its parent ends, which would end this process too.
    if left and os.getppid() == parent:
        os.kill(server, signal.SIGTERM)


def accept(listener: Any) -> Any:
    """Waits for the next worker; its connection, the server's socket and its memory for metrics. ``None`` once the listener is closed."""
    import socket

    try:
        connection, _ = listener.accept()
    except OSError:
        return None
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    return connection, socket.socket(fileno=descriptors[0]), descriptors[1]

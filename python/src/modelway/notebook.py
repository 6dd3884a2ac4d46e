"""Serve a model from a notebook or a script: the server is another process, the model stays in this one."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Iterator, Optional, Union

from . import _attach
from ._model import AbstractModel
from ._opened import OpenedClass
from ._spec import ModelError, Opened
from .client import Client

_BINARY = "MODELWAY_BINARY"
_ADDRESS = re.compile(r"(http://\S+)/v2/health/ready")
_LINES = 60
_LOOK = 0.02
#: Seconds that the server has for its end.
_LAST = 10.0


def serve(
    model: Union[type, AbstractModel],
    name: Optional[str] = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    folder: Union[str, Path, None] = None,
    binary: Union[str, Path, None] = None,
    timeout: float = 60.0,
    **settings: Any,
) -> "Server":
    """Serves a model, and returns once it answers. The server ends with this process, or by ``stop()``.

    The object itself is served: a variable or a function of the notebook that it uses is the one of the notebook.

        with modelway.serve(Sentiment) as server:
            server.predict(text="good")

    model: a subclass of :class:`AbstractModel`, which is made and loaded here, or an instance, loaded already.
    name: what it is served as; the class's name in lower case if it is missing.
    host, port: where it listens; port 0 takes any free one.
    folder: the model's ``self.folder``; the working directory if it is missing.
    binary: the program ``modelway``; else ``MODELWAY_BINARY`` or the one on the PATH.
    timeout: seconds until it must be ready.
    settings: settings of ``[serve]`` in ``modelway.toml``, such as ``max_batch_size=1``.

    Raises :class:`ModelError` where the class must be changed, and ``RuntimeError`` with the server's own words.
    """
    program = find_binary(binary)
    if isinstance(model, type):
        if not issubclass(model, AbstractModel):
            raise ModelError(f"{model.__name__} is no model: let it extend modelway.AbstractModel")
        place = Path.cwd() if folder is None else Path(folder)
        opened = _elsewhere(lambda: OpenedClass(model(), place))
    elif isinstance(model, AbstractModel):
        opened = OpenedClass(model, Path(folder) if folder is not None else model.folder, load=False)
    else:
        raise ModelError(f"{model!r} is no model: serve takes a subclass of modelway.AbstractModel, or an instance of one")
    name = name or type(opened.model).__name__.lower()
    server = Server(opened, name, program, host, port, settings)
    try:
        server._wait(timeout)
    except BaseException:
        server.stop()
        raise
    print(f"serving {server.url}/v2/models/{name}")
    return server


def _elsewhere(work: Callable[[], OpenedClass]) -> OpenedClass:
    """Does the work in another thread: a notebook's own runs an event loop, which lets no other one run."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def find_binary(named: Union[str, Path, None] = None) -> str:
    """The program ``modelway``: the named one, ``MODELWAY_BINARY``, beside this interpreter, or on the PATH."""
    said = str(named) if named is not None else os.environ.get(_BINARY)
    if said:
        found = shutil.which(said)
        if found is None:
            raise RuntimeError(f"{said} is no program: name the `modelway` binary with {_BINARY} or `binary=`")
        return found
    found = shutil.which("modelway", path=sysconfig.get_path("scripts")) or shutil.which("modelway")
    if found is None:
        raise RuntimeError(f"the program `modelway` is not on the PATH: put it there, or name it with {_BINARY}")
    return found


class Server:
    """A server that was started here. ``url`` is where it is, ``client`` asks it, ``stop()`` ends it."""

    def __init__(
        self, opened: Opened, name: str, program: str, host: str, port: int, settings: Dict[str, Any]
    ) -> None:
        self.name = name
        self.url = ""
        self._opened = _OneAtATime(opened)
        self._client: Optional[Client] = None
        self._stopped = False
        self._words: Deque[str] = deque(maxlen=_LINES)
        self._told = threading.Event()
        self._folder = tempfile.mkdtemp(prefix="modelway-")
        Path(self._folder, "model.py").write_text("# modelway.serve made this; the model is in another process.\n")
        address = os.path.join(self._folder, "socket")
        Path(self._folder, _attach.FILE).write_text(address)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True, name="modelway-accept").start()
        environment = dict(os.environ)
        # The stand-in runs in this interpreter, which is sure to understand it.
        for key, value in {"instances": 1, "python": sys.executable, **settings}.items():
            word = str(value).lower() if isinstance(value, bool) else str(value)
            environment[f"MODELWAY__SERVE__{key.upper()}"] = word
        self._process = subprocess.Popen(
            [program, "serve", self._folder, "--model-name", name, "--host", host, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            # Interrupting a cell does not end the server.
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True, name="modelway-log").start()
        atexit.register(self.stop)

    @property
    def client(self) -> Client:
        """A client of this server."""
        if self._client is None:
            self._client = Client(self.url)
        return self._client

    def predict(self, data: Any = None, /, **inputs: Any) -> Any:
        """Asks the model, through the server: see :meth:`Client.predict`."""
        return self.client.predict(self.name, data, **inputs)

    @property
    def log(self) -> str:
        """The server's last words."""
        return "".join(self._words)

    def stop(self) -> None:
        """Ends the server, once it has answered what it has begun. Doing it again is harmless."""
        if self._stopped:
            return
        self._stopped = True
        if self._client is not None:
            self._client.close()
        atexit.unregister(self.stop)
        self._process.terminate()
        try:
            # The second signal cuts the time for others to learn of it.
            self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.terminate()
        try:
            self._process.wait(_LAST)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<modelway server of `{self.name}` at {self.url}, {'stopped' if self._stopped else 'serving'}>"

    def _wait(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self._process.poll() is not None:
                # What it said last may still be on its way.
                self._told.wait(1.0)
                raise RuntimeError(f"the server ended with {self._process.returncode}; it said:\n{self.log}")
            if self.url and self.client.ready(self.name):
                return
            time.sleep(_LOOK)
        raise RuntimeError(f"the server was not ready within {timeout:g} s; it said:\n{self.log}")

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._words.append(line)
            found = None if self.url else _ADDRESS.search(line)
            if found:
                self.url = found[1]
        self._told.set()

    def _accept(self) -> None:
        while True:
            taken = _attach.accept(self._listener)
            if taken is None:
                return
            threading.Thread(target=self._serve, args=taken, daemon=True, name="modelway-worker").start()

    def _serve(self, connection: socket.socket, sock: socket.socket, counts: int) -> None:
        from ._serving import Serving

        with connection, sock:
            self._opened.share_metrics(counts)
            # An end of the server is none of this process.
            with contextlib.suppress(OSError):
                Serving(sock, self._opened, alone=False).run()
            with contextlib.suppress(OSError):
                connection.send(b"1")


class _OneAtATime:
    """A model that several workers may ask, and that answers one after the other."""

    def __init__(self, opened: Opened) -> None:
        self._lock = threading.Lock()
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def predict(self, *given: Any) -> Iterator[Any]:
        with self._lock:
            yield from self._opened.predict(*given)

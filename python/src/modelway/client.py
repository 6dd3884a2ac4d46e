"""A small client of a Modelway server, or of any other that speaks the Open Inference Protocol V2.

It needs nothing but the standard library. Where NumPy is there, arrays are sent and come back as binary tensors.

    client = Client("http://127.0.0.1:8080")
    client.predict("sentiment", text="good")                    # 'good'
    client.infer("iris", {"input": np.ones((2, 4), "float32")})  # {"label": array([1, 1]), ...}
    for piece in client.stream("writer", text="Once"): ...
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import quote, urlsplit

from ._spec import NUMPY_NAMES

_HEADER = "Inference-Header-Content-Length"
_DATATYPES = {numpy: datatype for datatype, numpy in NUMPY_NAMES.items() if datatype != "BYTES"}


class ServerError(Exception):
    """The server refused a request or failed: its HTTP status (0: it was not reached) and its own words."""

    def __init__(self, status: int, message: str, retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        self.status = status
        #: Seconds after which the server says that trying again is worth it.
        self.retry_after = retry_after


class Client:
    """Asks the server at `url`. Threads may share one client; each has a connection of its own, which is kept.

    timeout: seconds without a sign of the server after which a request fails.
    headers: sent with every request, such as ``{"Authorization": "Bearer ..."}``.
    """

    def __init__(self, url: str, timeout: float = 60.0, headers: Optional[Mapping[str, str]] = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a server: it looks like http://127.0.0.1:8080")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._parts = parts
        self._timeout = timeout
        self._headers = dict(headers or {})
        self._local = threading.local()

    def ready(self, model: Optional[str] = None, version: Optional[str] = None) -> bool:
        """Whether the server, or one model, can answer. ``False`` too if there is no server."""
        path = "/v2/health/ready" if model is None else f"{_path(model, version)}/ready"
        try:
            return self._ask("GET", path)[0] == 200
        except ServerError:
            return False

    def metadata(self, model: Optional[str] = None, version: Optional[str] = None) -> Dict[str, Any]:
        """What the server says of itself, or of a model: its inputs and outputs."""
        _, _, body = self._ask("GET", "/v2" if model is None else _path(model, version))
        return json.loads(body)

    def predict(self, model: str, **inputs: Any) -> Any:
        """Runs a model on Python values, and returns its output; a dict of them where it has several.

        A plain value (``text="good"``) is one row, and its answer is one value. A list or an array is what it is, and so
        is the answer. The datatypes are those that the model declares.
        """
        declared = {spec["name"]: spec for spec in self._declared(model)}
        one = all(not isinstance(value, (list, tuple)) and not hasattr(value, "dtype") for value in inputs.values())
        tensors = [_tensor(name, [value] if one else value, declared.get(name)) for name, value in inputs.items()]
        outputs = self._infer(model, None, tensors, None, None)
        if one:
            outputs = {name: value[0] if len(value) == 1 else value for name, value in outputs.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        outputs: Optional[Sequence[str]] = None,
        parameters: Optional[Mapping[str, Any]] = None,
        version: Optional[str] = None,
    ) -> Dict[str, Any]:
        """Runs a model, and returns its outputs by their names: arrays where NumPy is imported, else lists.

        inputs: an array for each input, sent as it is, or a list, sent with the datatype that the model declares.
        outputs: the names of those that are wanted; all if it is missing.
        parameters: the request's parameters, such as ``{"timeout": 500_000}`` (microseconds) or the model's own.
        """
        arrays = all(hasattr(value, "dtype") for value in inputs.values())
        declared = {} if arrays else {spec["name"]: spec for spec in self._declared(model, version)}
        tensors = [_tensor(name, value, declared.get(name)) for name, value in inputs.items()]
        return self._infer(model, version, tensors, outputs, parameters)

    def stream(self, model: str, parameters: Optional[Mapping[str, Any]] = None, **inputs: Any) -> Iterator[Any]:
        """Runs a model that streams, and gives each answer as it comes: the output, or a dict where there are several.

        Stop reading, and the server stops the run.
        """
        body = json.dumps({**inputs, **({"parameters": dict(parameters)} if parameters else {})}).encode()
        # A connection of its own: one that was left in the midst of an answer is of no more use.
        connection = self._connect()
        try:
            response = self._send(connection, "POST", f"{_path(model, None)}/generate_stream", body, {})
            if response.status != 200:
                raise _error(response, response.read())
            for event in _events(response):
                if "error" in event:
                    raise ServerError(response.status, event["error"])
                skipped = ("model_name", "model_version", "id", "parameters")
                outputs = {name: value for name, value in event.items() if name not in skipped}
                yield next(iter(outputs.values())) if len(outputs) == 1 else outputs
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(0, f"the stream of {self.url} broke off: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Closes this thread's connection."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_local"):
            self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _declared(self, model: str, version: Optional[str] = None) -> List[Dict[str, Any]]:
        """The model's inputs, asked for once."""
        known = self._local.__dict__.setdefault("declared", {})
        if (model, version) not in known:
            known[model, version] = self.metadata(model, version)["inputs"]
        return known[model, version]

    def _infer(
        self,
        model: str,
        version: Optional[str],
        tensors: List[Tuple[Dict[str, Any], bytes]],
        outputs: Optional[Sequence[str]],
        parameters: Optional[Mapping[str, Any]],
    ) -> Dict[str, Any]:
        binary = "numpy" in sys.modules
        request: Dict[str, Any] = {"inputs": [head for head, _ in tensors]}
        if parameters or binary:
            request["parameters"] = {**(parameters or {}), **({"binary_data_output": True} if binary else {})}
        if outputs is not None:
            request["outputs"] = [{"name": name} for name in outputs]
        head = json.dumps(request).encode()
        tails = b"".join(tail for _, tail in tensors)
        headers = {"Content-Type": "application/json"}
        if tails:
            headers = {"Content-Type": "application/octet-stream", _HEADER: str(len(head))}
        _, response, body = self._ask("POST", f"{_path(model, version)}/infer", head + tails, headers)
        return _outputs(response.getheader(_HEADER), body)

    def _ask(
        self, method: str, path: str, body: Optional[bytes] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Tuple[int, http.client.HTTPResponse, bytes]:
        for attempt in (0, 1):
            connection = getattr(self._local, "connection", None)
            kept = connection is not None
            if connection is None:
                connection = self._local.connection = self._connect()
            try:
                response = self._send(connection, method, path, body, headers or {})
                answer = response.read()
                break
            except (ConnectionError, http.client.BadStatusLine) as error:
                self.close()
                # The server may have closed a connection that was kept, before it saw anything of this.
                if attempt == 1 or not kept:
                    raise ServerError(0, f"{self.url} cannot be reached: {error or type(error).__name__}") from error
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise ServerError(0, f"no answer of {self.url}: {error or type(error).__name__}") from error
        if response.status >= 400:
            raise _error(response, answer)
        return response.status, response, answer

    def _connect(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Optional[bytes],
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        base = self._parts.path.rstrip("/")
        connection.request(method, base + path, body, {**self._headers, **headers})
        return connection.getresponse()


def _path(model: str, version: Optional[str]) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{quote(version, safe='')}"


def _error(response: http.client.HTTPResponse, body: bytes) -> ServerError:
    text = body.decode("utf-8", "replace")
    try:
        said = json.loads(text)
        text = said.get("error") or said.get("detail") or text
    except (ValueError, AttributeError):
        pass
    after = response.getheader("Retry-After")
    return ServerError(response.status, str(text), float(after) if after and after.isdigit() else None)


def _events(response: http.client.HTTPResponse) -> Iterator[Dict[str, Any]]:
    """Server-sent events whose data is JSON."""
    data: List[str] = []
    for raw in response:
        line = raw.decode("utf-8").rstrip("\r\n")
        if line.startswith("data:"):
            data.append(line[5:].lstrip(" "))
        elif not line and data:
            text, data = "\n".join(data), []
            if text != "[DONE]":
                yield json.loads(text)


def _tensor(name: str, value: Any, declared: Optional[Mapping[str, Any]]) -> Tuple[Dict[str, Any], bytes]:
    """A tensor's part of the request's JSON, and its part of what follows."""
    if hasattr(value, "dtype"):
        return _binary(name, value)
    if declared is None:
        raise ValueError(f"the model has no input `{name}`")
    flat, shape = _flat(value)
    return {"name": name, "datatype": declared["datatype"], "shape": shape, "data": flat}, b""


def _binary(name: str, array: Any) -> Tuple[Dict[str, Any], bytes]:
    if array.dtype.kind in "OSU":
        items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel().tolist()]
        datatype, tail = "BYTES", b"".join(len(item).to_bytes(4, "little") + item for item in items)
    else:
        datatype = _DATATYPES.get(array.dtype.name, "")
        if not datatype:
            raise ValueError(f"input `{name}` is an array of {array.dtype}, which the protocol cannot carry")
        tail = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    parameters = {"binary_data_size": len(tail)}
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": parameters}, tail


def _flat(value: Any) -> Tuple[List[Any], List[int]]:
    """Nested lists as one, and their shape."""
    shape: List[int] = []
    rows = [value]
    while rows and all(isinstance(row, (list, tuple)) for row in rows):
        sizes = {len(row) for row in rows}
        if len(sizes) > 1:
            raise ValueError(f"a list has parts of different lengths ({sorted(sizes)}), which is no tensor")
        shape.append(sizes.pop())
        rows = [item for row in rows for item in row]
    return rows, shape


def _outputs(head_size: Optional[str], body: bytes) -> Dict[str, Any]:
    at = len(body) if head_size is None else int(head_size)
    outputs = {}
    for tensor in json.loads(body[:at])["outputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[tensor["name"]] = _from_json(tensor)
            continue
        outputs[tensor["name"]] = _from_binary(tensor, body[at : at + size])
        at += size
    return outputs


def _from_json(tensor: Mapping[str, Any]) -> Any:
    flat, shape = tensor["data"], tensor["shape"]
    if "numpy" in sys.modules:
        import numpy as np

        return np.array(_flat(flat)[0], NUMPY_NAMES[tensor["datatype"]]).reshape(shape)
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
    return flat


def _from_binary(tensor: Mapping[str, Any], raw: bytes) -> Any:
    import numpy as np

    if tensor["datatype"] != "BYTES":
        dtype = np.dtype(NUMPY_NAMES[tensor["datatype"]]).newbyteorder("<")
        return np.frombuffer(raw, dtype).reshape(tensor["shape"])
    items, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        items.append(_text(raw[at + 4 : at + 4 + size]))
        at += 4 + size
    made = np.empty(len(items), object)
    made[:] = items
    return made.reshape(tensor["shape"])


def _text(item: bytes) -> Any:
    """Text where it is some, as JSON would have carried it."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item

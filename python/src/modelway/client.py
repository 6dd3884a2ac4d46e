"""A small client of a Modelway server, or of any other that speaks the Open Inference Protocol V2.

It needs nothing but the standard library. Where NumPy is there, arrays are sent and come back as binary tensors.

    client = Client("http://127.0.0.1:8080")
    client.predict("sentiment", text="good")             # 'good'
    client.predict("iris", table[["a", "b", "c", "d"]])   # a pandas table, an array, a list, a dict
    client.infer("iris", {"input": np.ones((2, 4))})     # {"label": array([1, 1]), ...}
    for piece in client.stream("writer", text="Once"): ...
"""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from urllib.parse import quote, urlsplit

from . import _values

_HEADER = "Inference-Header-Content-Length"


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
        if parts.username is not None:
            raise ValueError("the URL has a user in it: send what says who you are as `headers={'Authorization': ...}`")
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
        status, _, body = self._ask("GET", "/v2" if model is None else _path(model, version))
        try:
            return json.loads(body)
        except ValueError:
            raise ServerError(status, f"what answers at {self.url} does not speak the Open Inference Protocol") from None

    def predict(self, model: str, data: Any = None, /, **inputs: Any) -> Any:
        """Runs a model on Python values, and returns its output; a dict of them where it has several.

        data: for a model with one input its values: an array, a list, a pandas table or column. For one with several a
            pandas table or row, a dict or a list of dicts, by the names of the inputs.
        inputs: inputs by their names, instead of `data` or beside it. Other names are the request's parameters, as in
            ``horizon=2``.

        One row (``text="good"``, or ``[5.1, 3.5, 1.4, 0.2]`` for a shape of [-1, 4]) has the answer of one row; many
        rows have an array. Values are sent with the datatypes that the model declares.

        Raises :class:`ServerError`, and ``ValueError`` where a value cannot be sent, as 1e300 for FP32.
        """
        given, parameters = _values.by_name(self._declared(model), data, inputs)
        sent = self._tensors(model, None, given)
        return _only(self._infer(model, None, sent, None, parameters), _is_one(sent))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        outputs: Optional[Sequence[str]] = None,
        parameters: Optional[Mapping[str, Any]] = None,
        version: Optional[str] = None,
    ) -> Dict[str, Any]:
        """Runs a model, and returns its outputs by their names: arrays where NumPy is imported, else lists.

        inputs: an array or a list for each input, sent with the datatype that the model declares.
        outputs: the names of those that are wanted; all if it is missing.
        parameters: the request's parameters, such as ``{"timeout": 500_000}`` (microseconds) or the model's own.
        """
        sent = self._tensors(model, version, inputs)
        return self._infer(model, version, sent, outputs, _values.parameters(parameters))

    def stream(
        self, model: str, data: Any = None, /, parameters: Optional[Mapping[str, Any]] = None, **inputs: Any
    ) -> Iterator[Any]:
        """Runs a model that streams, and gives each answer as it comes: the output, or a dict where there are several.

        `data` and `inputs` are those of :meth:`predict`. Stop reading, and the server stops the run.
        """
        given, others = _values.by_name(self._declared(model), data, inputs)
        sent = self._tensors(model, None, given)
        body, headers = _body(sent, None, {**others, **_values.parameters(parameters)})
        # A connection of its own: one that was left in the midst of an answer is of no more use.
        connection = self._connect()
        try:
            response = self._send(connection, "POST", f"{_path(model, None)}/infer_stream", body, headers)
            if response.status != 200:
                raise _error(response, response.read())
            for event in _events(response):
                if "error" in event:
                    raise ServerError(response.status, event["error"])
                yield _only(_values.answer(None, json.dumps(event).encode()), _is_one(sent))
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
        """The model's inputs."""
        return self._described(model, version).get("inputs") or []

    def _described(self, model: str, version: Optional[str] = None) -> Dict[str, Any]:
        """The model's metadata, asked for once."""
        known = self._local.__dict__.setdefault("described", {})
        if (model, version) not in known:
            known[model, version] = self.metadata(model, version)
        return known[model, version]

    def _tensors(self, model: str, version: Optional[str], inputs: Mapping[str, Any]) -> List[_values.Sent]:
        declared = {spec["name"]: spec for spec in self._declared(model, version)}
        return [_values.tensor(name, value, declared.get(name)) for name, value in inputs.items()]

    def _infer(
        self,
        model: str,
        version: Optional[str],
        sent: List[_values.Sent],
        outputs: Optional[Sequence[str]],
        parameters: Optional[Mapping[str, Any]],
    ) -> Dict[str, Any]:
        # In binary form, because JSON has no word for a NaN or for bytes.
        body, headers = _body(sent, outputs, {**(parameters or {}), "binary_data_output": True})
        try:
            _, response, answer = self._ask("POST", f"{_path(model, version)}/infer", body, headers)
        except ServerError:
            # The model may be another one by now.
            self._local.__dict__.get("described", {}).pop((model, version), None)
            raise
        declared = {spec["name"]: spec["datatype"] for spec in self._described(model, version).get("outputs") or []}
        return _values.answer(response.getheader(_HEADER), answer, declared)

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
        if response.status >= 300:
            raise ServerError(response.status, f"{self.url} sends to another address: {response.getheader('Location')}")
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
    # A version may well be given as a number.
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _body(
    sent: List[_values.Sent], outputs: Optional[Sequence[str]], parameters: Mapping[str, Any]
) -> Tuple[bytes, Dict[str, str]]:
    """A request of V2, and its headers."""
    request: Dict[str, Any] = {"inputs": [tensor.head for tensor in sent]}
    if parameters:
        request["parameters"] = dict(parameters)
    if outputs is not None:
        request["outputs"] = [{"name": name} for name in outputs]
    head = json.dumps(request).encode()
    tails = b"".join(tensor.tail for tensor in sent)
    if not tails:
        return head, {"Content-Type": "application/json"}
    return head + tails, {"Content-Type": "application/octet-stream", _HEADER: str(len(head))}


def _is_one(sent: List[_values.Sent]) -> bool:
    """Whether the caller gave one row, without a dimension that counts rows."""
    return all(tensor.one is not False for tensor in sent)


def _only(outputs: Dict[str, Any], one: bool) -> Any:
    if one:
        outputs = {name: _values.first(value) for name, value in outputs.items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


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

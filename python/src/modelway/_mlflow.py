"""MLflow models: opened by the plan that the server made of their `MLmodel`.

What scikit-learn, XGBoost, LightGBM, CatBoost or PyTorch wrote is loaded by that library alone (``_mlflow_flavors``):
MLflow takes seconds to import and predicts nothing. Whatever only MLflow can load is loaded by it, if it is installed.

Requests come as arrays where the signature says what they are, which is the fast way, or as the JSON that the client
sent (``_mlflow_documents``). Answers are what the model made (``_mlflow_answers``).

pandas is imported where a table needs it (text beside numbers, columns that are chosen by name) and left alone
where an array says the same.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from . import _mlflow_answers as answers
from ._frames import Described
from ._mlflow_documents import JSON_KINDS, Column, MlflowReader, Reader, text_array
from ._mlflow_flavors import LOADERS, Arrays, Made, Model, Plan
from ._spec import NUMPY_NAMES, InvalidInput, ModelError, TensorSpec

#: The fields of a request that MLflow's server hands to the model as they are.
_OF_CHATS = ("messages", "prompt", "input")
#: Parameters that clients of the protocol send for their own ends, and those that are the server's.
_NOT_THE_MODELS = (
    "content_type",
    "headers",
    "priority",
    "timeout",
    "binary_data_output",
    "triton_enable_empty_final_response",
)


def open_mlflow(path: str) -> "Mlflow":
    """Opens the model that the plan at `path` describes."""
    with open(path, encoding="utf-8") as file:
        plan = json.load(file)
    folder = plan["folder"]
    if plan.get("code"):
        code = os.path.join(folder, plan["code"])
        # As MLflow does: the folder, and each package in it.
        sys.path[:0] = [code] + [entry.path for entry in os.scandir(code) if entry.is_dir()]
    file = os.path.join(folder, plan["file"]) if plan.get("file") else folder
    try:
        model = LOADERS[plan["loader"]](file, plan)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"the module `{error.name}`, which this model needs, is not installed for {sys.executable}: "
            "log the model with it among its pip_requirements, or add it to requirements.txt beside MLmodel"
        ) from error
    return Mlflow(plan, model)


class Mlflow:
    """A loaded model with its signature: the logged one, or what the model itself shows."""

    platform = "mlflow"
    streams = False

    def __init__(self, plan: Plan, model: Model) -> None:
        self._model = model
        self._reader = _reader(plan, model)
        #: Whether it checks plain values by type hints of its own, so that no body but its JSON says what came.
        self.plain = bool(getattr(self._reader, "plain", False))
        columns, table = (plan["inputs"], bool(plan["table"])) if plan["inputs"] else model.columns()
        self._columns: List[Column] = columns
        self._shaped = _Table(columns, model) if table and columns else None
        self.inputs = [TensorSpec(column["name"], column["datatype"], column["shape"]) for column in columns]
        self.optional = [column["name"] for column in columns if table and not column["required"]]
        self.base64 = [column["name"] for column in columns if column["kind"] == "binary"]
        self.json = [column["name"] for column in columns if column["kind"] in JSON_KINDS]
        self._parameters = {parameter["name"]: parameter for parameter in plan.get("params") or []}
        self.labels: Dict[str, List[str]] = {}
        self.outputs = model.outputs(self.labels) or _declared(plan["outputs"])
        if not self.outputs:
            # What a trial saw is in the metadata, and tells whether requests may be joined. It binds no answer.
            self.outputs = self._tried(plan)
        specs = self.inputs + self.outputs
        known = bool(self.inputs and self.outputs)
        self.rows = known and model.independent and all(spec.shape[:1] == [-1] for spec in specs)

    def predict(self, inputs: Arrays, parameters: Dict[str, Any]) -> Iterator[Any]:
        """Runs the model on arrays of the signature's inputs."""
        params, ignored = self._params(parameters or None)
        rows = max(map(len, inputs.values())) if self.rows else None
        made = self._model.predict(self._given(inputs), params)
        arrays = None if ignored else answers.typed(made, self.outputs, rows)
        yield arrays if arrays is not None else answers.described(made, self.outputs, True, True, ignored)

    def document(self, door: str, body: Any, parameters: Dict[str, Any]) -> Iterator[Described]:
        """Runs the model on the JSON of a request."""
        if door == "csv":
            body = {"csv": body}
        if door == "invocations" and any(name in body for name in _OF_CHATS):
            params = {name: body.pop(name) for name in list(body) if name in self._parameters}
            yield answers.whole(self._model.predict(body, params or None).predictions)
            return
        given = self._reader.read(door, body)
        if door != "v2":
            named = "params" if door == "invocations" else "parameters"
            given_params = body.get(named)
            if not isinstance(given_params, (dict, type(None))):
                raise InvalidInput(f"`{named}` is an object with each parameter by its name, or null")
        else:
            given_params = parameters or None
        params, ignored = self._params(given_params)
        made = self._model.predict(given.value, params)
        tensors = door in ("v2", "generate")
        yield answers.described(made, self.outputs, not tensors, tensors, given.ignored + ignored)

    def _given(self, inputs: Arrays) -> Any:
        """What the model is given for arrays."""
        if self.plain:
            return _texts(inputs, self._columns[0]).tolist()
        if self._shaped is not None:
            return self._shaped.of(inputs)
        if not all(column["named"] for column in self._columns) and len(self._columns) == 1:
            (column,) = self._columns
            return _texts(inputs, column)
        return {column["name"]: _texts(inputs, column) for column in self._columns}

    def _params(self, given: Optional[Dict[str, Any]]) -> Tuple[Optional[Dict[str, Any]], List[str]]:
        """What the model takes of a request's parameters, and the names of the rest. ``None``: the request has none."""
        if given is None:
            return None, []
        known, made, ignored = self._parameters, {}, []
        for name, value in given.items():
            if name not in known:
                if name not in _NOT_THE_MODELS:
                    ignored.append(f"params.{name}")
            elif known[name].get("shape") and isinstance(value, str):
                made[name] = _listed(name, value)
            else:
                made[name] = value
        if given and not made and not ignored:
            # All of them were the server's.
            return None, []
        return (made if self._model.takes_parameters else None), ignored

    def _tried(self, plan: Plan) -> List[TensorSpec]:
        """What it answers to its own example, or to zeros."""
        try:
            made, rows = self._of_example(plan) or self._of_zeros() or (None, 0)
            tensors = {} if made is None else answers.tensors(made, [])
        except Exception as error:
            print(f"the model failed on its example: {type(error).__name__}: {error}", file=sys.stderr)
            return []
        return [answers.spec_of(name, array, rows) for name, array in tensors.items()]

    def _of_example(self, plan: Plan) -> Optional[Tuple[Made, int]]:
        if not plan.get("example"):
            return None
        with open(os.path.join(plan["folder"], plan["example"]), encoding="utf-8") as file:
            body = json.load(file)
        given = self._reader.read("invocations", body)
        params, _ = self._params(body.get("params"))
        values = list(given.value.values()) if isinstance(given.value, dict) else [given.value]
        return self._model.predict(given.value, params), max(len(value) for value in values)

    def _of_zeros(self) -> Optional[Tuple[Made, int]]:
        if not self._columns or any(column["datatype"] == "BYTES" for column in self._columns):
            return None
        zeros = {
            c["name"]: np.zeros([1 if size < 0 else size for size in c["shape"]], NUMPY_NAMES[c["datatype"]])
            for c in self._columns
        }
        return self._model.predict(self._given(zeros), None), max(map(len, zeros.values()))


def _reader(plan: Plan, model: Model) -> Reader:
    columns, table = plan["inputs"], bool(plan["table"])
    loaded = model.of_mlflow()
    if loaded is None:
        return Reader(columns, table)
    try:
        return MlflowReader(columns, table, loaded)
    except (ImportError, AttributeError):
        # An MLflow from before 2.0, whose server spoke otherwise.
        return Reader(columns, table)


class _Table:
    """Columns, as the model wants to have them: one array, or a data frame."""

    def __init__(self, columns: List[Column], model: Model) -> None:
        self._columns = columns
        self._optional = not all(column["required"] for column in columns)
        plain = all(column["datatype"] != "BYTES" for column in columns)
        self._order = model.order([column["name"] for column in columns]) if plain else None
        if self._order is None:
            import pandas  # noqa: F401  (at load, and not at the first request)

    def of(self, inputs: Arrays) -> Any:
        columns = self._sent(inputs)
        if self._order is not None and columns is self._columns:
            arrays = [inputs[name] for name in self._order]
            table = np.empty((len(arrays[0]), len(arrays)), np.result_type(*arrays))
            for place, array in enumerate(arrays):
                table[:, place] = array
            return table
        import pandas as pd

        given = {}
        for place, column in enumerate(columns):
            kind, values = column["kind"], _texts(inputs, column)
            if kind == "datetime":
                values = _times(values, column["name"])
            elif kind == "string":
                # From a list pandas chooses its own type for texts, as it does for those of MLflow's server: of none, numbers.
                values = values.tolist() if len(values) else values
            given[column["name"] if column["named"] else place] = values
        return pd.DataFrame(given)

    def _sent(self, inputs: Arrays) -> List[Column]:
        """The columns without those that the caller left out, which have no rows where others have some."""
        if not self._optional or not any(map(len, inputs.values())):
            return self._columns
        sent = [c for c in self._columns if c["required"] or len(inputs[c["name"]])]
        return sent if len(sent) < len(self._columns) else self._columns


def _texts(inputs: Arrays, column: Column) -> Any:
    """One of the inputs: bytes as what they mean to the model."""
    array, kind = inputs[column["name"]], column["kind"]
    if array.dtype != object or kind == "binary":
        return array
    if kind == "bytes" or kind[:1] in ("|", "S"):
        return array.astype(bytes)
    read = json.loads if kind in JSON_KINDS else None
    made = np.empty(array.shape, object)
    for place, value in enumerate(array.flat):
        try:
            text = value.decode()
            made.flat[place] = read(text) if read else text
        except ValueError as error:
            what = "JSON, which lists and objects come as" if read else "UTF-8"
            raise InvalidInput(f"input `{column['name']}`, value {place}, is not {what}: {error}") from error
    return made if kind in ("string", "datetime") or read else text_array(made, kind)


def _listed(name: str, text: str) -> Any:
    """A list in the one form in which V2 can carry it."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"parameter `{name}` is a list, which V2 sends as a string of JSON: {error}") from error


def _times(values: Any, name: str) -> Any:
    import pandas as pd

    texts = pd.Series(values, dtype=object)
    try:
        try:
            times = pd.to_datetime(texts, format="ISO8601")
        except ValueError:
            # Of another form, which MLflow's server lets pandas guess.
            times = pd.to_datetime(texts)
        # MLflow's columns of times have no zone.
        times = times if times.dt.tz is None else times.dt.tz_convert("UTC").dt.tz_localize(None)
        return times.astype("datetime64[ns]")
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"column `{name}` has a value that is no time as 2024-01-31T12:00:00: {error}") from error


def _declared(outputs: Optional[List[Column]]) -> List[TensorSpec]:
    """The outputs of the logged signature."""
    if not outputs:
        return []
    alone = len(outputs) == 1 and not outputs[0]["named"]
    return [
        TensorSpec(answers.ALONE if alone else column["name"], column["datatype"], column["shape"]) for column in outputs
    ]

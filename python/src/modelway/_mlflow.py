"""MLflow models: opened by the plan that the server made of their `MLmodel`.

What scikit-learn, XGBoost, LightGBM, CatBoost or PyTorch wrote is loaded by that library alone (``_mlflow_flavors``):
MLflow takes seconds to import and predicts nothing. Whatever only MLflow can load is loaded by it, if it is installed.

pandas is imported where a table needs it (text beside numbers, columns that are chosen by name) and left alone
where an array says the same.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, Iterator, List, Optional

import numpy as np

from ._mlflow_flavors import LOADERS, Arrays, Model, Plan, word_of
from ._spec import NUMPY_NAMES, InvalidInput, ModelError, TensorSpec

#: What MLflow calls text that is more than text.
_JSON_KINDS = ("array", "object", "map", "any")


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
        self._columns: List[Dict[str, Any]] = plan["inputs"] or model.columns()
        self._table = bool(plan["table"])
        self._shaped = _Table(self._columns, model) if self._table else None
        self.inputs = [TensorSpec(column["name"], column["datatype"], column["shape"]) for column in self._columns]
        self.optional = [column["name"] for column in self._columns if self._table and not column["required"]]
        self.base64 = [column["name"] for column in self._columns if column["kind"] == "binary"]
        self._parameters: List[Dict[str, Any]] = (plan.get("params") or []) if model.takes_parameters else []
        self.labels: Dict[str, List[str]] = {}
        self.outputs = model.outputs(self.labels) or self._tried(plan) or _declared(plan["outputs"])
        if not self.outputs:
            raise ModelError(
                "nobody knows what this model answers: log it with a signature "
                "(mlflow.models.infer_signature) or an input_example"
            )
        first = all(spec.shape[:1] == [-1] for spec in self.inputs + self.outputs)
        self.rows = model.independent and first

    def predict(self, inputs: Arrays, parameters: Dict[str, Any]) -> Iterator[Arrays]:
        made = self._run(inputs, _checked(parameters, self._parameters) if self._parameters else None)
        yield {spec.name: _fitted(made, spec) for spec in self.outputs}

    def _run(self, inputs: Arrays, parameters: Optional[Dict[str, Any]] = None) -> Arrays:
        given: Any
        if self._shaped is not None:
            given = self._shaped.of(inputs)
        elif len(self._columns) == 1:
            (column,) = self._columns
            given = _texts(inputs[column["name"]], column["kind"])
        else:
            given = {c["name"]: _texts(inputs[c["name"]], c["kind"]) for c in self._columns}
        return self._model.predict(given, params=parameters) if parameters else self._model.predict(given)

    def _tried(self, plan: Plan) -> List[TensorSpec]:
        """What it answers to its own example, or to zeros."""
        try:
            example = _example(plan, self._columns)
        except Exception as error:
            print(f"the example of the model cannot be read: {error}", file=sys.stderr)
            example = None
        if example is None:
            if any(column["datatype"] == "BYTES" for column in self._columns):
                return []
            example = {
                c["name"]: np.zeros([1 if size < 0 else size for size in c["shape"]], NUMPY_NAMES[c["datatype"]])
                for c in self._columns
            }
        try:
            made = self._run(example)
        except Exception as error:
            print(f"the model failed on its example: {type(error).__name__}: {error}", file=sys.stderr)
            return []
        rows = max(map(len, example.values()))
        return [_spec(name, array, rows) for name, array in made.items()]


class _Table:
    """Columns, as the model wants to have them: one array, or a data frame."""

    def __init__(self, columns: List[Dict[str, Any]], model: Model) -> None:
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
        for column in columns:
            array, kind = inputs[column["name"]], column["kind"]
            values: Any = _texts(array, kind)
            given[column["name"]] = _times(values, column["name"]) if kind == "datetime" else values
        return pd.DataFrame(given)

    def _sent(self, inputs: Arrays) -> List[Dict[str, Any]]:
        """The columns without those that the caller left out, which have no rows where others have some."""
        if not self._optional or not any(map(len, inputs.values())):
            return self._columns
        sent = [c for c in self._columns if c["required"] or len(inputs[c["name"]])]
        return sent if len(sent) < len(self._columns) else self._columns


def _texts(array: np.ndarray, kind: str) -> np.ndarray:
    """Bytes as what they mean to the model."""
    if array.dtype != object or kind in ("binary", "bytes"):
        return array
    read = json.loads if kind in _JSON_KINDS else None
    made = np.empty(array.shape, object)
    for place, value in enumerate(array.flat):
        try:
            text = value.decode()
            made.flat[place] = read(text) if read else text
        except ValueError as error:
            raise InvalidInput(f"value {place} is not {'JSON' if read else 'UTF-8'}: {error}") from error
    return made


#: Parameters that clients of the protocol send for their own ends.
_OF_CLIENTS = ("content_type", "headers")
#: The words of a signature for the types of a parameter, as far as the protocol carries them.
_PARAMETERS = {
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "datetime": (str,),
}


def _checked(given: Dict[str, Any], declared: List[Dict[str, Any]]) -> Dict[str, Any]:
    """The request's parameters, once each fits what was logged of it."""
    known = {parameter["name"]: parameter for parameter in declared}
    made = {}
    for name, value in given.items():
        if name not in known:
            if name in _OF_CLIENTS:
                continue
            raise InvalidInput(f"the model has no parameter `{name}`; it has {', '.join(known)}")
        kind, listed = known[name].get("type", ""), bool(known[name].get("shape"))
        if listed or not isinstance(value, _PARAMETERS.get(kind, ())) or (isinstance(value, bool) and kind != "boolean"):
            wanted = f"a list of {kind}, which requests cannot carry" if listed else kind
            raise InvalidInput(f"parameter `{name}` is {value!r}, and the model wants {wanted}")
        made[name] = value
    return made


def _times(values: Any, name: str) -> Any:
    import pandas as pd

    try:
        times = pd.to_datetime(pd.Series(values, dtype=object), format="ISO8601")
        # MLflow's columns of times have no zone.
        return times if times.dt.tz is None else times.dt.tz_convert("UTC").dt.tz_localize(None)
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"column `{name}` has a value that is no time as 2024-01-31T12:00:00: {error}") from error


def _spec(name: str, array: np.ndarray, rows: int) -> TensorSpec:
    shape = list(array.shape)
    if shape and shape[0] == rows:
        shape[0] = -1
    return TensorSpec(name, word_of(array.dtype), shape)


def _fitted(made: Arrays, spec: TensorSpec) -> np.ndarray:
    """An answer in the datatype that was promised."""
    array = made.get(spec.name)
    if array is None:
        raise ValueError(f"the model answered {', '.join(made)} and no `{spec.name}`")
    if not isinstance(array, np.ndarray):
        array = np.asarray(array)
    if spec.datatype != "BYTES":
        return array.astype(NUMPY_NAMES[spec.datatype], copy=False)
    made_bytes = np.empty(array.shape, object)
    for place, value in enumerate(array.flat):
        made_bytes.flat[place] = value if isinstance(value, bytes) else str(value).encode()
    return made_bytes


def _declared(outputs: Optional[List[Dict[str, Any]]]) -> List[TensorSpec]:
    """The outputs of the logged signature."""
    if not outputs:
        return []
    alone = len(outputs) == 1 and outputs[0]["name"] == "input"
    return [
        TensorSpec("predictions" if alone else column["name"], column["datatype"], column["shape"])
        for column in outputs
    ]


def _example(plan: Plan, columns: List[Dict[str, Any]]) -> Optional[Arrays]:
    """The logged example of a request, as inputs."""
    if not plan.get("example"):
        return None
    with open(os.path.join(plan["folder"], plan["example"]), encoding="utf-8") as file:
        given = json.load(file)
    names = [column["name"] for column in columns]
    if "dataframe_split" in given:
        split = given["dataframe_split"]
        table = dict(zip(map(str, split.get("columns") or names), zip(*split["data"])))
    elif "inputs" in given:
        table = given["inputs"] if isinstance(given["inputs"], dict) else {names[0]: given["inputs"]}
    else:
        return None
    made = {}
    for column in columns:
        values = table.get(column["name"], []) if not column["required"] else table[column["name"]]
        if column["datatype"] == "BYTES":
            texts = np.asarray(values, object)
            encoded = np.empty(texts.shape, object)
            for place, value in enumerate(texts.flat):
                text = value if isinstance(value, str) else json.dumps(value)
                encoded.flat[place] = text.encode()
            made[column["name"]] = encoded
        else:
            made[column["name"]] = np.asarray(values, NUMPY_NAMES[column["datatype"]])
    return made

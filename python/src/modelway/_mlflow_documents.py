"""Requests for MLflow models that came as JSON, read into what the model is given.

This is what MLflow's scoring server does before it calls the model: the body's form and the signature say whether the
model gets a data frame, arrays or plain values, and of which types. Where the worker has MLflow, MLflow's own functions
read the values; elsewhere the functions here do the same.

Two things differ from MLflow, because a value would change without a word: a fraction in a column of whole numbers is
refused, and null is no text in any form of body.
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ._spec import NUMPY_NAMES, InvalidInput

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs", "csv")
#: The forms whose rows have names.
_FRAMES = ("dataframe_split", "dataframe_records", "csv")
#: MLflow's types for values that are more than one value.
JSON_KINDS = ("array", "object", "map", "any")
_WHOLE = {"integer": ("INT32", 1 << 31), "long": ("INT64", 1 << 63)}
_NUMPY_KINDS = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
Column = Dict[str, Any]


class Given(NamedTuple):
    """What the model is given."""

    value: Any
    #: Names of columns that it does not have.
    ignored: List[str]


class Reader:
    """Reads bodies for one model.

    columns: the signature's inputs; ``None`` without a signature.
    table: whether they are columns of a data frame.
    """

    def __init__(self, columns: Optional[List[Column]], table: bool) -> None:
        self.columns = columns
        self.table = table and columns is not None
        self.named = bool(columns) and all(column["named"] for column in columns or [])

    def read(self, door: str, body: Dict[str, Any]) -> Given:
        """What the model is given for a body; ``door`` says by which protocol it came."""
        form, data = ("tensors", _tensors(body)) if door == "v2" else _form(body, door)
        if data is None:
            raise InvalidInput(f"`{form}` is null: there is nothing to predict")
        if door == "generate" and self.columns is None:
            form = "fields"
        try:
            if self.table:
                return self._of_table(form, data, door)
            if self.columns is not None:
                return Given(self.of_tensors(form, data), [])
            return Given(self.of_anything(form, data), [])
        except InvalidInput:
            raise
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"a body like this is read with `{error.name}`, which the model's environment does not have"
            ) from error
        except Exception as error:
            raise InvalidInput(f"`{form}` cannot be read: {words_of(error)}") from error

    def _of_table(self, form: str, data: Any, door: str) -> Given:
        frame = self.frame(form, data)
        names = [column["name"] for column in self.columns or []]
        if not frame.columns.is_unique:
            raise InvalidInput(f"`{form}` has the column `{frame.columns[frame.columns.duplicated()][0]}` twice")
        if not self.named:
            if len(frame.columns) < len(names):
                raise InvalidInput(f"the model wants {len(names)} columns, and the rows have {len(frame.columns)}")
            pairs = list(zip(frame.columns, self.columns or []))
            ignored: List[str] = [str(name) for name in frame.columns[len(names) :]]
        else:
            missing = [c for c in self.columns or [] if c["required"] and c["name"] not in frame.columns]
            if missing:
                raise InvalidInput(_missing(missing, [str(c) for c in frame.columns if c not in names]))
            pairs = [(c["name"], c) for c in self.columns or [] if c["name"] in frame.columns]
            ignored = [str(name) for name in frame.columns if name not in names]
        for name, column in pairs:
            _check(frame[name], column)
            if column["kind"] == "binary":
                frame[name] = _in_base64(frame[name], door in ("invocations", "csv"))
            elif column["kind"] in JSON_KINDS and door == "v2":
                frame[name] = _of_json(frame[name], column["name"])
        return Given(self.cast(frame, pairs), ignored)

    def frame(self, form: str, data: Any) -> Any:
        """A data frame with the values as they came."""
        import pandas as pd

        columns = self.columns or []
        if form == "tensors":
            return _frame_of_tensors(data, columns, self.named)
        if form == "csv":
            # As MLflow reads it, but for times, of which pandas wants the names.
            kinds = {column["name"]: _NUMPY_KINDS.get(column["kind"], "object") for column in columns if self.table}
            return pd.read_csv(io.StringIO(data), dtype=kinds)
        if form == "dataframe_split":
            unknown = [name for name in data if name not in ("columns", "index", "data")]
            if unknown:
                raise InvalidInput(f"`dataframe_split` has `columns`, `index` and `data`, and not `{unknown[0]}`")
            return pd.DataFrame(data["data"], columns=data.get("columns"), index=data.get("index"))
        if form == "dataframe_records":
            if not isinstance(data, list):
                raise InvalidInput("`dataframe_records` is a list of objects")
            return pd.DataFrame(data)
        if isinstance(data, dict):
            several = any(isinstance(value, (list, dict)) for value in data.values())
            lists = any(column["kind"] in JSON_KINDS for column in columns)
            return pd.DataFrame([data]) if lists or not several else pd.DataFrame(data)
        if not isinstance(data, list):
            data = [data]
        if data and all(isinstance(row, dict) for row in data) and self.named:
            return pd.DataFrame(data)
        names = [column["name"] for column in columns]
        if self.named and len(columns) == 1:
            # Each is the value of the one column, or a row of it.
            rows = all(isinstance(row, list) and len(row) == 1 for row in data) and columns[0]["kind"] not in JSON_KINDS
            return pd.DataFrame({names[0]: [row[0] for row in data] if rows else data})
        if self.named and data and all(isinstance(row, list) for row in data):
            wrong = next((place for place, row in enumerate(data) if len(row) != len(names)), None)
            if wrong is not None:
                raise InvalidInput(f"{form}[{wrong}] has {len(data[wrong])} values, and the model has {len(names)} columns")
            return pd.DataFrame(data, columns=names)
        return pd.DataFrame(data)

    def cast(self, frame: Any, pairs: List[Tuple[Any, Column]]) -> Any:
        """The columns of the signature, in its types and its order."""
        import pandas as pd

        made = {}
        for name, column in pairs:
            try:
                made[name] = _cast(frame[name], column["kind"])
            except Exception as error:
                raise InvalidInput(f"column `{name}` is no {column['kind']}: {words_of(error)}") from error
        return pd.DataFrame(made, index=frame.index)

    def of_tensors(self, form: str, data: Any) -> Any:
        """The arrays of a signature of tensors."""
        columns = self.columns or []
        values = self._by_name(form, data)
        if not self.named:
            return _array_of(next(iter(values.values())), columns[0])
        missing = [column for column in columns if column["name"] not in values]
        if missing:
            raise InvalidInput(_missing(missing, [name for name in values if name not in {c["name"] for c in columns}]))
        return {column["name"]: _array_of(values[column["name"]], column) for column in columns}

    def _by_name(self, form: str, data: Any) -> Dict[str, Any]:
        columns = self.columns or []
        first = columns[0]["name"]
        if form == "tensors":
            return {tensor.name: tensor.array() for tensor in data}
        if form in _FRAMES:
            frame = Reader(None, False).frame(form, data)
            if self.named:
                return {str(name): frame[name].tolist() for name in frame.columns}
            # A frame of several columns is a matrix; one of one column has a row in each cell.
            return {first: frame.values.tolist() if len(frame.columns) > 1 else frame.iloc[:, 0].tolist()}
        if isinstance(data, dict):
            return data
        if self.named and isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
            return {name: [row[name] for row in data] for name in data[0]}
        if self.named and len(columns) > 1:
            raise InvalidInput(f"the model has {len(columns)} inputs: send an object with each by its name")
        return {first: data}

    def of_anything(self, form: str, data: Any) -> Any:
        """Whatever a model without a signature is given: a data frame where columns have names, else an array."""
        import pandas as pd

        if form == "tensors":
            return _without_signature(data)
        if form in _FRAMES:
            return self.frame(form, data)
        if isinstance(data, dict):
            return pd.DataFrame(data if any(isinstance(value, list) for value in data.values()) else [data])
        if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
            return pd.DataFrame(data)
        return np.array(data)


class MlflowReader(Reader):
    """The same with MLflow's own functions, where MLflow is there anyway."""

    def __init__(self, columns: Optional[List[Column]], table: bool, model: Any) -> None:
        super().__init__(columns, table)
        from mlflow.utils import proto_json_utils

        self._utils = proto_json_utils
        self._schema = model.metadata.get_input_schema()
        #: Whether the model is given what stands in the body: it has checked type hints of its own.
        self.plain = bool(getattr(model.metadata, "_is_signature_from_type_hint", lambda: False)())

    def read(self, door: str, body: Dict[str, Any]) -> Given:
        if not self.plain:
            return super().read(door, body)
        if door == "v2":
            (tensor,) = _tensors(body)
            texts = tensor.values()
            wanted = (self.columns or [{"kind": "string"}])[0]["kind"] in JSON_KINDS
            return Given([json.loads(text) if wanted and isinstance(text, str) else text for text in texts], [])
        form, data = _form(body, door)
        if form in _FRAMES:
            raise InvalidInput(f"the model has type hints, so that its values come as `inputs` and not as `{form}`")
        return Given(data, [])

    def cast(self, frame: Any, pairs: List[Tuple[Any, Column]]) -> Any:
        frame = self._utils.cast_df_types_according_to_schema(frame, self._schema)
        for name, column in pairs:
            if column["kind"] == "datetime" and getattr(frame[name].dtype, "tz", None) is not None:
                frame[name] = _naive(frame[name])
        # The model itself takes what it wants, and warns of the rest at each request.
        return frame[[name for name, _ in pairs]]

    def of_tensors(self, form: str, data: Any) -> Any:
        if form in ("tensors", "csv"):
            return super().of_tensors(form, data)
        columns = self.columns or []
        if isinstance(data, dict) and form == "inputs" and self.named:
            for column in columns:
                _without_null(data.get(column["name"]), [column])
        elif not self.named:
            _without_null(data, columns)
        return self._parsed(form, data)

    def of_anything(self, form: str, data: Any) -> Any:
        return super().of_anything(form, data) if form in ("tensors", "fields", "csv") else self._parsed(form, data)

    def _parsed(self, form: str, data: Any) -> Any:
        if form.startswith("dataframe"):
            return self._utils.dataframe_from_parsed_json(data, form[len("dataframe_") :], self._schema)
        return self._utils.parse_tf_serving_input({form: data}, self._schema)


def words_of(error: BaseException) -> str:
    """What an error says, without the request and the schema that MLflow puts before it."""
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    return text.rpartition("Error: ")[2].strip()[:2000]


def _form(body: Dict[str, Any], door: str) -> Tuple[str, Any]:
    known = {"invocations": FORMS[:4], "csv": FORMS[4:]}.get(door, FORMS[2:4])
    (form,) = [name for name in known if name in body]
    return form, body[form]


def _missing(missing: List[Column], strange: List[str]) -> str:
    shown = ", ".join(f"`{column['name']}` ({column['datatype']})" for column in missing[:16])
    more = f" and {len(missing) - 16} more" if len(missing) > 16 else ""
    are = "column is" if len(missing) == 1 else "columns are"
    there = f"; there is `{'`, `'.join(strange[:8])}`, which the model does not have" if strange else ""
    return f"{len(missing)} {are} missing: {shown}{more}{there}"


def _check(series: Any, column: Column) -> None:
    """Refuses what would be another value in a column of whole numbers."""
    if column["kind"] not in _WHOLE:
        return
    datatype, bound = _WHOLE[column["kind"]]
    for row, value in enumerate(series.tolist()):
        if value is None or (isinstance(value, float) and value != value):
            raise InvalidInput(
                f"column `{column['name']}` has no value in row {row}, and whole numbers cannot be missing: leave the column "
                "out in all rows if it is optional, or log the model with a double there"
            )
        if isinstance(value, float) and not value.is_integer():
            raise InvalidInput(f"column `{column['name']}` has {value} in row {row}, which is not a whole number")
        if isinstance(value, (int, float)) and not -bound <= value < bound:
            raise InvalidInput(f"column `{column['name']}` has {value} in row {row}, which {datatype} cannot hold")


def _in_base64(series: Any, encoded: bool) -> Any:
    """Bytes in base64, which V1 writes as an object and MLflow as the bare text."""

    def text(value: Any) -> Any:
        if isinstance(value, dict) and list(value) == ["b64"]:
            return value["b64"]
        if isinstance(value, str) and not encoded:
            value = value.encode()
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value

    return series.map(text)


def _of_json(series: Any, name: str) -> Any:
    import pandas as pd

    made = np.empty(len(series), object)
    for row, value in enumerate(series.tolist()):
        try:
            made[row] = json.loads(value) if isinstance(value, (str, bytes)) else value
        except ValueError as error:
            raise InvalidInput(f"column `{name}`, row {row}, is not JSON, which lists and objects come as: {error}") from error
    return pd.Series(made, index=series.index)


def _cast(series: Any, kind: str) -> Any:
    """A column in one of MLflow's types, as MLflow's server casts it."""
    import pandas as pd

    if kind == "string":
        return series if isinstance(series.dtype, pd.StringDtype) else series.astype(object)
    if kind == "binary":
        return series.map(lambda text: base64.decodebytes(bytes(text, "utf8")))
    if kind == "datetime":
        times = pd.to_datetime(series)
        if getattr(times.dtype, "tz", None) is not None:
            times = _naive(times)
        return times.astype("datetime64[ns]")
    return series.astype(_NUMPY_KINDS[kind]) if kind in _NUMPY_KINDS else series


def _naive(times: Any) -> Any:
    """MLflow's columns of times have no zone."""
    return times.dt.tz_convert("UTC").dt.tz_localize(None).dt.as_unit("ns")


def _array_of(value: Any, column: Column) -> np.ndarray:
    """An array of a tensor's datatype and shape."""
    _without_null(value, [column])
    kind = column["kind"]
    try:
        array = np.array(value, None if column["datatype"] == "BYTES" else NUMPY_NAMES[column["datatype"]])
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"input `{column['name']}` is no array of {kind}: {error}") from error
    if column["datatype"] == "BYTES":
        array = text_array(array, kind)
    wanted = column["shape"]
    if array.ndim == len(wanted) + 1 and array.shape[-1] == 1:
        array = array.reshape(array.shape[:-1])
    if array.ndim == 1 and len(wanted) == 2 and wanted[1] == 1:
        array = array.reshape(-1, 1)
    if array.ndim != len(wanted) or any(size not in (-1, given) for size, given in zip(wanted, array.shape)):
        raise InvalidInput(f"input `{column['name']}` has the shape {list(array.shape)}, and the model wants {wanted}")
    return array


def text_array(array: np.ndarray, kind: str) -> np.ndarray:
    """Texts in NumPy's type for them that a signature names: `str`, `bytes` or `object`."""
    if kind == "str" or kind[:1] in "<U":
        return array.astype(str)
    if kind == "bytes" or kind[:1] in "|S":
        return array.astype(bytes)
    return array.astype(object)


def _without_null(value: Any, columns: List[Column]) -> None:
    """Refuses null in texts of NumPy's own type, which would be the text `None`."""
    if all(column["datatype"] != "BYTES" or column["kind"] == "object" for column in columns):
        return
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if one is None:
            raise InvalidInput("there is null among texts that are an array of NumPy's, which cannot hold it")
        if isinstance(one, dict):
            waiting += [item for name, item in one.items() if name not in ("columns", "index")]
        elif isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, np.ndarray) and one.dtype == object:
            waiting += one.ravel().tolist()


class _Tensor:
    """A tensor of V2 whose elements may be null."""

    def __init__(self, place: int, said: Any) -> None:
        where = f"inputs[{place}]"
        if not isinstance(said, dict):
            raise InvalidInput(f"{where} is no object")
        absent = next((field for field in ("name", "shape", "datatype", "data") if field not in said), None)
        if absent:
            raise InvalidInput(f"`{absent}` is missing in {where}")
        self.name, self.shape, self.datatype = str(said["name"]), said["shape"], said["datatype"]
        if self.datatype not in NUMPY_NAMES:
            raise InvalidInput(f"{where} (`{self.name}`) has the datatype {self.datatype!r}; known are {', '.join(NUMPY_NAMES)}")
        sizes = isinstance(self.shape, list) and all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in self.shape)
        if not sizes:
            raise InvalidInput(f"{where} (`{self.name}`): `shape` is a list of sizes")
        self._flat: List[Any] = []
        self._flatten(said["data"], len(self.shape))
        wanted = 1
        for size in self.shape:
            wanted *= size
        if wanted != len(self._flat):
            raise InvalidInput(f"input `{self.name}`: the shape {self.shape} has {wanted} elements, `data` has {len(self._flat)}")
        parameters = said.get("parameters")
        self._base64 = isinstance(parameters, dict) and parameters.get("content_type") == "base64"
        self._flat = [self._value(row, value) for row, value in enumerate(self._flat)]

    def _flatten(self, data: Any, depth: int) -> None:
        if isinstance(data, list) and depth > 0:
            for item in data:
                self._flatten(item, depth - 1)
        else:
            self._flat.append(data)

    def _value(self, place: int, value: Any) -> Any:
        if value is None:
            return None
        kind = self.datatype
        if kind == "BYTES":
            if isinstance(value, dict) and list(value) == ["b64"]:
                value = value["b64"]
            elif not (self._base64 and isinstance(value, str)):
                return value
            try:
                return base64.b64decode(value, validate=True)
            except (ValueError, TypeError) as error:
                raise InvalidInput(f"input `{self.name}`: element {place} is not base64: {error}") from None
        if kind == "BOOL":
            right = isinstance(value, bool) or value in (0, 1)
            value = bool(value) if right else value
        elif kind.startswith("FP"):
            if value in ("NaN", "Infinity", "-Infinity"):
                value = float(value)
            right = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            right = isinstance(value, int) and not isinstance(value, bool)
        if not right:
            raise InvalidInput(f"input `{self.name}`: element {place} is {value!r}, and the datatype is {kind}")
        return value

    def values(self) -> List[Any]:
        """The elements in a row."""
        return self._flat

    def is_column(self) -> bool:
        return len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1)

    def array(self) -> np.ndarray:
        """An array of its datatype; of objects where elements are missing that it cannot miss."""
        missing = any(value is None for value in self._flat)
        if self.datatype == "BYTES" or (missing and not self.datatype.startswith("FP")):
            made = np.empty(len(self._flat), object)
            made[:] = self._flat
        else:
            try:
                made = np.array(self._flat, NUMPY_NAMES[self.datatype])
            except OverflowError:
                raise InvalidInput(f"input `{self.name}` holds a number that {self.datatype} cannot") from None
        return made.reshape(self.shape)


def _tensors(body: Dict[str, Any]) -> List[_Tensor]:
    tensors = [_Tensor(place, said) for place, said in enumerate(body["inputs"])]
    if not tensors:
        raise InvalidInput("`inputs` is empty: there is nothing to predict")
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise InvalidInput("an input was sent twice")
    return tensors


def _frame_of_tensors(tensors: List[_Tensor], columns: List[Column], named: bool) -> Any:
    import pandas as pd

    names = [column["name"] for column in columns]
    alone = tensors[0] if len(tensors) == 1 else None
    if alone and len(alone.shape) == 2 and (alone.name not in names or (len(names) > 1 and alone.shape[1] != 1)):
        matrix = tensors[0].array()
        if named and matrix.shape[1] != len(names):
            raise InvalidInput(f"the model wants {len(names)} features, and `{tensors[0].name}` has {matrix.shape[1]} in each row")
        return pd.DataFrame(matrix, columns=names if named else None)
    odd = next((tensor for tensor in tensors if not tensor.is_column()), None)
    if odd is not None:
        raise InvalidInput(f"input `{odd.name}` has the shape {odd.shape}, and a column has one dimension")
    rows = {len(tensor.values()) for tensor in tensors}
    if len(rows) > 1:
        raise InvalidInput("the inputs have different numbers of rows: the first dimension of all must be the same")
    frame = {tensor.name: tensor.array().reshape(-1).tolist() for tensor in tensors}
    if named:
        return pd.DataFrame(frame)
    # Columns without names are known by their order.
    ordered = [name for name in names if name in frame] + [name for name in frame if name not in names]
    return pd.DataFrame(dict(enumerate(frame[name] for name in ordered)))


def _without_signature(tensors: List[_Tensor]) -> Any:
    """Columns of one length are a data frame; one tensor of another form is its array, several are arrays by names."""
    if all(tensor.is_column() for tensor in tensors) and len({tensor.shape[0] for tensor in tensors}) == 1:
        import pandas as pd

        return pd.DataFrame({tensor.name: _texts(tensor.array().reshape(-1)) for tensor in tensors})
    arrays = {tensor.name: _texts(tensor.array()) for tensor in tensors}
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _texts(array: np.ndarray) -> Any:
    # A list lets pandas choose its own type for texts.
    return array.tolist() if array.dtype == object and array.ndim == 1 else array

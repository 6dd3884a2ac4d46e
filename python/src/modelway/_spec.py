"""What a model takes and answers, and what every kind of opened model can do.

The server asks an :class:`Opened` model for its signature once and then calls ``predict`` for each run. Nothing
here imports NumPy, so that a model that needs none starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Dict, Iterator, List, Mapping, NamedTuple, Protocol, Sequence, Union

if TYPE_CHECKING:
    import numpy as np

    from ._frames import JsonArray

    Arrays = Dict[str, np.ndarray]
    Answer = Mapping[str, Union[np.ndarray, JsonArray]]

# The protocol's datatypes, and NumPy's name for each. BYTES are object arrays of ``bytes``.
NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}


class TensorSpec(NamedTuple):
    """One input or output: its name, its datatype (``"FP32"``, ``"INT64"``, ``"BYTES"``, ...) and its shape.

    A dimension of -1 is of any size. A first dimension of -1 counts rows.
    """

    name: str
    datatype: str
    shape: List[int]

    def __str__(self) -> str:
        return f"`{self.name}` ({self.datatype}, {list(self.shape)})"


class Tensor:
    """The datatype and shape of an array, in a type hint.

    ``def predict(self, x: Tensor["FP32", -1, 4]) -> Tensor["INT64", -1]`` or, for type checkers,
    ``Annotated[np.ndarray, Tensor("FP32", [-1, 4])]``. -1 is a dimension of any size.
    """

    __slots__ = ("datatype", "shape")

    def __init__(self, datatype: str, shape: Sequence[int]) -> None:
        self.datatype = datatype
        self.shape = list(shape)

    def __class_getitem__(cls, arguments: Any) -> Any:
        datatype, *shape = arguments if isinstance(arguments, tuple) else (arguments,)
        return Annotated[Any, cls(datatype, shape)]

    def __repr__(self) -> str:
        return f"Tensor({self.datatype!r}, {self.shape})"


class InvalidInput(ValueError):
    """The caller's inputs are wrong: raised by ``predict``, it is answered with status 400 and its own words."""


class ModelError(Exception):
    """The model cannot be opened as it is written. The message says what to change."""


class Opened(Protocol):
    """A model that is ready to predict. It is used by one thread at a time."""

    inputs: List[TensorSpec]
    outputs: List[TensorSpec]
    #: What runs it, as the protocol names it: ``python_class``, ``mlflow_sklearn``.
    platform: str
    #: Whether the first dimension of every tensor counts rows that do not influence one another.
    rows: bool
    #: Whether one run may give more than one answer.
    streams: bool
    # May be missing: `trials`, whether it may be run with made-up rows; `each_row`, whether it is called for each row;
    # `json`, the names of its inputs whose elements are JSON; `input_parameters`, whether `predict` takes a third argument,
    # the parameters of each input by its name.

    def predict(self, inputs: Arrays, parameters: Dict[str, Any]) -> Iterator[Answer]:
        """Runs the model once: one answer, or any number if it streams.

        ``inputs`` has an array for each of ``self.inputs`` but those that the request left out, of its datatype and a shape
        that fits; an answer has one for each of ``self.outputs``, except those named ``features.*``, which may be missing.
        BYTES are object arrays of ``bytes``.

        Raises :class:`InvalidInput` where the caller is to blame; anything else is the model's failure.
        """
        ...


def check_spec(spec: TensorSpec, where: str) -> TensorSpec:
    """The same spec, if there is such a thing. `where` is for the error."""
    if not isinstance(spec.name, str) or not spec.name:
        raise ModelError(f"{where}: a tensor needs a name, not {spec.name!r}")
    if spec.datatype not in NUMPY_NAMES:
        near = next((known for known, numpy in NUMPY_NAMES.items() if str(spec.datatype).lower() in (known.lower(), numpy)), None)
        hint = f": did you mean {near}?" if near else ""
        raise ModelError(
            f"{where}: `{spec.name}` has the datatype {spec.datatype!r}; known are {', '.join(NUMPY_NAMES)}{hint}"
        )
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= -1 for size in spec.shape):
        raise ModelError(f"{where}: `{spec.name}` has the shape {spec.shape!r}; it is a list of sizes, -1 for any")
    return TensorSpec(spec.name, spec.datatype, list(spec.shape))

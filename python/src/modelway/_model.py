"""What a data scientist writes: a subclass of :class:`AbstractModel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Dict, Generic, Mapping, Optional, Sequence, TypeVar

from ._metrics import Metrics, OfModel
from ._spec import TensorSpec

T = TypeVar("T")


class AbstractModel:
    """A model: ``load`` once, then ``predict`` for every run; ``train`` and ``eval`` for whoever makes it.

    The type hints of ``predict`` are the model's signature. Each parameter is an input, by its name::

        class Sentiment(AbstractModel):
            def load(self):
                self.words = json.loads((self.folder / "words.json").read_text())

            def predict(self, text: str) -> str:
                return "good" if text in self.words else "bad"

    ==============================  =========================================================================
    hint                            what it is
    ==============================  =========================================================================
    ``str`` ``bytes`` ``bool``      one row: BYTES, BYTES, BOOL, INT64 or FP64 of shape [-1]; ``predict`` is
    ``int`` ``float``               called for each row of a request
    ``list[str]`` and so on         all rows at once, shape [-1]
    ``Tensor["FP32", -1, 4]``       all rows at once, a NumPy array of that datatype and shape; BYTES are object
                                    arrays of ``bytes``
    ``np.ndarray``                  the same, with datatype and shape in the class attribute ``inputs`` (``outputs``)
    ``dict`` ``Any`` ``list[dict]`` JSON, and so is what is returned by such a hint; ``dict`` is one row
    ==============================  =========================================================================

    One result is called ``output``; several are a ``NamedTuple``, a dataclass or a ``TypedDict``, or a ``dict`` with
    the class attribute ``outputs``. A keyword-only parameter (``*, temperature: float = 1.0``) is taken from the
    request's ``parameters``; one called ``parameters`` gets all of them as a ``dict``, and one called ``input_parameters``
    those of each input, by its name.

    ``predict`` may be ``async``, and may be a generator, also an async one: then the model streams, an answer for each
    ``yield``. It raises :class:`modelway.InvalidInput` where the caller is to blame (status 400). Any other exception is
    the model's own failure (status 500, the traceback in the log).

    ``predict`` is called by one thread at a time. ``load`` runs in every worker process of the model.
    """

    #: Datatypes and shapes of arrays that the hints of ``predict`` do not say.
    inputs: ClassVar[Optional[Sequence[TensorSpec]]] = None
    #: The same for what it returns.
    outputs: ClassVar[Optional[Sequence[TensorSpec]]] = None
    #: What ``Result(..., features=...)`` may bring, each with a shape as in ``outputs``.
    features: ClassVar[Sequence[TensorSpec]] = ()
    #: Whether rows do not influence one another, so that the rows of several requests may be run as one. ``None``: yes
    #: if the first dimension of every input and output is -1. Say ``False`` if a row's answer depends on its neighbours.
    batch: ClassVar[Optional[bool]] = None
    #: Whether the server may call ``predict`` with made-up rows while it loads the model: at most six times, to warm it
    #: and to see whether its rows are independent. If not, each request is run by itself, unless `golden.json` has two
    #: examples, or ``predict`` is called for each row anyway.
    trials: ClassVar[bool] = True

    #: The model's own counters, gauges and histograms, shown by the server at ``/metrics``::
    #:
    #:     def load(self):
    #:         self.words = self.metrics.counter("words", "Words read", labels=["language"])
    #:
    #:     def predict(self, text: str) -> str:
    #:         self.words.inc(len(text.split()), language="de")
    if TYPE_CHECKING:
        metrics: Metrics
    else:
        metrics = OfModel()

    #: The folder with the model's files; set before ``load`` is called.
    folder: Path = Path()

    def load(self) -> None:
        """Reads what ``predict`` needs, from ``self.folder``. Called once, before anything else; may be ``async``."""

    if TYPE_CHECKING:
        # Each model has parameters of its own, which a method in the base class could not allow.
        predict: Callable[..., Any]

    def train(self, **options: Any) -> Any:
        """Makes the model's files in ``self.folder``. ``python -m modelway train FOLDER`` calls it; the server never.

        Whatever it returns, such as the losses, is for the caller.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it is trained: give it a method `train`")

    def eval(self, **options: Any) -> Mapping[str, float]:
        """How good the loaded model is: metrics by their names. ``python -m modelway eval FOLDER`` prints them."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is measured: give it a method `eval`")


class Result(Generic[T]):
    """What ``predict`` may return instead of its outputs: the outputs, and intermediate features beside them.

    Features are named and shaped by the class attribute ``features``. They are in an answer only where the request
    asks: by the parameter ``features: true``, or by the name of an output, ``features.<name>``.
    """

    __slots__ = ("outputs", "features")

    def __init__(self, outputs: T, features: Optional[Dict[str, Any]] = None) -> None:
        self.outputs = outputs
        self.features = features or {}

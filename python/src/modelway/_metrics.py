"""Metrics that a model declares itself: counters, gauges and histograms, shown by the server at ``/metrics``.

Values stand in memory that the server shares (its side is ``runtime/own.rs``), so that counting sends nothing, and
nothing that was counted is lost when the worker ends. Without a server they stand in memory of this process.

An area begins with the number of its entries and the bytes they take, both of 8 bytes. An entry is its size, the size
of its text, the text (JSON), filled up to 8 bytes, and its values, numbers of 8 bytes.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import struct
import sys
import threading
import time
from bisect import bisect_left
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

Number = Union[int, float]

#: The size of an area, in bytes.
AREA = 1 << 20
#: Families, and series of all of them together.
MOST_FAMILIES, MOST_SERIES = 100, 1000
#: Labels of a family, buckets of a histogram.
MOST_LABELS, MOST_BUCKETS = 8, 64
#: Characters of a label's value; the rest of a longer one is cut off.
LONGEST_VALUE = 128
_LONGEST_NAME, _LONGEST_HELP = 128, 512
#: What stands for all values of labels once there are too many series.
OTHER = "_other"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
#: Names that the server has, or may have one day.
_OF_THE_SERVER = ("model_", "modelway_", "process_", "gateway_", "scrape_")
_LABELS_OF_THE_SERVER = ("model_name", "model_version", "le", "quantile")
_MERGES = ("latest", "sum", "min", "max")
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HEAD, _ENTRY = struct.Struct("=QQ"), struct.Struct("=II")


class Metrics:
    """A model's metrics: ``self.metrics`` of an :class:`modelway.AbstractModel`.

    Declaring the same metric again gives the same one; declaring it in another way is a ``ValueError``.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._families: Dict[str, "_Family"] = {}
        self._area: Any = bytearray(AREA)
        self._values: Any = memoryview(self._area).cast("d")
        self._used = _HEAD.size
        self._count = 0
        #: Room that is kept for the series that take what finds none.
        self._kept = 0
        self._shared = False
        #: Runs in which nothing is counted, and which are under way.
        self._pauses = 0

    def counter(self, name: str, help: str = "", labels: Sequence[str] = ()) -> "Counter":
        """Something that only grows; ``_total`` at the end of its name is added where it is missing."""
        return self._declare(Counter, name[: -len("_total")] if name.endswith("_total") else name, help, labels)

    def gauge(self, name: str, help: str = "", labels: Sequence[str] = (), merge: str = "latest") -> "Gauge":
        """Something that goes up and down.

        merge: what is shown of a model with several instances: ``latest``, the one that was set last, or their
            ``sum``, ``min`` or ``max``.
        """
        if merge not in _MERGES:
            raise ValueError(f"the gauge {name!r} has merge={merge!r}; it is one of {', '.join(_MERGES)}")
        return self._declare(Gauge, name, help, labels, merge=merge)

    def histogram(
        self, name: str, help: str = "", labels: Sequence[str] = (), buckets: Iterable[Number] = _BUCKETS
    ) -> "Histogram":
        """How values are spread. buckets: their upper bounds, growing; the last one, infinity, is added."""
        bounds = [float(bound) for bound in buckets]
        while bounds and bounds[-1] == float("inf"):
            bounds.pop()
        if not 0 < len(bounds) <= MOST_BUCKETS or any(not low < high for low, high in zip(bounds, bounds[1:])):
            raise ValueError(f"the histogram {name!r} wants 1 to {MOST_BUCKETS} buckets, each larger than the one before")
        if any(bound != bound or abs(bound) == float("inf") for bound in bounds):
            raise ValueError(f"the histogram {name!r} has a bucket that is no finite number")
        return self._declare(Histogram, name, help, labels, buckets=bounds)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within it nothing is counted: the server tries the model."""
        with self._lock:
            self._pauses += 1
        try:
            yield
        finally:
            with self._lock:
                self._pauses -= 1

    def _declare(self, kind: Any, name: str, help: str, labels: Sequence[str], **more: Any) -> Any:
        names = (labels,) if isinstance(labels, str) else tuple(labels)
        _check(name, help, names)
        with self._lock:
            found = self._families.get(name)
            if found is None:
                self._check_room(kind, name)
                found = self._families[name] = kind(self, name, help, names, more)
                self._kept += found._size({label: OTHER for label in names})
                if not names:
                    found._series({})
            elif (type(found), found._names, found._more) != (kind, names, more):
                raise ValueError(f"the metric {name!r} is declared twice, and not in the same way")
            return found

    def _check_room(self, kind: Any, name: str) -> None:
        if len(self._families) >= MOST_FAMILIES:
            raise ValueError(f"the metric {name!r} is one too many: a model has at most {MOST_FAMILIES}")
        taken = {shown: of for of, family in self._families.items() for shown in family._shown(of)}
        for shown in kind._shown(name):
            if shown in taken:
                raise ValueError(f"the metric {name!r} would be shown as {shown}, as the metric {taken[shown]!r} is")

    def _room_for(self, size: int) -> bool:
        return self._count < MOST_SERIES and self._used + size + self._kept <= AREA

    def _append(self, text: bytes, values: int) -> int:
        """Adds an entry; the place of its first value."""
        start = self._used
        padded = -(-(_ENTRY.size + len(text)) // 8) * 8
        size = padded + 8 * values
        _ENTRY.pack_into(self._area, start, size, len(text))
        self._area[start + _ENTRY.size : start + _ENTRY.size + len(text)] = text
        self._used += size
        self._count += 1
        # The entry is whole before it is told of.
        _HEAD.pack_into(self._area, 0, self._count, self._used)
        return (start + padded) // 8

    def share(self, descriptor: int) -> None:
        """Moves to the memory behind a descriptor of the server's, which is closed.

        The first server is told what was counted before it was there; a later one counts from 0.
        """
        try:
            area = mmap.mmap(descriptor, AREA)
        finally:
            os.close(descriptor)
        with self._lock:
            area[_HEAD.size : self._used] = bytes(self._area[_HEAD.size : self._used])
            self._area, self._values = area, memoryview(area).cast("d")
            if self._shared:
                for family in self._families.values():
                    family._forget()
            _HEAD.pack_into(area, 0, self._count, self._used)
            self._shared = True


class _Family:
    """All series of one name."""

    kind = ""

    def __init__(self, metrics: Metrics, name: str, help: str, names: Tuple[str, ...], more: Dict[str, Any]) -> None:
        self._metrics = metrics
        self._lock = metrics._lock
        self._name, self._help, self._names, self._more = name, help, names, more
        self._places: Dict[Tuple[str, ...], int] = {}
        self._full = False

    @classmethod
    def _shown(cls, name: str) -> List[str]:
        return [name]

    def _length(self) -> int:
        return 1

    def _text(self, labels: Dict[str, str]) -> bytes:
        described = {"kind": self.kind, "name": self._name, "help": self._help, "labels": labels, **self._more}
        return json.dumps(described).encode()

    def _size(self, labels: Dict[str, str]) -> int:
        return _ENTRY.size + len(self._text(labels)) + 8 + 8 * self._length()

    def _series(self, labels: Dict[str, Any]) -> Optional[int]:
        """The place of a series' values; ``None`` while nothing is counted. The lock is held."""
        if labels.keys() != set(self._names):
            wanted = ", ".join(self._names) or "none"
            raise ValueError(f"the metric {self._name!r} has the labels {wanted}, and was given {', '.join(labels) or 'none'}")
        if self._metrics._pauses:
            return None
        key = tuple([_cut(labels[name]) for name in self._names])
        place = self._places.get(key)
        return self._made(key) if place is None else place

    def _made(self, key: Tuple[str, ...]) -> int:
        named = dict(zip(self._names, key))
        rest = (OTHER,) * len(key)
        if key == rest or (not self._full and self._metrics._room_for(self._size(named))):
            if key == rest:
                self._metrics._kept -= self._size(named)
            place = self._places[key] = self._metrics._append(self._text(named), self._length())
            return place
        if not self._full:
            self._full = True
            print(
                f"the metric {self._name!r} has too many series: new ones are counted as {OTHER!r} "
                f"(a model has at most {MOST_SERIES})",
                file=sys.stderr,
            )
        # Nothing is remembered of the key: keys without end would take memory without end.
        place = self._places.get(rest)
        return self._made(rest) if place is None else place

    def _forget(self) -> None:
        """Begins at 0 again."""
        for place in set(self._places.values()):
            for at in range(place, place + self._length()):
                self._metrics._values[at] = 0.0


class Counter(_Family):
    """See :meth:`Metrics.counter`."""

    kind = "counter"

    @classmethod
    def _shown(cls, name: str) -> List[str]:
        return [name, name + "_total"]

    def inc(self, amount: Number = 1, **labels: Any) -> None:
        """Adds to it. A negative amount is a ``ValueError``."""
        if not 0 <= amount < float("inf"):
            raise ValueError(f"the counter {self._name!r} only grows, by a finite number; it was to grow by {amount!r}")
        with self._lock:
            place = self._series(labels)
            if place is not None:
                self._metrics._values[place] += amount


class Gauge(_Family):
    """See :meth:`Metrics.gauge`."""

    kind = "gauge"

    def set(self, value: Number, **labels: Any) -> None:
        """Makes it this value."""
        value = float(value)
        with self._lock:
            place = self._series(labels)
            if place is not None:
                self._put(place, value)

    def inc(self, amount: Number = 1, **labels: Any) -> None:
        """Adds to it."""
        with self._lock:
            place = self._series(labels)
            if place is not None:
                self._put(place, self._metrics._values[place] + amount)

    def dec(self, amount: Number = 1, **labels: Any) -> None:
        """Takes from it."""
        self.inc(-amount, **labels)

    def _length(self) -> int:
        # Its value, and when that was set.
        return 2

    def _put(self, place: int, value: float) -> None:
        self._metrics._values[place] = value
        self._metrics._values[place + 1] = time.time()

    def _forget(self) -> None:
        """A gauge is what it is, whoever asks."""


class Histogram(_Family):
    """See :meth:`Metrics.histogram`."""

    kind = "histogram"

    @classmethod
    def _shown(cls, name: str) -> List[str]:
        return [name, name + "_bucket", name + "_sum", name + "_count"]

    def _length(self) -> int:
        # The sum, and how many were in each bucket alone, the last without a bound.
        return 2 + len(self._more["buckets"])

    def observe(self, value: Number, **labels: Any) -> None:
        """Notes one value."""
        bounds = self._more["buckets"]
        bucket = bisect_left(bounds, value) if value == value else len(bounds)
        with self._lock:
            place = self._series(labels)
            if place is not None:
                values = self._metrics._values
                values[place] += value
                values[place + 1 + bucket] += 1


#: Those of the model that this process is a worker for.
of_process: Optional[Metrics] = None


def share(descriptor: int) -> None:
    """Lets all models of this process count in the server's memory."""
    global of_process
    of_process = Metrics()
    of_process.share(descriptor)


class OfModel:
    """The attribute ``metrics`` of a model: made when it is first asked for."""

    def __get__(self, model: Any, owner: Optional[type] = None) -> Any:
        if model is None:
            return self
        if "metrics" not in vars(model):
            # All models of a worker are parts of one.
            vars(model)["metrics"] = of_process or Metrics()
        return vars(model)["metrics"]


def _cut(value: Any) -> str:
    text = (value if type(value) is str else str(value))[:LONGEST_VALUE]
    # Half of a pair of surrogates is no text that the server could show.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _check(name: str, help: str, labels: Tuple[str, ...]) -> None:
    if not isinstance(name, str) or not _NAME.match(name) or len(name) > _LONGEST_NAME:
        raise ValueError(f"{name!r} is no name of a metric: use letters, digits and `_`, at most {_LONGEST_NAME}, not beginning with a digit")
    if name.startswith(_OF_THE_SERVER):
        raise ValueError(f"the metric {name!r} begins as the server's own do ({', '.join(_OF_THE_SERVER)}): call it otherwise")
    if not isinstance(help, str) or len(help) > _LONGEST_HELP or any("\ud800" <= letter <= "\udfff" for letter in help):
        raise ValueError(f"the help of the metric {name!r} is a text of at most {_LONGEST_HELP} characters, without surrogates")
    if len(labels) > MOST_LABELS or len(set(labels)) < len(labels):
        raise ValueError(f"the metric {name!r} has at most {MOST_LABELS} labels, each once")
    for label in labels:
        if not isinstance(label, str) or not _LABEL.match(label) or label.startswith("__") or len(label) > _LONGEST_NAME:
            raise ValueError(f"the metric {name!r}: {label!r} is no name of a label")
        if label in _LABELS_OF_THE_SERVER:
            raise ValueError(f"the metric {name!r}: the label {label!r} is the server's own")

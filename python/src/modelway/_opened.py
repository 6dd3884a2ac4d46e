"""A model's class, made and loaded: runs ``predict`` as its hints say, on the protocol's arrays."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional

from . import _convert, _hints
from ._metrics import Metrics
from ._model import AbstractModel, Result
from ._spec import InvalidInput, TensorSpec

if TYPE_CHECKING:
    from ._spec import Arrays


class OpenedClass:
    """An instance of a model's class, loaded."""

    platform = "python_class"

    def __init__(self, model: AbstractModel, folder: Path, load: bool = True) -> None:
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        plan = _hints.read(type(model))
        self._plan = plan
        self._name = type(model).__name__
        self._outputs = {spec.name: spec for spec in plan.outputs}
        self._features = {spec.name: spec for spec in plan.features}
        self.inputs: List[TensorSpec] = [given.spec for given in plan.inputs]
        self.outputs: List[TensorSpec] = plan.outputs + plan.features
        self.rows = plan.rows
        self.streams = plan.streams
        self.each_row = plan.each_row
        self.trials = bool(model.trials)
        self.model = model
        model.folder = folder
        if load:
            self._finished(model.load())
        self._predict = model.predict

    def predict(self, inputs: Arrays, parameters: Dict[str, Any]) -> Iterator[Arrays]:
        """See :class:`modelway._spec.Opened`."""
        plan = self._plan
        extras = self._extras(parameters)
        if plan.each_row:
            columns = {
                given.spec.name: _convert.values(given.spec.name, inputs[given.spec.name], given.text)
                for given in plan.inputs
            }
            count = self._one_count(columns)
            rows = [{name: column[row] for name, column in columns.items()} for row in range(count)]
            if plan.streams:
                for item in self._stream(self._predict(**rows[0], **extras)):
                    yield self._answer([item], None)
            else:
                yield self._answer(self._each(rows, extras), count)
            return
        given = {
            given.spec.name: inputs[given.spec.name]
            if given.form == "array"
            else _convert.values(given.spec.name, inputs[given.spec.name], given.text)
            for given in plan.inputs
        }
        made = self._predict(given, **extras) if plan.as_dict else self._predict(**given, **extras)
        if plan.streams:
            for item in self._stream(made):
                yield self._answer(item, None)
            return
        count = len(inputs[plan.inputs[0].spec.name]) if plan.rows else None
        yield self._answer(self._finished(made), count)

    def share_metrics(self, descriptor: int) -> None:
        """Lets the model count in the memory behind a server's descriptor."""
        if isinstance(self.model.metrics, Metrics):
            self.model.metrics.share(descriptor)
        else:
            # The model has something of its own by that name.
            os.close(descriptor)

    def close(self) -> None:
        """Ends what async runs left behind. The model is of no use after it."""
        if self._loop is not None and not self._loop.is_running():
            self._loop.close()

    def __del__(self) -> None:
        self.close()

    def _each(self, rows: List[Dict[str, Any]], extras: Dict[str, Any]) -> List[Any]:
        """``predict`` for each row; if it is async, for all at once."""
        if not inspect.iscoroutinefunction(self._predict):
            return [self._finished(self._predict(**row, **extras)) for row in rows]

        async def all_rows() -> List[Any]:
            return await asyncio.gather(*(self._predict(**row, **extras) for row in rows))

        return self._finished(all_rows())

    def _one_count(self, columns: Dict[str, List[Any]]) -> int:
        counts = {name: len(column) for name, column in columns.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"`{name}` has {count}" for name, count in counts.items())
            raise InvalidInput(f"the inputs have different numbers of rows: {told}")
        return next(iter(counts.values()))

    def _extras(self, parameters: Dict[str, Any]) -> Dict[str, Any]:
        """What ``predict`` takes of the request's parameters."""
        plan = self._plan
        extras: Dict[str, Any] = {"parameters": parameters} if plan.all_parameters else {}
        for name, (kind, required) in plan.options.items():
            if name not in parameters:
                if required:
                    raise InvalidInput(f"the parameter `{name}` is missing")
                continue
            value = parameters[name]
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if kind in _hints.SCALARS and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
                raise InvalidInput(f"the parameter `{name}` is {value!r}, and the model wants {kind.__name__}")
            extras[name] = value
        return extras

    def _answer(self, made: Any, count: Optional[int]) -> Arrays:
        """The arrays of one answer. `made` has an item for each row where ``predict`` is called for each."""
        items = made if self._plan.each_row else [made]
        named = [self._named(item) for item in items]
        answer = {}
        for name, spec in [*self._outputs.items(), *self._features.items()]:
            values = [values[name] for values in named if name in values]
            if len(values) < len(named):
                if name in self._features:
                    continue
                raise _convert.BadOutput(f"{self._name}.predict did not return `{name}`, which the model declares")
            if self._plan.each_row:
                array = _convert.stacked(values, spec)
            else:
                array = _convert.array(values[0], spec)
            if count is not None and len(array) != count:
                raise _convert.BadOutput(
                    f"output `{name}` has {len(array)} rows for an input of {count}; if the model does not answer row by "
                    f"row, say `batch = False` in {self._name}"
                )
            answer[name] = array
        return answer

    def _named(self, item: Any) -> Dict[str, Any]:
        features: Dict[str, Any] = {}
        if isinstance(item, Result):
            features = {_hints.FEATURES + name: value for name, value in item.features.items()}
            item = item.outputs
        named = self._plan.name_outputs(item)
        known = {**self._outputs, **self._features}
        strange = next((name for name in [*named, *features] if name not in known), None)
        if strange is not None:
            attribute = "features" if strange in features else "outputs"
            raise _convert.BadOutput(
                f"{self._name}.predict returned `{strange}`, which the model does not declare in `{attribute}`"
            )
        return {**named, **features}

    def _stream(self, made: Any) -> Iterator[Any]:
        if inspect.isawaitable(made):
            made = self._finished(made)
        if hasattr(made, "__aiter__"):
            items = made.__aiter__()
            try:
                while True:
                    try:
                        item = self._finished(items.__anext__())
                    except StopAsyncIteration:
                        return
                    yield item
            finally:
                if hasattr(items, "aclose"):
                    self._finished(items.aclose())
        else:
            yield from made

    def _finished(self, value: Any) -> Any:
        """The value, waited for if it must be. All that is async in one model runs in one loop."""
        if not inspect.isawaitable(value):
            return value
        if self._loop is None:
            self._loop = asyncio.new_event_loop()

        async def wait() -> Any:
            return await value

        return self._loop.run_until_complete(wait())

"""A model's class, made and loaded: runs ``predict`` as its hints say, on the protocol's arrays."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ContextManager, Dict, Iterator, List, Optional

from . import _convert, _hints
from ._metrics import Metrics
from ._model import AbstractModel, Result
from ._spec import InvalidInput, TensorSpec

if TYPE_CHECKING:
    from ._spec import Answer, Arrays


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
        #: The names of the inputs that are JSON.
        self.json = [given.spec.name for given in plan.inputs if given.json]
        self.optional = [given.spec.name for given in plan.inputs if given.optional]
        # Made-up rows are no JSON.
        self.trials = bool(model.trials) and not self.json
        self.input_parameters = plan.input_parameters
        self.model = model
        model.folder = folder
        if load:
            self._finished(model.load())
        self._predict = model.predict

    def predict(
        self, inputs: Arrays, parameters: Dict[str, Any], of_inputs: Optional[Dict[str, Dict[str, Any]]] = None
    ) -> Iterator[Answer]:
        """See :class:`modelway._spec.Opened`."""
        plan = self._plan
        extras = self._extras(parameters)
        if plan.input_parameters:
            extras[_hints.INPUT_PARAMETERS] = {one.spec.name: (of_inputs or {}).get(one.spec.name, {}) for one in plan.inputs}
        given = {one.spec.name: _given(one, inputs) for one in plan.inputs if one.spec.name in inputs}
        # For an input that the request leaves out, `predict` has a value of its own, or gets None.
        absent = {one.spec.name: None for one in plan.inputs if one.spec.name not in given and not one.has_default}
        if plan.each_row:
            count = self._one_count(given)
            rows = [{**absent, **{name: column[row] for name, column in given.items()}} for row in range(count)]
            if plan.streams:
                for item in self._stream(self._predict(**rows[0], **extras)):
                    yield self._answer([item], None)
            else:
                yield self._answer(self._each(rows, extras), count)
            return
        made = self._predict(given, **extras) if plan.as_dict else self._predict(**given, **absent, **extras)
        if plan.streams:
            for item in self._stream(made):
                yield self._answer(item, None)
            return
        count = len(next(iter(inputs.values()))) if plan.rows and inputs else None
        yield self._answer(self._finished(made), count)

    def share_metrics(self, descriptor: int) -> None:
        """Lets the model count in the memory behind a server's descriptor."""
        if isinstance(self.model.metrics, Metrics):
            self.model.metrics.share(descriptor)
        else:
            # The model has something of its own by that name.
            os.close(descriptor)

    def uncounted(self) -> ContextManager[None]:
        """Within it the model's metrics count nothing."""
        metrics = self.model.metrics
        return metrics.paused() if isinstance(metrics, Metrics) else contextlib.nullcontext()

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
        # A request without any input is one row.
        return next(iter(counts.values()), 1)

    def _extras(self, parameters: Dict[str, Any]) -> Dict[str, Any]:
        """What ``predict`` takes of the request's parameters."""
        plan = self._plan
        extras: Dict[str, Any] = {"parameters": parameters} if plan.all_parameters else {}
        for name, (kind, required) in plan.options.items():
            if name not in parameters:
                if required:
                    raise InvalidInput(f"the parameter `{name}` is missing")
                continue
            extras[name] = _convert.parameter(name, parameters[name], kind)
        return extras

    def _answer(self, made: Any, count: Optional[int]) -> Answer:
        """The arrays of one answer. `made` has an item for each row where ``predict`` is called for each."""
        each_row = self._plan.each_row
        named = [self._named(item) for item in (made if each_row else [made])]
        answer = {}
        for name, spec in [*self._outputs.items(), *self._features.items()]:
            values = [values[name] for values in named if name in values]
            if len(values) < len(named):
                if name in self._features:
                    continue
                raise _convert.BadOutput(f"{self._name}.predict did not return `{name}`, which the model declares")
            if name in self._plan.json_outputs:
                array: Any = _convert.json_array(values if each_row and spec.shape == [-1] else values[0], spec)
            elif each_row:
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


def _given(one: _hints.Input, inputs: Arrays) -> Any:
    """One input as ``predict`` takes it."""
    name = one.spec.name
    if one.json:
        return _convert.json_values(name, inputs[name], one.json)
    return inputs[name] if one.form == "array" else _convert.values(name, inputs[name], one.text)

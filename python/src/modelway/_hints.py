"""From the type hints of ``predict`` to the model's signature.

An error names the parameter and says what to write instead.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
from typing import Annotated, Any, Callable, Dict, FrozenSet, List, Literal, NamedTuple, Optional, Tuple, Union, get_args, get_origin, get_type_hints

from . import _advice
from ._model import AbstractModel, Result
from ._spec import ModelError, Tensor, TensorSpec, check_spec

#: One row's value, and the datatype it is sent as.
SCALARS = {str: "BYTES", bytes: "BYTES", bool: "BOOL", int: "INT64", float: "FP64"}
_STREAMS = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
)
_HINTS = 'float, list[float], list[list[float]] or Tensor["FP32", -1, 4]'
#: The name of a result that has none.
OUTPUT = "output"
#: What stands before the names of intermediate features.
FEATURES = "features."
#: The parameters of ``predict`` that get those of the request, and those of its inputs.
PARAMETERS, INPUT_PARAMETERS = "parameters", "input_parameters"


class Input(NamedTuple):
    """How one input is handed to ``predict``."""

    spec: TensorSpec
    #: ``row`` (a value for each row), ``list`` (all values) or ``array``.
    form: str
    #: Whether it is ``str`` and not ``bytes``.
    text: bool
    #: What each row is where it comes as JSON: ``object``, ``list`` or ``any``; else nothing.
    json: str = ""
    #: Whether ``predict`` has a value of its own for it.
    has_default: bool = False
    #: Whether a request may leave it out.
    optional: bool = False


class Plan(NamedTuple):
    """All that is known of a model's ``predict``."""

    inputs: List[Input]
    outputs: List[TensorSpec]
    features: List[TensorSpec]
    #: ``predict`` is called for each row.
    each_row: bool
    rows: bool
    streams: bool
    #: ``predict`` takes all inputs as one dict.
    as_dict: bool
    #: It takes the request's parameters as a dict, and those of its inputs.
    all_parameters: bool
    input_parameters: bool
    #: Keyword-only parameters: their types, and whether they must be there.
    options: Dict[str, Tuple[Any, bool]]
    #: Names of the outputs whose elements are JSON.
    json_outputs: FrozenSet[str]
    #: Turns what it returned into values by the names of the outputs.
    name_outputs: Callable[[Any], Dict[str, Any]]


def read(model: type) -> Plan:
    """The signature of a subclass of ``AbstractModel``."""
    predict = getattr(model, "predict", None)
    if predict is None:
        raise ModelError(f"{model.__name__} has no method `predict`")
    try:
        hints = {name: _bare(hint) for name, hint in get_type_hints(predict, include_extras=True).items()}
    except Exception as error:
        advice = ": import it, or define it above the class" if isinstance(error, NameError) else ""
        raise ModelError(f"{model.__name__}.predict: its type hints cannot be read: {error}{advice}") from error
    where = f"{model.__name__}.predict"
    parameters = list(inspect.signature(predict).parameters.values())[1:]
    given_whole = {parameter.name for parameter in parameters} & {PARAMETERS, INPUT_PARAMETERS}
    options, positional = {}, []
    for parameter in parameters:
        if parameter.name in given_whole:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ModelError(f"{where}: `{parameter}` does not say which inputs there are: name each of them")
        if parameter.kind is parameter.KEYWORD_ONLY:
            options[parameter.name] = (hints.get(parameter.name, Any), parameter.default is parameter.empty)
        else:
            positional.append(parameter)

    declared = _declared(model, "inputs")
    as_dict = _takes_dict(positional, hints, declared)
    if as_dict:
        inputs = [Input(spec, "array", False) for spec in declared.values()]
    else:
        inputs = [
            _input(where, parameter.name, hints.get(parameter.name), declared)._replace(
                has_default=parameter.default is not parameter.empty
            )
            for parameter in positional
        ]
        # `predict` has a value for what a request leaves out.
        inputs = [given._replace(optional=given.optional or given.has_default) for given in inputs]
        strange = [name for name in declared if name not in {given.spec.name for given in inputs}]
        if strange:
            raise ModelError(f"{where} has no parameter `{strange[0]}`, which `{model.__name__}.inputs` declares")
    if not inputs:
        raise ModelError(f"{where} takes no input: give it a parameter, as in `def predict(self, text: str) -> str`")
    each_row = inputs[0].form == "row"
    for given in inputs[1:]:
        if (given.form == "row") != each_row:
            one, other = (inputs[0], given) if each_row else (given, inputs[0])
            scalar = _advice.named(hints[one.spec.name])
            raise ModelError(
                f"{where}: `{one.spec.name}` is the value of one row and `{other.spec.name}` is all rows: hint both alike, "
                f"`{one.spec.name}` as list[{scalar}] (an extra that is the same for all rows is a keyword-only parameter, "
                f"after `*`)"
            )

    streams, returned = _stream(where, predict, hints.get("return"))
    outputs, json_outputs, name_outputs = _outputs(model, where, returned, each_row)
    features = [check_spec(TensorSpec(*spec), f"{model.__name__}.features") for spec in model.features]
    features = [spec._replace(name=FEATURES + spec.name) for spec in features]
    if each_row and streams:
        # One text in, its answer in pieces.
        inputs = [given._replace(spec=given.spec._replace(shape=[1])) for given in inputs]
        outputs, features = ([spec._replace(shape=[1] + spec.shape[1:]) for spec in specs] for specs in (outputs, features))
    return Plan(
        inputs=inputs,
        outputs=outputs,
        features=features,
        each_row=each_row,
        rows=_rows(model, [given.spec for given in inputs] + outputs + features, streams),
        streams=streams,
        as_dict=as_dict,
        all_parameters=PARAMETERS in given_whole,
        input_parameters=INPUT_PARAMETERS in given_whole,
        options=options,
        json_outputs=frozenset(json_outputs),
        name_outputs=name_outputs,
    )


def _declared(model: type, attribute: str) -> Dict[str, TensorSpec]:
    specs = getattr(model, attribute)
    if specs is None:
        return {}
    where = f"{model.__name__}.{attribute}"
    try:
        checked = [check_spec(TensorSpec(*spec), where) for spec in specs]
    except TypeError:
        raise ModelError(f'{where} is a list like [TensorSpec("x", "FP32", [-1, 4])], not {specs!r}') from None
    named = {spec.name: spec for spec in checked}
    if len(named) != len(checked):
        raise ModelError(f"{where} names one tensor twice")
    return named


def _takes_dict(positional: List[inspect.Parameter], hints: Dict[str, Any], declared: Dict[str, TensorSpec]) -> bool:
    if len(positional) != 1 or not declared or positional[0].name in declared:
        return False
    hint = hints.get(positional[0].name)
    return (get_origin(hint) or hint) in (dict, collections.abc.Mapping)


def _input(where: str, name: str, hint: Any, declared: Dict[str, TensorSpec]) -> Input:
    spec = declared.get(name)
    inside = _advice.optional(hint)
    if inside is not None:
        return _input(where, name, inside, declared)._replace(optional=True)
    tensor = _advice.tensor(hint)
    lists, inner = _advice.depth(hint)
    if tensor is not None:
        found = Input(check_spec(TensorSpec(name, tensor.datatype, tensor.shape), where), "array", False)
    elif _is_scalar(inner):
        # The first list is the rows; `float` is one row of `list[float]`.
        form = "list" if lists else "row"
        found = Input(TensorSpec(name, SCALARS[inner], [-1] * max(lists, 1)), form, inner is str)
    elif spec is not None and _may_be_array(hint):
        return Input(spec, "array", False)
    elif _advice.json_rows(hint) is not None:
        rows = _advice.json_rows(hint) or ""
        found = Input(TensorSpec(name, "BYTES", [-1]), "list" if lists else "row", False, rows)
    elif hint is None:
        raise ModelError(f"{where}: `{name}` has no type hint: say what it is, as in {_HINTS}")
    elif _is_array(hint):
        raise ModelError(
            f"{where}: `{name}` is an array of unknown datatype and shape: {_advice.input_hint(name, hint)}, or declare "
            f'`inputs = [TensorSpec("{name}", "FP32", [-1, 4])]` in the class'
        )
    else:
        advice = _advice.input_hint(name, hint)
        raise ModelError(f"{where}: `{name}: {_advice.named(hint)}` is nothing that a request can carry: {advice}")
    if spec is not None and spec != found.spec:
        raise ModelError(f"{where}: `{name}` is hinted as {found.spec} and declared as {spec}: say it once")
    return found


def _stream(where: str, predict: Callable[..., Any], hint: Any) -> Tuple[bool, Any]:
    """Whether it streams, and the hint of one answer."""
    yields = inspect.isgeneratorfunction(predict) or inspect.isasyncgenfunction(predict)
    if get_origin(hint) in _STREAMS or hint in _STREAMS or (yields and get_origin(hint) is collections.abc.Iterable):
        if not get_args(hint):
            raise ModelError(f"{where}: `{_advice.named(hint)}` does not say what it yields: hint it, as in `-> Iterator[str]`")
        return True, get_args(hint)[0]
    return yields, hint


def _outputs(
    model: type, where: str, hint: Any, each_row: bool
) -> Tuple[List[TensorSpec], List[str], Callable[[Any], Dict[str, Any]]]:
    """The outputs, the names of those whose elements are JSON, and what tells values by names."""
    if get_origin(hint) is Result:
        (hint,) = get_args(hint)
    declared = _declared(model, "outputs")
    fields = _fields(hint)
    if declared and not fields:
        names = list(declared)
        return list(declared.values()), [], lambda value: _by_name(value, names)
    if fields:
        json = [name for name, of in fields.items() if name not in declared and _is_json_output(of)]
        specs = [declared.get(name) or _output(where, name, of, each_row) for name, of in fields.items()]
        names = list(fields)
        return specs, json, lambda value: _by_name(value, names)
    spec = _output(where, OUTPUT, hint, each_row)
    return [spec], [OUTPUT] if _is_json_output(hint) else [], lambda value: {OUTPUT: value}


def _fields(hint: Any) -> Optional[Dict[str, Any]]:
    """The fields of a NamedTuple, a dataclass or a TypedDict."""
    if not isinstance(hint, type):
        return None
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields") or hasattr(hint, "__total__"):
        return {name: _bare(of) for name, of in get_type_hints(hint, include_extras=True).items()}
    return None


def _bare(hint: Any, within: Tuple[Any, ...] = ()) -> Any:
    """A hint without what says nothing of its datatype: new names for a type, and remarks of other libraries.

    A name that occurs within itself (``within``), as one for any JSON does, may be anything there.
    """
    while True:
        if hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            if any(hint is alias for alias in within):
                return Any
            within = (*within, hint)
            hint = hint.__value__
        elif get_origin(hint) is Annotated and _advice.tensor(hint) is None:
            hint = get_args(hint)[0]
        elif getattr(get_origin(hint), "_name", "") in ("Required", "NotRequired", "ReadOnly"):
            # A TypedDict's own remarks.
            hint = get_args(hint)[0]
        else:
            break
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Annotated, Literal):
        return hint
    bare = tuple(_bare(argument, within) for argument in arguments)
    if all(one is other for one, other in zip(bare, arguments)):
        return hint
    return Union[bare] if origin in _advice.UNIONS else origin[bare]


def _output(where: str, name: str, hint: Any, each_row: bool) -> TensorSpec:
    tensor = _advice.tensor(hint)
    what = "what it returns" if name == OUTPUT else f"its output `{name}`"
    if tensor is not None:
        lead = [-1] if each_row else []
        return check_spec(TensorSpec(name, tensor.datatype, lead + list(tensor.shape)), where)
    if _is_json_output(hint):
        # Whatever is in a row is one element.
        return TensorSpec(name, "BYTES", [-1] if each_row or _advice.depth(hint)[0] else [1])
    lists, inner = _advice.depth(hint)
    inner = _advice.optional(inner) or inner
    shape = [-1] * (lists + each_row)
    if _is_scalar(inner):
        return TensorSpec(name, SCALARS[inner], shape or [1])
    if hint is None or hint is type(None):
        raise ModelError(f"{where} does not say {what}: hint it, as in `-> str`, or declare `outputs` in the class")
    raise ModelError(
        f"{where}: `{_advice.named(hint)}` does not say {what} as a tensor: {_advice.output_hint(hint)}"
    )


def _is_json_output(hint: Any) -> bool:
    """Whether what is returned is JSON: objects, values of different kinds, lists that may be missing."""
    inner = _advice.depth(hint)[1]
    if _advice.is_json(inner) or (_advice.tensor(hint) is None and _advice.has_fields(inner)):
        return True
    kind = _advice.optional(inner)
    return kind is not None and (_advice.depth(kind)[0] > 0 or _advice.has_fields(kind))


def _by_name(value: Any, names: List[str]) -> Dict[str, Any]:
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value):
        return {name: getattr(value, name) for name in names}
    if len(names) > 1 and isinstance(value, (tuple, list)) and len(value) == len(names):
        return dict(zip(names, value))
    if len(names) == 1:
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {names[0]: value[0]}
        return {names[0]: value}
    wanted = ", ".join(f"`{name}`" for name in names)
    raise TypeError(f"predict returned a {type(value).__name__}, and the model declares the outputs {wanted}")


def _rows(model: type, specs: List[TensorSpec], streams: bool) -> bool:
    counted = all(spec.shape and spec.shape[0] == -1 for spec in specs)
    if streams:
        if model.batch:
            raise ModelError(f"{model.__name__}: a model that streams answers one request at a time: remove `batch = True`")
        return False
    if model.batch is None:
        return counted
    if model.batch and not counted:
        odd = next(spec for spec in specs if not spec.shape or spec.shape[0] != -1)
        raise ModelError(f"{model.__name__}: `batch = True` wants -1 as every first dimension, and {odd} has none")
    return bool(model.batch)


def _is_scalar(hint: Any) -> bool:
    return isinstance(hint, type) and hint in SCALARS


def _may_be_array(hint: Any) -> bool:
    return hint is None or hint is Any or _is_array(hint)


def _is_array(hint: Any) -> bool:
    named = get_origin(hint) or hint
    return getattr(named, "__name__", "") == "ndarray"


def is_model(value: Any) -> bool:
    """Whether it is a model that somebody wrote."""
    return isinstance(value, type) and issubclass(value, AbstractModel) and value is not AbstractModel

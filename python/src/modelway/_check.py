"""Looks at a model's type hints before its environment is built: without its packages, and without running its code.

Of the file only imports of the standard library, classes without the bodies of their methods, and plain names for
hints are run. What comes from elsewhere is stood in for. What a stand-in might hide is not judged: the worker, which
has the packages, reads the same hints again.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
import types
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Union, get_args, get_type_hints

from . import _hints
from ._spec import ModelError

_MODULE = "_modelway_model"
#: Modules that are there in every interpreter, and do nothing when they are imported.
_REAL = {"__future__", "abc", "collections", "dataclasses", "datetime", "decimal", "enum", "modelway", "numbers", "typing", "uuid"}
#: Libraries whose names are classes, and no hints that we would understand.
_LIBRARIES = {"jax", "numpy", "pandas", "PIL", "polars", "scipy", "sklearn", "tensorflow", "torch", "xgboost"}
_HARMLESS = (
    ast.Attribute,
    ast.BinOp,
    ast.BitOr,
    ast.Constant,
    ast.Dict,
    ast.List,
    ast.Load,
    ast.Name,
    ast.Slice,
    ast.Subscript,
    ast.Tuple,
    ast.UnaryOp,
    ast.USub,
)
_MADE = {"TensorSpec", "Tensor", "NewType", "TypeVar"}


def main(path: str) -> int:
    """Prints what is wrong with the hints of the model at `path`; 3 if something is, else 0."""
    said = fault(Path(path))
    if said is None:
        return 0
    sys.stdout.write(said)
    return 3


def fault(path: Path) -> Optional[str]:
    """What is wrong with the hints of a model's class; ``None`` where nothing is, or it cannot be known yet."""
    try:
        tree = ast.parse(path.read_bytes())
        reader = _Reader()
        reader.run(tree.body)
        model = reader.model()
    except Exception:
        # A file that cannot be read this way is judged when it is loaded.
        return None
    if model is None:
        return None
    try:
        _hints.read(model)
    except ModelError as error:
        return str(error) if _is_certain(model, reader.names) else None
    except Exception:
        return None
    return None


class _Unknown:
    """Stands in for what is not run here.

    certain: whether it is a class of a library that is known, so that as a hint it is what it seems to be.
    """

    def __init__(self, name: str, certain: bool) -> None:
        self.__name__ = name.rpartition(".")[2]
        self.__module__ = name.rpartition(".")[0]
        self.certain = certain

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_fields":
            raise AttributeError(name)
        return _Unknown(f"{self.__module__}.{self.__name__}.{name}".lstrip("."), self.certain)

    #: Or it would be a list without end.
    __iter__ = None

    def __getitem__(self, of: Any) -> "_Unknown":
        inner = getattr(of, "__name__", str(of))
        made = _Unknown("x", self.certain and getattr(of, "certain", True))
        made.__name__, made.__module__ = f"{self.__name__}[{inner}]", self.__module__
        return made

    def __call__(self, *_: Any, **__: Any) -> "_Unknown":
        return _Unknown(self.__name__, False)

    def __or__(self, other: Any) -> Any:
        return Union[self, other]

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]


class _Reader:
    """Runs the part of a file that hints are made of."""

    def __init__(self) -> None:
        self.module = types.ModuleType(_MODULE)
        self.names: Optional[set] = set()
        # Type hints and dataclasses look their module up by its name.
        sys.modules[_MODULE] = self.module

    @property
    def known(self) -> Dict[str, Any]:
        return self.module.__dict__

    def model(self) -> Optional[type]:
        """The one model that the file defines."""
        own = [value for value in self.known.values() if _hints.is_model(value) and value.__module__ == _MODULE]
        models = [model for model in dict.fromkeys(own) if not any(model in other.__mro__[1:] for other in own)]
        return models[0] if len(models) == 1 else None

    def run(self, statements: List[ast.stmt]) -> None:
        for statement in statements:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                self._import(statement)
            elif isinstance(statement, ast.ClassDef):
                self._class(statement)
            elif isinstance(statement, (ast.If, ast.Try, ast.With)):
                for part in ("body", "orelse", "finalbody"):
                    self.run(getattr(statement, part, []))
                for handler in getattr(statement, "handlers", []):
                    self.run(handler.body)
            else:
                self._other(statement)

    def _import(self, statement: Any) -> None:
        module = getattr(statement, "module", None)
        for alias in statement.names:
            full = alias.name if module is None else f"{module}.{alias.name}"
            root = full.partition(".")[0]
            if root in _REAL and not getattr(statement, "level", 0):
                one = type(statement)(**{**_fields(statement), "names": [alias]})
                if self._exec(one):
                    continue
            if alias.name == "*":
                # Any name may come from there.
                self.names = None
                continue
            bound = alias.asname or (alias.name if module is not None else root)
            certain = root in _LIBRARIES and not getattr(statement, "level", 0)
            self._bind(bound, _Unknown(full if alias.asname or module is not None else root, certain))

    def _class(self, statement: ast.ClassDef) -> None:
        bases = []
        for base in statement.bases:
            value = self._eval(base)
            if not isinstance(value, _Unknown):
                bases.append(base)
        hidden = len(bases) < len(statement.bases) or bool(statement.keywords)
        bare = ast.ClassDef(**{**_fields(statement), "bases": bases, "keywords": [], "body": []})
        bare.decorator_list = [made for made in statement.decorator_list if ast.unparse(made).startswith("dataclass")]
        bare.decorator_list += [made for made in statement.decorator_list if ast.unparse(made).startswith("dataclasses.dataclass")]
        hidden |= len(bare.decorator_list) < len(statement.decorator_list)
        for part in statement.body:
            bare.body.extend(self._member(part))
        bare.body.append(ast.Pass())
        if not self._exec(bare) or hidden:
            self._bind(statement.name, _Unknown(statement.name, False))

    def _member(self, part: ast.stmt) -> Iterator[ast.stmt]:
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = part.args
            arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
            arguments.kw_defaults = [made and ast.Constant(None) for made in arguments.kw_defaults]
            body: List[ast.stmt] = [ast.Pass()]
            if any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in ast.walk(part)):
                body = [ast.Expr(ast.Yield(None))]
            if part.decorator_list and part.name == "predict":
                # What a decorator makes of it is unknown.
                self.names = None
            yield type(part)(**{**_fields(part), "decorator_list": [], "body": body})
        elif isinstance(part, ast.AnnAssign):
            yield ast.AnnAssign(**{**_fields(part), "value": part.value and ast.Constant(None)})
            if part.value is not None and isinstance(part.target, ast.Name):
                yield from self._value([part.target], part.value)
        elif isinstance(part, ast.Assign):
            yield from self._value(part.targets, part.value)

    def _value(self, targets: List[ast.expr], value: ast.expr) -> Iterator[ast.stmt]:
        if not _is_harmless(value) and any(isinstance(target, ast.Name) and _is_ours(target.id) for target in targets):
            # The class says its tensors in a way that is not read here.
            self.names = None
        elif _is_harmless(value):
            yield ast.Assign(targets=targets, value=value)

    def _other(self, statement: ast.stmt) -> None:
        value = getattr(statement, "value", None)
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and value is not None and _is_harmless(value):
            if self._exec(statement):
                return
        for inner in ast.walk(statement):
            name = inner.id if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) else getattr(inner, "name", None)
            if isinstance(name, str):
                self._bind(name, _Unknown(name, False))

    def _bind(self, name: str, value: Any) -> None:
        self.known[name] = value
        if self.names is not None:
            self.names.add(name)

    def _eval(self, expression: ast.expr) -> Any:
        if not _is_harmless(expression):
            return _Unknown("x", False)
        try:
            return eval(compile(ast.Expression(expression), _MODULE, "eval"), self.known)
        except Exception:
            return _Unknown("x", False)

    def _exec(self, statement: ast.stmt) -> bool:
        tree = ast.fix_missing_locations(ast.Module([statement], []))
        try:
            # As the file's own `from __future__ import annotations` would have it.
            exec(compile(tree, _MODULE, "exec", dont_inherit=True, flags=0x1000000), self.known)
        except Exception:
            return False
        return True


def _fields(node: ast.AST) -> Dict[str, Any]:
    return dict(ast.iter_fields(node))


def _is_harmless(value: ast.expr) -> bool:
    """Whether running it only makes a value: names, constants, hints, and what the package itself makes."""
    for part in ast.walk(value):
        if isinstance(part, ast.Call) and getattr(part.func, "id", getattr(part.func, "attr", "")) in _MADE:
            continue
        if not isinstance(part, _HARMLESS + (ast.keyword,)) and not isinstance(part, ast.Call):
            return False
        if isinstance(part, ast.Call):
            return False
    return True


def _is_ours(name: str) -> bool:
    return name in ("inputs", "outputs", "features", "batch")


def _is_certain(model: type, names: Optional[set]) -> bool:
    """Whether no stand-in that may be something else is part of the model's hints."""
    if names is None:
        return False
    if not hasattr(model, "predict"):
        return True
    try:
        hints = get_type_hints(model.predict, include_extras=True)
    except NameError as error:
        # Python 3.9 says the name in words only.
        return str(error).split("'")[1] not in names
    except Exception:
        return False
    said = [getattr(model, name) for name in ("inputs", "outputs", "features", "batch")]
    return all(map(_is_known, [*hints.values(), *said]))


def _is_known(value: Any) -> bool:
    if isinstance(value, _Unknown):
        return value.certain
    if isinstance(value, (list, tuple)):
        return all(map(_is_known, value))
    if isinstance(value, type) and (dataclasses.is_dataclass(value) or hasattr(value, "_fields") or hasattr(value, "__total__")):
        try:
            return all(map(_is_known, get_type_hints(value, include_extras=True).values()))
        except Exception:
            return False
    return all(map(_is_known, get_args(value)))

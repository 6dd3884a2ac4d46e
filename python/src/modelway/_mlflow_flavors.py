"""The kinds of models that MLflow logs, each loaded by the library that wrote it.

A loader takes the model's file and the server's plan, and gives a :class:`Model`: what it wants and answers as far as
the model itself shows it, and one call from arrays to arrays.
"""

from __future__ import annotations

import inspect
import os
import warnings
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ._spec import NUMPY_NAMES, InvalidInput, TensorSpec

Arrays = Dict[str, np.ndarray]
Plan = Dict[str, Any]

#: The output of an answer that has one and no name for it.
ALONE = "predictions"


class Made(NamedTuple):
    """What a model made."""

    predictions: Any
    #: A classifier's, beside its labels.
    probabilities: Any = None
    #: The name of the output, if it is one.
    name: str = ALONE


_WORDS = {name: word for word, name in NUMPY_NAMES.items()}


def word_of(dtype: np.dtype) -> str:
    """The protocol's word for NumPy's."""
    return _WORDS.get(dtype.name, "BYTES")


class Model:
    """What all kinds of models have in common."""

    #: Whether a row's answer is the same whatever other rows are beside it.
    independent = True
    #: Whether `predict` takes what the signature says of parameters, as `params`.
    takes_parameters = False

    def columns(self) -> Tuple[List[Dict[str, Any]], bool]:
        """The inputs where no signature was logged, and whether they are columns of a table. None: nobody knows, and the
        model is given what comes."""
        return [], False

    def of_mlflow(self) -> Any:
        """The model as MLflow loaded it, if it did."""
        return None

    def outputs(self, labels: Dict[str, List[str]]) -> List[TensorSpec]:
        """The outputs, if that is known without trying. Adds what a classifier's scores stand for to `labels`."""
        return []

    def order(self, names: List[str]) -> Optional[List[str]]:
        """The columns of a plain array that says the same to the model as a data frame; `None` if none does."""
        return None

    def predict(self, given: Any, params: Optional[Dict[str, Any]] = None) -> Made:
        raise NotImplementedError


class _Estimator(Model):
    """Whatever predicts as scikit-learn does."""

    def __init__(self, model: Any, predict_fn: str = "predict") -> None:
        self._estimator = model
        self._name = predict_fn
        self._predict: Callable[[Any], Any] = getattr(model, predict_fn)
        classes = getattr(model, "classes_", None)
        plain = predict_fn == "predict" and isinstance(classes, np.ndarray) and classes.ndim == 1
        self._classes: Optional[np.ndarray] = classes if plain else None
        self._scores = getattr(model, "predict_proba", None) if plain else None
        forest = type(model).__module__ == "sklearn.ensemble._forest"
        self._is_forest = forest and self._classes is not None
        # Arrays in the right order are given to models that were trained on data frames.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")

    def columns(self) -> Tuple[List[Dict[str, Any]], bool]:
        names = getattr(self._estimator, "feature_names_in_", None)
        count = getattr(self._estimator, "n_features_in_", None)
        if names is not None:
            # Only what takes arrays has surely nothing but numbers in its columns.
            numbers = _takes_arrays(self._estimator)
            return ([_column(str(name), "FP64", [-1]) for name in names] if numbers else []), True
        if count is None or not _takes_arrays(self._estimator):
            return [], False
        return [_column("input", "FP64", [-1, int(count)])], False

    def outputs(self, labels: Dict[str, List[str]]) -> List[TensorSpec]:
        classes = self._classes
        if classes is None:
            return []
        specs = [TensorSpec("predictions", word_of(classes.dtype), [-1])]
        if self._scores is not None:
            specs.append(TensorSpec("probabilities", "FP64", [-1, len(classes)]))
            labels["probabilities"] = [str(name) for name in classes.tolist()]
        return specs

    def order(self, names: List[str]) -> Optional[List[str]]:
        if not _takes_arrays(self._estimator):
            return None
        known = getattr(self._estimator, "feature_names_in_", None)
        return names if known is None else _reordered(known, names)

    def predict(self, given: Any, params: Optional[Dict[str, Any]] = None) -> Made:
        try:
            if self._scores is None:
                return Made(self._predict(given), name="probabilities" if "proba" in self._name else ALONE)
            scores = self._scores(given)
            # A forest predicts the class with the highest score, and would ask every tree again for it.
            labels = self._classes.take(scores.argmax(axis=1)) if self._is_forest else self._predict(given)
            return Made(labels, scores)
        except ValueError as error:
            # NaN, a category that nobody trained, a number out of range.
            raise InvalidInput(str(error)) from error


class _Function(Model):
    """Whatever is called with the inputs, and whose rows are looked at one by one or not."""

    def __init__(
        self, function: Callable[..., Any], independent: bool = True, features: int = 0, names: Any = None
    ) -> None:
        self._function = function
        self._features = features
        self._names = names
        self.independent = independent

    def columns(self) -> Tuple[List[Dict[str, Any]], bool]:
        return ([_column("input", "FP64", [-1, self._features])] if self._features else []), False

    def order(self, names: List[str]) -> Optional[List[str]]:
        if not self._features:
            return None
        return names if self._names is None else _reordered(self._names, names)

    def predict(self, given: Any, params: Optional[Dict[str, Any]] = None) -> Made:
        return Made(self._function(given))


class _Pyfunc(Model):
    """What only MLflow can load, which may have parameters."""

    independent = False

    def __init__(self, model: Any) -> None:
        self._loaded = model
        # MLflow before 2.6 takes none.
        self.takes_parameters = "params" in inspect.signature(model.predict).parameters

    def of_mlflow(self) -> Any:
        return self._loaded

    def predict(self, given: Any, params: Optional[Dict[str, Any]] = None) -> Made:
        from mlflow.exceptions import MlflowException

        try:
            return Made(self._loaded.predict(given) if params is None else self._loaded.predict(given, params=params))
        except MlflowException as error:
            if 400 <= error.get_http_status_code() < 500 or _reads_a_request(error):
                # It does not fit the signature or the type hints.
                raise InvalidInput(error.message.rpartition("Error: ")[2].strip()[:2000]) from error
            raise
        except Exception as error:
            if _reads_a_request(error):
                raise InvalidInput(f"the model does not take such a request: {type(error).__name__}: {error}"[:2000]) from error
            raise


def _reads_a_request(error: BaseException) -> bool:
    """Whether it was raised where MLflow makes the objects of a chat of a request, before it calls the model."""
    trace = error.__traceback__
    while trace is not None:
        code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__", "")
        if code.co_name == "_convert_input" and module.startswith("mlflow.pyfunc."):
            return True
        trace = trace.tb_next
    return False


def _reordered(known: Any, names: List[str]) -> Optional[List[str]]:
    """The same names in the order of training."""
    return list(known) if sorted(known) == sorted(names) else None


def _takes_arrays(estimator: Any) -> bool:
    """Whether it is the same to it if columns come as an array: it chooses none by name, and runs no one's code."""
    kind = type(estimator)
    if kind.__module__.split(".")[0] not in ("sklearn", "xgboost", "lightgbm"):
        return False
    if kind.__name__ in ("ColumnTransformer", "FunctionTransformer", "TransformedTargetRegressor"):
        return False
    parts: List[Any] = []
    for name in ("steps", "transformer_list", "estimators", "estimator", "base_estimator", "final_estimator"):
        inner = getattr(estimator, name, None)
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            parts.append(part[1] if isinstance(part, tuple) and len(part) > 1 else part)
    return all(_takes_arrays(part) for part in parts if hasattr(part, "get_params"))


def _sklearn(file: str, plan: Plan) -> Model:
    return _Estimator(_unpickled(file, plan["options"]), plan["predict_fn"])


def _unpickled(file: str, options: Dict[str, Any]) -> Any:
    form = options.get("serialization_format") or ("skops" if file.endswith(".skops") else "cloudpickle")
    if form == "skops":
        import skops.io

        return skops.io.load(file, trusted=options.get("skops_trusted_types") or [])
    if form == "joblib" or file.endswith(".joblib"):
        import joblib

        return joblib.load(file)
    if form == "cloudpickle":
        import cloudpickle as pickle
    else:
        import pickle
    with open(file, "rb") as stream:
        return pickle.load(stream)


def _class_of(name: str) -> Any:
    import importlib

    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(module), kind)


def _xgboost(file: str, plan: Plan) -> Model:
    import xgboost

    model = _class_of(plan["options"].get("model_class") or "xgboost.core.Booster")()
    model.load_model(file)
    if not isinstance(model, xgboost.Booster):
        return _Estimator(model, plan["predict_fn"])
    names = model.feature_names

    def predict(given: Any) -> Any:
        data = xgboost.DMatrix(given, feature_names=names if isinstance(given, np.ndarray) else None)
        return model.predict(data)

    return _Function(predict, features=int(model.num_features()), names=names)


def _lightgbm(file: str, plan: Plan) -> Model:
    import lightgbm

    name = plan["options"].get("model_class") or "lightgbm.basic.Booster"
    if not name.endswith(".Booster"):
        return _Estimator(_unpickled(file, plan["options"]), plan["predict_fn"])
    model = lightgbm.Booster(model_file=file)
    return _Function(model.predict, features=model.num_feature())


def _catboost(file: str, plan: Plan) -> Model:
    import catboost

    model = getattr(catboost, plan["options"].get("model_type") or "CatBoost")()
    model.load_model(file, plan["options"].get("save_format") or "cbm")
    return _Function(model.predict)


def _pytorch(file: str, plan: Plan) -> Model:
    import torch

    if os.path.isdir(file):
        exported = os.path.join(file, "model.pt2")
        if os.path.exists(exported):
            return _Function(_of_torch(torch, torch.export.load(exported).module()))
        file = os.path.join(file, "model.pth")
    try:
        # Whole models are pickled; what they load is as trusted as the model itself.
        model = torch.load(file, map_location="cpu", weights_only=False)
    except RuntimeError:
        model = torch.jit.load(file, map_location="cpu")
    model.eval()
    return _Function(_of_torch(torch, model))


def _of_torch(torch: Any, model: Any) -> Callable[[Any], Any]:
    def predict(given: Any) -> Any:
        array = given if isinstance(given, np.ndarray) else given.to_numpy(dtype=np.float32)
        with torch.inference_mode():
            # What came over the wire may not be written to, which PyTorch cannot promise.
            made = model(torch.from_numpy(array if array.flags.writeable else array.copy()))
        if not isinstance(made, torch.Tensor):
            raise TypeError(f"the model answers with {type(made).__name__}, and MLflow's PyTorch models with a tensor")
        return made.numpy()

    return predict


def _pyfunc(file: str, plan: Plan) -> Model:
    import mlflow.pyfunc

    return _Pyfunc(mlflow.pyfunc.load_model(plan["folder"]))


LOADERS: Dict[str, Callable[[str, Plan], Model]] = {
    "sklearn": _sklearn,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "catboost": _catboost,
    "pytorch": _pytorch,
    "pyfunc": _pyfunc,
}


def _column(name: str, datatype: str, shape: List[int]) -> Dict[str, Any]:
    kind = NUMPY_NAMES[datatype]
    return {"name": name, "datatype": datatype, "shape": shape, "kind": kind, "required": True, "named": len(shape) == 1}

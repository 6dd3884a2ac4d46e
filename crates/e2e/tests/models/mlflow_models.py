"""Trains small models and logs them to the MLflow server whose address is the argument.

Its last line is JSON: what each model answers to what, as the library itself says it.
"""

import json
import sys
import warnings

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

warnings.filterwarnings("ignore")
TREES = ["sklearn.tree._tree.Tree"]
ROWS = [[75.3, 24, 0.15, 0.65, 0.8, 2.5, 1, 0, 0, 0], [60.2, 36, 0.25, 0.45, 1.2, 5.0, 0, 1, 1, 1]]


class Echo(mlflow.pyfunc.PythonModel):
    """Only MLflow can load this one."""

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        return pd.DataFrame({"twice": model_input["x"] * 2, "text": "<" + model_input["word"] + ">"})


class Total(mlflow.pyfunc.PythonModel):
    """Adds the columns that it is given."""

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        return pd.DataFrame({"total": model_input.sum(axis=1), "columns": [" ".join(model_input)] * len(model_input)})


class Kinds(mlflow.pyfunc.PythonModel):
    """Says what it was given."""

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        rows = zip(model_input["x"], model_input["data"], model_input["at"])
        return pd.DataFrame({"said": [f"{x} {data!r} {at} {params['scale']}" for x, data, at in rows]})


def sensors(count):
    """Readings of machines, and whether each failed."""
    random = np.random.default_rng(7)
    flags = random.integers(0, 2, (count, 4))
    numbers = random.normal([70, 30, 0.2, 0.5, 1, 4], [10, 8, 0.05, 0.1, 0.3, 2], (count, 6))
    readings = np.hstack([numbers, flags])
    return readings, (numbers[:, 0] + numbers[:, 1] > 100).astype(int)


def main():
    mlflow.set_tracking_uri(sys.argv[1])
    client = mlflow.MlflowClient()
    answers = {}
    readings, failed = sensors(400)
    rows = np.array(ROWS)
    names = [f"sensor_{place}" for place in range(10)]

    def classified(model, given):
        return {"predictions": model.predict(given).tolist(), "probabilities": model.predict_proba(given).tolist()}

    with mlflow.start_run() as run:
        best = "predictive_maintenance_best"
        linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(readings, failed)
        mlflow.sklearn.log_model(linear, name="linear", registered_model_name=best)
        forest = RandomForestClassifier(20, random_state=1).fit(readings, failed)
        mlflow.sklearn.log_model(forest, name="forest", registered_model_name=best, skops_trusted_types=TREES)
        client.transition_model_version_stage(best, "1", "Production")
        client.set_registered_model_alias(best, "challenger", "2")
        answers["linear"], answers["forest"] = classified(linear, rows), classified(forest, rows)

        table = pd.DataFrame(readings, columns=names)
        named = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, failed)
        signature = infer_signature(table, named.predict(table))
        mlflow.sklearn.log_model(named, name="named", registered_model_name="named", signature=signature)
        answers["named"] = classified(named, pd.DataFrame(rows, columns=names))

        sites = pd.DataFrame({"site": ["north", "south"] * 200, "age": range(400), "load": readings[:, 0]})
        mixed = make_pipeline(
            ColumnTransformer([("site", OneHotEncoder(), ["site"])], remainder="passthrough"), LinearRegression()
        ).fit(sites, readings[:, 1])
        signature = infer_signature(sites, mixed.predict(sites))
        mlflow.sklearn.log_model(
            mixed, name="mixed", registered_model_name="mixed", signature=signature, serialization_format="cloudpickle"
        )
        given = pd.DataFrame({"site": ["south", "north"], "age": [3, 4], "load": [70.5, 65.0]})
        answers["mixed"] = {"predictions": mixed.predict(given).tolist()}

        from skl2onnx import to_onnx

        options = {"zipmap": False}
        graph = to_onnx(linear, readings[:1].astype(np.float32), options=options)
        mlflow.onnx.log_model(graph, name="graph", registered_model_name="graph")

        from xgboost import XGBClassifier

        boosted = XGBClassifier(n_estimators=5, max_depth=2).fit(readings, failed)
        mlflow.xgboost.log_model(
            boosted, name="boosted", registered_model_name="boosted", signature=infer_signature(readings, failed)
        )
        answers["boosted"] = classified(boosted, rows)

        words = pd.DataFrame({"x": [1.5], "word": ["a"]})
        signature = infer_signature(words, pd.DataFrame({"twice": [3.0], "text": ["<a>"]}))
        mlflow.pyfunc.log_model(name="echo", python_model=Echo(), registered_model_name="echo", signature=signature)
        inputs = Schema([ColSpec("double", "x"), ColSpec("long", "y", required=False), ColSpec("double", "z")])
        outputs = Schema([ColSpec("double", "total"), ColSpec("string", "columns")])
        signature = ModelSignature(inputs, outputs)
        mlflow.pyfunc.log_model(name="total", python_model=Total(), registered_model_name="total", signature=signature)
        inputs = Schema([ColSpec("double", "x"), ColSpec("binary", "data"), ColSpec("datetime", "at")])
        params = ParamSchema([ParamSpec("scale", "double", 1.0), ParamSpec("words", "string", [], shape=(-1,))])
        signature = ModelSignature(inputs, Schema([ColSpec("string", "said")]), params)
        mlflow.pyfunc.log_model(name="kinds", python_model=Kinds(), registered_model_name="kinds", signature=signature)
    answers["run"] = run.info.run_id
    print(json.dumps(answers))


main()

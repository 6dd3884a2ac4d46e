"""Logs the models that the documents speak of to the MLflow server whose address is the argument."""

import sys
import warnings

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression

warnings.filterwarnings("ignore")


class Chat(mlflow.pyfunc.PythonModel):
    """Answers questions that come with what was asked before."""

    def predict(self, context, model_input, params=None):
        return [f"{row.question} after {len(row.history)}" for row in model_input.itertuples()]


def main():
    mlflow.set_tracking_uri(sys.argv[1])
    client = mlflow.MlflowClient()
    with mlflow.start_run():
        wine = pd.DataFrame({"acidity": [7.4, 6.0, 5.1], "alcohol": [9.4, 10.0, 12.5]})
        model = LinearRegression().fit(wine, [5, 6, 7])
        mlflow.sklearn.log_model(model, name="wine", signature=infer_signature(wine), registered_model_name="wine")

        classifier = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        for name in ("churn", "predictive_maintenance_best"):
            mlflow.sklearn.log_model(classifier, name=name, registered_model_name=name)
        client.set_registered_model_alias("churn", "champion", 1)
        client.transition_model_version_stage("predictive_maintenance_best", 1, "Production")

        asked = pd.DataFrame({"question": ["why?"], "history": [["what?"]]})
        mlflow.pyfunc.log_model(
            name="chat", python_model=Chat(), signature=infer_signature(asked), registered_model_name="chat"
        )


if __name__ == "__main__":
    main()

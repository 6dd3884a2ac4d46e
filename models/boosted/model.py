"""Whether a tumour is benign, from 30 measurements, by XGBoost."""

import numpy as np
import xgboost
from modelway import AbstractModel, TensorSpec
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split


class Boosted(AbstractModel):
    inputs = [TensorSpec("measurements", "FP32", [-1, 30])]
    outputs = [TensorSpec("benign", "FP32", [-1])]

    def load(self):
        self.booster = xgboost.Booster(model_file=self.folder / "boosted.json")
        self.booster.set_param({"nthread": 1})

    def predict(self, measurements: np.ndarray) -> np.ndarray:
        return self.booster.inplace_predict(measurements)

    def train(self, rounds=20):
        tumours, _, benign, _ = data()
        options = {"objective": "binary:logistic", "max_depth": 3, "seed": 7, "nthread": 1}
        booster = xgboost.train(options, xgboost.DMatrix(tumours, benign), num_boost_round=rounds)
        booster.save_model(self.folder / "boosted.json")

    def eval(self):
        _, tumours, _, benign = data()
        return {"accuracy": ((self.predict(tumours) > 0.5) == benign).mean()}


def data():
    tumours, benign = load_breast_cancer(return_X_y=True)
    return train_test_split(tumours.astype("float32"), benign, test_size=0.25, random_state=7, stratify=benign)

"""The cultivar of a wine from 13 chemical measurements, by a scikit-learn forest."""

from typing import NamedTuple

import joblib
from modelway import AbstractModel, Tensor
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split


class Answer(NamedTuple):
    label: Tensor["INT64", -1]
    probabilities: Tensor["FP32", -1, 3]


class Forest(AbstractModel):
    def load(self):
        self.forest = joblib.load(self.folder / "forest.joblib")

    def predict(self, measurements: Tensor["FP32", -1, 13]) -> Answer:
        probabilities = self.forest.predict_proba(measurements)
        return Answer(probabilities.argmax(axis=1), probabilities)

    def train(self, trees=50):
        wines, _, cultivars, _ = data()
        forest = RandomForestClassifier(n_estimators=trees, random_state=7).fit(wines, cultivars)
        joblib.dump(forest, self.folder / "forest.joblib")

    def eval(self):
        _, wines, _, cultivars = data()
        return {"accuracy": (self.predict(wines).label == cultivars).mean()}


def data():
    wines, cultivars = load_wine(return_X_y=True)
    return train_test_split(wines.astype("float32"), cultivars, test_size=0.25, random_state=7, stratify=cultivars)

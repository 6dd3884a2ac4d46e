"""Iris: three species of flower from four measurements, by logistic regression."""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import export

measurements, species = load_iris(return_X_y=True)
train, held_out, train_species, held_out_species = train_test_split(
    measurements.astype(np.float32), species, test_size=0.2, random_state=7, stratify=species
)
classifier = LogisticRegression(max_iter=1000).fit(train, train_species)
accuracy = classifier.score(held_out, held_out_species)
assert accuracy >= 0.9, f"accuracy fell to {accuracy:.3f}"
export.write(classifier, held_out, [1, 1, 5], export.output_folder("iris"))

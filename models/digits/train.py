"""Digits: handwritten digits from 8 × 8 grey pixels (0 to 16), by a small neural network."""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import export

pixels, digits = load_digits(return_X_y=True)
train, held_out, train_digits, held_out_digits = train_test_split(
    pixels.astype(np.float32), digits, test_size=0.2, random_state=7, stratify=digits
)
classifier = MLPClassifier(hidden_layer_sizes=(64,), alpha=1e-3, max_iter=400, random_state=7).fit(train, train_digits)
accuracy = classifier.score(held_out, held_out_digits)
assert accuracy >= 0.95, f"accuracy fell to {accuracy:.3f}"
export.write(classifier, held_out, [1, 1, 4], export.output_folder("digits"))

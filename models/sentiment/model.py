"""Says whether a text is good or bad, by the words in it. Needs nothing but Python."""

import json
import math
import re
from collections import Counter
from typing import NamedTuple

from modelway import AbstractModel, InvalidInput, Result, TensorSpec

EXAMPLES = {
    "good": ["what a lovely day", "works well and is quick", "I love this", "great help, thank you", "a joy to use"],
    "bad": ["what an awful day", "slow and broken", "I hate this", "no help at all, sorry", "a pain to use"],
}
UNSEEN = [("a lovely joy", "good"), ("broken and awful", "bad"), ("thank you, works great", "good"), ("I hate pain", "bad")]


class Opinion(NamedTuple):
    label: str
    confidence: float


class Sentiment(AbstractModel):
    features = [TensorSpec("score", "FP64", [-1])]

    def load(self):
        self.weights = json.loads((self.folder / "weights.json").read_text())

    def predict(self, text: str) -> Result[Opinion]:
        if not text.strip():
            raise InvalidInput("there is no text to have an opinion of")
        score = sum(self.weights.get(word, 0.0) for word in words(text))
        good = 1 / (1 + math.exp(-score))
        opinion = Opinion("good", good) if good >= 0.5 else Opinion("bad", 1 - good)
        return Result(opinion, features={"score": score})

    def train(self):
        counts = {label: Counter(word for text in texts for word in words(text)) for label, texts in EXAMPLES.items()}
        known = set().union(*counts.values())
        weights = {word: math.log((counts["good"][word] + 0.5) / (counts["bad"][word] + 0.5)) for word in sorted(known)}
        (self.folder / "weights.json").write_text(json.dumps(weights))
        return {"words": len(weights)}

    def eval(self):
        right = sum(self.predict(text).outputs.label == label for text, label in UNSEEN)
        return {"accuracy": right / len(UNSEEN)}


def words(text):
    return re.findall(r"[a-z]+", text.lower())

"""A model with metrics of its own."""

import os

from modelway import AbstractModel


class Counts(AbstractModel):
    batch = False

    def load(self):
        self.metrics.counter("loads", "Times that it was loaded").inc()
        self.words = self.metrics.counter("words_total", "Words read", labels=["language"])
        self.level = self.metrics.gauge("level", "The last number of words", merge="max")
        self.length = self.metrics.histogram("length", "Words of a text", buckets=[1, 2.5])

    async def predict(self, text: str, *, language: str = "none") -> int:
        if text == "die":
            os.kill(os.getpid(), 9)
        count = len(text.split())
        self.words.inc(count, language=language)
        self.level.set(count)
        self.length.observe(count)
        return os.getpid()

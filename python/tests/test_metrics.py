"""Metrics that a model declares: what is accepted, what is bounded, and what the server finds in the shared memory."""

import contextlib
import io
import json
import mmap
import os
import struct
import threading
import unittest

from modelway import AbstractModel
from modelway._metrics import AREA, MOST_SERIES, Metrics


def read(area):
    """The entries of an area: their described texts, and their values."""
    count, used = struct.unpack_from("=QQ", area)
    at, entries = 16, []
    for _ in range(count):
        size, text = struct.unpack_from("=II", area, at)
        start = at + -(-(8 + text) // 8) * 8
        described = json.loads(bytes(area[at + 8 : at + 8 + text]))
        entries.append((described, list(struct.unpack_from(f"={(at + size - start) // 8}d", area, start))))
        at += size
    assert at == used
    return entries


def shared():
    descriptor = os.memfd_create("counts")
    os.ftruncate(descriptor, AREA)
    return descriptor, mmap.mmap(descriptor, AREA)


class MetricsTest(unittest.TestCase):
    def test_nothing_is_counted_while_the_server_tries_the_model(self):
        metrics = Metrics()
        words, level = metrics.counter("words", labels=["a"]), metrics.gauge("level")
        spread = metrics.histogram("spread")
        level.set(1)

        def count():
            words.inc(a="x")
            level.set(9)
            level.inc()
            spread.observe(1)
            metrics.counter("late").inc()

        with metrics.paused(), metrics.paused():
            count()
            thread = threading.Thread(target=count)
            thread.start()
            thread.join()
            with self.assertRaisesRegex(ValueError, "has the labels a"):
                words.inc(b="x")
        found = {described["name"]: values for described, values in read(metrics._area)}
        self.assertEqual((found["level"][0], set(found["spread"]), set(found)), (1, {0.0}, {"level", "spread"}))
        count()
        found = {described["name"]: values[0] for described, values in read(metrics._area)}
        self.assertEqual(found, {"level": 10, "spread": 1, "words": 1, "late": 1})

    def test_what_is_counted_stands_in_the_area(self):
        metrics = Metrics()
        words = metrics.counter("words_total", "Words", labels=["language"])
        words.inc(language="de")
        words.inc(2.5, language="de")
        metrics.gauge("level", merge="sum").set(4)
        metrics.gauge("level", merge="sum").dec(1)
        spread = metrics.histogram("spread", buckets=[1, 2])
        for value in (0.5, 1, 1.5, 99):
            spread.observe(value)
        found = {described["name"]: (described, values) for described, values in read(metrics._area)}
        self.assertEqual(found["words"][0]["labels"], {"language": "de"})
        self.assertEqual(found["words"][1], [3.5])
        self.assertEqual(found["level"][1][0], 3)
        self.assertEqual(found["spread"][1], [102.0, 2, 1, 1])

    def test_names_and_labels_that_cannot_be_shown_are_refused_in_words(self):
        metrics = Metrics()
        metrics.counter("hits")
        metrics.histogram("time")
        for make, words in [
            (lambda: metrics.counter("a-b"), "no name of a metric"),
            (lambda: metrics.gauge("model_loaded"), "the server's own"),
            (lambda: metrics.gauge("g", labels=["model_name"]), "the server's own"),
            (lambda: metrics.gauge("g", labels=["__x"]), "no name of a label"),
            (lambda: metrics.gauge("g", labels=["a", "a"]), "each once"),
            (lambda: metrics.gauge("hits"), "declared twice"),
            (lambda: metrics.gauge("hits_total"), "as the metric 'hits' is"),
            (lambda: metrics.counter("time_count"), "as the metric 'time' is"),
            (lambda: metrics.gauge("g", merge="mean"), "one of latest"),
            (lambda: metrics.gauge("g", "half \ud800"), "without surrogates"),
            (lambda: metrics.histogram("h", buckets=[2, 1]), "larger than the one before"),
            (lambda: metrics.histogram("h", buckets=[]), "1 to 64"),
            (lambda: metrics.counter("hits").inc(-1), "only grows"),
            (lambda: metrics.counter("hits").inc(float("nan")), "only grows"),
            (lambda: metrics.counter("hits").inc(x="y"), "has the labels none"),
        ]:
            with self.assertRaisesRegex(ValueError, words):
                make()

    def test_a_label_s_value_is_text_that_can_be_shown(self):
        metrics = Metrics()
        level = metrics.gauge("level", labels=["of"])
        for value in ("half \ud800", 5, None, "é\n", "x" * 127 + "\U0001f600"):
            level.set(1, of=value)
        shown = [described["labels"]["of"] for described, _ in read(metrics._area)]
        self.assertEqual(shown, ["half ?", "5", "None", "é\n", "x" * 127 + "\U0001f600"])

    def test_series_without_end_are_counted_together_and_no_count_is_lost(self):
        metrics = Metrics()
        users = metrics.counter("users", labels=["user"])
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            for user in range(3 * MOST_SERIES):
                users.inc(user="x" * 500 + str(user) if user % 2 else user)
        entries = read(metrics._area)
        self.assertLessEqual(len(entries), MOST_SERIES + 1)
        self.assertEqual(sum(values[0] for _, values in entries), 3 * MOST_SERIES)
        self.assertIn("_other", [described["labels"]["user"] for described, _ in entries])
        self.assertTrue(all(len(described["labels"]["user"]) <= 128 for described, _ in entries))
        self.assertEqual(said.getvalue().count("too many series"), 1)
        self.assertLess(len(users._places), MOST_SERIES + 2)

    def test_the_first_server_is_told_what_was_counted_before_and_the_next_counts_from_0(self):
        metrics = Metrics()
        hits, level = metrics.counter("hits"), metrics.gauge("level")
        hits.inc(3)
        level.set(5)
        first, seen = shared()
        metrics.share(first)
        hits.inc()
        self.assertEqual([values[0] for _, values in read(seen)], [4, 5])
        second, after = shared()
        metrics.share(second)
        hits.inc()
        self.assertEqual([values[0] for _, values in read(after)], [1, 5])
        self.assertEqual([values[0] for _, values in read(seen)], [4, 5])

    def test_threads_lose_no_count(self):
        hits = Metrics().counter("hits")
        threads = [threading.Thread(target=lambda: [hits.inc() for _ in range(5000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(read(hits._metrics._area)[0][1], [20000])

    def test_a_model_s_own_attribute_of_that_name_is_its_own(self):
        class Own(AbstractModel):
            def __init__(self):
                self.metrics = {"accuracy": 1.0}

        class Counts(AbstractModel):
            pass

        self.assertEqual(Own().metrics, {"accuracy": 1.0})
        one, other = Counts(), Counts()
        self.assertIs(one.metrics, one.metrics)
        self.assertIsNot(one.metrics, other.metrics)


if __name__ == "__main__":
    unittest.main()

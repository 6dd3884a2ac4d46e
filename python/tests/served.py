"""`modelway.serve` and the client, against the real server. The e2e tests run it, with the binary in MODELWAY_BINARY."""

import os
import subprocess
import sys
import textwrap
import threading
import time
import unittest
import urllib.request
from typing import NamedTuple, Optional

import numpy as np

import modelway
from modelway import AbstractModel, InvalidInput, Tensor

# A variable of the "notebook": what the model sees is this very object.
SEEN = []


class Word(NamedTuple):
    shout: str
    length: int


class Shout(AbstractModel):
    def load(self):
        self.mark = "!"

    def predict(self, text: str) -> Word:
        SEEN.append(text)
        if text == "bad":
            raise InvalidInput("this word is not for us")
        if text == "broken":
            raise KeyError("lost")
        return Word(text.upper() + self.mark, len(text))


class Half(NamedTuple):
    half: Optional[float]
    whole: Optional[int]
    truth: Optional[bool]


class Double(AbstractModel):
    def predict(self, x: Tensor["FP32", -1, 2]) -> Tensor["FP32", -1, 2]:
        return 2 * x


class Writer(AbstractModel):
    async def predict(self, text: str) -> str:
        for word in text.split():
            yield word


def counting(hints, body, **attributes):
    """A class whose `predict` has these hints and notes each call in `calls`."""
    scope = {"AbstractModel": AbstractModel, "Tensor": Tensor, "np": np, "calls": []}
    source = f"class Counting(AbstractModel):\n    calls = calls\n    def predict(self, {hints}:\n"
    exec(f"{source}        calls.append(1)\n        {body}", scope)
    for name, value in attributes.items():
        setattr(scope["Counting"], name, value)
    return scope["Counting"]


class Served(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shout = modelway.serve(Shout)
        cls.addClassCleanup(cls.shout.stop)

    def test_the_very_object_answers(self):
        SEEN.clear()
        self.assertEqual(self.shout.predict(text="hello"), {"shout": "HELLO!", "length": 5})
        self.assertIn("hello", SEEN)
        answer = self.shout.client.predict("shout", text=["a", "bc"])
        self.assertEqual({name: list(values) for name, values in answer.items()}, {"shout": ["A!", "BC!"], "length": [1, 2]})

    def test_errors_have_the_servers_words_and_status(self):
        client = self.shout.client
        for ask, status, words in [
            (lambda: client.predict("shout", text="bad"), 400, "this word is not for us"),
            (lambda: client.predict("shout", text="broken"), 500, "KeyError: 'lost'"),
            (lambda: client.infer("shout", {"text": [1]}), 400, "text"),
            (lambda: client.predict("nobody", text="a"), 404, "nobody"),
            (lambda: modelway.Client("http://127.0.0.1:1").metadata(), 0, "cannot be reached"),
        ]:
            with self.subTest(words), self.assertRaises(modelway.ServerError) as raised:
                ask()
            self.assertEqual(raised.exception.status, status)
            self.assertIn(words, str(raised.exception))
        # A failed request leaves the connection in order.
        self.assertEqual(client.predict("shout", text="a")["shout"], "A!")

    def test_values_that_are_missing_come_back_as_such(self):
        class Halves(AbstractModel):
            def predict(self, x: float) -> Half:
                return Half(*[None if x < 0 else kind(x / 2) for kind in (float, int, bool)])

        with modelway.serve(Halves) as server:
            answer = {name: list(values) for name, values in server.predict([4.0, -1.0]).items()}
            self.assertEqual((answer["whole"], answer["truth"], answer["half"][0]), ([2, None], [True, None], 2.0))
            self.assertTrue(np.isnan(answer["half"][1]))
            self.assertIsNone(server.predict(-1.0)["whole"])

    def test_readiness_and_metadata(self):
        client = self.shout.client
        self.assertTrue(client.ready() and client.ready("shout"))
        self.assertFalse(client.ready("nobody") or modelway.Client("http://127.0.0.1:1").ready())
        self.assertEqual(client.metadata("shout")["inputs"], [{"name": "text", "datatype": "BYTES", "shape": [-1]}])

    def test_threads_share_a_client(self):
        client, answers = self.shout.client, []

        def ask(number):
            with client:
                answers.append(client.predict("shout", text=str(number))["shout"] == f"{number}!")

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, [True] * 16)

    def test_arrays_cross_as_binary_tensors(self):
        with modelway.serve(Double, "twice") as server:
            for rows in (0, 1, 3, 50_000):
                x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
                if rows:
                    answer = server.client.infer("twice", {"x": x})
                    np.testing.assert_array_equal(answer["output"], 2 * x)
            np.testing.assert_array_equal(server.predict(x=[[1, 2]]), [[2, 4]])

    def test_a_stream_comes_piece_by_piece(self):
        with modelway.serve(Writer) as server:
            self.assertEqual(list(server.client.stream("writer", text="once upon a time")), ["once", "upon", "a", "time"])

    def test_a_stopped_server_is_gone(self):
        server = modelway.serve(Shout, "again")
        url = server.url
        server.stop()
        server.stop()
        with self.assertRaises(OSError):
            urllib.request.urlopen(f"{url}/v2/health/live", timeout=5)

    def test_trial_runs_are_few_silent_and_can_be_switched_off(self):
        tensor = 'x: Tensor["FP32", -1, 2]) -> Tensor["FP32", -1, 2]'
        for most, hints, body, attributes in [
            (1, "text: str) -> str", "return text", {}),
            (3, tensor, "return 2 * x", {}),
            (3, "texts: list[str]) -> list[str]", "return texts", {}),
            (6, tensor, "return 0 * x", {}),
            (6, tensor, "raise RuntimeError('these are made up')", {}),
            (1, "text: str) -> str", "raise RuntimeError('these are made up')", {}),
            (1, tensor, "return 2 * x", {"batch": False}),
            (1, "text: str) -> str", "yield text", {}),
            (0, tensor, "return 2 * x", {"trials": False}),
            (0, "text: str) -> str", "return text", {"trials": False}),
            (0, "text: str) -> str", "yield text", {"trials": False}),
        ]:
            model = counting(hints, body, **attributes)
            with self.subTest(hints=hints, body=body, **attributes), modelway.serve(model) as server:
                self.assertLessEqual(len(model.calls), most)
                self.assertEqual(bool(model.calls), most > 0)
                self.assertNotIn("made up'", server.log)
                self.assertNotIn("these are", server.log)
                self.assertNotIn("Traceback", server.log)

    def test_a_model_of_the_notebook_has_metrics_of_its_own(self):
        class Counting(AbstractModel):
            trials = False

            def predict(self, text: str) -> str:
                self.metrics.counter("asked", labels=["length"]).inc(length=len(text))
                return text

        model = Counting()
        model.metrics.counter("made").inc(2)
        with modelway.serve(model) as server:
            for text in ("ab", "cd", "e"):
                server.predict(text=text)
            shown = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
        labels = 'model_name="counting",model_version="1"'
        self.assertIn(f'asked_total{{{labels},length="2"}} 2\n', shown)
        self.assertIn(f'asked_total{{{labels},length="1"}} 1\n', shown)
        self.assertIn(f"made_total{{{labels}}} 2\n", shown)

    def test_mistakes_are_told_at_once(self):
        class Wrong(AbstractModel):
            def predict(self, text):
                ...

        with self.assertRaisesRegex(modelway.ModelError, "`text` has no type hint"):
            modelway.serve(Wrong)
        with self.assertRaisesRegex(modelway.ModelError, "let it extend modelway.AbstractModel"):
            modelway.serve(str)
        with self.assertRaisesRegex(RuntimeError, "/nowhere is no program"):
            modelway.serve(Shout, binary="/nowhere")
        with self.assertRaisesRegex(RuntimeError, "it said:"):
            modelway.serve(Shout, host="no.such.host.invalid")

    def test_the_server_ends_with_the_notebook(self):
        script = textwrap.dedent(
            """
            import os, sys, modelway
            class Echo(modelway.AbstractModel):
                def predict(self, text: str) -> str:
                    return text
            server = modelway.serve(Echo)
            print(server.url, flush=True)
            os._exit(0)  # No farewell: as a killed kernel.
            """
        )
        told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60)
        url = told.stdout.split()[-1]
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{url}/v2/health/live", timeout=5).close()
            except OSError:
                return
            time.sleep(0.05)
        self.fail(f"{url} is still there")


if __name__ == "__main__":
    assert "MODELWAY_BINARY" in os.environ, "name the binary with MODELWAY_BINARY"
    unittest.main()

import ctypes
import os
import sys
import time

from modelway import AbstractModel, InvalidInput, Tensor

print("loading", file=sys.stderr)


class Unshowable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Faulty(AbstractModel):
    """Answers with its process' id, or does what the parameter says."""

    def predict(self, x: Tensor["FP32", -1, 1], *, do: str = "") -> Tensor["INT64", -1]:
        return getattr(self, do or "good")(x)

    def good(self, x):
        return [os.getpid()] * len(x)

    def slow(self, x):
        time.sleep(0.2)
        return self.good(x)

    def segfault(self, x):
        ctypes.string_at(0)

    def exit(self, x):
        print("last words", file=sys.stderr, flush=True)
        os._exit(7)

    def sys_exit(self, x):
        sys.exit("bye")

    def value_error(self, x):
        raise ValueError("not this")

    def invalid(self, x):
        raise InvalidInput("x must be kind")

    def unshowable(self, x):
        raise Unshowable

    def keyboard(self, x):
        raise KeyboardInterrupt

    def loop(self, x):
        while True:
            pass

    def native_loop(self, x):
        return [sum(range(10**13))]

    def rows(self, x):
        return [1] * (len(x) + 1)

    def nothing(self, x):
        return None

    def ragged(self, x):
        return [[1], [2, 3]]

    def garbage(self, x):
        for number in range(3000):
            print("garbage", number)
        os.write(1, os.urandom(200_000))
        os.write(2, b"\xff\x00\n" * 1000)
        return self.good(x)

    def closed(self, x):
        os.closerange(3, 100)
        return self.good(x)

    def fork(self, x):
        os.fork()
        return self.good(x)

    def allocate(self, x):
        held = []
        while True:
            held.append(bytearray(10_000_000))

import time
from collections.abc import Iterator

from modelway import AbstractModel, Tensor


class Streamer(AbstractModel):
    """Counts up, to `most` or without end; when the generator is closed, `made` gets how far it came, and `closed` a word."""

    def predict(
        self,
        x: Tensor["FP32", 1],
        *,
        most: int = -1,
        fault: bool = False,
        pause: float = 0.0,
        wide: int = 1,
        closed: str = "",
        made: str = "",
    ) -> Iterator[Tensor["INT64", -1]]:
        number = 0
        try:
            while number != most:
                yield [number] * wide
                number += 1
                time.sleep(pause)
            if fault:
                raise ValueError("no more numbers")
        finally:
            if made:
                with open(made, "w") as file:
                    file.write(str(number))
            if closed:
                with open(closed, "a") as file:
                    file.write("closed")

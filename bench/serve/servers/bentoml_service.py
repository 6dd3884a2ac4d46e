"""BentoML, with its adaptive batching where it is on."""

from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import DType
from common import BATCH, INPUTS, MODEL, OUTPUT, session

api = bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=1000) if BATCH else bentoml.api
ELEMENT = "int64" if MODEL == "encoder" else "float32"


@bentoml.service(workers=1, metrics={"enabled": True}, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Onnx:
    def __init__(self):
        self.session = session()

    @api
    def predict(self, x: Annotated[np.ndarray, DType(ELEMENT)]) -> np.ndarray:
        names = list(INPUTS)
        # Several inputs come stacked along the second dimension.
        if len(names) == 1:
            inputs = {names[0]: x}
        else:
            inputs = {name: np.ascontiguousarray(x[:, place]) for place, name in enumerate(names)}
        return self.session.run([OUTPUT], inputs)[0]

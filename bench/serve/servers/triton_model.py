"""A model of Triton's Python backend, which joins what its batcher hands it."""

import os
import sys

# Triton starts models without PYTHONPATH.
sys.path[:0] = [os.environ["BENCH_SERVERS"], os.environ["BENCH_PACKAGES"]]

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402
from common import INPUTS, OUTPUT, session  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.session = session()

    def execute(self, requests):
        read = triton.get_input_tensor_by_name
        inputs = [{name: read(request, name).as_numpy() for name in INPUTS} for request in requests]
        if len(inputs) == 1:
            return [self.answer(self.session.run([OUTPUT], inputs[0])[0])]
        joined = {name: np.concatenate([one[name] for one in inputs]) for name in INPUTS}
        outputs = self.session.run([OUTPUT], joined)[0]
        answers, start = [], 0
        for one in inputs:
            rows = len(next(iter(one.values())))
            answers.append(self.answer(outputs[start : start + rows]))
            start += rows
        return answers

    def answer(self, outputs):
        return triton.InferenceResponse(output_tensors=[triton.Tensor(OUTPUT, outputs)])

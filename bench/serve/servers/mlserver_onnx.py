"""A runtime of MLServer for ONNX, as its own documentation has custom runtimes; there is none on PyPI."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    async def load(self) -> bool:
        from common import OUTPUT, session

        self.output, self.session = OUTPUT, session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        outputs = NumpyCodec.encode_output(self.output, self.session.run([self.output], inputs)[0])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[outputs])

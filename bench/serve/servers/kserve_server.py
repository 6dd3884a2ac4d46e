"""KServe's Python server, its lines for each request turned off."""

import kserve.logging
from common import MODEL, OUTPUT, PORT, session
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

for logger in ("kserve.trace", "uvicorn.access"):
    kserve.logging.KSERVE_LOG_CONFIG["loggers"][logger]["level"] = "WARNING"


class Onnx(Model):
    def __init__(self, name):
        super().__init__(name)
        self.load()

    def load(self):
        self.session = session()
        self.ready = True
        return True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None):
        outputs = self.session.run([OUTPUT], {tensor.name: tensor.as_numpy() for tensor in payload.inputs})[0]
        tensor = InferOutput(name=OUTPUT, shape=list(outputs.shape), datatype="FP32")
        tensor.set_data_from_numpy(outputs, binary_data=bool(payload.request_outputs))
        return InferResponse(model_name=self.name, infer_outputs=[tensor], response_id=payload.id or "")


server = ModelServer(http_port=PORT, grpc_port=PORT + 1, workers=1, enable_latency_logging=False, access_log_format=None)
server.start([Onnx(MODEL)])

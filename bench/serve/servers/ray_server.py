"""Ray Serve: one replica behind its proxy."""

import os
import signal
import time

import numpy as np
import orjson
import ray
from common import BATCH, BATCH_DELAY_MS, OUTPUT, PORT, dtypes, session
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Onnx:
    def __init__(self):
        self.session, self.types = session(), dtypes()

    def run(self, inputs):
        return self.session.run([OUTPUT], {name: np.asarray(rows, self.types[name]) for name, rows in inputs.items()})[0]

    @serve.batch(max_batch_size=max(BATCH, 1), batch_wait_timeout_s=BATCH_DELAY_MS / 1000)
    async def many(self, requests):
        joined = {name: [row for request in requests for row in request[name]] for name in requests[0]}
        outputs = self.run(joined)
        return [outputs[place : place + 1] for place in range(len(requests))]

    async def __call__(self, request: Request):
        inputs = orjson.loads(await request.body())["inputs"]
        outputs = await self.many(inputs) if BATCH else self.run(inputs)
        body = orjson.dumps({"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")


environment = {name: value for name, value in os.environ.items() if name.startswith("BENCH_")}
ray.init(
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="ERROR",
    object_store_memory=200 << 20,
    runtime_env={"env_vars": {**environment, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}},
)
serve.start(http_options={"host": "127.0.0.1", "port": PORT})
quiet = {"enable_access_log": False, "log_level": "ERROR"}
serve.run(Onnx.options(logging_config=quiet).bind(), name="model", route_prefix="/predict")


def end(*_):
    serve.shutdown()
    ray.shutdown()
    os._exit(0)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
while True:
    time.sleep(3600)

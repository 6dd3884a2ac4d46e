"""What is measured: how each server is started, and what it is asked."""

import dataclasses
import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("MODELWAY_CACHE", pathlib.Path.home() / ".cache" / "modelway"))
VENVS = CACHE / "peers" / "venvs"
WORK = CACHE / "bench-serve"
RUN = WORK / "run"
BINARY = HERE.parent.parent / "bin" / "modelway"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))
# Rows that a server which batches by a number may join; each has 10 ms to wait for them.
BATCH = 32
# The requests in which JSON and binary are compared: the end of their files' names, and what they are. tritonclient and
# kserve write a 32-bit number with all digits of its 64-bit value, 0.3281495571136475 where a person would write 0.32815.
REQUESTS = {"": "one row, numbers in their shortest form", "-clients": "one row, numbers as tritonclient writes them", "-8": "8 rows, numbers in their shortest form"}


@dataclasses.dataclass
class Server:
    """One server in one arrangement."""

    name: str
    # (model, port) -> command
    command: object
    # The path of a prediction, with {model}.
    path: str
    # The kind of body, as models.py writes it.
    body: str
    venv: str = ""
    # Whether it has a way to join requests, which is then measured for the models where it pays.
    batches: bool = False
    environment: dict = dataclasses.field(default_factory=dict)
    patience_s: float = 90
    # Not every server is asked everything.
    models: tuple = ("iris", "mlp", "encoder")
    # Which of REQUESTS.
    request: str = ""

    def env(self, model, port, batch):
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(HERE / "servers"),
            "BENCH_WORK": str(WORK),
            "BENCH_RUN": str(RUN),
            "BENCH_SERVERS": str(HERE / "servers"),
            "BENCH_VENV": str(VENVS / self.venv),
            "BENCH_MODEL": model,
            "BENCH_PORT": str(port),
            "BENCH_BATCH": str(BATCH if batch else 0),
            **self.environment,
        }


def modelway(*more):
    def command(model, port):
        source = WORK / model / "model.onnx"
        return [BINARY, "serve", source, "--model-name", model, "--port", port, "--set", "serve.intra_op_threads=1", *more]

    return command


def sklearn(model, port):
    """The MLflow model, run by a worker in the environment that the FastAPI app has."""
    python = VENVS / "fastapi" / "bin" / "python"
    return [BINARY, "serve", WORK / "iris-mlflow", "--model-name", model, "--port", port, "--set", f"serve.models.{model}.python={python}"]


def identity(model, port):
    """A Python model that does nothing: what the way to a worker and back costs."""
    python = VENVS / "fastapi" / "bin" / "python"
    return [BINARY, "serve", HERE / "servers" / "identity", "--model-name", model, "--port", port, "--set", f"serve.models.{model}.python={python}"]


def fastapi(_, port):
    run = [VENVS / "fastapi/bin/uvicorn", "fastapi_app:app", "--host", "127.0.0.1", "--port", port]
    return [*run, "--no-access-log", "--loop", "uvloop", "--http", "httptools", "--app-dir", HERE / "servers"]


def mlflow(model, port):
    serve = [VENVS / "mlflow/bin/mlflow", "models", "serve", "-m", WORK / f"{model}-mlflow-onnx", "--env-manager", "local"]
    return [*serve, "-h", "127.0.0.1", "-p", port, "-w", "1"]


def bentoml(_, port):
    serve = [VENVS / "bentoml/bin/bentoml", "serve", "bentoml_service:Onnx", "--working-dir", HERE / "servers"]
    return [*serve, "--host", "127.0.0.1", "-p", port]


def python(venv, script):
    return lambda model, port: [VENVS / venv / "bin/python", HERE / "servers" / script]


def shell(script):
    return lambda model, port: [HERE / "servers" / script]


V2 = "/v2/models/{model}/infer"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "UVICORN_ACCESS_LOG": "0",
    "BENTOML_DO_NOT_TRACK": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PATH": f"{VENVS / 'mlflow' / 'bin'}:{os.environ['PATH']}",
}

OURS = [
    Server("Modelway", modelway(), V2, "v2"),
    Server("Modelway, binary", modelway(), V2, "binary", models=("mlp", "encoder")),
    Server("Modelway, gRPC", modelway(), "grpc", "v2"),
]
UNJOINED = Server("Modelway, one by one", modelway("--set", "serve.max_batch_size=1"), V2, "v2", models=("mlp",))
PEERS = [
    Server("FastAPI, tuned", fastapi, "/predict", "plain", "fastapi"),
    Server("Triton, Python backend", shell("triton.sh"), V2, "v2", "triton", batches=True),
    Server("KServe", python("kserve", "kserve_server.py"), V2, "v2", "kserve"),
    Server("MLflow", mlflow, "/invocations", "mlflow", "mlflow", environment=QUIET),
    Server("MLServer", shell("mlserver.sh"), V2, "v2", "mlserver", batches=True),
    Server("BentoML", bentoml, "/predict", "bento", "bentoml", batches=True, environment=QUIET),
    Server("Ray Serve", python("ray", "ray_server.py"), "/predict", "plain", "ray", batches=True, environment=QUIET, patience_s=120),
]
ECHO = Server("axum, echo", lambda _, port: [TARGET / "release/examples/echo", port], "/", "v2", models=("iris", "mlp"))
SKLEARN = [
    Server("Modelway, scikit-learn", sklearn, "/v1/models/{model}:predict", "v1", models=("iris",)),
    Server("FastAPI, scikit-learn", fastapi, "/predict", "plain", "fastapi", environment={"BENCH_RUNTIME": "sklearn"}, models=("iris",)),
]
IDENTITY = Server("Modelway, Python identity", identity, V2, "v2", models=("iris",))

"""Asks a server for the cases that `cases.py` made, and compares with ONNX Runtime's own answers.

    ask.py HOST:PORT FOLDER PART [NUMBER]

PART is `exact` (each case by itself: binary, JSON and gRPC), `together` (each case from several connections at once) or
`odd` (empty inputs, and values from the ends of their datatypes: whatever the model makes of them, the server must go on,
and must not take the blame). NUMBER is how often each case is asked together, or of how many cases an odd one is made. Answers are compared bit for bit; together, each must be the runtime's own to the request
alone or among copies of it. Prints what went wrong, and exits with 1 if anything did.
"""

import collections
import http.client
import json
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

ADDRESS = sys.argv[1]
DTYPES = {
    "BOOL": np.bool_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": np.uint16,
    **{f"{sign}INT{bits}": np.dtype(f"{sign}int{bits}".lower()).type for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
THREADS = 4
local = threading.local()
stub = rpc.GRPCInferenceServiceStub(grpc.insecure_channel(ADDRESS, options=[("grpc.max_receive_message_length", 1 << 30)]))


class Tensor:
    """`data` is the array's bytes, or a list of texts."""

    def __init__(self, name, shape, datatype, data):
        self.name, self.shape, self.datatype, self.data = name, list(shape), datatype, data

    def raw(self):
        if self.datatype != "BYTES":
            return bytes(self.data)
        return b"".join(struct.pack("<I", len(text)) + text for text in self.data)

    def values(self):
        if self.datatype == "BYTES":
            return [text.decode() for text in self.data]
        array = np.frombuffer(self.data, DTYPES[self.datatype])
        if self.datatype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array.tolist()

    def same(self, other):
        if (self.shape, self.datatype) != (other.shape, other.datatype):
            return False
        if self.datatype == "BYTES" or bytes(self.data) == bytes(other.data):
            return self.data == other.data
        if self.datatype not in ("FP16", "FP32", "FP64"):
            return False
        a, b = (np.frombuffer(bytes(t.data), DTYPES[self.datatype]) for t in (self, other))
        # Any NaN is a NaN: JSON has one.
        return bool(((a.view(f"u{a.itemsize}") == b.view(f"u{a.itemsize}")) | (np.isnan(a) & np.isnan(b))).all())


def of_raw(name, shape, datatype, raw):
    if datatype != "BYTES":
        return Tensor(name, shape, datatype, bytes(raw))
    texts = []
    while raw:
        (length,) = struct.unpack("<I", raw[:4])
        texts.append(bytes(raw[4 : 4 + length]))
        raw = raw[4 + length :]
    return Tensor(name, shape, datatype, texts)


def of_json(output):
    datatype, data = output["datatype"], output["data"]
    if datatype == "BYTES":
        return Tensor(output["name"], output["shape"], datatype, [text.encode() for text in data])
    data = [float("nan") if value is None else value for value in data]
    if datatype == "BF16":
        array = (np.array(data, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        with np.errstate(all="ignore"):
            array = np.array(data, DTYPES[datatype])
    return Tensor(output["name"], output["shape"], datatype, array.tobytes())


def read(path):
    archive = np.load(path)
    heads = json.loads(bytes(archive["heads"]))

    def tensors(which, prefix):
        made = []
        for place, head in enumerate(heads[which]):
            data = bytes(archive[f"{prefix}{place}"])
            if head["datatype"] == "BYTES":
                data = [text.encode() for text in json.loads(data)]
            made.append(Tensor(head["name"], head["shape"], head["datatype"], data))
        return made

    case = {which: tensors(which, which) for which in ("inputs", "outputs")}
    case["others"] = [tensors("outputs", f"other{number}_") for number in range(heads["others"])]
    return path.name.removesuffix(".npz"), case


def post(model, body, header=None):
    """Status, headers and body."""
    if not hasattr(local, "connection"):
        local.connection = http.client.HTTPConnection(*ADDRESS.split(":"), timeout=120)
    try:
        headers = {} if header is None else {"inference-header-content-length": str(header)}
        local.connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        answer = local.connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except Exception:
        local.connection.close()
        del local.connection
        raise


def binary(model, inputs):
    raws = [tensor.raw() for tensor in inputs]
    head = {"inputs": [], "parameters": {"binary_data_output": True, **PARAMETERS}}
    for tensor, raw in zip(inputs, raws):
        head["inputs"].append({"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype,
                               "parameters": {"binary_data_size": len(raw)}})
    text = json.dumps(head).encode()
    status, headers, body = post(model, text + b"".join(raws), len(text))
    if status != 200:
        return status, json.loads(body)["error"]
    length = int(headers["inference-header-content-length"])
    outputs, rest = [], body[length:]
    for output in json.loads(body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        outputs.append(of_raw(output["name"], output["shape"], output["datatype"], rest[:size]))
        rest = rest[size:]
    return status, outputs


def as_json(model, inputs):
    given = [{"name": t.name, "shape": t.shape, "datatype": t.datatype, "data": t.values()} for t in inputs]
    status, _, body = post(model, json.dumps({"inputs": given, "parameters": PARAMETERS}))
    answer = json.loads(body)
    return (status, answer["error"]) if status != 200 else (status, [of_json(output) for output in answer["outputs"]])


# What some values ask for takes for ever.
PARAMETERS = {"timeout": 5_000_000} if sys.argv[3] == "odd" else {}
CODES = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.INTERNAL: 500, grpc.StatusCode.NOT_FOUND: 404}


def of_contents(output):
    fields = [list(values) for _, values in output.contents.ListFields()]
    return of_json({"name": output.name, "shape": list(output.shape), "datatype": output.datatype, "data": sum(fields, [])})


def over_grpc(model, inputs):
    request = pb.ModelInferRequest(model_name=model)
    for name, value in PARAMETERS.items():
        request.parameters[name].int64_param = value
    for tensor in inputs:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.raw())
    try:
        answer = stub.ModelInfer(request, timeout=120)
    except grpc.RpcError as error:
        return CODES.get(error.code(), 503), error.details()
    if not request.inputs:
        # Nothing was raw, so that nothing is in the answer.
        return 200, [of_contents(output) for output in answer.outputs]
    raws = zip(answer.outputs, answer.raw_output_contents)
    return 200, [of_raw(output.name, list(output.shape), output.datatype, raw) for output, raw in raws]


DOORS = {"binary": binary, "json": as_json, "grpc": over_grpc}
lock = threading.Lock()
counts = collections.Counter()
faults = []


def count(what):
    with lock:
        counts[what] += 1


def fault(model, door, said):
    with lock:
        counts["faults"] += 1
        faults.append(f"{model} ({door}): {said}")


def compare(model, door, case, others=()):
    try:
        status, outputs = DOORS[door](model, case["inputs"])
    except Exception as error:
        return fault(model, door, f"no answer: {error!r}")
    if status != 200:
        return fault(model, door, f"{status} {outputs}")
    wanted = case["outputs"]
    if [tensor.name for tensor in outputs] != [tensor.name for tensor in wanted]:
        return fault(model, door, f"outputs {[tensor.name for tensor in outputs]}")
    if any(all(map(Tensor.same, outputs, other)) for other in others):
        return count("same among copies")
    for tensor, own in zip(outputs, wanted):
        if not tensor.same(own):
            return fault(model, door, f"{tensor.name}: {tensor.shape} {tensor.values()[:6]}, not {own.shape} {own.values()[:6]}")
    count("same")


def exact(model, case):
    for door in DOORS:
        compare(model, door, case)


def together(model, case):
    compare(model, "binary", case, case["others"])


def empty(tensor, place):
    shape = list(tensor.shape)
    shape[place] = 0
    return Tensor(tensor.name, shape, tensor.datatype, [] if tensor.datatype == "BYTES" else b"")


def ends(datatype, size):
    if datatype == "BYTES":
        return [b"", "日本 \0 x".encode(), b"9" * 5000]
    if datatype in ("FP16", "FP32", "FP64"):
        return [np.array(v, DTYPES[datatype]).tobytes() for v in (0.0, -1.0, np.inf, np.nan, np.finfo(DTYPES[datatype]).max)]
    if datatype in ("BOOL", "BF16"):
        return [np.array(v, DTYPES[datatype]).tobytes() for v in ((False, True) if datatype == "BOOL" else (0, 0x7F80, 0x7FC0))]
    info = np.iinfo(DTYPES[datatype])
    values = {0, 1, -1, info.min, info.max}
    # Few integers may be sizes, axes or counts, also such as take nearly all memory, and more than there is.
    if size <= 8:
        values |= {1 << bits for bits in (20, 25, *range(27, 33), 40)}
    return [np.array(v, DTYPES[datatype]).tobytes() for v in sorted(values) if info.min <= v <= info.max]


def oddities(case):
    inputs = case["inputs"]
    for place, tensor in enumerate(inputs):
        others = lambda odd: inputs[:place] + [odd] + inputs[place + 1 :]
        if not tensor.shape:
            yield "empty", others(Tensor(tensor.name, [0], tensor.datatype, [] if tensor.datatype == "BYTES" else b""))
        for dimension in range(len(tensor.shape)):
            yield "empty", others(empty(tensor, dimension))
        size = int(np.prod(tensor.shape))
        for value in ends(tensor.datatype, size):
            yield "values", others(Tensor(tensor.name, tensor.shape, tensor.datatype, [value] * size if tensor.datatype == "BYTES" else value * size))
    if inputs and all(tensor.shape for tensor in inputs):
        yield "empty", [empty(tensor, 0) for tensor in inputs]


def odd(model, case):
    for number, (kind, inputs) in enumerate(oddities(case)):
        door = list(DOORS)[number % 3]
        try:
            status, said = DOORS[door](model, inputs)
        except Exception as error:
            fault(model, door, f"{kind} {[(t.shape, t.values()[:1]) for t in inputs]}: no answer: {error!r}")
            continue
        count(f"{kind} {status}")
        # Several runs or answers of hundreds of megabytes at once are more than are set aside for them.
        passing = (
            "no answer within", "deadline", "took too long", "bodies of other requests and answers fill",
            "than other requests leave now",
        )
        if status >= 500 and not any(word in said.lower() for word in passing):
            fault(model, door, f"{kind} {[(t.shape, t.values()[:1]) for t in inputs]}: {status} {said}")
        elif status == 400 and any(word in said for word in ("onnxruntime", ".cc:", ".h:")):
            fault(model, door, f"leaks its source: {said}")


def main():
    folder, part = Path(sys.argv[2]), {"exact": exact, "together": together, "odd": odd}[sys.argv[3]]
    cases = [read(path) for path in sorted((folder / "cases").iterdir())]
    number = int(sys.argv[4]) if len(sys.argv) > 4 else None
    with ThreadPoolExecutor(THREADS) as pool:
        if part is together:
            rounds = number or 3
            for model, case in cases:
                list(pool.map(lambda _: together(model, case), range(THREADS * rounds)))
        elif part is odd:
            # With open dimensions nearly all empty inputs pass, and each form of them is tried in a process: a part will do.
            free = [each for each in cases if each[0].endswith(".open")][::10]
            closed = [each for each in cases if not each[0].endswith(".open")]
            list(pool.map(lambda each: part(*each), (closed + free)[:: number or 1]))
        else:
            list(pool.map(lambda each: part(*each), cases))
    print(json.dumps(counts))
    print("\n".join(faults))
    sys.exit(bool(faults))


main()

"""What programs written against Triton do over HTTP, with Triton's own client.

Usage: triton_http.py HOST:PORT
"""

import asyncio
import sys

import numpy as np
import tritonclient.http as http
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

ADDRESS = sys.argv[1]
LEFT = np.arange(16, dtype=np.int32).reshape(1, 16)
RIGHT = np.full((1, 16), -1, dtype=np.int32)


def words(numbers):
    return np.array([str(number).encode() for number in numbers.flatten()], dtype=np.object_).reshape(numbers.shape)


def inputs(left=LEFT, right=RIGHT, datatype="INT32", binary=(True, True)):
    made = []
    for name, data, raw in [("INPUT0", left, binary[0]), ("INPUT1", right, binary[1])]:
        made.append(http.InferInput(name, list(data.shape), datatype))
        made[-1].set_data_from_numpy(data, binary_data=raw)
    return made


def outputs(binary=(True, True)):
    return [http.InferRequestedOutput(f"OUTPUT{n}", binary_data=raw) for n, raw in enumerate(binary)]


def check(result):
    assert np.array_equal(result.as_numpy("OUTPUT0"), LEFT + RIGHT), result.get_response()
    assert np.array_equal(result.as_numpy("OUTPUT1"), LEFT - RIGHT), result.get_response()


def refused(ask, words):
    try:
        ask()
    except InferenceServerException as error:
        assert words in error.message(), error
    else:
        raise AssertionError(f"not refused, and should be with: {words}")


def infer(client):
    ways = [(False, False), (True, False), (True, True)]
    for request in ways:
        for answer in ways:
            check(client.infer("simple", inputs(binary=request), outputs=outputs(answer), request_id="7"))
    # Without a word about outputs, all come.
    check(client.infer("simple", inputs(), query_params={"a": 1}, headers={"x-test": "1"}))
    only = client.infer("simple", inputs(), outputs=outputs()[:1], request_id="seven", timeout=5_000_000)
    assert only.get_response()["id"] == "seven"
    assert only.as_numpy("OUTPUT1") is None
    wider = np.concatenate([LEFT, LEFT])
    result = client.infer("simple", inputs(wider, wider))
    assert np.array_equal(result.as_numpy("OUTPUT0"), wider + wider)
    refused(lambda: client.infer("wrong", inputs()), "Request for unknown model")
    refused(lambda: client.infer("simple", inputs(LEFT[:, :3], RIGHT)), "INPUT0")


def compressed(client):
    for request in (None, "gzip", "deflate"):
        for answer in (None, "gzip", "deflate"):
            how = {"request_compression_algorithm": request, "response_compression_algorithm": answer}
            check(client.infer("simple", inputs(), outputs=outputs(), **how))
            check(client.infer("simple", inputs(), **how))


def side_by_side(client):
    asked = [client.async_infer("simple", inputs(), outputs=outputs()) for _ in range(8)]
    for one in asked:
        check(one.get_result())


async def coroutines(_client):
    async with aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_live() and await client.is_model_ready("simple")
        asked = [client.infer("simple", inputs(), outputs=outputs()) for _ in range(8)]
        for result in await asyncio.gather(*asked):
            check(result)
        statistics = await client.get_inference_statistics("simple")
        assert len(statistics["model_stats"]) == 1


def strings(client):
    for request in [(True, False), (False, True), (True, True)]:
        asked = inputs(words(LEFT), words(RIGHT), "BYTES", request)
        result = client.infer("simple_string", asked, outputs=outputs(request))
        assert [int(word) for word in result.as_numpy("OUTPUT0").flatten()] == (LEFT + RIGHT).flatten().tolist()
        assert [int(word) for word in result.as_numpy("OUTPUT1").flatten()] == (LEFT - RIGHT).flatten().tolist()
    # A NUL, and bytes that are no text that one could print.
    for element in (b"he\x00llo", b"\x00\x01\x02\x03"):
        data = np.array([element] * 16, dtype=np.object_).reshape(1, 16)
        for raw in (True, False):
            asked = http.InferInput("INPUT0", [1, 16], "BYTES")
            asked.set_data_from_numpy(data, binary_data=raw)
            wanted = [http.InferRequestedOutput("OUTPUT0", binary_data=raw)]
            result = client.infer("simple_identity", [asked], outputs=wanted).as_numpy("OUTPUT0")
            given = [item if isinstance(item, bytes) else item.encode() for item in result.flatten()]
            assert given == [element] * 16, given


def about(client):
    assert client.is_server_live(query_params={"a": 1, "b": 2}) and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert not client.is_model_ready("wrong")
    assert client.get_server_metadata()["name"] == "modelway"
    metadata = client.get_model_metadata("simple", headers={"x-test": "1"})
    assert metadata["name"] == "simple" and metadata["versions"] == ["1"]
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
    refused(lambda: client.get_model_metadata("wrong"), "Request for unknown model")
    config = client.get_model_config("simple")
    assert (config["name"], config["max_batch_size"]) == ("simple", 8), config
    assert config["input"][0] == {"name": "INPUT0", "data_type": "TYPE_INT32", "dims": [16]}, config
    statistics = client.get_inference_statistics("simple")["model_stats"]
    assert len(statistics) == 1 and statistics[0]["inference_stats"]["success"]["count"] > 0, statistics


def control(client):
    """What concerns one server, and works at no gateway."""
    assert len(client.get_inference_statistics()["model_stats"]) == 3
    index = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert index == {name: "READY" for name in ("simple", "simple_string", "simple_identity")}, index
    client.load_model("simple")
    assert client.is_model_ready("simple")
    refused(lambda: client.load_model("simple", config='"parameters": {"config": {{}}}'), "failed to load")
    client.load_model("simple", config='{"max_batch_size": "16"}')
    assert client.get_model_config("simple")["max_batch_size"] == 16
    client.unload_model("simple")
    assert not client.is_model_ready("simple")
    refused(lambda: client.infer("simple", inputs()), "simple")
    refused(lambda: client.load_model("wrong"), "failed to load")
    client.load_model("simple")
    check(client.infer("simple", inputs()))


def main():
    client = http.InferenceServerClient(ADDRESS, concurrency=8)
    chosen = sys.argv[2:] or ["infer", "compressed", "side_by_side", "coroutines", "strings", "about", "control"]
    for name in chosen:
        done = globals()[name](client)
        if asyncio.iscoroutine(done):
            asyncio.run(done)
        print(f"{name}: as it should be")


main()

"""What programs written against Triton do over gRPC, with Triton's own client.

Usage: triton_grpc.py HOST:PORT
"""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException

ADDRESS = sys.argv[1]
LEFT = np.arange(16, dtype=np.int32).reshape(1, 16)
RIGHT = np.ones((1, 16), dtype=np.int32)
PATIENCE = 60


def words(numbers):
    return np.array([str(number).encode() for number in numbers.flatten()], dtype=np.object_).reshape(numbers.shape)


def inputs(left=LEFT, right=RIGHT, datatype="INT32"):
    made = []
    for name, data in [("INPUT0", left), ("INPUT1", right)]:
        made.append(grpc.InferInput(name, list(data.shape), datatype))
        made[-1].set_data_from_numpy(data)
    return made


def outputs():
    return [grpc.InferRequestedOutput("OUTPUT0"), grpc.InferRequestedOutput("OUTPUT1")]


def check(result, left=LEFT, right=RIGHT):
    assert np.array_equal(result.as_numpy("OUTPUT0"), left + right), result.get_response()
    assert np.array_equal(result.as_numpy("OUTPUT1"), left - right), result.get_response()


def refused(ask, words, status=None):
    try:
        ask()
    except InferenceServerException as error:
        assert words in error.message(), error
        assert status in (None, error.status()), error
    else:
        raise AssertionError(f"not refused, and should be with: {words}")


def infer(client):
    check(client.infer("simple", inputs(), outputs=outputs(), headers={"x-test": "1"}))
    check(client.infer("simple", inputs(), client_timeout=PATIENCE, priority=1, timeout=5_000_000))
    result = client.infer("simple", inputs(), outputs=outputs()[:1], request_id="seven", parameters={"mine": 1})
    assert result.get_response().id == "seven" and result.as_numpy("OUTPUT1") is None
    for algorithm in ("gzip", "deflate"):
        check(client.infer("simple", inputs(), outputs=outputs(), compression_algorithm=algorithm))
    refused(lambda: client.infer("wrong", inputs()), "Request for unknown model", "StatusCode.NOT_FOUND")
    refused(lambda: client.infer("simple", inputs(LEFT[:, :3], RIGHT)), "INPUT0", "StatusCode.INVALID_ARGUMENT")


def side_by_side(client):
    answers = queue.Queue()
    for _ in range(8):
        client.async_infer("simple", inputs(), lambda result, error: answers.put((result, error)), outputs=outputs())
    for _ in range(8):
        result, error = answers.get(timeout=PATIENCE)
        assert error is None, error
        check(result)


def stream(client):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(100):
        client.async_stream_infer("simple", inputs(LEFT + number), request_id=str(number), outputs=outputs())
    client.async_stream_infer("wrong", inputs(), request_id="wrong")
    client.async_stream_infer("simple", inputs(), request_id="last", enable_empty_final_response=True)
    # Those of one model come in their order; what is said of another one may come before them.
    came = [answers.get(timeout=PATIENCE) for _ in range(102)]
    errors = [error for _, error in came if error is not None]
    results = [result for result, error in came if error is None]
    assert len(errors) == 1 and "Request for unknown model" in errors[0].message(), errors
    for number, result in enumerate(results[:-1]):
        response = result.get_response()
        assert response.id == str(number) and response.parameters["triton_final_response"].bool_param
        check(result, LEFT + number)
    assert results[-1].get_response().id == "last"
    client.stop_stream()


async def coroutines(_client):
    async with aio.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_live() and await client.is_model_ready("simple")
        for result in await asyncio.gather(*[client.infer("simple", inputs()) for _ in range(8)]):
            check(result)
        assert len((await client.get_inference_statistics("simple")).model_stats) == 1

        async def requests():
            for number in range(10):
                yield {"model_name": "simple", "inputs": inputs(), "request_id": str(number)}

        count = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            check(result)
            count += 1
        assert count == 10


def strings(client):
    result = client.infer("simple_string", inputs(words(LEFT), words(RIGHT), "BYTES"), outputs=outputs())
    assert [int(word) for word in result.as_numpy("OUTPUT0").flatten()] == (LEFT + RIGHT).flatten().tolist()
    assert [int(word) for word in result.as_numpy("OUTPUT1").flatten()] == (LEFT - RIGHT).flatten().tolist()
    for element in (b"he\x00llo", b"\x00\x01\x02\x03"):
        data = np.array([element] * 16, dtype=np.object_).reshape(1, 16)
        asked = grpc.InferInput("INPUT0", [1, 16], "BYTES")
        asked.set_data_from_numpy(data)
        result = client.infer("simple_identity", [asked]).as_numpy("OUTPUT0")
        assert np.array_equal(result, data), result


def about(client):
    assert client.is_server_live(headers={"x-test": "1"}) and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert not client.is_model_ready("wrong")
    assert client.get_server_metadata().name == "modelway"
    metadata = client.get_model_metadata("simple")
    assert metadata.name == "simple" and list(metadata.inputs[0].shape) == [-1, 16]
    refused(lambda: client.get_model_metadata("wrong"), "Request for unknown model", "StatusCode.NOT_FOUND")
    config = client.get_model_config("simple").config
    assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ("simple", 8, [16]), config
    assert client.get_model_config("simple", as_json=True)["config"]["input"][0]["data_type"] == "TYPE_INT32"
    statistics = client.get_inference_statistics("simple").model_stats
    assert len(statistics) == 1 and statistics[0].inference_stats.success.count > 0, statistics
    refused(client.get_system_shared_memory_status, "shared memory is not supported", "StatusCode.UNIMPLEMENTED")


def options(_client):
    keepalive = grpc.KeepAliveOptions(keepalive_time_ms=2**31 - 1, keepalive_timeout_ms=20_000)
    with grpc.InferenceServerClient(ADDRESS, keepalive_options=keepalive) as client:
        check(client.infer("simple", inputs(), outputs=outputs()))
    arguments = [
        ("grpc.max_send_message_length", 1 << 20),
        ("grpc.max_receive_message_length", 1 << 20),
        ("grpc.http2.max_pings_without_data", 2),
        ("grpc.dns_enable_srv_queries", 1),
    ]
    with grpc.InferenceServerClient(ADDRESS, channel_args=arguments) as client:
        check(client.infer("simple", inputs(), outputs=outputs()))


def control(client):
    """What concerns one server, and works at no gateway."""
    assert len(client.get_inference_statistics().model_stats) == 3
    index = {model.name: model.state for model in client.get_model_repository_index().models}
    assert index == {name: "READY" for name in ("simple", "simple_string", "simple_identity")}, index
    client.load_model("simple")
    assert client.is_model_ready("simple")
    refused(lambda: client.load_model("simple", config='"parameters": {"config": {{}}}'), "failed to load")
    client.load_model("simple", config='{"max_batch_size": "16"}')
    assert client.get_model_config("simple").config.max_batch_size == 16
    client.unload_model("simple")
    assert not client.is_model_ready("simple")
    refused(lambda: client.infer("simple", inputs()), "simple")
    long_name = "file:" + "A" * 256
    refused(lambda: client.load_model("simple", config="{}", files={long_name: b"a"}), "failed to poll")
    assert client.is_server_live()
    refused(lambda: client.load_model("wrong"), "failed to load")
    client.load_model("simple")
    check(client.infer("simple", inputs()))


def main():
    chosen = sys.argv[2:] or [
        *("infer", "side_by_side", "stream", "coroutines", "strings", "about", "options", "control"),
    ]
    with grpc.InferenceServerClient(ADDRESS) as client:
        for name in chosen:
            done = globals()[name](client)
            if asyncio.iscoroutine(done):
                asyncio.run(done)
            print(f"{name}: as it should be")


main()

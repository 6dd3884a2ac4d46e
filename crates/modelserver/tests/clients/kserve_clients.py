"""What programs written against KServe do, over REST and gRPC, with KServe's own clients.

Usage: kserve_clients.py HOST:PORT
"""

import asyncio
import sys

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ADDRESS = sys.argv[1]
URL = f"http://{ADDRESS}"
LEFT = np.arange(16, dtype=np.int32).reshape(1, 16)
RIGHT = np.ones((1, 16), dtype=np.int32)


def request(name="simple", binary=False, outputs=None):
    inputs = []
    for tensor, data in [("INPUT0", LEFT), ("INPUT1", RIGHT)]:
        inputs.append(InferInput(tensor, list(data.shape), "INT32"))
        inputs[-1].set_data_from_numpy(data, binary_data=binary)
    return InferRequest(name, inputs, request_id="seven", request_outputs=outputs)


def strings():
    data = np.array([["one", "two"]], dtype=np.object_)
    asked = InferInput("INPUT0", [1, 2], "BYTES")
    asked.set_data_from_numpy(data, binary_data=False)
    return InferRequest("simple_identity", [asked])


def check(response):
    assert response.model_name == "simple" and response.id == "seven", response
    made = {output.name: output.as_numpy().reshape(1, 16) for output in response.outputs}
    assert np.array_equal(made["OUTPUT0"], LEFT + RIGHT) and np.array_equal(made["OUTPUT1"], LEFT - RIGHT), made


async def rest():
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
        assert await client.is_server_live(URL) and await client.is_server_ready(URL)
        assert await client.is_model_ready(URL, "simple") and not await client.is_model_ready(URL, "wrong")
        check(await client.infer(URL, request(), model_name="simple"))
        wanted = [RequestedOutput(name, parameters={"binary_data": True}) for name in ("OUTPUT0", "OUTPUT1")]
        check(await client.infer(URL, request(binary=True, outputs=wanted), model_name="simple"))
        words = (await client.infer(URL, strings(), model_name="simple_identity")).outputs[0]
        assert words.data == ["one", "two"], words
        try:
            await client.infer(URL, request("wrong"), model_name="wrong")
        except httpx.HTTPStatusError as error:
            assert error.response.status_code == 404 and "Request for unknown model" in str(error), error
        else:
            raise AssertionError("a model that is not there has answered")


async def rest_v1():
    async with InferenceRESTClient(RESTConfig(protocol="v1", retries=0)) as client:
        assert await client.is_server_live(URL)
        assert await client.is_model_ready(URL, "simple")
        body = {"inputs": {"INPUT0": LEFT.tolist(), "INPUT1": RIGHT.tolist()}}
        answer = await client.infer(URL, body, model_name="simple")
        assert "predictions" in answer or "outputs" in answer, answer


async def over_grpc():
    async with InferenceGRPCClient(ADDRESS) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("simple")
        check(await client.infer(request()))
        check(await client.infer(request(binary=True)))
        words = (await client.infer(strings())).outputs[0].as_numpy().flatten().tolist()
        assert [word.decode() if isinstance(word, bytes) else word for word in words] == ["one", "two"], words
        try:
            await client.infer(request("wrong"))
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
        else:
            raise AssertionError("a model that is not there has answered")


def main():
    for work in (rest, rest_v1, over_grpc):
        asyncio.run(work())
        print(f"{work.__name__}: as it should be")


main()

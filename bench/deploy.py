"""From POST to the first 200 prediction of a small ONNX model; and what it all weighs when idle."""

import json
import sys
import time

from modelway import CACHE, IRIS, Modelway, ask, children_serving, memory, summary, until


def main(runs=20):
    with Modelway() as modelway:
        up = modelway.start("up")
        time.sleep(5)
        idle = memory(up)
        seconds = []
        for n in range(runs):
            spec = {"name": f"iris-{n}", "model": {"version": "1", "bucket": str(CACHE / "models"), "prefix": "iris"}}
            begin = time.perf_counter()
            status, body, _ = ask(modelway.control, "POST", "/v1/modelDeployment", spec)
            assert status == 201, body
            path = f"/v2/models/md-{body['id']}/infer"
            until("it predicts", lambda: ask(modelway.gateway, "POST", path, IRIS)[0] == 200)
            seconds.append(time.perf_counter() - begin)
            if n == 0:
                time.sleep(5)
                replica = memory(children_serving(modelway.folder)[0])
            ask(modelway.control, "DELETE", f"/v1/modelDeployment/{body['id']}")
        return {
            "post_to_first_200_s": summary(seconds),
            "idle_up_mb": idle / 1e6,
            "idle_replica_mb": replica / 1e6,
        }


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=2)
    print()

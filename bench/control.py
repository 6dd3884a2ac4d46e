"""The control plane with 10,000 deployments on a backend that runs nothing."""

import concurrent.futures
import json
import re
import sys

from modelway import Modelway, ask, memory, summary, until


def create(modelway, count):
    def one(n):
        spec = {"name": f"d-{n}", "labels": {"team": f"t{n % 10}"}, "model": {"version": "1", "bucket": "/models", "prefix": f"m{n}"}}
        status, body, _ = ask(modelway.control, "POST", "/v1/modelDeployment", spec)
        assert status == 201, body

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


def by_state(modelway):
    text = ask(modelway.control, "GET", "/metrics")[1]
    found = re.findall(r'^modelway_deployments\{[^}]*state="(\w+)"[^}]*\} (\d+)', text, re.M)
    return {state: int(count) for state, count in found}


def scans(modelway):
    """(how many scans there were, the seconds of the last one)"""
    text = ask(modelway.worker, "GET", "/metrics")[1]
    count = re.search(r"^modelway_worker_scan_duration_seconds_count (\S+)", text, re.M)
    total = re.search(r"^modelway_worker_scan_duration_seconds_sum (\S+)", text, re.M)
    return int(float(count[1])), float(total[1])


def main(count=10_000):
    with Modelway(MODELWAY__WORKER__SCAN_INTERVAL_MS="1000") as modelway:
        control = modelway.start("control")
        worker = modelway.start("worker", "--backend", "fake")
        create(modelway, count)
        until("all are active", lambda: by_state(modelway).get("active") == count, patience=600, pause=0.5)

        pages = [ask(modelway.control, "GET", "/v1/modelDeployment?limit=100&after=5000")[2] * 1000 for _ in range(50)]
        filtered = [ask(modelway.control, "GET", "/v1/modelDeployment?limit=100&label=team=t3")[2] * 1000 for _ in range(50)]
        begin = scans(modelway)
        until("five more scans", lambda: scans(modelway)[0] >= begin[0] + 5, patience=120, pause=0.2)
        end = scans(modelway)
        return {
            "deployments": count,
            "list_page_ms": summary(pages),
            "list_page_by_label_ms": summary(filtered),
            "full_scan_s": (end[1] - begin[1]) / (end[0] - begin[0]),
            "control_mb": memory(control) / 1e6,
            "worker_mb": memory(worker) / 1e6,
        }


if __name__ == "__main__":
    json.dump(main(), sys.stdout, indent=2)
    print()

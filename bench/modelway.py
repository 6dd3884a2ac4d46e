"""Starts Modelway for a measurement, asks it, and ends it. Standard library only."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "bin" / "modelway"
CACHE = pathlib.Path(os.environ.get("MODELWAY_CACHE", pathlib.Path.home() / ".cache" / "modelway"))
IRIS = {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, method, path, body=None, timeout=30):
    """One request on a connection of its own: (status, decoded body, seconds)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    begin = time.perf_counter()
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"} if data else {})
        answer = connection.getresponse()
        raw = answer.read()
        took = time.perf_counter() - begin
    finally:
        connection.close()
    try:
        return answer.status, json.loads(raw), took
    except ValueError:
        return answer.status, raw.decode(errors="replace"), took


def until(what, condition, patience=60.0, pause=0.005):
    begin = time.perf_counter()
    while True:
        found = condition()
        if found:
            return found
        if time.perf_counter() - begin > patience:
            raise TimeoutError(f"not within {patience} s: {what}")
        time.sleep(pause)


def memory(pid):
    """Resident bytes of one process."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def children_serving(folder):
    """The pids of the replicas that run below `folder`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if " serve " in command and str(folder) in command:
                found.append(int(entry.name))
    return found


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


class Modelway:
    """Roles in a folder of their own, on free ports. Use it in a `with`."""

    def __init__(self, **environment):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="modelway-bench-"))
        self.control, self.gateway, self.worker = free_port(), free_port(), free_port()
        self.environment = {
            **os.environ,
            "MODELWAY__DATA_DIR": str(self.folder / "data"),
            "MODELWAY__CONTROL__ADDR": f"127.0.0.1:{self.control}",
            "MODELWAY__GATEWAY__ADDR": f"127.0.0.1:{self.gateway}",
            "MODELWAY__GATEWAY__CONTROL_URL": f"http://127.0.0.1:{self.control}",
            "MODELWAY__WORKER__ADDR": f"127.0.0.1:{self.worker}",
            **environment,
        }
        self.processes = {}

    def start(self, role, *arguments, ready=None):
        log = open(self.folder / f"{role}.log", "ab")
        self.processes[role] = subprocess.Popen(
            [BINARY, role, *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        port, path = ready or {
            "up": (self.gateway, "/v2/health/ready"),
            "gateway": (self.gateway, "/v2/health/ready"),
            "control": (self.control, "/health/ready"),
            "worker": (self.worker, "/health/live"),
        }[role]
        until(f"{role} is ready (see {self.folder})", lambda: self.answers(port, path))
        return self.processes[role].pid

    @staticmethod
    def answers(port, path):
        try:
            return ask(port, "GET", path, timeout=2)[0] == 200
        except OSError:
            return False

    def stop(self, role):
        process = self.processes.pop(role)
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        for role in list(self.processes):
            self.stop(role)
        if failed:
            print(f"what is left of it is in {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

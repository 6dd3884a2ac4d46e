"""Starts a server on one core, loads it from the other, and counts what it took. Standard library only.

The first core is the server's, the second the load generator's. With each point goes the CPU that other programs used
meanwhile, as a part of one core, because a point beside other work says little.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

from peers import HERE, RUN, TARGET, WORK

sys.path.insert(0, str(HERE.parent))
from modelway import free_port  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
SERVER_CORE, LOAD_CORE = "0", "1"
META = WORK / "meta.json"


class Failed(Exception):
    """A server that does not serve."""


def family(pid):
    """A process and all below it."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, open_ = [], [pid]
    while open_:
        found.append(open_.pop())
        open_ += parents.get(found[-1], [])
    return found


def cpu(pids):
    """Seconds of CPU that these processes have used, with their ended children."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:13]))
    return total / TICK


def memory(pids):
    """Resident memory in MB; of several processes, what they share counted once."""
    kind, total = "Rss:" if len(pids) == 1 else "Pss:", 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(kind):
                    total += int(line.split()[1])
    return round(total / 1024, 1)


def busy():
    """Seconds of CPU that the machine has used, without what its host took."""
    values = list(map(int, open("/proc/stat").readline().split()[1:]))
    return (sum(values[:3]) + sum(values[5:7])) / TICK


class Running:
    """A server under measurement. Use it in a `with`."""

    def __init__(self, server, model, batch=False, warm=1.0):
        self.server, self.model, self.port = server, model, free_port()
        RUN.mkdir(parents=True, exist_ok=True)
        self.log = open(RUN / f"{re.sub('[^a-z]+', '-', server.name.lower())}-{model}.log", "wb")
        self.meta = json.loads(META.read_text())[model]
        self.body = WORK / "bodies" / f"{model}{server.request}.{server.body}"
        command = ["taskset", "-c", SERVER_CORE, *map(str, server.command(model, str(self.port)))]
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command, env=server.env(model, self.port, batch), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            cwd=RUN, start_new_session=True)
        self.warm = warm

    def __enter__(self):
        try:
            self.cold_s = self.first_answer()
        except BaseException:
            self.stop()
            raise
        if self.warm:
            self.load(8, self.warm)
        return self

    def __exit__(self, *_):
        self.stop()

    def headers(self):
        if self.server.body == "binary":
            _, header = json.JSONDecoder().raw_decode(self.body.read_bytes().decode("latin-1"))
            return {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(header)}
        return {"Content-Type": "application/json"}

    def path(self):
        path = "/v2/models/{model}/infer" if self.server.path == "grpc" else self.server.path
        return path.format(model=self.model)

    def first_answer(self):
        """Seconds from the start to the first prediction, which must be right."""
        said = "nothing listens"
        while time.perf_counter() - self.began < self.server.patience_s:
            if self.process.poll() is not None:
                raise Failed(f"{self.server.name} ended with {self.process.returncode}; see {self.log.name}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("POST", self.path(), self.body.read_bytes(), self.headers())
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    took = time.perf_counter() - self.began
                    self.check(text)
                    return took
                said = f"{answer.status} {text[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                said = repr(error)
            finally:
                connection.close()
            time.sleep(0.002)
        raise Failed(f"{self.server.name} gave no prediction in {self.server.patience_s} s: {said}; see {self.log.name}")

    def until_ready(self):
        """Waits until every model of ours is loaded, not only the one that is asked."""
        end = time.perf_counter() + self.server.patience_s
        while time.perf_counter() < end:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/v2/health/ready")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)
        raise Failed(f"{self.server.name} is not ready in {self.server.patience_s} s; see {self.log.name}")

    def check(self, text):
        """A fast answer that is wrong is none."""
        if self.server.body == "binary" or self.server.path == "/" or "identity" in self.server.name:
            return
        numbers = [float(number) for number in re.findall(rb"-?\d+\.\d+(?:[eE]-?\d+)?", text)]
        wanted = self.meta["expected"][:2]
        if not all(any(abs(number - value) < 2e-3 for number in numbers) for value in wanted):
            raise Failed(f"{self.server.name} answers {text[:200]!r}, and {wanted} is right")

    def generator(self, connections, seconds):
        if self.server.path == "grpc":
            tool = str(TARGET / "release/examples/grpc_load")
            return [tool, f"http://127.0.0.1:{self.port}", self.model, str(self.body), str(connections), str(seconds)], {}
        headers = self.headers()
        extra = [f"{name}: {value}" for name, value in headers.items() if name != "Content-Type"]
        environment = {"BODY": str(self.body), "CT": headers["Content-Type"], "HDR": "".join(extra)}
        url = f"http://127.0.0.1:{self.port}{self.path()}"
        wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency", "-s", str(HERE / "post.lua")]
        return [*map(str, wrk), url], environment

    def load(self, connections, seconds):
        """Closed-loop load; the figures of one point."""
        command, environment = self.generator(connections, max(1, round(seconds)))
        pids, children = family(self.process.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        machine, own, began = busy(), cpu(pids), time.perf_counter()
        done = subprocess.run(
            ["taskset", "-c", LOAD_CORE, *command], env={**os.environ, **environment}, capture_output=True, text=True)
        took = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        load = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        own = cpu(pids) - own
        found = re.search(r"JSON (\{.*\})", done.stdout)
        if not found:
            raise Failed(f"the load on {self.server.name} broke off: {(done.stdout + done.stderr)[-300:]}")
        point = json.loads(found.group(1))
        point["cpu_us"] = round(own / max(1, point["n"]) * 1e6, 1)
        point["others"] = round(max(0.0, busy() - machine - own - load) / took, 3)
        return point

    def memory(self):
        return memory(family(self.process.pid))

    def stop(self):
        pids = family(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(12)
        # What it started and left behind is ours to end.
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.log.close()

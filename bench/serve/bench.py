#!/usr/bin/env python3
"""Measures the model server beside the others: bench.py --out RESULTS.json [--seconds 5] [--only PART,…]

Parts: servers (every peer and Modelway, three models, 1, 8 and 64 connections), worker (scikit-learn through a
worker), encoder (beside the bare loop), echo (iris beside a bare handler), protocols (the MLP in JSON, binary and gRPC), many (200 models in one server), start (cold starts), seed (the line of `hey`).
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

import peers
from measure import Failed, META, Running, SERVER_CORE
from peers import BINARY, HERE, VENVS, WORK

CONNECTIONS = (1, 8, 64)
ROUNDS = 5
# Of short loads, where servers run side by side.
TURNS = 9


def tell(*words):
    print(*words, file=sys.stderr, flush=True)


def server_points(server, models, seconds, batch=False, connections=CONNECTIONS):
    """All points of one server, which is started anew for each model."""
    points = []
    for model in (model for model in models if model in server.models):
        try:
            with Running(server, model, batch) as running:
                for count in connections:
                    point = running.load(count, seconds)
                    name = f"{server.name}, batching" if batch else server.name
                    points.append({"server": name, "model": model, "connections": count, "cold_s": round(running.cold_s, 3), **point})
                    tell(f"  {name:28} {model:8} {count:3}: {point['rps']:9.0f}/s  p50 {point['p50']:8.3f}  p99 {point['p99']:8.3f} ms"
                         f"  {point['cpu_us']:8.1f} µs CPU  errors {point['errors']}  others {point['others']:.0%}")
                points[-1]["memory_mb"] = running.memory()
        except Failed as error:
            tell(f"  {error}")
            points.append({"server": server.name, "model": model, "failed": str(error)})
    return points


def servers(seconds):
    """Ours first and last, so that a machine that slows down meanwhile shows."""
    points = []
    for server in [peers.ECHO, *peers.OURS, *peers.PEERS]:
        points += server_points(server, ("iris", "mlp", "encoder"), seconds)
        if server.batches:
            points += server_points(server, ("mlp",), seconds, batch=True, connections=(64,))
    points += server_points(peers.UNJOINED, ("mlp",), seconds)
    again = server_points(peers.OURS[0], ("iris",), seconds, connections=(64,))
    return {"points": points, "again": again}


def bare(model, batch, seconds, *kind):
    python = VENVS / ("fastapi" if kind else "models") / "bin/python"
    command = ["taskset", "-c", SERVER_CORE, python, HERE / "inprocess.py", WORK, model, str(batch), str(seconds), *kind]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def worker(seconds):
    """scikit-learn in a worker of ours and in FastAPI's process, in turns; and a model that does nothing."""
    rates = {server.name: [] for server in peers.SKLEARN}
    points = []
    for _ in range(3):
        for server in peers.SKLEARN:
            found = server_points(server, ("iris",), seconds, connections=(1, 64))
            points += found
            rates[server.name].append(found[-1].get("rps", 0))
    hop = []
    for _ in range(3):
        python = server_points(peers.IDENTITY, ("iris",), seconds, connections=(1,))[-1].get("p50")
        native = server_points(peers.OURS[0], ("iris",), seconds, connections=(1,))[-1].get("p50")
        if python and native:
            hop.append((python - native) * 1e3)
    return {
        "points": points,
        "rates": {name: statistics.median(found) for name, found in rates.items()},
        "hop_us": statistics.median(hop) if hop else None,
    }


def encoder(seconds):
    """The encoder beside the bare loop, in turns."""
    rounds = []
    for _ in range(ROUNDS):
        loop = bare("encoder", 1, seconds)
        one = {"loop": loop["rows_per_s"]}
        for point in server_points(peers.OURS[0], ("encoder",), seconds, connections=(8, 64)):
            one[str(point["connections"])] = {"rps": point["rps"], "p50": point["p50"], "p99": point["p99"]}
        rounds.append(one)
    ratio = lambda count: statistics.median(one[count]["rps"] / one["loop"] for one in rounds)
    return {"rounds": rounds, "of_loop": {count: ratio(count) for count in ("8", "64")},
            "fairness": statistics.median(one["8"]["p99"] / one["8"]["p50"] for one in rounds)}


@contextlib.contextmanager
def side_by_side(servers, model, warm=1.0):
    """Starts several servers on one core; one that is not asked uses next to nothing of it."""
    with contextlib.ExitStack() as stack:
        yield {server.name: stack.enter_context(Running(server, model, warm=warm)) for server in servers}


def in_turns(running, connections, seconds):
    """Points of servers that run side by side: short loads, one after the other and back again, because a machine's own
    speed drifts by more than what is to be told apart."""
    rounds, order = [], list(running.items())
    for _ in range(TURNS):
        rounds.append({name: one.load(connections, seconds / 3) for name, one in order})
        order.reverse()
    for name in running:
        points = [one[name] for one in rounds]
        middle = lambda figure: statistics.median(point[figure] for point in points)
        tell(f"  {name:28} {connections:3}: {middle('rps'):9.0f}/s  p50 {middle('p50'):8.3f} ms  {middle('cpu_us'):8.1f} µs CPU")
    return rounds


def ratio(rounds, server, other, figure="rps"):
    return statistics.median(one[server.name][figure] / one[other.name][figure] for one in rounds)


def echo(seconds):
    """iris beside a bare axum handler that echoes, in turns."""
    with side_by_side((peers.ECHO, peers.OURS[0]), "iris") as running:
        rounds = in_turns(running, 64, seconds)
    return {"rounds": rounds, "of_echo": ratio(rounds, peers.OURS[0], peers.ECHO)}


def protocols(seconds):
    """The MLP in JSON, in binary and over gRPC, in turns; and what joining costs a request that is alone."""
    found = {}
    for request, name in peers.REQUESTS.items():
        tell(f" {name}")
        json_, binary, grpc = ours = [dataclasses.replace(server, request=request) for server in peers.OURS]
        with side_by_side(ours, "mlp") as running:
            rounds = in_turns(running, 64, seconds)
        found[request] = {"rounds": rounds, "binary": ratio(rounds, binary, json_), "grpc": ratio(rounds, grpc, json_)}
    joined = peers.OURS[0]
    with side_by_side((joined, peers.UNJOINED), "mlp") as running:
        alone = in_turns(running, 1, seconds)
    return {"requests": found, "alone": alone, "alone_p50": ratio(alone, joined, peers.UNJOINED, "p50")}


def many(seconds):
    """One server with 200 small models beside one with a single one."""
    folder = WORK / "many"
    shutil.rmtree(folder, ignore_errors=True)
    for place in range(200):
        version = folder / f"iris{place:03}" / "1"
        version.mkdir(parents=True)
        shutil.copy(WORK / "iris" / "model.onnx", version / "model.onnx")
    shutil.rmtree(WORK / "one", ignore_errors=True)
    shutil.copytree(folder / "iris000", WORK / "one" / "iris000")
    meta = json.loads(META.read_text())
    META.write_text(json.dumps({**meta, "iris000": meta["iris"]}, indent=1))
    shutil.copy(WORK / "bodies" / "iris.v2", WORK / "bodies" / "iris000.v2")
    one, all_ = (
        peers.Server(f"Modelway, {name}", lambda _, port, source=source: [BINARY, "serve", source, "--port", port], peers.V2, "v2")
        for name, source in (("one", WORK / "one"), ("many", folder)))
    with side_by_side((one, all_), "iris000", warm=0) as running:
        for server in running.values():
            server.until_ready()
        loaded = {name: server.memory() for name, server in running.items()}
        rounds = in_turns(running, 8, seconds)
    return {"memory_mb": loaded, "rounds": rounds, "mb_a_model": (loaded[all_.name] - loaded[one.name]) / 199,
            "p50_ratio": ratio(rounds, all_, one, "p50"), "cpu_ratio": ratio(rounds, all_, one, "cpu_us")}


def start(_):
    """Cold starts, ten of each; the scikit-learn one beside the bare import of its libraries."""
    iris, memory = [], []
    for _ in range(10):
        with Running(peers.OURS[0], "iris", warm=0) as running:
            iris.append(running.cold_s * 1e3)
            memory.append(running.memory())
    python, importing, serving = VENVS / "fastapi/bin/python", [], []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(["taskset", "-c", SERVER_CORE, python, "-c", "import sklearn.linear_model, cloudpickle"], check=False, capture_output=True)
        importing.append(time.perf_counter() - began)
        with Running(peers.SKLEARN[0], "iris", warm=0) as running:
            serving.append(running.cold_s)
    return {"iris_ms": statistics.median(iris), "iris_mb": statistics.median(memory), "import_s": statistics.median(importing),
            "sklearn_s": statistics.median(serving), "sklearn_ratio": statistics.median(serving) / statistics.median(importing)}


def seed(_):
    """The load test of the users' own documents, word by word but for the body's width."""
    body = (WORK / "bodies" / "iris.v1").read_text()
    with Running(peers.SKLEARN[0], "iris") as running:
        url = f"http://127.0.0.1:{running.port}/v1/models/iris:predict"
        hey = ["hey", "-n", "1000", "-c", "50", "-m", "POST", "-H", "Content-Type: application/json", "-d", body, url]
        text = subprocess.run(hey, check=True, capture_output=True, text=True).stdout
    at = lambda part: float(re.search(rf"{part}%+ in ([\d.]+) secs", text).group(1)) * 1e3
    ok = int(re.search(r"\[200\]\s+(\d+)", text).group(1))
    return {"rps": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)), "ok": ok, **{f"p{part}_ms": at(part) for part in (50, 95, 99)}}


PARTS = {"servers": servers, "worker": worker, "encoder": encoder, "echo": echo, "protocols": protocols, "many": many, "start": start, "seed": seed}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("--seconds", type=float, default=5)
    arguments.add_argument("--only", default=",".join(PARTS))
    given = arguments.parse_args()
    results = json.loads(given.out.read_text()) if given.out.exists() else {}
    for part in given.only.split(","):
        tell(f"{part}: {PARTS[part].__doc__.splitlines()[0]}")
        try:
            results[part] = PARTS[part](given.seconds)
        except (Failed, subprocess.SubprocessError, KeyError, AttributeError) as error:
            tell(f"  {part} broke off: {error!r}")
            results[part] = {"failed": repr(error)}
        given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

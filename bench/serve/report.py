#!/usr/bin/env python3
"""Holds the figures against the targets and writes the page: report.py RESULTS.json PAGE.md

Writes a chart beside the page. Fails if a target is missed or was not measured, naming it.
"""

import json
import math
import pathlib
import platform
import subprocess
import sys
import time
from importlib import metadata

from peers import PEERS, REQUESTS, VENVS

MODELS = {"iris": "iris classifier", "mlp": "MLP 768-768-768-10", "encoder": "encoder, 6 layers, sequence 64"}


class Figures:
    """The results, by what is asked of them. What was not measured is None."""

    def __init__(self, results):
        self.results = results

    def point(self, server, model, connections):
        for point in self.results.get("servers", {}).get("points", []):
            if (point["server"], point["model"], point.get("connections")) == (server, model, connections):
                return point
        return {}

    def rate(self, server, model="iris", connections=64):
        return self.point(server, model, connections).get("rps")

    def peers(self, model, connections, figure):
        """Every other server's figure, with its batching too."""
        names = [name for peer in PEERS for name in (peer.name, f"{peer.name}, batching")]
        found = {name: self.point(name, model, connections).get(figure) for name in names}
        return {name: value for name, value in found.items() if value}

    def part(self, *path):
        value = self.results
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def over(a, b):
    return a / b if a and b else None


def targets(f):
    """(what, measured, comparison, bound, unit)"""
    ours = lambda model, connections, figure: f.point("Modelway", model, connections).get(figure)
    fastest = f.peers("iris", 64, "rps")
    best = max(fastest, key=fastest.get) if fastest else None
    triton = max((f.rate(name, "mlp") or 0 for name in ("Triton, Python backend", "Triton, Python backend, batching")), default=0)
    rates = f.part("worker", "rates") or {}
    yield f"iris, 64 connections: rate relative to the fastest other server ({best})", over(f.rate("Modelway"), fastest.get(best)), ">=", 5, "×"
    yield "iris, 64 connections: rate relative to a bare axum handler that echoes", f.part("echo", "of_echo"), ">=", 0.7, "×"
    yield "iris, 64 connections: p99 relative to the fastest other server", over(ours("iris", 64, "p99"), f.point(best, "iris", 64).get("p99")), "<=", 1 / 3, "×"
    yield "MLP, 64 connections: rate relative to Triton's best", over(f.rate("Modelway", "mlp"), triton), ">=", 2, "×"
    yield "MLP, 64 connections: rate with binary tensors relative to Triton's best with JSON", over(f.rate("Modelway, binary", "mlp"), triton), ">=", 3, "×"
    yield "MLP, 1 connection: p50 relative to the one without batching", f.part("protocols", "alone_p50"), "<=", 1.05, "×"
    for request, name in REQUESTS.items():
        yield f"MLP, 64 connections, {name}: binary relative to our own JSON", f.part("protocols", "requests", request, "binary"), ">=", 1.5, "×"
        yield f"MLP, 64 connections, {name}: gRPC relative to our own JSON", f.part("protocols", "requests", request, "grpc"), ">=", 1, "×"
    for count in ("8", "64"):
        yield f"encoder, {count} connections: rate relative to the bare loop", f.part("encoder", "of_loop", count), ">=", 0.95, "×"
    yield "encoder, 8 connections: p99 relative to p50", f.part("encoder", "fairness"), "<=", 1.3, "×"
    sklearn = over(rates.get("Modelway, scikit-learn"), rates.get("FastAPI, scikit-learn"))
    yield "scikit-learn in a worker, 64 connections: rate relative to FastAPI with the same model", sklearn, ">=", 3, "×"
    yield "round trip to a worker, 1 connection, median", f.part("worker", "hop_us"), "<=", 100, "µs"
    yield "200 models in one server: p50 relative to one model", f.part("many", "p50_ratio"), "<=", 1.05, "×"
    yield "200 models in one server: memory per model", f.part("many", "mb_a_model"), "<=", 2, "MB"
    yield "start to first prediction, iris", f.part("start", "iris_ms"), "<=", 60, "ms"
    yield "memory with iris loaded", f.part("start", "iris_mb"), "<=", 45, "MB"
    yield "start time of a scikit-learn MLflow model relative to the import of its libraries", f.part("start", "sklearn_ratio"), "<=", 1.3, "×"
    yield "hey command line of the users: p50", f.part("seed", "p50_ms"), "<=", 100, "ms"
    yield "hey command line of the users: p99", f.part("seed", "p99_ms"), "<=", 1000, "ms"


def number(value):
    if value is None:
        return "–"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def servers_of(f, model):
    seen = [point["server"] for point in f.results.get("servers", {}).get("points", []) if point["model"] == model]
    return list(dict.fromkeys(seen))


def chart(f):
    """Rates at 64 connections as bars, on a scale by tens: they differ too much for another."""
    wide, line, left = 860, 22, 230
    rows, y = [], 10
    for model, title in MODELS.items():
        found = [(name, f.rate(name, model)) for name in servers_of(f, model)]
        found = sorted(((name, rate) for name, rate in found if rate), key=lambda one: -one[1])
        if not found:
            continue
        rows.append(f'<text x="0" y="{y + 14}" font-weight="bold">{title}: predictions per second at 64 connections</text>')
        y += line + 4
        top = math.log10(found[0][1])
        for name, rate in found:
            width = max(2, (wide - left - 80) * math.log10(max(rate, 1.1)) / top)
            fill = "#2563eb" if name.startswith("Modelway") else "#9ca3af"
            rows.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
            rows.append(f'<rect x="{left}" y="{y + 3}" width="{width:.0f}" height="14" fill="{fill}"/>')
            rows.append(f'<text x="{left + width + 6:.0f}" y="{y + 14}">{rate:,.0f}</text>')
            y += line
        y += 14
    style = 'font-family="system-ui, sans-serif" font-size="12" fill="#374151"'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {y}" {style}>'
            f'<rect width="{wide}" height="{y}" fill="white"/>' + "".join(rows) + "</svg>\n")


def versions():
    packages = {"fastapi": ["fastapi", "uvicorn", "onnxruntime", "scikit-learn"], "triton": ["nvidia-pytriton"], "kserve": ["kserve"],
                "mlflow": ["mlflow"], "mlserver": ["mlserver"], "bentoml": ["bentoml"], "ray": ["ray"]}
    for venv, names in packages.items():
        found = {}
        for folder in (VENVS / venv / "lib").glob("python3*/site-packages"):
            found.update({one.name.lower(): one.version for one in metadata.distributions(path=[str(folder)])})
        yield from (f"{name} {found[name]}" for name in names if name in found)


def machine():
    cpus = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return f"{len(cpus)} × {cpus[0] if cpus else platform.machine()}, Linux {platform.release()}, commit {commit}, {time.strftime('%Y-%m-%d')}"


def page(f, judged):
    yield "# Benchmarks\n"
    yield "`make bench-serve` compares the model server with the others, in one run on one machine, and writes this page. Each server has"
    yield "one core, and the load generator (wrk; for gRPC `grpc_load`) has the other. ONNX Runtime has one thread. All servers get the same"
    yield "models and the same values. On other machines, only the ratios are comparable.\n"
    yield f"Measured on {machine()}.\n"
    yield "![Predictions per second](benchmarks.svg)\n"
    yield "## Targets\n\n| metric | measured | target | |\n|---|---:|---:|---|"
    for what, value, comparison, bound, unit, met in judged:
        sign = "≥" if comparison == ">=" else "≤"
        yield f"| {what} | {number(value)} {unit} | {sign} {number(bound)} {unit} | {'met' if met else '**missed**' if value is not None else '**not measured**'} |"
    for model, title in MODELS.items():
        yield f"\n## {title[0].upper()}{title[1:]}\n"
        yield "Predictions per second, median and 99th percentile latency in milliseconds. The start time is of one start, in seconds, and may include reading files from the disk.\n"
        yield "| server | 1 connection | 8 | 64 | CPU µs per prediction (64) | start s | memory MB |\n|---|---:|---:|---:|---:|---:|---:|"
        for name in servers_of(f, model):
            cells, last = [], {}
            for count in (1, 8, 64):
                point = f.point(name, model, count)
                shown = f"{number(point['rps'])} · {number(point['p50'])} · {number(point['p99'])}" if point else "–"
                cells.append(shown + (f" ({point['errors']} errors)" if point.get("errors") else ""))
                last = point or last
            yield f"| {name} | {' | '.join(cells)} | {number(last.get('cpu_us'))} | {number(last.get('cold_s'))} | {number(last.get('memory_mb'))} |"
    failed = [point for point in f.results.get("servers", {}).get("points", []) if point.get("failed")]
    for point in failed:
        yield f"\n{point['server']} did not serve {point['model']} here: {point['failed'].split(';')[0]}."
    noisy = [point.get("others", 0) for point in f.results.get("servers", {}).get("points", [])]
    yield f"\nOther programs used at most {max(noisy, default=0):.0%} of a core during a measurement."
    yield "\n## Versions\n\n" + ", ".join(versions()) + "."
    yield "\n## How to repeat\n\n```sh\nmake bench-serve\n```\n\nThis command installs the other servers from their registries into the cache folder, makes the"
    yield "models with its own scripts, and takes about half an hour. `bench/serve/README.md` describes the setup of each server."


def main():
    results, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    f = Figures(json.loads(results.read_text()))
    judged = []
    for what, value, comparison, bound, unit in targets(f):
        met = value is not None and (value >= bound if comparison == ">=" else value <= bound)
        judged.append((what, value, comparison, bound, unit, met))
        verdict = "" if met else "MISSED" if value is not None else "NOT MEASURED"
        print(f"{what:106}{number(value):>8} {unit:3}{comparison} {number(bound):<8}{verdict}")
    out.write_text("\n".join(page(f, judged)) + "\n")
    out.with_suffix(".svg").write_text(chart(f))
    missed = [what for what, *_, met in judged if not met]
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Holds what was measured against the targets: bench/report.py RESULTS_DIRECTORY

Reads gateway.json, deploy.json and control.json there, writes all.json beside them, prints a table, and fails if a
target is missed or was not measured.
"""

import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

# What, where it is in which file (None: it is not built yet), at most this much, in this unit.
TARGETS = [
    ("gateway, bare: CPU per request", "gateway", ["budget", "bare proxy", "value"], 1.15, "× nginx"),
    ("  authentication and limits", None, [], 2, "µs"),
    ("  split, windows and record", "gateway", ["budget", "split, windows and record", "value"], 2.5, "µs"),
    ("  prediction log", "gateway", ["budget", "prediction log", "value"], 1, "µs"),
    ("  traces", None, [], 0.5, "µs"),
    ("  all together", "gateway", ["budget", "all together", "value"], 1.6, "× nginx"),
    ("gateway: what is built of that", "gateway", ["ratios", "cpu_per_request_at_64", "value"], 1.5, "× nginx"),
    ("gateway, bare: p99, 64 connections", "gateway", ["ratios", "p99_at_64", "value"], 1.3, "× nginx"),
    ("gateway, bare: memory, 100,000 routes", "gateway", ["memory_mb", "bare"], 100, "MB"),
    ("gateway: added median latency, 1 connection", "gateway", ["ratios", "added_median_latency_at_1", "value"], 1.3, "× nginx"),
    ("gateway, bare: failed requests, 64 connections", "gateway", ["64 connections", "bare", "errors"], 0, ""),
    ("gateway: failed requests, 64 connections", "gateway", ["64 connections", "gateway", "errors"], 0, ""),
    ("gateway: failed requests, 1 connection", "gateway", ["1 connections", "gateway", "errors"], 0, ""),
    ("POST to first 200 prediction, median", "deploy", ["post_to_first_200_s", "median"], 1, "s"),
    ("memory of an idle `up`", "deploy", ["idle_up_mb"], 80, "MB"),
    ("memory of an idle replica", "deploy", ["idle_replica_mb"], 60, "MB"),
    ("control plane: a page of the list, median", "control", ["list_page_ms", "median"], 50, "ms"),
    ("control plane: a full scan and reconcile", "control", ["full_scan_s"], 5, "s"),
    ("control plane: memory", "control", ["control_mb"], 300, "MB"),
]


def read(folder, name):
    try:
        return json.loads((folder / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {}


def at(figures, path):
    for key in path:
        figures = figures.get(key) if isinstance(figures, dict) else None
    return figures


def machine():
    models = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "commit": commit.stdout.strip(),
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} RESULTS_DIRECTORY")
    folder = pathlib.Path(sys.argv[1])
    figures = {name: read(folder, name) for name in ["gateway", "deploy", "control"]}
    report = {"machine": machine(), "targets": [], **figures}
    missed = []
    print(f"{'':46}{'measured':>12}{'at most':>12}")
    for what, name, path, limit, unit in TARGETS:
        value = at(figures[name], path) if name else None
        met = value <= limit if value is not None else None
        shown = "-" if value is None else f"{value:.3g}"
        words = "not built" if not name else "NOT MEASURED" if met is None else "" if met else "MISSED"
        print(f"{what:46}{shown:>12}{limit:>12} {unit:8}{words}")
        report["targets"].append({"what": what, "measured": value, "at_most": limit, "unit": unit, "met": met})
        if name and not met:
            missed.append(what)
    (folder / "all.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nall figures: {folder / 'all.json'}")
    if missed:
        sys.exit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Measures the gateway beside nginx as a reverse proxy, in one run.

Both stand before the same fixed-answer upstream (nginx, `return 200`) with kept connections, each alone on core 0;
the upstream and the load generator (wrk) share core 1. Rounds alternate, so that whatever else the machine does
meets both. CPU per request is the proxy's own user and system time from /proc over the answers that it gave.

The gateway runs once for each part of its work that can be measured by itself: bare; with two revisions that share the
requests; with the prediction log; with both. What a part costs is what it adds to the bare gateway in the same round.

    bench/gateway/bench.py --gateway PATH/gateway_bench [--routes 100000] [--rounds 5] [--seconds 5] [--out FILE]
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ANSWER = (
    '{"model_name":"iris","outputs":[{"name":"probabilities","shape":[1,3],"datatype":"FP32",'
    '"data":[0.98157286,0.018427137,1.4781146e-08]}]}'
)
BODY = '{"inputs":[{"name":"X","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}'
UPSTREAM, NGINX, GATEWAY = 19000, 19100, 19200
# A gateway's name in the figures, and the parts that it runs with.
GATEWAYS = {"bare": [], "split": ["split"], "log": ["log"], "gateway": ["split", "log"]}
# What a request may cost: the part, the gateway that has it (None: not built yet), and at most how much. The first and the
# last are ratios to nginx, the others microseconds on top of the bare gateway.
BUDGET = [
    ("bare proxy", "bare", 1.15),
    ("authentication and limits", None, 2.0),
    ("split, windows and record", "split", 2.5),
    ("prediction log", "log", 1.0),
    ("traces", None, 0.5),
    ("all together", "gateway", 1.6),
]

UPSTREAM_CONF = """daemon off; worker_processes 1; pid {folder}/upstream.pid; error_log {folder}/upstream.err;
events {{ worker_connections 2048; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/u;
 server {{ listen 127.0.0.1:{upstream} backlog=1024; default_type application/json;
  location / {{ return 200 '{answer}'; }} }} }}
"""
NGINX_CONF = """daemon off; worker_processes 1; pid {folder}/proxy.pid; error_log {folder}/proxy.err;
events {{ worker_connections 2048; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/p; proxy_temp_path {folder}/pp;
 upstream b {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
 server {{ listen 127.0.0.1:{nginx} backlog=1024;
  location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection "";
   proxy_buffering on; client_body_buffer_size 64k; }} }} }}
"""
POST_LUA = """wrk.method = "POST"
wrk.body = os.getenv("BENCH_BODY")
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency)
  io.write(string.format('JSON {"requests":%d,"errors":%d,"seconds":%f,"p50_us":%f,"p99_us":%f}\\n',
    summary.requests, summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout, summary.duration / 1e6, latency:percentile(50), latency:percentile(99)))
end
"""


def start(command, folder, name):
    log = open(f"{folder}/{name}.log", "wb")
    return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def stop(process):
    """Ends a process and its children: nginx ends its workers, a single process itself."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(port, path, process, patience=60):
    deadline = time.time() + patience
    while True:
        if process.poll() is not None:
            sys.exit(f"the server for port {port} ended with status {process.returncode}; see its log")
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=BODY.encode())
            with urllib.request.urlopen(request, timeout=2) as answer:
                if answer.read().decode() == ANSWER:
                    return
        except OSError as error:
            if time.time() > deadline:
                sys.exit(f"port {port} does not answer: {error}")
        time.sleep(0.05)


def family(pid):
    """A process and its children: nginx does its work in a child."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [pid] + [int(child) for child in children.read().split()]


def cpu_seconds(pids):
    """CPU time in nanosecond resolution where the scheduler tells it, summed over all threads."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as stat:
                total += int(stat.read().split()[0])
    return total / 1e9


def stat_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def memory_mb(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as status:
            total += int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))
    return round(total / 1024, 1)


def busy():
    with open("/proc/stat") as stat:
        values = list(map(int, stat.readline().split()[1:]))
    return (sum(values[:3]) + sum(values[5:8])) / os.sysconf("SC_CLK_TCK")


def load(port, path, connections, seconds, folder, proxy, upstream):
    pids, others = family(proxy.pid) if proxy else [], family(upstream.pid)
    before = cpu_seconds(pids), stat_seconds(pids), busy(), stat_seconds(others), os.times()
    begun = time.time()
    run = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s",
         f"{folder}/post.lua", f"http://127.0.0.1:{port}{path}"],
        env={**os.environ, "BENCH_BODY": BODY}, capture_output=True, text=True, check=True)
    elapsed = time.time() - begun
    after = cpu_seconds(pids), stat_seconds(pids), busy(), stat_seconds(others), os.times()
    found = re.search(r"JSON (\{.*\})", run.stdout)
    if not found:
        sys.exit(f"wrk said: {run.stdout}{run.stderr}")
    point = json.loads(found.group(1))
    wrk = after[4].children_user + after[4].children_system - before[4].children_user - before[4].children_system
    point["cpu_us"] = (after[0] - before[0]) / max(1, point["requests"]) * 1e6
    point["stat_cpu_us"] = (after[1] - before[1]) / max(1, point["requests"]) * 1e6
    point["foreign_cpu"] = round(
        max(0, (after[2] - before[2]) - (after[1] - before[1]) - (after[3] - before[3]) - wrk) / elapsed, 3)
    return point


def summary(points, key):
    return round(statistics.median(point[key] for point in points), 1)


def paired(points, one, other, key, combine):
    """The median over the rounds of what `combine` makes of two ways' figures of the same round."""
    return statistics.median(combine(a[key], b[key]) for a, b in zip(points[(one, 64)], points[(other, 64)]))


def budget(points):
    """What each part of a request's work costs beside what it may cost."""
    rows = {}
    for part, name, limit in BUDGET:
        of_nginx = part in ["bare proxy", "all together"]
        value = None
        if name:
            base, combine = ("nginx", lambda a, b: a / b) if of_nginx else ("bare", lambda a, b: a - b)
            value = round(paired(points, name, base, "cpu_us", combine), 2)
        rows[part] = {"built": bool(name), "value": value, "limit": limit, "unit": "× nginx" if of_nginx else "µs"}
    return rows


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--gateway", required=True, help="the built example gateway_bench")
    arguments.add_argument("--routes", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--out", help="where the figures go as JSON")
    options = arguments.parse_args()
    for tool in ["nginx", "wrk", "taskset"]:
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing; on Debian: apt install nginx wrk util-linux")
    if os.cpu_count() < 2:
        sys.exit("this needs two CPUs: one for the proxy, one for the upstream and the load")

    folder = tempfile.mkdtemp(prefix="gateway-bench-")
    names = dict(folder=folder, upstream=UPSTREAM, nginx=NGINX, answer=ANSWER)
    for name, text in [("upstream.conf", UPSTREAM_CONF), ("proxy.conf", NGINX_CONF)]:
        with open(f"{folder}/{name}", "w") as file:
            file.write(text.format(**names))
    with open(f"{folder}/post.lua", "w") as file:
        file.write(POST_LUA)

    path = f"/v2/models/md-{max(1, options.routes // 2)}/infer"
    running, points = [], {}
    try:
        upstream = start(["taskset", "-c", "1", "nginx", "-c", f"{folder}/upstream.conf"], folder, "upstream")
        running.append(upstream)
        wait_for(UPSTREAM, path, upstream)
        nginx = start(["taskset", "-c", "0", "nginx", "-c", f"{folder}/proxy.conf"], folder, "proxy")
        running.append(nginx)
        gateways = {}
        for port, (name, parts) in enumerate(GATEWAYS.items(), GATEWAY):
            own = f"{folder}/{name}"
            os.mkdir(own)
            gateways[name] = start(
                ["taskset", "-c", "0", os.path.abspath(options.gateway), f"127.0.0.1:{port}",
                 f"127.0.0.1:{UPSTREAM}", str(options.routes), own, *parts], folder, name)
            running.append(gateways[name])
            wait_for(port, path, gateways[name])
        wait_for(NGINX, path, nginx)
        many = [("nginx", NGINX, nginx)]
        many += [(name, port, gateways[name]) for port, name in enumerate(GATEWAYS, GATEWAY)]
        one = [("direct", UPSTREAM, None), many[0], many[-1]]
        for connections, ways in [(64, many), (1, one)]:
            for name, port, proxy in ways:
                load(port, path, connections, 1, folder, proxy, upstream)
            for index in range(options.rounds):
                for name, port, proxy in ways if index % 2 == 0 else ways[::-1]:
                    point = load(port, path, connections, options.seconds, folder, proxy, upstream)
                    points.setdefault((name, connections), []).append(point)
                    print(f"  {name:8} {connections:3} connections  {point['requests'] / point['seconds']:9.0f}/s  "
                          f"{point['cpu_us']:6.2f} µs CPU  p50 {point['p50_us']:7.0f} µs  p99 {point['p99_us']:7.0f} µs  "
                          f"others {point['foreign_cpu']:.2f} cores", file=sys.stderr, flush=True)
        memory = {name: memory_mb(family(process.pid)) for name, process in [("nginx", nginx), *gateways.items()]}
    finally:
        for process in reversed(running):
            stop(process)
        shutil.rmtree(folder, ignore_errors=True)

    figures = {"routes": options.routes, "rounds": options.rounds, "seconds": options.seconds, "memory_mb": memory}
    for (name, connections), found in points.items():
        figures.setdefault(f"{connections} connections", {})[name] = {
            "requests_per_second": round(statistics.median(p["requests"] / p["seconds"] for p in found)),
            "cpu_us_per_request": summary(found, "cpu_us"), "p50_us": summary(found, "p50_us"),
            "p99_us": summary(found, "p99_us"), "errors": sum(p["errors"] for p in found),
            "others_cores": round(statistics.median(p["foreign_cpu"] for p in found), 2),
        }
    figures["budget"] = budget(points)
    added = [statistics.median(p["p50_us"] for p in points[(name, 1)]) for name in ["gateway", "nginx", "direct"]]
    figures["ratios"] = {
        "cpu_per_request_at_64": {
            "value": round(paired(points, "gateway", "nginx", "cpu_us", lambda a, b: a / b), 2), "target": 1.5},
        "p99_at_64": {"value": round(paired(points, "bare", "nginx", "p99_us", lambda a, b: a / b), 2), "target": 1.3},
        "added_median_latency_at_1": {
            "value": round((added[0] - added[2]) / max(1, added[1] - added[2]), 2), "target": 1.3},
    }
    print(f"{'':10}{'connections':>12}{'requests/s':>12}{'CPU µs':>9}{'p50 µs':>9}{'p99 µs':>9}{'errors':>8}")
    for connections in [64, 1]:
        for name, row in figures[f"{connections} connections"].items():
            print(f"{name:10}{connections:>12}{row['requests_per_second']:>12}{row['cpu_us_per_request']:>9}"
                  f"{row['p50_us']:>9}{row['p99_us']:>9}{row['errors']:>8}")
    print(f"memory: gateway {memory['bare']} MB with {options.routes} routes, nginx {memory['nginx']} MB")
    met = True
    print(f"\n{'budget of a request, CPU':28}{'measured':>12}{'at most':>12}")
    for part, row in figures["budget"].items():
        ok = not row["built"] or row["value"] <= row["limit"]
        met &= ok
        shown, words = (f"{row['value']:.2f}", "" if ok else "NOT MET") if row["built"] else ("-", "not built")
        print(f"{part:28}{shown:>12}{row['limit']:>12} {row['unit']:8}{words}")
    for name, ratio in figures["ratios"].items():
        ok = ratio["value"] <= ratio["target"]
        met &= ok
        print(f"{name}: {ratio['value']} times nginx's (target {ratio['target']}): {'met' if ok else 'NOT MET'}")
    if options.out:
        with open(options.out, "w") as file:
            json.dump(figures, file, indent=1)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()

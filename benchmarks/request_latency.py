"""Measures the latency of a request that needs the model: over HTTP, one client, each request for another user.

    python benchmarks/request_latency.py --releases var/demo/releases [--requests 500]

Starts the service on the release with the embedded store, warms it up, then sends one request for each of many known
users, so that no cache can answer. Prints the machine, p50/p95/p99 of the whole call, the service's CPU time per
request (which stays meaningful on a busy machine), and one JSON line.
"""

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
from machine import free_port, machine

WARM_UP = 50


def start_service(releases: Path, state: str) -> tuple["subprocess.Popen[bytes]", int]:
    port = free_port()
    command = [sys.executable, "-m", "service", "--releases", str(releases), "--port", str(port), "--state-dir", state]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return process, port
        time.sleep(0.1)
    process.kill()
    sys.exit("the service did not become ready")


def timed_calls(port: int, users: list[str]) -> list[float]:
    """Returns the milliseconds of each `GET /recommend/{user}?n=10`, all on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    times = []
    for user in users:
        started = time.perf_counter()
        connection.request("GET", f"/recommend/{quote(user, safe='')}?n=10")
        response = connection.getresponse()
        answer = json.loads(response.read())
        times.append((time.perf_counter() - started) * 1000)
        if response.status != 200 or len(answer["items"]) != 10 or answer["meta"]["source"] != "sequence":
            sys.exit(
                f"user {user!r}: status {response.status}, meta {answer.get('meta')}; expected ten items from the model"
            )
    return times


def cpu_seconds(process: "subprocess.Popen[bytes]") -> float:
    """Returns the CPU seconds of all threads of a process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentiles(times: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=500)
    arguments = parser.parse_args()
    release = (arguments.releases / "current").resolve()
    manifest = json.loads((release / "manifest.json").read_text())
    known = pl.read_parquet(release / "histories.parquet").filter(pl.col("item_ids").list.len() > 0)["user_index"]
    users = pl.read_parquet(release / "users.parquet")["user_id"].gather(known.cast(pl.UInt32)).to_list()
    np.random.default_rng(0).shuffle(users)
    with tempfile.TemporaryDirectory() as state:
        process, port = start_service(arguments.releases, state)
        try:
            timed_calls(port, users[:WARM_UP])
            before = cpu_seconds(process)
            times = timed_calls(port, users[WARM_UP : WARM_UP + arguments.requests])
            cpu_ms = round((cpu_seconds(process) - before) * 1000 / len(times), 2)
        finally:
            process.terminate()
            process.wait(timeout=30)
    result = {
        "benchmark": "request_latency",
        "machine": machine(),
        "preset": manifest["preset"],
        "items": manifest["counts"]["num_items"],
        "users": manifest["counts"]["num_users"],
        "beams": manifest["decoding"]["num_beams"],
        "requests": len(times),
        "http_ms": percentiles(times),
        "service_cpu_ms": cpu_ms,
    }
    print(f"{result['machine']}")
    print(f"{len(times)} requests, each of another user, n=10: {result['http_ms']} ms, {cpu_ms} ms of CPU each")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

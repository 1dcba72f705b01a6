"""Measures the latency of a request that needs the model: over HTTP, one client, each request for another user.

    python benchmarks/request_latency.py --releases var/demo/releases [--requests 500]
        [--against CHECKOUT [--against-releases DIR] --rounds 3]

Starts the service on the release with the embedded store, warms it up, then sends one request for each of many known
users, so that no cache can answer. Prints the machine, p50/p95/p99 of the whole call, the service's CPU time per
request (which stays meaningful on a busy machine), and one JSON line. `--against` measures the code of another checkout
in turn with this one, on releases of its own where it cannot open these, and prints the ratios; each figure is then the
median of the rounds.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import polars as pl
from machine import free_port, machine
from side_by_side import HERE, add_options, measured_in_turn, medians_of

WARM_UP = 50
READY_S = 600.0


class RunningService(NamedTuple):
    """A service that answers."""

    pid: int  # of its first process
    port: int


@contextmanager
def running_service(
    releases: Path,
    *options: str,
    state: Path | None = None,
    environment: Mapping[str, str] = {},
    code: Path = HERE,
) -> Iterator[RunningService]:
    """Starts the service, and stops it in the end.

    Args:
        options: more of its command line.
        state: the folder of its embedded store; None: a temporary one.
        environment: more variables, such as `REDIS_URL`.
        code: the checkout whose service runs.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "service", "--releases", str(releases.absolute()), "--port", str(port)]
        command += ["--state-dir", str((state or Path(folder)).absolute()), *options]
        quiet, variables = subprocess.DEVNULL, os.environ | {"PYTHONPATH": str(code)} | dict(environment)
        process = subprocess.Popen(command, cwd=code, env=variables, stdout=quiet, stderr=quiet)
        try:
            _wait_until_ready(process, port)
            yield RunningService(process.pid, port)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    sys.exit("the service did not become ready")


def shuffled_users(release: Path) -> list[str]:
    """Returns the users of a release who have a history, in an order that is the same in every run."""
    known = pl.read_parquet(release / "histories.parquet").filter(pl.col("item_ids").list.len() > 0)["user_index"]
    users: list[str] = pl.read_parquet(release / "users.parquet")["user_id"].gather(known.cast(pl.UInt32)).to_list()
    np.random.default_rng(0).shuffle(users)
    return users


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


def cpu_seconds(pid: int) -> float:
    """Returns the CPU seconds of all threads of a process so far, those of ended threads too (Linux)."""
    return time.clock_gettime_ns(~pid << 3 | 2) / 1e9  # the clock that clock_getcpuclockid(3) returns


def percentiles(times: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(times, q)), 2) for q in (50, 95, 99)}


def measure(releases: Path, code: Path, requests: int) -> dict[str, float]:
    """Starts a checkout's service once; returns percentiles of a call, and the service's CPU time for each, in ms."""
    users = shuffled_users((releases / "current").resolve())
    with running_service(releases, code=code) as service:
        timed_calls(service.port, users[:WARM_UP])
        before = cpu_seconds(service.pid)
        times = timed_calls(service.port, users[WARM_UP : WARM_UP + requests])
        cpu_ms = round((cpu_seconds(service.pid) - before) * 1000 / len(times), 2)
    return percentiles(times) | {"service_cpu_ms": cpu_ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    manifest = json.loads((arguments.releases / "current" / "manifest.json").read_text())
    measured = measured_in_turn(arguments)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in measured}
    for _ in range(arguments.rounds):
        for name, (code, releases) in measured.items():
            rounds[name].append(measure(releases, code, arguments.requests))
            print(name, rounds[name][-1], flush=True)
    result = {
        "benchmark": "request_latency",
        "machine": machine(),
        "preset": manifest["preset"],
        "items": manifest["counts"]["num_items"],
        "users": manifest["counts"]["num_users"],
        "beams": manifest["decoding"]["num_beams"],
        "requests": arguments.requests,
        "rounds": arguments.rounds,
        **medians_of(rounds),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

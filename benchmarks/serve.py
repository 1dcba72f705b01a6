"""Measures how many requests one service answers, how fast, and how it behaves beyond that; over HTTP, mixed requests.

    python benchmarks/serve.py --releases var/demo/releases [--seconds 10] [--redis] [--workers 1] [--overload]

Starts the service, with the embedded store or (`--redis`) a Redis configured by docker/redis.conf. First it measures
one user without new events alone, then many such users at once. Then it sends load from a separate process
(`benchmarks/open_loop.py`) at a growing rate until the service no longer keeps up. `saturation` is the largest number
of answers per second; goodput is the largest number with 99 of 100 answered within 100 ms. `--overload` ends with a
minute at five times the saturation. Prints the machine and one JSON line. Service and load share the machine, so run it
on an idle one.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
from machine import free_port, machine
from request_latency import running_service, shuffled_users

HERE = Path(__file__).parent
REDIS_CONF = HERE.parent / "docker" / "redis.conf"
FIRST_RATE, GROWTH = 50.0, 1.35
KEEPS_UP = 0.95
"""A service that answers a smaller share of the sent requests is saturated."""

UNCHANGED = 200
CLIENTS = 16
OVERLOAD_S = 60.0


def ask(connection: HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


@contextmanager
def running_redis(folder: Path) -> Iterator[int]:
    """Starts a Redis server whose data is in a folder; yields its port, and stops it in the end."""
    port, quiet = free_port(), subprocess.DEVNULL
    command = [shutil.which("redis-server") or "redis-server", str(REDIS_CONF), "--port", str(port)]
    process = subprocess.Popen([*command, "--bind", "127.0.0.1", "--dir", str(folder)], stdout=quiet, stderr=quiet)
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        else:
            sys.exit(f"{process.args!r} ended")
        yield port
    finally:
        process.terminate()
        process.wait()


def memory_mb(pid: int, field: str) -> float:
    """Returns `VmRSS` or `VmHWM` of the service's first process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024, 1)


class Load:
    """Sends load to a service and remembers which users it has used."""

    def __init__(self, port: int, release: Path) -> None:
        self.port = port
        users = shuffled_users(release)
        self.unchanged, self._users = users[:UNCHANGED], users[UNCHANGED:]
        self._items = pl.read_ndjson(release / "items.jsonl", schema={"item_id": pl.String})["item_id"].to_list()
        self._start = self._seed = 0

    def warm(self) -> None:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            for user in self.unchanged:
                ask(connection, f"/recommend/{quote(user, safe='')}?n=10")

    def offer(self, rate: float, seconds: float) -> dict[str, Any]:
        self._seed += 1
        plan = {
            "port": self.port, "rate": rate, "seconds": seconds, "seed": self._seed, "users": self._users,
            "start": self._start, "unchanged": self.unchanged, "items": self._items,
        }  # fmt: skip
        command = [sys.executable, str(HERE / "open_loop.py")]
        finished = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, check=True)
        report: dict[str, Any] = json.loads(finished.stdout)
        self._start = report.pop("next")
        return {"rate": round(rate, 1), **report}

    def unchanged_alone(self, seconds: float) -> dict[str, float]:
        """Returns percentiles of one caller's requests in milliseconds; the requests run one after the other."""
        durations_ms = []
        path, end = f"/recommend/{quote(self.unchanged[0], safe='')}?n=10", time.perf_counter() + seconds
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            while time.perf_counter() < end:
                started = time.perf_counter()
                ask(connection, path)
                durations_ms.append((time.perf_counter() - started) * 1e3)
        return {f"p{q}": round(float(np.percentile(durations_ms, q)), 2) for q in (50, 95, 99)}

    def unchanged_per_s(self, seconds: float) -> float:
        """Returns the answers per second to callers without pause; plain sockets keep the callers' CPU low."""
        counts = [0] * CLIENTS
        end = time.perf_counter() + seconds

        def call(number: int) -> None:
            path = f"/recommend/{quote(self.unchanged[number], safe='')}?n=10"
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                while time.perf_counter() < end:
                    connection.sendall(request)
                    received = connection.recv(65536)
                    size = int(received.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                    while len(received.partition(b"\r\n\r\n")[2]) < size:
                        received += connection.recv(65536)
                    counts[number] += received.startswith(b"HTTP/1.1 200")

        threads = [threading.Thread(target=call, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return round(sum(counts) / seconds)


def print_step(name: str, report: dict[str, Any]) -> None:
    print(
        f"{name:12} {report['rate']:8.1f}/s: {report['ok_per_s']:7.1f} answered/s, {report['refused']:6} refused, "
        f"{report['failed']:3} failed, ms {report['ms']}, sent {report['left_late_p99_ms']} ms late (p99)",
        flush=True,
    )


def grow(load: Load, seconds: float) -> list[dict[str, Any]]:
    """Returns the report of each rate, until the service no longer keeps up."""
    steps: list[dict[str, Any]] = []
    rate = FIRST_RATE
    while not steps or steps[-1]["ok"] >= KEEPS_UP * steps[-1]["offered"]:
        steps.append(load.offer(rate, seconds))
        print_step("rate", steps[-1])
        rate *= GROWTH
    return steps


def overload(load: Load, pid: int, saturation: float, seconds: float) -> dict[str, Any]:
    before = load.offer(0.3 * saturation, 5)
    resident: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(1):
            resident.append(memory_mb(pid, "VmRSS"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = load.offer(5 * saturation, seconds)
    done.set()
    watcher.join()
    print_step("overload", report)
    time.sleep(5)
    after = load.offer(0.3 * saturation, 5)
    print_step("after", after)
    half = len(resident) // 2
    return {
        "seconds": seconds,
        "goodput_share": round(report["ok_per_s"] / saturation, 3),
        "soon_share": round(report["soon_per_s"] / saturation, 3),
        "failed": report["failed"],
        "refused": report["refused"],
        "ms": report["ms"],
        "memory_growth": round(max(resident[half:]) / max(resident[:half]) - 1, 3) if half else None,
        "p99_before_ms": before["ms"]["p99"],
        "p99_after_ms": after["ms"]["p99"],
    }


def measure(load: Load, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    load.warm()
    found: dict[str, Any] = {
        "unchanged_ms": load.unchanged_alone(3),
        "unchanged_per_s": load.unchanged_per_s(5),
    }
    print(f"unchanged user: {found}", flush=True)
    steps = grow(load, options.seconds)
    saturation = max(step["ok_per_s"] for step in steps)
    good = [step["ok_per_s"] for step in steps if step["ms"]["p99"] <= 100 and step["ok"] >= 0.99 * step["offered"]]
    at_70 = load.offer(0.7 * saturation, options.seconds)
    print_step("at 70%", at_70)
    found |= {
        "rates": steps,
        "saturation_per_s": saturation,
        "goodput_per_s": max(good, default=0.0),
        "at_70_percent": at_70,
        "p99_by_p50_at_70_percent": round(at_70["ms"]["p99"] / at_70["ms"]["p50"], 2),
    }
    if options.overload:
        found["overload"] = overload(load, pid, saturation, options.overload_seconds)
    return found | {"peak_memory_mb": memory_mb(pid, "VmHWM")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10.0, help="time at each rate")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--overload-seconds", type=float, default=OVERLOAD_S)
    options = parser.parse_args()
    release = (options.releases / "current").resolve()
    manifest = json.loads((release / "manifest.json").read_text())
    # Beside the releases: a temporary folder may be in memory, where a sync costs nothing.
    with (
        tempfile.TemporaryDirectory(dir=options.releases, prefix=".serve-") as folder,
        running_redis(Path(folder)) as redis_port,
    ):
        environment = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"} if options.redis else {}
        chosen, state = ("--workers", str(options.workers)), Path(folder) / "state"
        started = time.perf_counter()
        with running_service(options.releases, *chosen, state=state, environment=environment) as service:
            start_s = time.perf_counter() - started
            found = measure(Load(service.port, release), service.pid, options)
    about = {
        "benchmark": "serve", **machine(), "preset": manifest["preset"], "items": manifest["counts"]["num_items"],
        "users": manifest["counts"]["num_users"], "beams": manifest["decoding"]["num_beams"],
        "store": "redis" if options.redis else "embedded", "workers": options.workers, "start_s": round(start_s, 2),
    }  # fmt: skip
    for name, value in about.items():
        print(f"{name:16} {value}")
    print(json.dumps(about | found))


if __name__ == "__main__":
    main()

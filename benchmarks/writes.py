"""Measures how many events one service accepts and how soon a read shows them; over HTTP, with a store that syncs.

    python benchmarks/writes.py --releases var/demo/releases [--embedded] [--seconds 10] [--clients 8]

Starts redis-server with docker/redis.conf and the service on loopback (with `--embedded` the service alone, with its
own store), then measures
    batches   events per second, 50 per call
    single    events per second, one per call
    visible   milliseconds from sending an event to an answer that shows it, one event after the other
Prints the machine and one JSON line. Other programs share disk and CPU, so run it on an idle machine.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from machine import free_port, machine

REDIS_CONF = Path(__file__).parents[1] / "docker" / "redis.conf"
BATCH = 50
TARGETS = {"batches_events_per_s": 1500, "single_events_per_s": 300, "visible_p95_ms": 25}


@contextmanager
def running(command: list[str], ready: Callable[[], bool], **environment: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{command[0]} did not become ready")
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.connect()
        # A request goes out in two parts; the second must not wait for the acknowledgement of the first.
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, events: list[dict[str, object]]) -> int:
        """Posts events; returns the number of accepted ones."""
        body = json.dumps({"events": events})
        self._connection.request("POST", "/interactions", body, {"Content-Type": "application/json"})
        accepted: int = json.loads(self._connection.getresponse().read())["accepted"]
        return accepted

    def get(self, path: str) -> dict[str, object]:
        self._connection.request("GET", path)
        answer: dict[str, object] = json.loads(self._connection.getresponse().read())
        return answer


def is_ready(port: int) -> bool:
    if not listens(port):
        return False
    return Client(port).get("/readyz").get("status") == "ready"


def throughput(port: int, items: list[str], *, batch: int, clients: int, seconds: float) -> float:
    """Returns the accepted events per second."""
    accepted = [0] * clients
    started = time.monotonic()

    def run(number: int) -> None:
        client, k = Client(port), 0
        while time.monotonic() - started < seconds:
            events: list[dict[str, object]] = [
                {"user_id": f"u{number}-{(k + j) % 500}", "item_id": items[(k + j) % len(items)], "event": "view"}
                for j in range(batch)
            ]
            accepted[number] += client.post(events)
            k += batch

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(accepted) / (time.monotonic() - started)


def write_to_visible(port: int, items: list[str], seconds: float) -> list[float]:
    """Returns the milliseconds until each event is visible."""
    client = Client(port)
    durations_ms: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        user_id, item = uuid.uuid4().hex, items[len(durations_ms) % len(items)]
        started = time.perf_counter()
        client.post([{"user_id": user_id, "item_id": item}])
        if client.get(f"/users/{user_id}")["history"] != [item]:
            sys.exit("an accepted event was not in the next read")
        durations_ms.append((time.perf_counter() - started) * 1e3)
    return durations_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--embedded", action="store_true", help="use the embedded store instead of a Redis")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    lines = (options.releases / "current" / "items.jsonl").read_text().splitlines()
    items = [json.loads(line)["item_id"] for line in lines]
    redis_port, port = free_port(), free_port()
    # Beside the releases: a temporary folder may be in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=options.releases, prefix=".writes-") as folder:
        service = [sys.executable, "-m", "service", "--releases", str(options.releases), "--port", str(port)]
        service += ["--state-dir", folder]
        environment = {"ISRF_LOG_LEVEL": "WARNING"}
        with ExitStack() as stack:
            if not options.embedded:
                binary = shutil.which("redis-server") or sys.exit("redis-server is not installed")
                server = [binary, str(REDIS_CONF), "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", folder]
                stack.enter_context(running(server, lambda: listens(redis_port)))
                environment["REDIS_URL"] = f"redis://127.0.0.1:{redis_port}/0"
            stack.enter_context(running(service, lambda: is_ready(port), **environment))
            throughput(port, items, batch=BATCH, clients=options.clients, seconds=1)
            batches = throughput(port, items, batch=BATCH, clients=options.clients, seconds=options.seconds)
            single = throughput(port, items, batch=1, clients=options.clients, seconds=options.seconds)
            visible = write_to_visible(port, items, options.seconds)
    found = {
        "batches_events_per_s": round(batches),
        "single_events_per_s": round(single),
        "visible_p50_ms": round(float(np.percentile(visible, 50)), 2),
        "visible_p95_ms": round(float(np.percentile(visible, 95)), 2),
    }
    store = "embedded" if options.embedded else "redis"
    about = {"benchmark": "writes", **machine(), "store": store, "clients": options.clients, "items": len(items)}
    for name, value in (about | found).items():
        print(f"{name:24} {value}")
    print(json.dumps({**about, **found, "targets": TARGETS}))


if __name__ == "__main__":
    main()

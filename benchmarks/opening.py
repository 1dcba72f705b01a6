"""Measures how a release opens: seconds and CPU seconds from the process's start to ready, and the workers' memory.

    python benchmarks/opening.py --releases DIR [--workers 1 2] [--runs 3]
        [--against CHECKOUT [--against-releases DIR]]

It starts the service, waits until all workers log that they are ready, then sends `--requests` calls for users with a
history. Memory is read from `/proc/PID/smaps_rollup` of each worker: `rss` counts each page whole, `pss` divides a page
by the processes that have it, and `anonymous` is what no other process shares. `--against` measures the code of another
checkout in turn with this one, on releases of its own where it cannot open these, and prints the ratios. More than one
worker needs `redis-server`. Prints the machine and one JSON line. The figures of the clock need an idle machine; those
of the CPU grow on a busy one too, by up to a half.
"""

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import quote

from machine import free_port, machine
from request_latency import shuffled_users
from serve import running_redis
from side_by_side import add_options, measured_in_turn, medians_of

READY_S = 600
READY = '"event": "ready"'
MEMORY = {"rss_mb": "Rss", "pss_mb": "Pss", "anonymous_mb": "Anonymous"}


def opening(code: Path, releases: Path, *, workers: int, users: Sequence[str]) -> dict[str, float]:
    """Starts a checkout's service once; returns its figures, those of memory as the mean of its workers."""
    port = free_port()
    with ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory())
        environment = os.environ | {"PYTHONPATH": str(code)}
        if workers > 1:
            environment["REDIS_URL"] = f"redis://127.0.0.1:{stack.enter_context(running_redis(Path(state)))}/0"
        command = [sys.executable, "-m", "service", "--releases", str(releases), "--port", str(port)]
        command += ["--state-dir", state, "--workers", str(workers)]
        log, began = Path(state) / "log", time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=code, env=environment, stdout=output, stderr=output)
        stack.callback(_end, process)
        _wait(process, log, workers, port)
        seconds, family = time.monotonic() - began, _family(process.pid)
        cpu_s = sum(map(_cpu_seconds, family))
        ready = _memory(family[-workers:])
        _ask(port, users)
        asked = _memory(family[-workers:])
    return {
        "ready_s": seconds,
        "cpu_s": cpu_s,
        **ready,
        **{f"{name}_after_calls": value for name, value in asked.items()},
    }


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


def _wait(process: "subprocess.Popen[bytes]", log: Path, workers: int, port: int) -> None:
    """Waits until every worker has logged that it is ready, and /readyz answers."""
    until = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < until:
        if log.read_text().count(READY) == workers and _answers(port):
            return
        time.sleep(0.02)
    sys.exit(f"the service did not become ready:\n{log.read_text()}")


def _answers(port: int) -> bool:
    with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def _family(pid: int) -> list[int]:
    """A process and its children, in the order of their start."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(child) for child in children)]


def _cpu_seconds(pid: int) -> float:
    return time.clock_gettime_ns(~pid << 3 | 2) / 1e9  # the clock that clock_getcpuclockid(3) returns


def _memory(pids: Sequence[int]) -> dict[str, float]:
    found = []
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        found.append([kilobytes[field] / 1024 for field in MEMORY.values()])
    return {name: statistics.mean(column) for name, column in zip(MEMORY, zip(*found, strict=True), strict=True)}


def _ask(port: int, users: Sequence[str]) -> None:
    for user in users:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", f"/recommend/{quote(user, safe='')}?n=10")
            response = connection.getresponse()
            if response.status != 200:
                sys.exit(f"user {user!r}: status {response.status}: {response.read()!r}")
            response.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()
    release = (arguments.releases / "current").resolve()
    users = shuffled_users(release)[: arguments.requests]
    checkouts = measured_in_turn(arguments)
    answer: dict[str, object] = {"benchmark": "opening", **machine(), "releases": str(arguments.releases.name)}
    answer["items"] = json.loads((release / "manifest.json").read_bytes())["counts"]["num_items"]
    for workers in arguments.workers:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
        for _ in range(arguments.runs):
            for name, (code, releases) in checkouts.items():
                runs[name].append(opening(code, releases, workers=workers, users=users))
                print(name, workers, {key: round(value, 2) for key, value in runs[name][-1].items()}, flush=True)
        answer[f"workers_{workers}"] = medians_of(runs)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

"""Measures what a placement costs over the plain list: over HTTP, one client, each request for another user.

    python benchmarks/placements.py --releases DIR [--requests 400] [--explain]

Starts the service on the release with the embedded store, puts three placements of the kind `for-user`, and asks in
turn for the plain list (`GET /recommend/{user_id}?n=10`) and for the items of each placement: without rules, with a
filter, and with the filter and four rules (a boost, a pin, an at_most, an at_least). Every call is of another user, so
that no cache answers. For each it reports the whole call's p50 and p95, and the median of the service's CPU time per
call, which stays meaningful on a busy machine; `more_ms` and `ratio` compare them with the plain list. Conditions read
`price` and `brand`, which `benchmarks/synthetic_release.py --items 12000` and the demo shop have. Prints the machine
and one JSON line.
"""

import argparse
import json
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from machine import machine
from request_latency import WARM_UP, cpu_seconds, running_service, shuffled_users

FILTER = "price < 80"
RULES: list[dict[str, Any]] = [
    {"boost": {"where": "price < 30", "by": 2}},
    {"pin": {"where": "price > 70", "place": 3}},
    {"at_most": {"attribute": "brand", "count": 2}},
    {"at_least": {"where": "price > 75", "count": 2}},
]
PLACEMENTS: dict[str, dict[str, Any]] = {
    "without-rules": {"kind": "for-user"},
    "filter": {"kind": "for-user", "filter": FILTER},
    "rules": {"kind": "for-user", "filter": FILTER, "rules": RULES},
}
PLAIN = "plain"


def call(connection: HTTPConnection, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Returns the JSON of an answer; ends the program where it is not 200."""
    sent = None if body is None else json.dumps(body)
    connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        sys.exit(f"{method} {path}: {response.status} {text[:300]!r}")
    found: dict[str, Any] = json.loads(text)
    return found


def path_of(name: str, user: str, explain: bool) -> str:
    asked = quote(user, safe="")
    path = f"/recommend/{asked}?n=10" if name == PLAIN else f"/placements/{name}/items?n=10&user_id={asked}"
    return path + ("&explain=true" if explain else "")


def measured(port: int, pid: int, users: list[str], requests: int, *, explain: bool) -> dict[str, dict[str, Any]]:
    """Returns the figures of each list."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    for name, placement in PLACEMENTS.items():
        call(connection, "PUT", f"/placements/{name}", placement)
    names = [PLAIN, *PLACEMENTS]
    times: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    waiting = iter(users)
    for round_ in range(WARM_UP + requests):
        for at in range(len(names)):
            name = names[(at + round_) % len(names)]
            path = path_of(name, next(waiting), explain)
            before, began = cpu_seconds(pid), time.perf_counter()
            answer = call(connection, "GET", path)
            took, used = time.perf_counter() - began, cpu_seconds(pid) - before
            if len(answer["items"]) != 10:
                sys.exit(f"{path}: {len(answer['items'])} items, {answer['warnings']}")
            if round_ >= WARM_UP:
                times[name].append(took * 1e3)
                cpu[name].append(used * 1e3)
    plain_ms, plain_cpu = (float(np.median(found[PLAIN])) for found in (times, cpu))
    return {
        name: {
            "p50_ms": round(float(np.median(times[name])), 2),
            "p95_ms": round(float(np.percentile(times[name], 95)), 2),
            "cpu_ms": round(float(np.median(cpu[name])), 2),
            "more_ms": round(float(np.median(times[name])) - plain_ms, 2),
            "more_cpu_ms": round(float(np.median(cpu[name])) - plain_cpu, 2),
            "ratio": round(float(np.median(times[name])) / plain_ms, 3),
        }
        for name in names
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=400, help="of each list")
    parser.add_argument("--explain", action="store_true")
    arguments = parser.parse_args()
    release = (arguments.releases / "current").resolve()
    manifest = json.loads((release / "manifest.json").read_text())
    users = shuffled_users(release)
    num_lists = 1 + len(PLACEMENTS)
    requests = min(arguments.requests, len(users) // num_lists - WARM_UP)
    if requests < 1:
        sys.exit(f"the release has {len(users)} users with a history, and {num_lists * (WARM_UP + 1)} are needed")
    with running_service(arguments.releases) as service:
        lists = measured(service.port, service.pid, users, requests, explain=arguments.explain)
    result = {
        "benchmark": "placements",
        "machine": machine(),
        "preset": manifest["preset"],
        "items": manifest["counts"]["num_items"],
        "users": manifest["counts"]["num_users"],
        "ranker": manifest.get("ranker") is not None,
        "explain": arguments.explain,
        "requests": requests,
        "lists": lists,
    }
    print(f"{result['machine']}")
    for name, one in lists.items():
        print(
            f"{name:14} p50 {one['p50_ms']} ms, CPU {one['cpu_ms']} ms, {one['more_ms']:+} ms ({one['more_cpu_ms']:+} "
            f"of CPU), {one['ratio']} x"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()

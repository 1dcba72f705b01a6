"""Measures what an unchanged user's request takes while other users' events arrive for other items.

    python benchmarks/cached_under_events.py --releases RELEASES [--rate 100] [--seconds 25]

Starts the service on the release with the embedded store. Asks for some known users once, then asks for them again and
again while another connection posts events of new users, for items that none of these users took among their last
ones. Each event counts for everybody, so a cache that one event empties would answer nothing. Prints the machine, the
times of the repeated requests, which of them the cache answered, and one JSON line.
"""

import argparse
import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
from machine import machine
from request_latency import percentiles, running_service

NUM_USERS = 20
LATEST = 5
BATCH_S = 0.1


def ask(connection: http.client.HTTPConnection, user: str) -> float:
    """The milliseconds of one request."""
    started = time.perf_counter()
    connection.request("GET", f"/recommend/{quote(user, safe='')}?n=10")
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        sys.exit(f"user {user!r}: status {response.status}")
    return (time.perf_counter() - started) * 1000


def post_events(port: int, items: list[str], *, rate: int, until: float) -> int:
    """Posts `rate` events a second, each of a new user, until a moment of `time.monotonic`; returns how many."""
    connection, count = http.client.HTTPConnection("127.0.0.1", port, timeout=30), 0
    began = time.monotonic()
    while time.monotonic() < until:
        events = [
            {"user_id": f"poster-{count + k}", "item_id": items[(count + k) % len(items)]}
            for k in range(round(rate * BATCH_S))
        ]
        connection.request(
            "POST", "/interactions", json.dumps({"events": events}), {"Content-Type": "application/json"}
        )
        answer = json.loads(connection.getresponse().read())
        if answer["accepted"] != len(events):
            sys.exit(f"not all events were accepted: {answer}")
        count += len(events)
        time.sleep(max(0.0, began + count / rate - time.monotonic()))
    return count


def cache_counts(port: int) -> dict[str, float]:
    """How many answers came from where so far (`isrf_answer_cache_total`)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    found = (line for line in lines if line.startswith("isrf_answer_cache_total{"))
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=25.0)
    arguments = parser.parse_args()
    release = (arguments.releases / "current").resolve()
    histories = pl.read_parquet(release / "histories.parquet").filter(pl.col("item_ids").list.len() > 0)
    chosen = histories.sample(NUM_USERS, seed=0)
    users = pl.read_parquet(release / "users.parquet")["user_id"].gather(chosen["user_index"].cast(pl.UInt32)).to_list()
    latest = set(chosen["item_ids"].list.tail(LATEST).explode().to_list())
    others = sorted(set(histories["item_ids"].explode().to_list()) - latest)
    with running_service(arguments.releases) as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        for user in users:
            ask(connection, user)
        posted: list[int] = []
        before = cache_counts(service.port)
        until = time.monotonic() + arguments.seconds
        poster = threading.Thread(
            target=lambda: posted.append(post_events(service.port, others, rate=arguments.rate, until=until))
        )
        poster.start()
        times: list[float] = []
        while time.monotonic() < until:
            times.append(ask(connection, users[len(times) % len(users)]))
            time.sleep(0.01)
        poster.join()
        after = cache_counts(service.port)
    result = {
        "benchmark": "cached_under_events",
        "machine": machine(),
        "items": len(others) + len(latest),
        "requests": len(times),
        "events": posted[0],
        "http_ms": percentiles(times),
        "under_1_ms": round(float(np.mean(np.array(times) < 1.0)), 4),
        "answers": {name: after[name] - before.get(name, 0.0) for name in after if after[name] > before.get(name, 0.0)},
    }
    print(f"{len(times)} requests of {len(users)} unchanged users beside {posted[0]} events: {result['http_ms']} ms")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

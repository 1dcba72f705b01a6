"""Measures the embedded store with many users: its database alone, without HTTP and model, on the disk of `--folder`.

    python benchmarks/embedded_store.py --folder var/embedded [--users 200000] [--events 2] [--seconds 5]

Fills a store, then measures in a separate process
    open_s            seconds until the filled store is open, with its checks
    open_rss_mb       memory that opening takes
    batches, single   accepted events per second, 50 per call and one per call, from `--clients` at once
    read_*_us         microseconds of a read: of a user with state, of the same user again, of an unknown user
Prints the machine and one JSON line. Other programs share disk and CPU, so run it on an idle machine.
"""

import argparse
import asyncio
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from machine import machine

from service.state.events import Event, EventReader, EventRules
from service.state.sqlite import EmbeddedStore

FILLED_AT_ONCE = 1000
ITEMS = 20_000
READS = 2000
TARGETS = {"open_s": 3, "batches_events_per_s": 1500, "single_events_per_s": 300}

_reader = EventReader(EventRules(()), lambda _: True)


def events(user_ids: list[str], draw: random.Random) -> list[Event]:
    posted = [
        {"user_id": user_id, "item_id": f"item-{draw.randrange(ITEMS)}", "event": draw.choice(["view", "purchase"])}
        for user_id in user_ids
    ]
    return [event for event in _reader.read(posted, time.time()) if isinstance(event, Event)]


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def fill(folder: Path, users: int, per_user: int) -> None:
    store, draw = await EmbeddedStore.open(folder), random.Random(1)
    for _ in range(per_user):
        for start in range(0, users, FILLED_AT_ONCE):
            names = [f"user-{k:07d}" for k in range(start, min(users, start + FILLED_AT_ONCE))]
            await store.apply(events(names, draw))
    await store.close()


async def throughput(store: EmbeddedStore, users: int, *, batch: int, clients: int, seconds: float) -> float:
    """Returns the accepted events per second."""
    accepted, started = 0, time.monotonic()

    async def client(number: int) -> None:
        nonlocal accepted
        draw = random.Random(number)
        while time.monotonic() - started < seconds:
            names = [f"user-{draw.randrange(users):07d}" for _ in range(batch)]
            results = await store.apply(events(names, draw))
            accepted += sum(result.outcome == "accepted" for result in results)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return accepted / (time.monotonic() - started)


async def timed(read: Callable[[str], Awaitable[object]], user_ids: list[str]) -> list[float]:
    """Returns the microseconds of each read; the reads run one after the other."""
    durations_us = []
    for user_id in user_ids:
        started = time.perf_counter()
        await read(user_id)
        durations_us.append((time.perf_counter() - started) * 1e6)
    return durations_us


async def measure(folder: Path, users: int, clients: int, seconds: float) -> dict[str, float]:
    before, started = rss_mb(), time.perf_counter()
    store = await EmbeddedStore.open(folder)
    found = {"open_s": round(time.perf_counter() - started, 2), "open_rss_mb": round(rss_mb() - before, 1)}
    draw = random.Random(2)
    known_users = [f"user-{k:07d}" for k in draw.sample(range(users), min(users, READS))]
    kinds = {"first": known_users, "again": known_users, "unknown": [f"nobody-{k}" for k in range(READS)]}
    for name, user_ids in kinds.items():
        durations_us = await timed(store.read, user_ids)
        found[f"read_{name}_p50_us"] = round(float(np.percentile(durations_us, 50)), 1)
        found[f"read_{name}_p99_us"] = round(float(np.percentile(durations_us, 99)), 1)
    found["batches_events_per_s"] = round(await throughput(store, users, batch=50, clients=clients, seconds=seconds))
    found["single_events_per_s"] = round(await throughput(store, users, batch=1, clients=clients, seconds=seconds))
    found["rss_mb"] = round(rss_mb(), 1)
    await store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder that the run creates and deletes")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=2, help="events per user")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asyncio.run(measure(options.folder, options.users, options.clients, options.seconds))))
        return
    options.folder.mkdir(parents=True)
    try:
        started = time.monotonic()
        asyncio.run(fill(options.folder, options.users, options.events))
        fill_s = time.monotonic() - started
        database_mb = sum(path.stat().st_size for path in options.folder.iterdir()) / 1e6
        # A separate process: its memory does not contain what the filling left.
        command = [sys.executable, __file__, "--measure", "--folder", str(options.folder)]
        command += ["--users", str(options.users), "--clients", str(options.clients)]
        command += ["--seconds", str(options.seconds)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        shutil.rmtree(options.folder)
    about = {
        "benchmark": "embedded_store",
        **machine(),
        "users": options.users,
        "events": options.users * options.events,
        "clients": options.clients,
        "fill_s": round(fill_s, 1),
        "database_mb": round(database_mb, 1),
    }
    for name, value in (about | found).items():
        print(f"{name:24} {value}")
    print(json.dumps({**about, **found, "targets": TARGETS}))


if __name__ == "__main__":
    main()

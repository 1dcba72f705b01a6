"""Measures what live evidence costs: counting an event, memory, catching up at a start, and a request's evidence.

    python benchmarks/synthetic_release.py --releases DIR --preset mini --items 100000 --users 20000
    python benchmarks/live_evidence.py --releases DIR [--entries 1000000]

Random events name the release's items, few of them most of the time; each follows eight others. It measures
    count          µs per event that is counted alone, and per entry of a page, ids and all; MB of all in memory
    catch_up       seconds that a replica takes to read and count all entries from a Redis that it starts, in the
                   background as in the service; and by how many ms the event loop is late meanwhile
    request        µs of the evidence of a request (5 items and the last one, both channels, takers and shares of
                   `CANDIDATES` items) without live counts, with them where most rows have changed since they were
                   last asked for, and again with the same rows; in turn, while some entries come between
All times but the delays are the processor's, so that they mean something on a busy machine. Prints the machine and one
JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import free_port, machine
from numpy.typing import NDArray
from pydantic import SecretStr
from redis import Redis

from isrf.contract.event_log import EVENT_FIELD, FOLLOWED_ITEMS, StoredEvent, bucket_of, stream_key
from isrf.method.evidence import item_evidence, last_item_evidence
from isrf.method.recommend.tables import RecommenderTables
from service.inference.engine import Engine
from service.inference.limits import LoadLimits
from service.inference.queue_limit import QueueLimit
from service.release.live_counting import LiveCounting
from service.release.mapped_entries import ItemLookup, MappedEntries
from service.release.opening import Release, open_release
from service.server.gc_tuning import set_apart
from service.settings import Settings
from service.state.connect import open_store
from service.state.events import Event
from service.state.payload import encode
from service.state.user_store import AcceptedEntry
from service.sync.catalogue_sync import CatalogueSync
from service.sync.live_sync import LiveSync
from service.sync.release_runtime import with_live_evidence
from service.telemetry.metrics import Metrics

NUM_USERS = 50_000
PAGE = 4000
SINGLE = 20_000
REQUESTS = 2000
CANDIDATES = 400
NEW_ENTRIES = 5
"""Entries that come between two requests."""
MEMORY_BYTES = 1 << 30
TARGETS = {"single_us": 20.0, "memory_mb": 150.0, "catch_up_cpu_s": 10.0, "again_more_us": 200.0}


def some_items(random: np.random.Generator, num_items: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns item rows; squares of a uniform draw give few items most of the events."""
    return (random.random(shape) ** 2 * num_items).astype(np.int64)


def pages(release: Release, count: int, *, seed: int = 0) -> Iterator[list[AcceptedEntry]]:
    """Yields events of the hour after the release, `PAGE` at a time."""
    random, name = np.random.default_rng(seed), release.catalogue.item_id
    started = release.learned_until + 1.0
    for start in range(0, count, PAGE):
        size = min(PAGE, count - start)
        named = some_items(random, len(release.catalogue), (size, 1 + FOLLOWED_ITEMS)).tolist()
        users = random.integers(0, NUM_USERS, size).tolist()
        page = []
        for place, (user, (item, *before)) in enumerate(zip(users, named, strict=True)):
            user_id, at = f"user-{user}", started + 3600 * (start + place) / count
            followed = tuple(name(row) for row in dict.fromkeys(before) if row != item)
            one = StoredEvent(
                user_id, name(item), "view", "H", at, False, f"derived-{start + place:032x}", at, followed
            )
            page.append(AcceptedEntry(bucket_of(user_id), one))
        yield page


def counted(release: Release) -> tuple[Release, LiveCounting]:
    live, counting = with_live_evidence(release, MEMORY_BYTES)
    if counting is None:
        sys.exit("the release allows no live evidence; it needs schema 4")
    return live, counting


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def count_alone(release: Release, count: int) -> dict[str, float]:
    _, counting = counted(release)
    lookup = ItemLookup(release.catalogue.ids)
    few = [entry for page in pages(release, min(count, SINGLE)) for entry in page]
    events = list(MappedEntries.of(few, lookup).batch.events())
    began = time.thread_time()
    for event in events:
        counting.evidence.add(event)
    single = (time.thread_time() - began) / len(events)
    _, counting = counted(release)
    before, in_pages = resident_mb(), 0.0
    for page in pages(release, count):
        began = time.thread_time()
        counting.count(MappedEntries.of(page, lookup))
        in_pages += time.thread_time() - began
    return {
        "single_us": single * 1e6,
        "pages_us": in_pages / count * 1e6,
        "memory_mb": resident_mb() - before,
        "events": counting.num_events,
    }


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port
        finally:
            process.kill()
            process.wait()


def write(release: Release, count: int, port: int) -> None:
    with Redis(port=port) as client:
        for page in pages(release, count):
            pipe = client.pipeline(transaction=False)
            for bucket, event in page:
                if event is not None:
                    fields = Event(*event[:8])  # type: ignore[arg-type]
                    pipe.xadd(stream_key(bucket), {EVENT_FIELD: encode(fields, event.followed)})
            pipe.execute()


async def late_ms(delays: list[float]) -> None:
    """Notes by how many milliseconds the event loop is late, 200 times a second."""
    while True:
        due = time.perf_counter() + 0.005
        await asyncio.sleep(0.005)
        delays.append((time.perf_counter() - due) * 1e3)


async def catch_up(release: Release, port: int) -> dict[str, float]:
    live, counting = counted(release)
    metrics, delays = Metrics(), list[float]()
    store = await open_store(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{port}/0"), redis_durability="warn"))
    engine = Engine(live, limit=QueueLimit(LoadLimits(1), metrics), metrics=metrics)
    items = CatalogueSync(engine, store, poll_s=60.0)
    sync = LiveSync(counting, engine, store, items=items, metrics=metrics, poll_s=0.25)
    watch = asyncio.create_task(late_ms(delays))
    began, began_cpu = time.perf_counter(), time.process_time()
    await sync.look()
    wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    watch.cancel()
    await sync.close()
    await items.close()
    engine.close()
    await store.close()
    late = {f"late_ms_p{q}": float(np.percentile(delays, q)) for q in (50, 99, 100)}
    return {"cpu_s": cpu, "wall_s": wall, "events": counting.num_events, **late}


def gather(tables: RecommenderTables, history: list[int], candidates: NDArray[np.int64]) -> None:
    """What a request reads of the lists that live evidence changes."""
    for name in ("transition", "cooccurrence"):
        item_evidence(tables.item_lists[name], history, limit=1000)
        last_item_evidence(tables.item_lists[name], history[-1], limit=1000)
    tables.num_takers(candidates)
    if tables.recent is not None:
        tables.recent.shares(candidates)


def request(release: Release, count: int) -> dict[str, float]:
    live, counting = counted(release)
    lookup = ItemLookup(release.catalogue.ids)
    for page in pages(release, count):
        counting.count(MappedEntries.of(page, lookup))
    without, with_live = release.recommender.tables, live.recommender.tables
    random, num_items = np.random.default_rng(1), len(release.catalogue)
    new = [entry for page in pages(release, REQUESTS * NEW_ENTRIES, seed=2) for entry in page]
    times: dict[str, list[float]] = {"without": [], "changed": [], "again": []}
    for turn in range(REQUESTS):
        counting.count(MappedEntries.of(new[turn * NEW_ENTRIES : (turn + 1) * NEW_ENTRIES], lookup))
        history = some_items(random, num_items, (5,)).tolist()
        candidates = np.unique(random.integers(0, num_items, CANDIDATES))
        for name, tables in (("without", without), ("changed", with_live), ("again", with_live)):
            began = time.thread_time()
            gather(tables, history, candidates)
            times[name].append((time.thread_time() - began) * 1e6)
    found = {f"{name}_us": float(np.mean(taken)) for name, taken in times.items()}
    found |= {f"{name}_p50_us": float(np.median(taken)) for name, taken in times.items()}
    return {**found, "again_more_us": found["again_p50_us"] - found["without_p50_us"]}


def rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(figure, 2) for name, figure in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--entries", type=int, default=1_000_000)
    arguments = parser.parse_args()
    release = open_release((arguments.releases / "current").resolve())
    set_apart()  # as the service does
    result: dict[str, object] = {
        "benchmark": "live_evidence",
        "machine": machine(),
        "items": len(release.catalogue),
        "entries": arguments.entries,
        "count": rounded(count_alone(release, arguments.entries)),
        "request": rounded(request(release, arguments.entries)),
    }
    with redis_server() as port:
        write(release, arguments.entries, port)
        result["catch_up"] = rounded(asyncio.run(catch_up(release, port)))
    for part in ("count", "request", "catch_up"):
        print(part, result[part])
    print(json.dumps({**result, "targets": TARGETS}))


if __name__ == "__main__":
    main()

"""Measures what the sizing page needs: a service, a training and a user's keys in Redis, at five sizes of a shop.

    python benchmarks/sizing_measure.py --work DIR --out docs/data/sizing.jsonl [--parts service,training,redis]

`service` publishes a release of each size with random weights (`synthetic_release.py`), starts the service on it and
sends requests that need the model. `training` draws a shop of each size and runs every stage of the offline job in a
process of its own, with one epoch each of LightGCN and of the model. `redis` sends events of new users to a service and
adds up what their keys take. Each part replaces its own lines in the file, and `sizing.py` interpolates between them.
The figures are CPU seconds and memory; they need an idle machine all the same. Needs `redis-server`.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import redis
from large_tables import draw_shop
from machine import machine
from opening import opening
from request_latency import measure, running_service, shuffled_users
from serve import memory_mb, running_redis
from side_by_side import HERE
from synthetic_release import Sizes, make

from offline.cli import configured, progress_bars
from offline.pipeline import STAGES, run_until

SERVED = [
    Sizes(1_000, 2_000),
    Sizes(10_000, 100_000),
    Sizes(30_000, 20_000),
    Sizes(100_000, 20_000),
    Sizes(100_000, 400_000),
]
TRAINED = [
    Sizes(1_000, 2_000),
    Sizes(3_000, 4_000),
    Sizes(12_000, 8_000),
    Sizes(40_000, 5_000),
    Sizes(120_000, 5_000),
]
EVENTS_PER_USER = 8
REQUESTS = 200
ONE_EPOCH = ["train.epochs=1", "graph.epochs=1"]
WORDS, TITLE_WORDS = 8_000, 8
REDIS_USERS, REDIS_EVENTS = 500, 10
FAMILIES = {"v": "user", "h": "user", "x": "user", "e": "event_day", "c": "event_day", "s": "event_stream"}
FAMILIES |= {"g": "interests", "a": "answer", "l": "list"}
"""What a key belongs to, by its letter (docs/concepts/state.md)."""


class Measured(NamedTuple):
    """A line of the file."""

    kind: str
    figures: dict[str, Any]


def measure_service(work: Path, preset: str) -> Iterator[Measured]:
    for sizes in SERVED:
        releases = _releases(work, preset, sizes)
        release = (releases / "current").resolve()
        opened = opening(HERE, releases, workers=1, users=shuffled_users(release)[:REQUESTS])
        latency = measure(releases, HERE, REQUESTS)
        yield Measured(
            "service",
            {
                "preset": preset,
                "num_items": sizes.num_items,
                "num_users": sizes.num_users,
                "memory_mb": round(opened["rss_mb_after_calls"]),
                "own_memory_mb": round(opened["anonymous_mb_after_calls"]),
                "start_cpu_s": round(opened["cpu_s"], 1),
                "request_p50_ms": latency["p50"],
                "request_cpu_ms": latency["service_cpu_ms"],
                "disk_mb": round(sum(path.stat().st_size for path in release.rglob("*") if path.is_file()) / 1e6),
            },
        )


def _releases(work: Path, preset: str, sizes: Sizes) -> Path:
    """The folder of a drawn release, which is made where it is missing."""
    releases = work / f"release-{preset}-{sizes.num_items}-{sizes.num_users}"
    if not (releases / "current").exists():
        releases.mkdir(parents=True, exist_ok=True)
        make(releases, configured(preset, None, [], {}), data=None, sizes=sizes)
    return releases


def measure_training(work: Path, preset: str) -> Iterator[Measured]:
    for sizes in TRAINED:
        folder, rows = work / f"shop-{sizes.num_items}-{sizes.num_users}", sizes.num_users * EVENTS_PER_USER
        if not folder.exists():
            draw_shop(folder, num_rows=rows, num_users=sizes.num_users, num_items=sizes.num_items, seed=0)
            _draw_texts(folder, sizes.num_items)
        stages: dict[str, dict[str, float]] = {}
        with tempfile.TemporaryDirectory(dir=work) as releases:
            for stage in STAGES:
                command = [sys.executable, __file__, "--stage", stage, "--preset", preset]
                command += ["--work", str(folder), "--out", releases]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                stages[stage] = json.loads(done.stdout.splitlines()[-1])
        about = {"preset": preset, "num_items": sizes.num_items, "num_users": sizes.num_users, "num_rows": rows}
        yield Measured("training", {**about, "stages": stages})


def _draw_texts(folder: Path, num_items: int) -> None:
    """Titles from a vocabulary of a real shop's size, few words in most of them."""
    rng = np.random.default_rng(0)
    words = (rng.random((num_items, TITLE_WORDS)) ** 3 * WORDS).astype(np.int64)
    titles = [" ".join(f"w{word}" for word in row) for row in words.tolist()]
    items = pl.read_parquet(folder / "items.parquet").with_columns(pl.Series("title", titles))
    items.write_parquet(folder / "items.parquet")


def run_stage(stage: str, data: Path, releases: Path, preset: str) -> dict[str, float]:
    """Runs one stage in this process; earlier ones have run. CPU seconds without imports, and the peak of memory."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    with progress_bars() as progress:
        config = configured(preset, None, ONE_EPOCH, {})
        run_until(stage, data=data, releases=releases, config=config, progress=progress)
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(cpu_s, 1), "peak_mb": round(memory_mb(os.getpid(), "VmHWM"))}


def measure_redis(work: Path, preset: str) -> Iterator[Measured]:
    """Bytes in Redis of users with ten events each, of whom each got one list."""
    releases = _releases(work, preset, SERVED[0])
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=work) as folder, running_redis(Path(folder)) as redis_port:
        url = f"redis://127.0.0.1:{redis_port}/0"
        store = redis.Redis(port=redis_port)
        with running_service(releases, environment={"REDIS_URL": url}) as service:
            before = store.info("memory")["used_memory"]
            connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
            for number in range(REDIS_USERS):
                user = f"shopper-{number:08d}"
                events = [
                    {"user_id": user, "item_id": f"item-{item}", "event": "view", "event_id": f"{user}-{item}"}
                    for item in rng.permutation(SERVED[0].num_items)[:REDIS_EVENTS].tolist()
                ]
                _call(connection, "POST", "/interactions", {"events": events})
                _call(connection, "GET", f"/recommend/{user}?n=10", None)
            bytes_of: dict[str, int] = defaultdict(int)
            for key in store.scan_iter(count=1_000):
                letter = re.sub(r"\{[^}]*\}:", "", key.decode()).split(":")[1]
                bytes_of[FAMILIES.get(letter, "other")] += store.memory_usage(key, samples=0) or 0
            total = store.info("memory")["used_memory"] - before
    num_events = REDIS_USERS * REDIS_EVENTS
    per_event = {"event_day", "event_stream"}
    figures: dict[str, Any] = {
        f"{name}_bytes": round(count / (num_events if name in per_event else REDIS_USERS))
        for name, count in sorted(bytes_of.items())
        if name != "other"
    }
    figures |= {"num_users": REDIS_USERS, "events_per_user": REDIS_EVENTS, "other_bytes": bytes_of["other"]}
    yield Measured("redis", figures | {"used_memory_over_keys": round(total / sum(bytes_of.values()), 2)})


def _call(connection: HTTPConnection, method: str, path: str, body: dict[str, Any] | None) -> None:
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        sys.exit(f"{method} {path}: status {response.status}: {answer!r}")


PARTS = {"service": measure_service, "training": measure_training, "redis": measure_redis}


def write(out: Path, kind: str, lines: list[dict[str, Any]]) -> None:
    """Replaces the lines of a kind in the file."""
    old = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    kept = [line for line in old if line["kind"] != kind]
    out.write_text("".join(json.dumps(line) + "\n" for line in kept + lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="releases and shops that exist there are used again")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(run_stage(arguments.stage, arguments.work, arguments.out, arguments.preset)))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    about = {"cpu": machine()["cpu"], "date": datetime.now(UTC).date().isoformat()}
    for part in arguments.parts.split(","):
        lines = []
        for measured in PARTS[part](arguments.work.resolve(), arguments.preset):
            lines.append({"kind": measured.kind, **measured.figures, **about})
            print(json.dumps(lines[-1]), flush=True)
            write(arguments.out, part, lines)  # what was measured so far stays if the rest is interrupted


if __name__ == "__main__":
    main()

"""Measures memory and time of `ingest` and of counting evidence on tables larger than memory.

    python benchmarks/large_tables.py --rows 100000000 --users 5000000 --items 1000000 --work DIR

Draws a shop from a seed into DIR/shop: interactions as Parquet parts of 5 million rows, a few bad rows among them, few
items and users with most of the events. Then it runs each step in a process of its own, and prints the machine and one
JSON line: per step the peak of its resident memory, CPU and wall seconds. Other programs share the cores: CPU seconds
are comparable, wall seconds only on an idle machine.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import machine
from rich.progress import Progress
from serve import memory_mb

from isrf.method.evidence import SparseLists
from offline.config import RunConfig
from offline.context import StageContext
from offline.runtime.evidence import count_evidence, save_lists
from offline.runtime.ingest_report import num_users
from offline.stages.ingest import stage as ingest

PART_ROWS = 5_000_000
START_S = 1_600_000_000
BAD_SHARE = 1e-5
WORDS = ("red", "blue", "warm", "light", "soft", "steel", "glass", "kitchen", "garden", "travel", "night", "kids")


def draw_shop(folder: Path, *, num_rows: int, num_users: int, num_items: int, seed: int) -> None:
    """Writes a shop's folder; part after part, later events in later parts."""
    (folder / "interactions").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    words = rng.choice(WORDS, (num_items, 3)).tolist()
    pl.DataFrame(
        {
            "item_id": [f"item-{row}" for row in range(num_items)],
            "title": [" ".join(row) for row in words],
            "brand": [row[0] for row in words],
            "price": rng.uniform(1, 100, num_items).round(2),
        }
    ).write_parquet(folder / "items.parquet")
    for part, first in enumerate(range(0, num_rows, PART_ROWS)):
        count = min(PART_ROWS, num_rows - first)
        # Powers of a uniform draw give few users and few items most of the events.
        users = (rng.random(count) ** 1.5 * num_users).astype(np.int64)
        items = (rng.random(count) ** 2 * num_items).astype(np.int64)
        times = START_S + first + rng.integers(0, count, count)
        table = pl.DataFrame({"user": users, "item": items, "timestamp": times, "draw": rng.random(count)})
        kind = pl.when(pl.col("draw") < 0.2).then(pl.lit("purchase")).otherwise(pl.lit("view"))
        table.select(
            pl.when(pl.col("draw") >= BAD_SHARE).then(pl.format("user-{}", "user")).alias("user_id"),
            pl.format("item-{}", "item").alias("item_id"),
            "timestamp",
            kind.alias("event"),
        ).write_parquet(folder / "interactions" / f"part-{part:04d}.parquet")


def run_ingest(work: Path) -> dict[str, Any]:
    """The stage `ingest` over DIR/shop; its tables go to DIR/ingest."""
    out, scratch = work / "ingest", work / "scratch"
    for path in (out, scratch):
        path.mkdir()
    with Progress(disable=True) as progress:
        ingest.run(
            StageContext(data=work / "shop", inputs={}, out=out, scratch=scratch, config=RunConfig(), progress=progress)
        )
    return dict(json.loads((out / "report.json").read_text())["counts"])


def run_evidence(work: Path) -> dict[str, Any]:
    """Counts the evidence of DIR/ingest, with empty content lists."""
    num_items = pl.scan_parquet(work / "ingest" / "items.parquet").select(pl.len()).collect().item()
    empty = SparseLists(np.zeros(num_items + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    save_lists(work / "embed" / "evidence", {"content": empty})
    inputs = {name: work / name for name in ("ingest", "embed")}
    counted = count_evidence(inputs, num_users=num_users(work / "ingest"), config=RunConfig().evidence)
    return {name: len(lists.indices) for name, lists in counted.lists.items()}


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {"ingest": run_ingest, "evidence": run_evidence}


def measure(step: str, work: Path) -> dict[str, Any]:
    """Runs a step in this process."""
    began = time.monotonic()
    counts = STEPS[step](work)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "peak_gb": round(memory_mb(os.getpid(), "VmHWM") / 1024, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "counts": counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=250_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder, or one that this program has filled")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(measure(arguments.step, arguments.work)))
        return
    if not (arguments.work / "shop").exists():
        draw_shop(
            arguments.work / "shop",
            num_rows=arguments.rows,
            num_users=arguments.users,
            num_items=arguments.items,
            seed=arguments.seed,
        )
    figures: dict[str, Any] = {"rows": arguments.rows, "users": arguments.users, "items": arguments.items}
    for step in STEPS:
        command = [sys.executable, __file__, "--work", str(arguments.work), "--step", step]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures[step] = json.loads(done.stdout.splitlines()[-1])
        print(f"{step}: {figures[step]}", file=sys.stderr)
    print(json.dumps(machine()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

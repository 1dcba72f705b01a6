"""Compares searches for similar users on a GPU with those on the CPU: recall against an exact search, and time.

    python benchmarks/neighbours_gpu.py [--users 22363,1000000] [--width 512] [--k 101] [--batches 1,16,64]

Users are random unit vectors around centres of uneven size. Compared are the CPU as the service searches there (all
users, or cells from the size on that makes them), the same on a GPU, and FAISS's CAGRA, which the service does not use.
`present` leaves out one user in ten, as users who were active since the release are. It needs `faiss-gpu-cuvs` in place
of `faiss-cpu` (docker/requirements-gpu.txt); `--device cpu` runs without a GPU. It ends in one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from machine import machine
from numpy.typing import NDArray

from isrf.method.interest import FloatArray, IntArray, NeighbourSearch, unit_rows
from isrf.runtime.neighbour_index import NeighbourIndex
from offline.config import GraphConfig
from offline.stages.graph.cells import divide

QUERIES = 512
SHARE_PRESENT = 0.9


def random_users(count: int, width: int, rng: np.random.Generator) -> NDArray[np.float16]:
    """Returns (count, width) float16 rows of length 1 around centres of uneven size."""
    centres = rng.normal(size=(max(count // 100, 1), width)).astype(np.float32)
    share = 1 / np.arange(1, len(centres) + 1) ** 0.8
    users = np.empty((count, width), dtype=np.float16)
    for at in range(0, count, 1 << 16):
        chosen = rng.choice(len(centres), size=min(1 << 16, count - at), p=share / share.sum())
        noise = rng.normal(size=(len(chosen), width)).astype(np.float32)
        users[at : at + len(chosen)] = unit_rows(centres[chosen] + noise)
    return users


def recall(found: IntArray, wanted: IntArray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, wanted, strict=True)]))


def measured(search: NeighbourSearch, queries: FloatArray, wanted: IntArray, batches: list[int]) -> dict[str, float]:
    """Returns the recall of all queries and the median time of a search by its batch."""
    k = wanted.shape[1]
    found: dict[str, float] = {"recall": round(recall(search(queries, k)[1], wanted), 4)}
    for batch in batches:
        durations_ms = []
        for at in range(0, len(queries) - batch + 1, batch):
            started = time.perf_counter()
            search(queries[at : at + batch], k)
            durations_ms.append((time.perf_counter() - started) * 1e3)
        found[f"batch_{batch}_p50_ms"] = round(float(np.median(durations_ms)), 3)
    return found


def cagra(users: NDArray[np.float16]) -> NeighbourSearch:
    """Returns a search through FAISS's graph index on the GPU, with its own defaults."""
    gpu: Any = faiss  # CPU builds have none of these classes
    resources = gpu.StandardGpuResources()
    index = gpu.GpuIndexCagra(resources, users.shape[1], faiss.METRIC_INNER_PRODUCT, gpu.GpuIndexCagraConfig())
    index.train(users.astype(np.float32))

    def nearest(queries: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
        _ = resources  # FAISS keeps only its address
        cosine, found = index.search(queries, k)
        return cosine, found

    return nearest


def compared(num_users: int, options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    users = random_users(num_users, options.width, rng)
    asked = users[rng.integers(0, num_users, QUERIES)] + 0.02 * rng.normal(size=(QUERIES, options.width))
    queries = unit_rows(asked.astype(np.float32))
    batches = [int(batch) for batch in options.batches.split(",")]
    cells = None
    if num_users >= GraphConfig().cells_from:
        cells = divide(users.astype(np.float32), users, options.k, seed=0).cells
    present = rng.random(num_users) < SHARE_PRESENT
    on_cpu = NeighbourIndex(users, cells, precision="float16", threads=1)
    wanted = on_cpu.exact(queries, options.k)[1]
    products = NeighbourIndex(users, precision="float16").among(present)
    wanted_present = products(queries, options.k)[1]
    searches: dict[str, Callable[[], NeighbourSearch]] = {"cpu": lambda: on_cpu}
    if options.device == "cuda":
        on_gpu = NeighbourIndex(users, cells, precision="float16", threads=1, device="cuda")
        searches |= {"gpu": lambda: on_gpu, "gpu_flat": lambda: _flat(users), "cagra": lambda: cagra(users)}
    found: dict[str, Any] = {"users": num_users, "cells": 0 if cells is None else len(cells.centroids)}
    for name, make in searches.items():
        found[name] = measured(make(), queries, wanted, batches)
        print(f"{num_users} users, {name}: {found[name]}", flush=True)
    for name, index in (("cpu", on_cpu), *([("gpu", on_gpu)] if options.device == "cuda" else [])):
        found[f"{name}_present"] = measured(index.among(present), queries, wanted_present, batches)
        print(f"{num_users} users, {name}, present: {found[f'{name}_present']}", flush=True)
    return found


def _flat(users: NDArray[np.float16]) -> NeighbourSearch:
    """All users compared on the GPU, without cells."""
    return NeighbourIndex(users, precision="float16", threads=1, device="cuda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="22363,1000000")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, default=101)
    parser.add_argument("--batches", default="1,16,64")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    gpus = faiss.get_num_gpus()
    if options.device == "cuda" and gpus == 0:
        parser.error("FAISS finds no GPU; use --device cpu to run without one")
    results = [compared(int(count), options) for count in options.users.split(",")]
    print(json.dumps({"benchmark": "neighbours_gpu", **machine(), "gpus": gpus, "width": options.width,
                      "k": options.k, "results": results}))  # fmt: skip


if __name__ == "__main__":
    main()

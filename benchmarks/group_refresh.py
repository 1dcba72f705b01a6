"""Measures how long the service takes to recompute a user's similar users and group interest, in one thread.

    python benchmarks/group_refresh.py --releases var/demo/releases [--users 22363] [--newcomers 0] [--refreshes 1000]

It measures the work of a read after an event, without the cache: the interest graph on the history, the search among
the base users, the selection, the group vector and the bytes for Redis. The search is exact; with as many users as the
offline job needs to make cells, it uses cells. Newcomers are in a second index. The graphs are the release's; the base
users are random, in the release's dimensions. Prints the machine and one JSON line.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from machine import machine

from isrf.method.evidence import user_item_lists
from isrf.method.interest import NeighbourSearch
from isrf.method.recommend.recommender import Recommender
from isrf.runtime.neighbour_index import NeighbourIndex, joined
from offline.config import GraphConfig
from offline.stages.graph.cells import divide
from service.inference.group_cache import encode, rounded
from service.release.opening import Release, open_release

TARGET_P95_MS = 5.0
HISTORY = 20


def with_random_users(release: Release, num_users: int, num_newcomers: int, rng: np.random.Generator) -> Recommender:
    """Returns the release's recommender with random users, whose features come from random histories."""
    recommender, num_items = release.recommender, len(release.catalogue)
    everyone = num_users + num_newcomers
    histories = rng.integers(0, num_items, size=(everyone, HISTORY))
    features = np.concatenate(
        [recommender.interest(histories[at : at + 256].tolist()).feature for at in range(0, everyone, 256)]
    )
    layers = rng.normal(size=(everyone, recommender.tables.group_layers.shape[1])).astype(np.float16)
    users = np.repeat(np.arange(everyone), HISTORY)
    base, cells = features[:num_users].astype(np.float16), None
    if num_users >= GraphConfig().cells_from:
        cells = divide(features[:num_users], base, release.manifest.group_search.max_neighbours + 1, seed=0).cells
    started = time.perf_counter()
    nearest: NeighbourSearch = NeighbourIndex(base, cells, precision="float16", threads=1)
    print(f"{'index_seconds':20} {time.perf_counter() - started:.2f}, {cells.probes if cells else 'no'} cells searched")
    if num_newcomers:
        nearest = joined(nearest, NeighbourIndex(features[num_users:], threads=1), num_users)
    return recommender.with_users(
        group_layers=layers,
        user_items=user_item_lists(users, histories.ravel(), num_users=everyone),
        nearest_users=joined(nearest, NeighbourIndex(features[num_users:], threads=1), num_users)
        if num_newcomers
        else nearest,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--users", type=int, default=22_363)
    parser.add_argument("--newcomers", type=int, default=0)
    parser.add_argument("--refreshes", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    release = open_release(options.releases)
    recommender = with_random_users(release, options.users, options.newcomers, rng)
    durations_ms = []
    found = 0
    for k in range(options.refreshes + 20):
        history = rng.integers(0, len(release.catalogue), size=HISTORY).tolist()
        started = time.perf_counter()
        interests = rounded(recommender.read([history], [-1]))
        payload = encode(interests, version=str(k), release_id="r", snapshot="c")
        durations_ms.append((time.perf_counter() - started) * 1e3)
        found += int((interests.neighbours.users >= 0).sum())
    measured = durations_ms[20:]
    dims = release.manifest.dimensions
    about = {
        "benchmark": "group_refresh",
        **machine(),
        "users": options.users,
        "newcomers": options.newcomers,
        "feature_width": dims.feature,
        "neighbours_found": round(found / len(durations_ms), 1),
        "cached_bytes": len(payload),
    }
    result = {f"p{q}_ms": round(float(np.percentile(measured, q)), 3) for q in (50, 95, 99)}
    for name, value in (about | result).items():
        print(f"{name:20} {value}")
    print(json.dumps({**about, **result, "target_p95_ms": TARGET_P95_MS}))


if __name__ == "__main__":
    main()

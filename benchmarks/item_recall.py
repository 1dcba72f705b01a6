"""Measures what a search of items by HNSW changes in served lists, under filters of several sizes.

    python benchmarks/item_recall.py --releases RELEASES [--users 300]

It opens a trained release of any size, indexes both of its item tables as the stage `compile` does for a large
catalogue, and asks for the ten items of some users twice: once scoring all items, once by HNSW. A filter allows each
item with a given probability. `alone` scores a filter's items one by one below 100 √N of them, as the service does;
`hnsw` searches under every filter by HNSW. Prints the share of the ten items that both lists have, and one JSON line.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from machine import machine
from numpy.typing import NDArray

from isrf.contract.manifest import DENSE_HNSW_FILE, EXPLICIT_HNSW_FILE, ItemSearchSpec
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import RankingRequest
from isrf.runtime import item_index
from isrf.runtime.bundle.manifests import find_release
from isrf.runtime.bundle.opening import item_searches
from offline.runtime.hnsw import index_table
from service.release.opening import open_release

SHARES = (1.0, 0.1, 0.01)
NUM_ITEMS = 10


def with_hnsw(recommender: Recommender, histories: list[list[int]]) -> Recommender:
    """The same recommender searching by HNSW; the recall is measured on what the histories ask."""
    vectors, embeddings = recommender.tables.item_vectors, recommender.tables.item_embeddings
    everything = np.ones(len(vectors), dtype=np.bool_)
    requests = [RankingRequest(history=history, n=NUM_ITEMS, allowed=everything) for history in histories]
    interests = recommender.read(histories, [-1] * len(histories))
    queries = recommender.search(requests, interests).query
    dense = index_table(np.ascontiguousarray(vectors), everything, queries)
    known = np.any(embeddings != 0, axis=1)
    explicit = index_table(np.ascontiguousarray(embeddings), known, np.ascontiguousarray(interests.explicit))
    for made in (dense, explicit):
        print(f"recall of the best 100: {made.recall:.3f} with {made.ef} candidates", flush=True)
    arrays = {DENSE_HNSW_FILE: dense.data, EXPLICIT_HNSW_FILE: explicit.data}
    return _searching(recommender, arrays, ItemSearchSpec(dense_ef=dense.ef, explicit_ef=explicit.ef))


def _searching(
    recommender: Recommender, arrays: Mapping[str, NDArray[Any]], spec: ItemSearchSpec | None
) -> Recommender:
    tables = {"item_vectors.npy": recommender.tables.item_vectors}
    tables["item_embeddings.npy"] = recommender.tables.item_embeddings
    dense, explicit = item_searches({**tables, **arrays}, spec)
    return replace(recommender, dense_items=dense, explicit_items=explicit)


def overlap(exact: Recommender, other: Recommender, histories: list[list[int]], allowed: NDArray[np.bool_]) -> float:
    """The mean share of the exact lists' items that the other's lists have too."""
    shares = []
    for history in histories:
        mask = allowed.copy()
        mask[history] = False
        request, interests = [RankingRequest(history=history, n=NUM_ITEMS, allowed=mask)], exact.read([history], [-1])
        wanted, found = (
            {item.item_index for item in recommender.rank(request, interests)[0].items}
            for recommender in (exact, other)
        )
        shares.append(len(wanted & found) / len(wanted))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--users", type=int, default=300)
    arguments = parser.parse_args()
    release = open_release(arguments.releases)
    known = pl.read_parquet(find_release(arguments.releases) / "histories.parquet").filter(
        pl.col("item_ids").list.len() > 0
    )
    rows = [release.catalogue.rows(ids) for ids in known["item_ids"].sample(2 * arguments.users, seed=1).to_list()]
    exact = _searching(release.recommender, {}, None)
    searching = with_hnsw(exact, rows[arguments.users :])
    figures: dict[str, float] = {}
    alone = item_index.SCORED_ALL
    for name, factor in (("alone", alone), ("hnsw", 0.0)):
        item_index.SCORED_ALL = factor
        for share in SHARES:
            allowed = np.random.default_rng(0).random(len(release.catalogue)) < share
            figures[f"{name}_{share:g}"] = round(overlap(exact, searching, rows[: arguments.users], allowed), 4)
            print(f"{name}, {share:.0%} of the items allowed: {figures[f'{name}_{share:g}']}", flush=True)
    print(json.dumps({"benchmark": "item_recall", **machine(), "items": len(release.catalogue), **figures}))


if __name__ == "__main__":
    main()

"""Measures how well the service places items newer than the release: it reads known target items as if they were new.

    python benchmarks/new_items.py --release var/demo/releases/current [--users 2000]

The last item of a user's history is the target; the release must not have learned it (`--fit train`). The benchmark
runs the dense path and replaces the target's vector by one from its texts alone: without an identity and with the
nearest codes, as for an item without buyers; and with those of its stand-in, as the service reads new items. Prints the
target's rank and one JSON line.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from isrf.contract.manifest import HISTORIES_FILE
from isrf.method.interest import FloatArray, IntArray
from isrf.method.item_reader import ItemReader
from isrf.method.recommend.request import RankingRequest
from service.release.opening import Release, open_release

BATCH = 20
CUTS = (10, 50, 200)


def questions(folder: Path, release: Release, num_users: int) -> list[tuple[int, list[int], int]]:
    """Returns base user, history and target of sampled users whose target has training events."""
    histories = pl.read_parquet(folder / HISTORIES_FILE, columns=["user_index", "item_ids"])
    order = np.random.default_rng(0).permutation(histories.height)
    found = []
    for at in order.tolist():
        user, item_ids = histories.row(at)
        *history, target = release.catalogue.rows(item_ids) or [-1]
        if history and target not in history and release.recommender.tables.item_embeddings[target].any():
            found.append((user, history, target))
        if len(found) == num_users:
            break
    return found


def as_new(reader: ItemReader, release: Release, target: int) -> dict[str, FloatArray]:
    """Returns the target's vector (D,) by the way of reading it."""
    assert release.new_items is not None
    text = reader.item_text[target].astype(np.float32)[None]
    others = reader.trained.copy()
    others[target] = False  # an item must not be its own stand-in
    without_target = replace(reader, trained=others)
    return {
        "its own identity": reader.item_vectors[target],
        "no identity": reader.vectors(reader.codes(text), text)[0],
        "its stand-in's": without_target.read(text, release.new_items.content).item_vectors[0],
    }


def measure(release: Release, sampled: list[tuple[int, list[int], int]]) -> dict[str, IntArray]:
    """Returns the target's rank among unseen items (0 is first), by the way of reading it."""
    assert release.new_items is not None
    reader, recommender = release.new_items.reading.reader, release.recommender
    vectors = recommender.tables.item_vectors
    places: dict[str, list[int]] = {}
    for start in range(0, len(sampled), BATCH):
        part = sampled[start : start + BATCH]
        histories = [history for _, history, _ in part]
        interests = recommender.read(histories, [user for user, _, _ in part])
        everything = np.ones(len(vectors), dtype=np.bool_)
        requests = [RankingRequest(history=history, n=1, allowed=everything) for history in histories]
        queries = recommender.search(requests, interests).query
        for query, (_, history, target) in zip(queries, part, strict=True):
            others = np.delete(vectors @ query, [*set(history), target])
            for name, vector in as_new(reader, release, target).items():
                places.setdefault(name, []).append(int((others > vector @ query).sum()))
    return {name: np.array(found) for name, found in places.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--users", type=int, default=2000)
    options = parser.parse_args()
    release = open_release(options.release)
    if release.new_items is None:
        raise SystemExit(f"{options.release} has no item reader for new items; publish a release with this version")
    sampled = questions(options.release.resolve(), release, options.users)
    report = {}
    for name, places in measure(release, sampled).items():
        report[name] = {f"within_{cut}": round(float((places < cut).mean()), 4) for cut in CUTS}
        shares = ", ".join(f"{float((places < cut).mean()):.3f} within {cut}" for cut in CUTS)
        print(f"{name:20} {shares}; median rank {int(np.median(places)) + 1} of {len(release.catalogue)}")
    print(
        json.dumps(
            {"benchmark": "new_items", "users": len(sampled), "items": len(release.catalogue), "read_with": report}
        )
    )


if __name__ == "__main__":
    main()

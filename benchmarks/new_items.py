"""How well is an item read that came after the release? Items that somebody took next are read as if they were new.

    python benchmarks/new_items.py --release var/demo/releases/current [--users 2000]

The last item of a user's history is the target (the release must not have learned it: `--fit train`). The dense path
is asked, and the target's own vector is replaced by what its texts alone give: without an identity and with the nearest
codes, as an item without buyers is read; with those of its stand-in, as the service reads new items. Prints where the
target stands, and one JSON line.
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
    """Base user, history and target of some users whose target somebody took in training."""
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
    """The target's vector (D,) by how it is read."""
    assert release.new_items is not None
    text = reader.item_text[target].astype(np.float32)[None]
    others = reader.trained.copy()
    others[target] = False  # it is no stand-in for itself
    alone = replace(reader, trained=others)
    return {
        "its own identity": reader.item_vectors[target],
        "no identity": reader.vectors(reader.codes(text), text)[0],
        "its stand-in's": alone.read(text, release.new_items.content).item_vectors[0],
    }


def measure(release: Release, asked: list[tuple[int, list[int], int]]) -> dict[str, IntArray]:
    """How many of the items not seen stand before the target (0 is first), by how it is read."""
    assert release.new_items is not None
    reader, recommender = release.new_items.reading.reader, release.recommender
    vectors = recommender.tables.item_vectors
    places: dict[str, list[int]] = {}
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
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
        raise SystemExit(f"{options.release} cannot read new items; publish a release with this version")
    asked = questions(options.release.resolve(), release, options.users)
    report = {}
    for name, places in measure(release, asked).items():
        report[name] = {f"within_{cut}": round(float((places < cut).mean()), 4) for cut in CUTS}
        shares = ", ".join(f"{float((places < cut).mean()):.3f} within {cut}" for cut in CUTS)
        print(f"{name:20} {shares}; median place {int(np.median(places)) + 1} of {len(release.catalogue)}")
    print(
        json.dumps(
            {"benchmark": "new_items", "users": len(asked), "items": len(release.catalogue), "read_with": report}
        )
    )


if __name__ == "__main__":
    main()

"""Checks that the exported graph answers as the torch model, on a release's histories without their last items.

    python benchmarks/equality.py --releases DIR [--histories 1000] [--anew]

The torch model is the one that the release was made from. The benchmark finds it in `DIR/.work`: the outputs of the
stages that agree with the release's tables. It draws users by a seed and excludes their items, as the service does. It
compares the beams and the dense path's first items with their log-probabilities, and the ten items served. Two lists
are *equal*, or equal except for *near ties* (the scores at each rank differ by no more than the goldens' tolerance), or
*different*. With a different list it exits with status 1. `--anew` exports the model again with this version and
compares that graph.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from machine import machine
from numpy.typing import NDArray

from isrf.contract.manifest import HISTORIES_FILE
from isrf.method.goldens.requests import TOLERANCE
from isrf.method.recommend.recommender import Recommender
from isrf.method.recommend.request import RankingRequest, SearchOutput
from isrf.nn.model import IsrfModel
from isrf.nn.search import ConstrainedSearch
from isrf.runtime.onnx_session import open_graph
from offline.context import WORK_DIR
from offline.runtime.release import OpenedRelease, open_release
from offline.runtime.torch_graph import graph_of
from offline.stages.export_onnx.stage import export_search
from offline.stages.train.build import load_model

BATCH = 8
SHOWN = 10


class RequestBatch(NamedTuple):
    """A batch of requests as the service makes them."""

    users: list[int]
    requests: list[RankingRequest]


def batches(folder: Path, release: OpenedRelease, count: int) -> Iterator[RequestBatch]:
    """Yields batches of `count` users with at least two events, drawn by a seed."""
    rows = {item_id: row for row, item_id in enumerate(release.item_ids)}
    stored = pl.read_parquet(folder / HISTORIES_FILE, columns=["user_index", "item_ids"])
    stored = stored.filter(pl.col("item_ids").list.len() > 1).sample(n=count, seed=0)
    for part in stored.iter_slices(BATCH):
        requests = []
        for item_ids in part["item_ids"].to_list():
            history = [rows[item_id] for item_id in item_ids[:-1]]
            allowed = np.ones(len(rows), dtype=np.bool_)
            allowed[history] = False
            requests.append(RankingRequest(history=history, n=SHOWN, allowed=allowed))
        yield RequestBatch(part["user_index"].to_list(), requests)


def model_of(work: Path, folder: Path) -> IsrfModel:
    """Returns the release's torch model; exits if no output of `train` gives the release's item vectors."""

    def agreeing(stage: str, name: str) -> list[Path]:
        release_array = np.load(folder / name, mmap_mode="r")
        found = (path for path in sorted((work / stage).glob("*")) if (path / name).exists())
        return [path for path in found if np.array_equal(np.load(path / name, mmap_mode="r"), release_array)]

    vectors = np.load(folder / "item_vectors.npy")
    for graph in agreeing("graph", "item_embeddings.npy"):
        for codes in agreeing("semantic-ids", "semantic_ids.npy"):
            for embed in sorted((work / "embed").glob("*/item_text.npy")):
                for train in sorted((work / "train").glob("*/model.safetensors")):
                    inputs = {"graph": graph, "semantic-ids": codes, "embed": embed.parent, "train": train.parent}
                    try:
                        model = load_model(inputs)
                    except RuntimeError:  # weights of other sizes
                        continue
                    if np.array_equal(model.item_vectors().numpy(), vectors):
                        return model
    raise SystemExit(f"{work} does not hold the model that {folder} was made from.")


def exported(search: ConstrainedSearch, release: OpenedRelease) -> Any:
    """Exports the model's graph with this version and opens it."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "anew.onnx")
        export_search(search, release.recommender.tables.trie, path)
        return open_graph(path)


class Tally(NamedTuple):
    """The comparison of one kind of list."""

    verdicts: Counter[str]
    largest: list[float]  # per request: the largest difference of log-probabilities of an item or a rank

    def compare(self, expected: tuple[NDArray[Any], NDArray[Any]], found: tuple[NDArray[Any], NDArray[Any]]) -> None:
        """Compares one request's items (−1 is empty) and log-probabilities, best first."""
        (items, scores), (found_items, found_scores) = expected, found
        filled = items >= 0
        if filled.sum() != (found_items >= 0).sum():
            self.verdicts["different"] += 1
            return
        differences = np.abs(scores[filled] - found_scores[filled])
        shared, left, right = np.intersect1d(items[filled], found_items[filled], return_indices=True)
        differences = (
            np.concatenate([differences, np.abs(scores[filled][left] - found_scores[filled][right])])
            if len(shared)
            else differences
        )
        largest = float(differences.max(initial=0.0))
        self.largest.append(largest)
        equal = np.array_equal(items, found_items)
        self.verdicts["different" if largest > TOLERANCE else "equal" if equal else "near ties"] += 1


def compare(exact: Recommender, served: Recommender, batches: Iterator[RequestBatch]) -> dict[str, Any]:
    """Returns, per kind of list, the number of equal lists and the largest difference."""
    tallies = {name: Tally(Counter(), []) for name in ("beams", "dense")}
    same = total = 0
    for users, requests in batches:
        interests = exact.read([request.history for request in requests], users)
        sides: list[SearchOutput] = [side.search(requests, interests) for side in (exact, served)]
        for b in range(len(users)):
            beams, theirs = ((side.beam_items[b], side.beam_log_probs[b]) for side in sides)
            tallies["beams"].compare(beams, theirs)
            dense, theirs = ((side.dense[b].items, side.dense[b].log_probs) for side in sides)
            tallies["dense"].compare(dense, theirs)
        lists = [
            [[item.item_index for item in ranked.items] for ranked in side.rank(requests, interests)]
            for side in (exact, served)
        ]
        same += sum(a == b for a, b in zip(*lists, strict=True))
        total += len(users)
    return {
        "histories": total,
        **{
            name: dict(tally.verdicts) | {"largest_difference": max(tally.largest, default=0.0)}
            for name, tally in tallies.items()
        },
        "same_first_ten_served": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=Path, required=True)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--anew", action="store_true")
    arguments = parser.parse_args()
    folder = (arguments.releases / "current").resolve()
    release = open_release(folder)
    decoding = release.manifest.decoding
    model = model_of(arguments.releases / WORK_DIR, folder)
    search = ConstrainedSearch(model, num_beams=decoding.num_beams)
    served = release.recommender
    if arguments.anew:
        served = served.searching_with(exported(search, release))
    exact = release.recommender.searching_with(graph_of(search))
    found = compare(exact, served, batches(folder, release, arguments.histories))
    print(
        json.dumps(
            {
                "benchmark": "equality",
                "machine": machine(),
                "release": release.manifest.release_id,
                "preset": release.manifest.preset,
                "graph": "exported anew" if arguments.anew else "the release's",
                **found,
            }
        )
    )
    sys.exit(1 if any(found[name].get("different") for name in ("beams", "dense")) else 0)


if __name__ == "__main__":
    main()

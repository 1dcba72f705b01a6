"""Does the exported graph answer what the torch model answers? On a release's own histories, everybody's last item off.

    python benchmarks/equality.py --releases DIR [--histories 1000] [--anew]

The torch model is the one that the release was made from, out of `DIR/.work`: of each stage the output that agrees with
the release's tables. Users are drawn by a seed, what they took is excluded, as served. Compared are the beams and the
dense path's first 256 with their log-probabilities, and the ten items served. Lists are *equal*, or equal but for *near
ties* (place by place their scores lie within the goldens' tolerance), or *different*; with one that is different it
ends with 1. `--anew` exports the model again with this version and compares that graph.
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
from isrf.method.golden import TOLERANCE
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


class Asked(NamedTuple):
    """A batch of requests as the service would make them."""

    users: list[int]
    requests: list[RankingRequest]


def batches(folder: Path, release: OpenedRelease, count: int) -> Iterator[Asked]:
    """`count` users with two events and more, drawn by seed."""
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
        yield Asked(part["user_index"].to_list(), requests)


def model_of(work: Path, folder: Path) -> IsrfModel:
    """The torch model of a release; `SystemExit` where no output of `train` gives the release's item vectors."""

    def agreeing(stage: str, name: str) -> list[Path]:
        own = np.load(folder / name, mmap_mode="r")
        found = (path for path in sorted((work / stage).glob("*")) if (path / name).exists())
        return [path for path in found if np.array_equal(np.load(path / name, mmap_mode="r"), own)]

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
    """The model's graph as this version writes it, opened."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "anew.onnx")
        export_search(search, release.recommender.tables.trie, path)
        return open_graph(path)


class Tally(NamedTuple):
    """What was found of one kind of list."""

    verdicts: Counter[str]
    largest: list[float]  # per request: the largest difference of two log-probabilities of one item, or of one place

    def compare(self, wanted: tuple[NDArray[Any], NDArray[Any]], found: tuple[NDArray[Any], NDArray[Any]]) -> None:
        """One request's items, −1 where there is none, and their log-probabilities, best first."""
        (items, scores), (ours, our_scores) = wanted, found
        live = items >= 0
        if live.sum() != (ours >= 0).sum():
            self.verdicts["different"] += 1
            return
        off = np.abs(scores[live] - our_scores[live])
        shared, left, right = np.intersect1d(items[live], ours[live], return_indices=True)
        off = np.concatenate([off, np.abs(scores[live][left] - our_scores[live][right])]) if len(shared) else off
        largest = float(off.max(initial=0.0))
        self.largest.append(largest)
        equal = np.array_equal(items, ours)
        self.verdicts["different" if largest > TOLERANCE else "equal" if equal else "near ties"] += 1


def compare(exact: Recommender, served: Recommender, asked: Iterator[Asked]) -> dict[str, Any]:
    """Per kind of list how many were equal, and the largest difference."""
    tallies = {name: Tally(Counter(), []) for name in ("beams", "dense")}
    same = total = 0
    for users, requests in asked:
        interests = exact.read([request.history for request in requests], users)
        sides: list[SearchOutput] = [side.search(requests, interests) for side in (exact, served)]
        for name, items, scores in (
            ("beams", "beam_items", "beam_log_probs"),
            ("dense", "dense_items", "dense_log_probs"),
        ):
            for b in range(len(users)):
                wanted, found = ((getattr(side, items)[b], getattr(side, scores)[b]) for side in sides)
                tallies[name].compare(wanted, found)
        lists = [
            [[item.item_index for item in one.items] for one in side.rank(requests, interests)]
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
    search = ConstrainedSearch(model, num_beams=decoding.num_beams, num_dense=decoding.num_dense)
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
